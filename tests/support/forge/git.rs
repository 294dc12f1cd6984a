//! A bare repository on disk, as a forge keeps it. Blocking: each call is a short run of `git`.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a forge writes for "no commit".
pub(crate) const ZEROS: &str = "0000000000000000000000000000000000000000";

/// Before a commit in the place of a file's text: a submodule.
pub(crate) const LINK: &str = "submodule at ";

/// What true forges allow: partial clones, fetches of any commit, pushes over HTTP.
const SETTINGS: &str = "[uploadpack]\n\tallowFilter = true\n\tallowAnySHA1InWant = true\n\
    [http]\n\treceivepack = true\n[gc]\n\tauto = 0\n";

#[derive(Debug, Clone)]
pub(super) struct Repo {
    path: PathBuf,
}

/// A commit as payloads show it.
#[derive(Debug, Clone)]
pub(super) struct Commit {
    pub(super) id: String,
    pub(super) tree: String,
    pub(super) author: String,
    pub(super) email: String,
    /// ISO 8601.
    pub(super) at: String,
    pub(super) message: String,
    pub(super) added: Vec<String>,
    pub(super) removed: Vec<String>,
    pub(super) modified: Vec<String>,
}

impl Commit {
    pub(super) fn title(&self) -> &str {
        self.message.lines().next().unwrap_or_default()
    }
}

/// `git` as nobody's: without the host's configuration, and with an author of the stories.
pub(super) fn command(folder: &Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(folder);
    for (name, value) in environment() {
        command.env(name, value);
    }
    command
}

pub(super) fn environment() -> [(&'static str, &'static str); 6] {
    [
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_AUTHOR_NAME", "Ada"),
        ("GIT_AUTHOR_EMAIL", "ada@example.org"),
        ("GIT_COMMITTER_NAME", "Ada"),
        ("GIT_COMMITTER_EMAIL", "ada@example.org"),
    ]
}

impl Repo {
    /// An empty repository at `root/full_name.git`.
    pub(super) fn create(root: &Path, full_name: &str) -> Self {
        let path = root.join(format!("{full_name}.git"));
        std::fs::create_dir_all(&path).unwrap();
        let repo = Self { path };
        repo.git(&["init", "--quiet", "--bare", "--initial-branch=main"]);
        let mut config = OpenOptions::new()
            .append(true)
            .open(repo.path.join("config"))
            .unwrap();
        config.write_all(SETTINGS.as_bytes()).unwrap();
        repo
    }

    /// A copy at `root/full_name.git` with all branches, as a fork begins.
    pub(super) fn fork(&self, root: &Path, full_name: &str) -> Self {
        let fork = Self::create(root, full_name);
        fork.fetch(self, "refs/heads/*", "refs/heads/*");
        fork
    }

    pub(super) fn remove(self) {
        std::fs::remove_dir_all(&self.path).unwrap();
    }

    /// Takes refs and their objects over from another repository.
    pub(super) fn fetch(&self, from: &Self, theirs: &str, ours: &str) {
        let refs = format!("+{theirs}:{ours}");
        let from = from.path.display().to_string();
        self.git(&["fetch", "--quiet", "--no-tags", &from, &refs]);
    }

    /// Commits files (path, text) onto `parent` and moves `branch` there, whatever it pointed to. Gives the id.
    pub(super) fn commit(
        &self,
        branch: &str,
        parent: Option<&str>,
        message: &str,
        files: &[(&str, &str)],
    ) -> String {
        let mut story = format!(
            "commit refs/heads/{branch}\ncommitter Ada <ada@example.org> now\ndata {}\n{message}\n",
            message.len(),
        );
        if let Some(parent) = parent {
            story.push_str(&format!("from {parent}\n"));
        }
        for (path, text) in files {
            let entry = match text.strip_prefix(LINK) {
                Some(commit) => format!("M 160000 {commit} {path}\n"),
                None => format!("M 100644 inline {path}\ndata {}\n{text}\n", text.len()),
            };
            story.push_str(&entry);
        }
        let arguments = ["fast-import", "--quiet", "--force", "--date-format=now"];
        self.fed(&arguments, story.as_bytes());
        self.id(&format!("refs/heads/{branch}")).unwrap()
    }

    pub(super) fn id(&self, name: &str) -> Option<String> {
        let wanted = format!("{name}^{{commit}}");
        self.try_git(&["rev-parse", "--verify", "--quiet", &wanted])
    }

    /// Whether this is a whole id of a commit that is here.
    pub(super) fn has(&self, commit: &str) -> bool {
        self.id(commit).is_some_and(|id| id == commit)
    }

    pub(super) fn set(&self, reference: &str, commit: &str) {
        self.git(&["update-ref", reference, commit]);
    }

    pub(super) fn delete(&self, reference: &str) {
        self.git(&["update-ref", "-d", reference]);
    }

    /// Branches and tags, with what they point to: for an annotated tag its own object, as payloads have it.
    pub(super) fn refs(&self) -> BTreeMap<String, String> {
        let format = "--format=%(refname) %(objectname)";
        let listed = self.git(&["for-each-ref", format, "refs/heads", "refs/tags"]);
        let pair = |line: &str| {
            let (name, id) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), id.to_owned())
        };
        listed.lines().map(pair).collect()
    }

    pub(super) fn merge_base(&self, one: &str, other: &str) -> Option<String> {
        self.try_git(&["merge-base", one, other])
    }

    pub(super) fn is_ancestor(&self, old: &str, new: &str) -> bool {
        self.try_git(&["merge-base", "--is-ancestor", old, new])
            .is_some()
    }

    /// What `of` has and `without` have not, oldest first: the newest `most` of it.
    pub(super) fn commits(&self, of: &str, without: &[&str], most: usize) -> Vec<Commit> {
        let most = format!("--max-count={most}");
        let format = "--format=%x01%H%x00%T%x00%an%x00%ae%x00%aI%x00%B%x02";
        let options = [
            "log",
            "--root",
            "--reverse",
            "--name-status",
            "--no-renames",
        ];
        let mut arguments = [&options[..], &[&most, format, of, "--not"]].concat();
        arguments.extend(without);
        let log = self.git(&arguments);
        log.split('\x01').skip(1).map(read).collect()
    }

    fn git(&self, arguments: &[&str]) -> String {
        self.fed(arguments, b"")
    }

    fn try_git(&self, arguments: &[&str]) -> Option<String> {
        let output = command(&self.path).args(arguments).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        output.status.success().then(|| text.trim().to_owned())
    }

    fn fed(&self, arguments: &[&str], input: &[u8]) -> String {
        let mut child = command(&self.path)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A program that ends early says why on its other stream.
        let _ = child.stdin.take().unwrap().write_all(input);
        let output = child.wait_with_output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {arguments:?}: {complaint}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

fn read(entry: &str) -> Commit {
    let (head, paths) = entry.split_once('\x02').unwrap();
    let mut fields = head.split('\0').map(str::to_owned);
    let mut field = || fields.next().unwrap();
    let mut commit = Commit {
        id: field(),
        tree: field(),
        author: field(),
        email: field(),
        at: field(),
        message: field(),
        added: Vec::new(),
        removed: Vec::new(),
        modified: Vec::new(),
    };
    for (kind, path) in paths.lines().filter_map(|line| line.split_once('\t')) {
        let list = match kind {
            "A" => &mut commit.added,
            "D" => &mut commit.removed,
            _ => &mut commit.modified,
        };
        list.push(path.to_owned());
    }
    commit
}
