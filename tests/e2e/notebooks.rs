//! `trainyard diff`, `strip` and `git-install`, told to the real binary and the real git.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::project::{executed, notebook};

struct Repository {
    _folder: tempfile::TempDir,
    root: PathBuf,
    program: PathBuf,
}

impl Repository {
    /// A repository whose path has blanks and a quote, like that of its program.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("my repo's");
        let tools = folder.path().join("my tools");
        for folder in [&root, &tools] {
            fs::create_dir(folder).unwrap();
        }
        let program = tools.join("trainyard");
        let built = env!("CARGO_BIN_EXE_trainyard");
        if fs::hard_link(built, &program).is_err() {
            fs::copy(built, &program).unwrap();
        }
        let repository = Self {
            _folder: folder,
            root,
            program,
        };
        repository.git(&["init", "--quiet", "--initial-branch=main"]);
        repository
    }

    fn command(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(&self.root)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", self.root.join("../gitconfig"))
            .env("XDG_CONFIG_HOME", self.root.join("../config"))
            .env_remove("GIT_PAGER_IN_USE")
            .envs([
                ("GIT_AUTHOR_NAME", "Ada"),
                ("GIT_AUTHOR_EMAIL", "ada@example.org"),
            ])
            .envs([
                ("GIT_COMMITTER_NAME", "Ada"),
                ("GIT_COMMITTER_EMAIL", "ada@example.org"),
            ]);
        command
    }

    fn git(&self, arguments: &[&str]) -> String {
        let output = self.command(Path::new("git"), arguments).output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {arguments:?}: {complaint}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn commit(&self) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", "Change"]);
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root.join(path)).unwrap()
    }

    fn trainyard(&self, arguments: &[&str]) -> Output {
        self.command(&self.program, arguments).output().unwrap()
    }

    /// Exit code and standard output.
    fn says(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.trainyard(arguments);
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.code().unwrap(), text)
    }

    /// Standard error of a call that was no use.
    fn complains(&self, arguments: &[&str]) -> String {
        let output = self.trainyard(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

const LOAD: &str = "import data\nrows = data.load()";
const TRAIN: &str = "model = Forest(trees=100)\nmodel.fit(rows)";

#[test]
fn two_files_are_compared_and_the_exit_code_is_that_of_diff() {
    let place = Repository::new();
    place.write("old.ipynb", &executed(&[LOAD, TRAIN], Some(1)));
    place.write(
        "new.ipynb",
        &executed(&[LOAD, &TRAIN.replace("100", "200")], Some(1)),
    );
    place.write("again.ipynb", &executed(&[LOAD, TRAIN], Some(2)));

    assert_eq!(
        place.says(&["diff", "old.ipynb", "old.ipynb"]),
        (0, String::new())
    );
    let (code, text) = place.says(&["diff", "old.ipynb", "new.ipynb", "-U0"]);
    let expected = "new.ipynb: 1 cell changed; what runs has changed\n\ncell 2 changed\n\
        \x20 1     - model = Forest(trees=100)\n      1 + model = Forest(trees=200)\n... ...   1 line the same\n";
    assert_eq!((code, text.as_str()), (1, expected));

    // Executed again: said in one line, and no difference unless outputs are asked for.
    let same = "again.ipynb: the same but for outputs of 2 cells; what runs is the same\n";
    assert_eq!(
        place.says(&["diff", "old.ipynb", "again.ipynb"]),
        (0, same.to_owned())
    );
    let (code, text) = place.says(&["diff", "--outputs", "old.ipynb", "again.ipynb"]);
    assert!(
        code == 1 && text.contains("- of time 1\n") && text.contains("+ of time 2\n"),
        "{text}"
    );
    let (code, text) = place.says(&["diff", "--metadata", "old.ipynb", "again.ipynb"]);
    assert!(code == 1 && text.contains("count: 1 -> 2"), "{text}");

    let (code, text) = place.says(&["diff", "/dev/null", "new.ipynb"]);
    assert!(
        code == 1 && text.starts_with("new.ipynb: new, with 2 cells;"),
        "{text}"
    );
    let (code, text) = place.says(&["diff", "new.ipynb", "/dev/null"]);
    assert!(
        code == 1 && text.starts_with("new.ipynb: removed, with 2 cells;"),
        "{text}"
    );

    let (_, text) = place.says(&["diff", "--format", "json", "old.ipynb", "new.ipynb"]);
    let value: Value = serde_json::from_str(&text).unwrap();
    let cell = &value["notebooks"][0]["cells"][0];
    assert_eq!(
        (
            &cell["after"],
            &cell["source"]["edits"][0]["added"][0]["words"][0]
        ),
        (&2.into(), &"200".into())
    );
    let (_, text) = place.says(&["diff", "--format", "md", "old.ipynb", "new.ipynb"]);
    assert!(
        text.contains("```diff\n-model = Forest(trees=100)\n+model = Forest(trees=200)\n"),
        "{text}"
    );
    assert_eq!(
        place.says(&[
            "diff",
            "--format",
            "html",
            "-o",
            "d.html",
            "old.ipynb",
            "new.ipynb"
        ]),
        (1, String::new())
    );
    assert!(place.read("d.html").contains("<ins>200</ins>"));
    let (_, text) = place.says(&["diff", "--color", "always", "old.ipynb", "new.ipynb"]);
    assert!(text.contains("\u{1b}[7m200\u{1b}[27m"), "{text}");

    place.write("wrong.ipynb", "{\"cells\": [");
    let said = place.complains(&["diff", "old.ipynb", "wrong.ipynb"]);
    assert!(
        said.contains("wrong.ipynb: line 1, column 12: the file is cut off"),
        "{said}"
    );
    let said = place.complains(&["diff", "old.ipynb", "nowhere.ipynb"]);
    let words = "there is no file 'nowhere.ipynb', and no revision of that name; to see a file that was removed: \
        trainyard diff REVISION -- nowhere.ipynb";
    assert!(said.contains(words), "{said}");

    // The output's name says the format, and what is asked for wins.
    place.says(&["diff", "-o", "named.html", "old.ipynb", "new.ipynb"]);
    assert!(place.read("named.html").contains("<ins>200</ins>"));
    place.says(&[
        "diff",
        "-o",
        "n.html",
        "--format",
        "md",
        "old.ipynb",
        "new.ipynb",
    ]);
    assert!(place.read("n.html").contains("```diff"));
    let (code, text) = place.says(&["diff", "-o", "-", "old.ipynb", "new.ipynb"]);
    assert!(
        code == 1 && text.starts_with("new.ipynb: 1 cell changed"),
        "{text}"
    );
}

#[test]
fn a_side_may_be_standard_input_or_a_file_of_a_commit() {
    let place = Repository::new();
    place.write("train.ipynb", &notebook(&[LOAD, TRAIN]));
    place.commit();
    place.write(
        "train.ipynb",
        &notebook(&[LOAD, &TRAIN.replace("100", "200")]),
    );
    let piped = |arguments: &[&str]| {
        let file = fs::File::open(place.root.join("train.ipynb")).unwrap();
        let mut command = place.command(&place.program, arguments);
        let output = command.stdin(Stdio::from(file)).output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    let (code, text) = piped(&["diff", "HEAD:train.ipynb", "-"]);
    assert!(
        code == Some(1) && text.starts_with("standard input: 1 cell changed"),
        "{text}"
    );
    let (code, text) = piped(&["diff", "-", "train.ipynb"]);
    assert_eq!((code, text.as_str()), (Some(0), ""));
    assert_eq!(
        place.says(&["diff", "HEAD:./train.ipynb", "train.ipynb"]).0,
        1
    );
    assert!(
        place
            .complains(&["diff", "-", "-"])
            .contains("one of the two sides only")
    );
    let said = place.complains(&["diff", "HEAD:train.ipynb"]);
    assert!(said.contains("name the other one too"), "{said}");
    let said = place.complains(&["diff", "HEAD:gone.ipynb", "train.ipynb"]);
    assert!(
        said.contains("'HEAD' has no such file: there is no file 'gone.ipynb'"),
        "{said}"
    );
}

#[test]
fn versions_that_git_has_are_compared() {
    let place = Repository::new();
    assert!(
        place
            .complains(&["diff"])
            .contains("there is no commit to compare with")
    );
    place.write("train.ipynb", &notebook(&[LOAD, TRAIN]));
    place.write("more/plot.ipynb", &notebook(&["plot()"]));
    place.write("train.py", "print()\n");
    place.commit();
    assert_eq!(place.says(&["diff"]), (0, String::new()));

    place.write(
        "train.ipynb",
        &executed(&[LOAD, &TRAIN.replace("100", "200"), "score()"], Some(1)),
    );
    place.write("more/plot.ipynb", &notebook(&["plot(1)"]));
    place.write("train.py", "print(1)\n");
    place.write("untracked.ipynb", &notebook(&["1"]));
    let heads = |arguments: &[&str]| -> (i32, Vec<String>) {
        let (code, text) = place.says(arguments);
        let names = text.lines().filter_map(|line| line.split_once(".ipynb: "));
        (code, names.map(|(name, _)| name.to_owned()).collect())
    };
    let both = vec!["more/plot".to_owned(), "train".to_owned()];
    let (plot, train) = (vec![both[0].clone()], vec![both[1].clone()]);
    assert_eq!(heads(&["diff"]), (1, both.clone()));
    assert_eq!(heads(&["diff", "train.ipynb"]), (1, train.clone()));
    assert_eq!(heads(&["diff", "more"]), (1, plot.clone()));
    assert_eq!(
        heads(&["diff", "HEAD", "--", "more/plot.ipynb"]),
        (1, plot.clone())
    );

    fs::remove_file(place.root.join("untracked.ipynb")).unwrap();
    place.commit();
    assert_eq!(heads(&["diff"]), (0, vec![]));
    assert_eq!(heads(&["diff", "HEAD~1", "HEAD"]), (1, both.clone()));
    assert_eq!(heads(&["diff", "HEAD~1..HEAD"]), (1, both.clone()));
    assert_eq!(
        heads(&["diff", "HEAD~1...", "--", "train.ipynb"]),
        (1, train.clone())
    );
    assert_eq!(
        heads(&["diff", "HEAD", "HEAD~1", "--", "train.ipynb"]),
        (1, train)
    );

    // Renamed and removed files are told, and one that is broken does not hide the others.
    place.git(&["mv", "more/plot.ipynb", "drawn.ipynb"]);
    place.write("train.ipynb", "{");
    place.commit();
    let output = place.trainyard(&["diff", "HEAD~2", "HEAD"]);
    let (text, said) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("train.ipynb: line 1, column 2"), "{said}");
    assert!(
        text.contains("more/plot.ipynb => drawn.ipynb: 1 cell changed"),
        "{text}"
    );

    place.git(&["branch", "train.py"]);
    assert!(
        place
            .complains(&["diff", "train.py"])
            .contains("is a revision and a file")
    );
    assert!(
        place
            .complains(&["diff", "nowhere"])
            .contains("there is no file 'nowhere', and no revision of that name")
    );
    assert!(
        place
            .complains(&["diff", "nowhere", "--", "x"])
            .contains("'nowhere' is no commit")
    );
    assert!(
        place
            .complains(&["diff", "HEAD", "--", "../out.ipynb"])
            .contains("outside of the repository")
    );
    assert!(
        place
            .complains(&["diff", "HEAD", "HEAD", "HEAD", "--", "x"])
            .contains("more than two")
    );
}

#[test]
fn git_shows_cells_once_it_is_told_to() {
    let place = Repository::new();
    place.write("train.ipynb", &notebook(&[LOAD, TRAIN]));
    place.write(".gitattributes", "*.csv text");
    place.commit();
    let (config, attributes) = (place.read(".git/config"), place.read(".gitattributes"));

    let (code, text) = place.says(&["git-install"]);
    assert!(code == 0 && text.lines().count() == 4, "{text}");
    assert!(
        text.contains(".gitattributes: *.ipynb diff=trainyard"),
        "{text}"
    );
    assert_eq!(
        place.says(&["git-install"]),
        (0, "nothing to do: it is set up already\n".to_owned())
    );

    place.write(
        "train.ipynb",
        &executed(&[LOAD, &TRAIN.replace("100", "200")], Some(1)),
    );
    place.write("new.ipynb", &notebook(&["1"]));
    place.git(&["add", "--intent-to-add", "new.ipynb"]);
    let text = place.git(&["diff"]);
    assert!(
        text.contains("train.ipynb: 1 cell changed; what runs has changed\n\ncell 2 changed\n"),
        "{text}"
    );
    assert!(
        text.contains("new.ipynb: new, with 1 cell") && !text.contains('\u{1b}'),
        "{text}"
    );
    let text = place.git(&["-c", "color.diff=always", "diff", "train.ipynb"]);
    assert!(text.contains("\u{1b}[7m200\u{1b}[27m"), "{text}");

    place.write("new.ipynb", "no notebook\n");
    let text = place.git(&["diff"]);
    assert!(
        text.contains("new.ipynb: not compared cell by cell: line 1, column 1: not JSON"),
        "{text}"
    );
    assert!(text.contains("train.ipynb: 1 cell changed"), "{text}");
    place.commit();
    for shows in [&["show"][..], &["log", "-p", "-1"]] {
        let text = place.git(shows);
        assert!(
            text.contains("-model = Forest(trees=100)\n+model = Forest(trees=200)\n"),
            "{text}"
        );
        assert!(
            text.contains("+no notebook\n") && !text.contains("execution_count"),
            "{text}"
        );
    }
    place.write("odd.ipynb", &notebook(&["# \u{1b}[31mred \u{202e}"]));
    place.commit();
    let text = place.git(&["log", "-p", "-1"]);
    assert!(text.contains("+# ␛[31mred \u{fffd}\n"), "{text:?}");
    place.git(&["mv", "train.ipynb", "renamed.ipynb"]);
    assert!(
        place
            .git(&["diff", "--cached", "-M", "--stat"])
            .contains("train.ipynb => renamed.ipynb")
    );
    place.git(&["reset", "--quiet", "--hard"]);

    let (code, text) = place.says(&["git-install", "--remove"]);
    assert!(code == 0 && text.lines().count() == 4, "{text}");
    assert_eq!(
        (place.read(".git/config"), place.read(".gitattributes")),
        (config, attributes)
    );
    let nothing = "nothing to remove: it is not set up here\n";
    assert_eq!(
        place.says(&["git-install", "--remove"]),
        (0, nothing.to_owned())
    );
}

#[test]
fn a_conflict_is_shown_in_the_words_of_the_notebook() {
    let place = Repository::new();
    let with = |trees: &str| notebook(&[LOAD, &TRAIN.replace("100", trees)]);
    place.write("train.ipynb", &with("100"));
    place.says(&["git-install"]);
    place.commit();
    place.git(&["switch", "--quiet", "--create", "other"]);
    place.write("train.ipynb", &with("300"));
    place.commit();
    place.git(&["switch", "--quiet", "main"]);
    place.write("train.ipynb", &with("200"));
    place.commit();
    let merged = place
        .command(Path::new("git"), &["merge", "other"])
        .output();
    assert!(!merged.unwrap().status.success());
    let text = place.git(&["diff"]);
    assert!(
        text.contains("++<<<<<<< ours\n +model = Forest(trees=200)\n"),
        "{text}"
    );
    assert!(!text.contains("cell_type"), "{text}");
}

#[test]
fn outputs_stay_out_of_commits_once_git_is_told_to() {
    let place = Repository::new();
    let (bare, run) = (notebook(&[LOAD, TRAIN]), executed(&[LOAD, TRAIN], Some(3)));
    place.write("train.ipynb", &bare);
    place.commit();
    let (code, _) = place.says(&["git-install"]);
    assert_eq!(code, 0);
    let (code, text) = place.says(&["git-install", "--strip"]);
    assert!(code == 0 && text.lines().count() == 3, "{text}");
    assert_eq!(
        place.read(".gitattributes"),
        "*.ipynb diff=trainyard filter=trainyard\n"
    );

    place.write("train.ipynb", &run);
    place.write("broken.ipynb", "no notebook\n");
    let mut add = place.command(Path::new("git"), &["add", "--all"]);
    let said = String::from_utf8(add.output().unwrap().stderr).unwrap();
    assert_eq!(
        said,
        "warning: outputs stay in broken.ipynb: line 1, column 1: not JSON: a value was expected here\n"
    );
    assert_eq!(place.git(&["show", ":train.ipynb"]), bare);
    assert_eq!(place.git(&["show", ":broken.ipynb"]), "no notebook\n");
    assert_eq!(place.read("train.ipynb"), run);
    assert!(
        !place
            .git(&["status", "--porcelain"])
            .contains("train.ipynb")
    );

    // A person's own settings, for every repository.
    let (_, text) = place.says(&["git-install", "--remove"]);
    assert!(text.contains("filter.trainyard.clean"), "{text}");
    assert!(!place.root.join(".gitattributes").exists());
    let (code, _) = place.says(&["git-install", "--global", "--strip"]);
    assert_eq!(code, 0);
    place.git(&["add", "--all"]);
    assert_eq!(place.git(&["show", ":train.ipynb"]), bare);
    assert_eq!(place.says(&["git-install", "--global", "--remove"]).0, 0);
    assert!(!place.root.join("../config/git/attributes").exists());
    let outside = place.root.parent().unwrap().display().to_string();
    let said = place.complains(&["git-install", &outside]);
    assert!(
        said.contains("lies in no git repository")
            && said.contains("--global")
            && !said.contains("rev-parse"),
        "{said}"
    );
}

#[test]
fn outputs_are_stripped_in_place_and_in_a_pipe() {
    let place = Repository::new();
    let (bare, run) = (notebook(&[LOAD, TRAIN]), executed(&[LOAD, TRAIN], Some(3)));
    place.write("train.ipynb", &run);
    place.write("bare.ipynb", &bare);
    assert_eq!(
        place.says(&["strip", "--check", "train.ipynb", "bare.ipynb"]),
        (1, "train.ipynb\n".to_owned())
    );
    assert_eq!(place.read("train.ipynb"), run);
    assert_eq!(
        place.says(&["strip", "train.ipynb", "bare.ipynb"]),
        (0, "train.ipynb\n".to_owned())
    );
    assert_eq!(
        (place.read("train.ipynb"), place.read("bare.ipynb")),
        (bare.clone(), bare.clone())
    );
    assert_eq!(
        place.says(&["strip", "--check", "train.ipynb"]),
        (0, String::new())
    );

    let pipe = |text: &str, arguments: &[&str]| -> Output {
        place.write("in", text);
        let file = fs::File::open(place.root.join("in")).unwrap();
        let mut command = place.command(&place.program, arguments);
        command.stdin(Stdio::from(file)).output().unwrap()
    };
    let output = pipe(&run, &["strip", "-"]);
    assert_eq!(
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap()
        ),
        (Some(0), bare)
    );
    let output = pipe("no notebook", &["strip", "-"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
    assert!(
        said.contains("standard input: line 1, column 1: not JSON"),
        "{said}"
    );

    // One that is no notebook does not keep the others from being stripped.
    place.write("wrong.ipynb", "{}");
    place.write("train.ipynb", &run);
    let said = place.complains(&["strip", "wrong.ipynb", "nowhere.ipynb", "train.ipynb"]);
    assert!(
        said.contains("wrong.ipynb: this is JSON but not a notebook"),
        "{said}"
    );
    assert!(said.contains("cannot read 'nowhere.ipynb'"), "{said}");
    assert!(!place.read("train.ipynb").contains("of time"));
}
