//! Stories about real git repositories in temporary folders.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use mirror::{Deadline, FileMode, History, Mirror, MirrorError, Tree, WorkTree};
use protocol::CommitId;
use trainyard_mirror as mirror;

#[path = "stories/changes.rs"]
mod changes;
#[path = "stories/parts.rs"]
mod parts;

struct Repo {
    folder: tempfile::TempDir,
}

impl Repo {
    fn new() -> Self {
        let repo = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        repo.git(&["init", "--quiet", "--initial-branch=main"]);
        repo
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn url(&self) -> String {
        self.path().display().to_string()
    }

    fn write(&self, path: &str, text: &str) -> PathBuf {
        let full = self.path().join(path);
        fs::create_dir_all(full.parent().unwrap()).unwrap();
        fs::write(&full, text).unwrap();
        full
    }

    fn git(&self, arguments: &[&str]) -> String {
        self.git_with(arguments, b"")
    }

    fn git_with(&self, arguments: &[&str], input: &[u8]) -> String {
        let mut child = Command::new("git")
            .args(arguments)
            .current_dir(self.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .envs([
                ("GIT_AUTHOR_NAME", "Ada"),
                ("GIT_AUTHOR_EMAIL", "ada@example.org"),
            ])
            .envs([
                ("GIT_COMMITTER_NAME", "Ada"),
                ("GIT_COMMITTER_EMAIL", "ada@example.org"),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {arguments:?}: {complaint}");
        String::from_utf8(output.stdout)
            .unwrap()
            .trim_end()
            .to_owned()
    }

    fn commit(&self, message: &str) -> CommitId {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", message]);
        self.git(&["rev-parse", "HEAD"]).parse().unwrap()
    }

    /// A commit of a tree that git's own commands would not write: `(mode, name, id)`.
    fn hostile_commit(&self, entries: &[(&str, &str, &str)]) -> CommitId {
        let mut raw = Vec::new();
        for (mode, name, id) in entries {
            raw.extend(format!("{mode} {name}\0").into_bytes());
            raw.extend((0..20).map(|n| u8::from_str_radix(&id[2 * n..2 * n + 2], 16).unwrap()));
        }
        let tree = self.git_with(
            &["hash-object", "-t", "tree", "-w", "--literally", "--stdin"],
            &raw,
        );
        self.git(&["commit-tree", "-m", "hostile", &tree])
            .parse()
            .unwrap()
    }

    fn blob(&self, content: &str) -> String {
        self.git_with(&["hash-object", "-w", "--stdin"], content.as_bytes())
    }
}

fn soon() -> Deadline {
    Deadline::within(Duration::from_secs(60))
}

fn mirror_of(repo: &Repo, root: &Path) -> Mirror {
    let mirror = Mirror::open(root, &repo.url()).unwrap();
    mirror.fetch(None, &soon()).unwrap();
    mirror
}

#[test]
fn a_mirror_follows_its_remote() {
    let (repo, root) = (Repo::new(), tempfile::tempdir().unwrap());
    repo.write("train.py", "print(1)\n");
    let first = repo.commit("Begin\n\nwith a body");
    repo.git(&["branch", "feature"]);
    repo.git(&["tag", "-a", "v1", "-m", "one"]);
    let mirror = mirror_of(&repo, root.path());
    let names = |mirror: &Mirror| -> Vec<String> {
        mirror.refs().unwrap().into_iter().map(|r| r.name).collect()
    };
    assert_eq!(
        names(&mirror),
        ["refs/heads/feature", "refs/heads/main", "refs/tags/v1"]
    );
    assert_eq!(mirror.default_branch().unwrap().as_deref(), Some("main"));
    for name in ["main", "v1", "HEAD", first.short(), first.as_str()] {
        assert_eq!(mirror.resolve(name).unwrap(), first, "{name}");
    }
    assert!(matches!(
        mirror.resolve("nowhere"),
        Err(MirrorError::NoSuchCommit { .. })
    ));
    let info = mirror.commit(&first).unwrap();
    assert_eq!(
        (info.summary(), info.author.as_str()),
        ("Begin", "Ada <ada@example.org>")
    );
    assert!(info.message.ends_with("with a body") && info.parents.is_empty());

    repo.git(&["branch", "-D", "feature"]);
    repo.git(&["commit", "--quiet", "--amend", "-m", "Begin again"]);
    let amended: CommitId = repo.git(&["rev-parse", "HEAD"]).parse().unwrap();
    mirror.fetch(None, &soon()).unwrap();
    assert_eq!(
        names(&mirror),
        ["refs/heads/main", "refs/tags/v1"],
        "the branch is gone"
    );
    assert_eq!(
        mirror.resolve("main").unwrap(),
        amended,
        "a forced push is followed"
    );
    let listed = mirror.remote_refs(None, &soon()).unwrap();
    assert_eq!(listed.head.as_deref(), Some("refs/heads/main"));
    assert_eq!(listed.get("refs/tags/v1"), Some(&first));
}

#[test]
fn the_default_branch_is_the_remotes_and_follows_it() {
    let (repo, root) = (Repo::new(), tempfile::tempdir().unwrap());
    repo.git(&["checkout", "--quiet", "-b", "trunk"]);
    repo.commit("Begin");
    let mirror = mirror_of(&repo, root.path());
    assert_eq!(mirror.default_branch().unwrap().as_deref(), Some("trunk"));
    repo.git(&["checkout", "--quiet", "-b", "develop"]);
    mirror.remote_refs(None, &soon()).unwrap();
    assert_eq!(mirror.default_branch().unwrap().as_deref(), Some("develop"));
}

#[test]
fn a_commit_of_a_pull_request_is_fetched_by_its_ref_and_kept() {
    let (repo, root) = (Repo::new(), tempfile::tempdir().unwrap());
    let base = repo.commit("Begin");
    repo.git(&["checkout", "--quiet", "--detach"]);
    let head = repo.commit("From a fork");
    repo.git(&["update-ref", "refs/pull/7/head", head.as_str()]);
    repo.git(&["checkout", "--quiet", "main"]);
    let mirror = mirror_of(&repo, root.path());
    assert!(!mirror.has(&head));
    mirror
        .fetch_commit(
            &head,
            Some("refs/pull/7/head"),
            History::Whole,
            None,
            &soon(),
        )
        .unwrap();
    assert!(mirror.has(&head));
    assert_eq!(mirror.merge_base(&head, &base).unwrap(), Some(base.clone()));
    assert!(mirror.is_ancestor(&base, &head).unwrap() && mirror.is_ancestor(&base, &base).unwrap());
    assert!(!mirror.is_ancestor(&head, &base).unwrap());
    repo.git(&["update-ref", "-d", "refs/pull/7/head"]);
    mirror.fetch(None, &soon()).unwrap();
    assert!(
        mirror.refs().unwrap().iter().any(|r| r.commit == head),
        "kept, though the ref is gone"
    );

    let nowhere: CommitId = "1".repeat(40).parse().unwrap();
    assert!(
        mirror
            .fetch_commit(&nowhere, None, History::Whole, None, &soon())
            .is_err()
    );
}

#[test]
fn the_ids_of_a_tree_are_gits_own() {
    let (repo, root) = (Repo::new(), tempfile::tempdir().unwrap());
    repo.write(".gitignore", "*.log\n");
    repo.write("src/model.py", "x = 1\n");
    repo.write("a b.txt", "odd name\n");
    let script = repo.write("run.sh", "#!/bin/sh\n");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    symlink("src/model.py", repo.path().join("link.py")).unwrap();
    let commit = repo.commit("Begin");
    let mirror = mirror_of(&repo, root.path());
    let tree = mirror.tree(&commit).unwrap();
    let listed: Vec<String> = tree
        .files()
        .iter()
        .map(|f| format!("{}\t{}", f.id, f.path))
        .collect();
    let git = repo.git(&["ls-tree", "-r", "--format=%(objectname)%x09%(path)", "HEAD"]);
    let mut git: Vec<&str> = git.lines().collect();
    git.sort_by_key(|line| line.split_once('\t').unwrap().1);
    assert_eq!(listed, git);
    assert_eq!(tree.get("run.sh").unwrap().mode, FileMode::Executable);
    assert_eq!(tree.get("link.py").unwrap().mode, FileMode::Link);
    assert_eq!(tree.read("src/model.py").unwrap(), b"x = 1\n");
    assert_eq!(tree.get("src/model.py").unwrap().size, 6);
    assert!(matches!(
        tree.read("nowhere"),
        Err(MirrorError::NoSuchFile { .. })
    ));

    // The folder reads as the commit does, ...
    repo.write("noise.log", "ignored");
    let work = WorkTree::open(&repo.path().join("src")).unwrap();
    assert_eq!(work.files(), tree.files());
    assert_eq!((work.dirty(), work.head()), (false, Some(&commit)));
    assert_eq!(work.read("link.py").unwrap(), b"src/model.py");

    // ... and once changed, as the next commit will.
    repo.write("src/model.py", "x = 2\n");
    repo.write("src/new.py", "y = 1\n");
    fs::remove_file(repo.path().join("a b.txt")).unwrap();
    let work = WorkTree::open(repo.path()).unwrap();
    assert!(work.dirty());
    let next = repo.commit("Change");
    mirror.fetch(None, &soon()).unwrap();
    assert_eq!(work.files(), mirror.tree(&next).unwrap().files());
}

#[test]
fn a_project_within_a_repository_is_its_own_root() {
    let repo = Repo::new();
    repo.write("README.md", "outside");
    repo.write("examples/digits/.trainyard.yml", "jobs: {}");
    repo.write("examples/digits/src/a.py", "x = 1\n");
    repo.commit("Begin");
    let inner = repo.path().join("examples/digits/src");
    let work = WorkTree::open_marked(&inner, ".trainyard.yml").unwrap();
    let paths: Vec<&str> = work.files().iter().map(|f| f.path.as_str()).collect();
    assert_eq!(paths, [".trainyard.yml", "src/a.py"]);
    assert_eq!(work.read("src/a.py").unwrap(), b"x = 1\n");
    assert!(work.root().ends_with("examples/digits"));
    let whole = WorkTree::open_marked(repo.path(), ".trainyard.yml").unwrap();
    assert!(
        whole.get("README.md").is_some(),
        "without the file it is the whole repository"
    );
}

#[test]
fn a_folder_outside_of_a_repository_is_read_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(".gitignore"), "big/\n").unwrap();
    fs::write(folder.path().join("train.py"), "x = 1\n").unwrap();
    fs::create_dir(folder.path().join("big")).unwrap();
    fs::write(folder.path().join("big/data"), "0").unwrap();
    let work = WorkTree::open(folder.path()).unwrap();
    let paths: Vec<&str> = work.files().iter().map(|f| f.path.as_str()).collect();
    assert_eq!(paths, [".gitignore", "train.py"]);
    assert!(work.head().is_none() && work.repository().is_none());
    assert!(matches!(
        WorkTree::open(&folder.path().join("none")),
        Err(MirrorError::Io { .. })
    ));
}

#[test]
fn a_checkout_has_the_files_modes_and_links_and_runs_no_filter() {
    let (repo, root) = (Repo::new(), tempfile::tempdir().unwrap());
    repo.write(".gitattributes", "*.txt text eol=crlf\n*.bin filter=lfs\n");
    repo.write("data/a.txt", "one\ntwo\n");
    repo.write("w.bin", "version https://git-lfs\n");
    let script = repo.write("run.sh", "#!/bin/sh\n");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    symlink("/etc/passwd", repo.path().join("out")).unwrap();
    let commit = repo.commit("Begin");
    let mirror = mirror_of(&repo, root.path());
    let dest = root.path().join("checkout");
    mirror.checkout(&commit, &dest, &soon()).unwrap();
    assert_eq!(
        fs::read_to_string(dest.join("data/a.txt")).unwrap(),
        "one\ntwo\n"
    );
    assert!(
        dest.join("out").symlink_metadata().unwrap().is_symlink(),
        "a link stays a link"
    );
    assert_eq!(
        fs::metadata(dest.join("run.sh"))
            .unwrap()
            .permissions()
            .mode()
            & 0o100,
        0o100
    );
    assert!(!dest.join(".git").exists());
    let again = mirror.checkout(&commit, &dest, &soon()).unwrap_err();
    assert!(again.to_string().contains("not empty"), "{again}");

    let copy = root.path().join("copy");
    repo.write("data/b.txt", "untracked\n");
    WorkTree::open(repo.path())
        .unwrap()
        .copy_to(&copy, &soon())
        .unwrap();
    assert_eq!(
        fs::read_to_string(copy.join("data/b.txt")).unwrap(),
        "untracked\n"
    );
    assert!(copy.join("out").symlink_metadata().unwrap().is_symlink());
    assert!(!copy.join(".git").exists());
}

#[test]
fn a_hostile_tree_writes_nothing_outside_of_the_checkout() {
    let (repo, root) = (Repo::new(), tempfile::tempdir().unwrap());
    let victim = root.path().join("victim");
    fs::create_dir(&victim).unwrap();
    let blob = repo.blob("owned");
    let to_victim = repo.blob(&victim.display().to_string());
    let inner = repo.git_with(
        &["mktree"],
        format!("100644 blob {blob}\tfile\n").as_bytes(),
    );
    repo.commit("Begin");
    let hostile = [
        // A link and a folder of the same name: the folder's files would go through the link.
        repo.hostile_commit(&[("120000", "a", &to_victim), ("40000", "a", &inner)]),
        repo.hostile_commit(&[("120000", "a", &to_victim), ("100644", "a", &blob)]),
        repo.hostile_commit(&[("100644", "../escaped", &blob)]),
        repo.hostile_commit(&[("40000", "..", &inner)]),
        repo.hostile_commit(&[("40000", ".Git", &inner)]),
    ];
    let reader = mirror::Repository::discover(repo.path()).unwrap().unwrap();
    for (n, commit) in hostile.iter().enumerate() {
        let dest = root.path().join(format!("checkout-{n}"));
        assert!(
            reader.checkout(commit, &dest, &soon()).is_err(),
            "tree {n} was written"
        );
    }
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 0);
    assert!(!root.path().join("escaped").exists() && !root.path().join("file").exists());
}

#[test]
fn a_remote_that_does_not_answer_is_given_up_at_the_deadline() {
    let root = tempfile::tempdir().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/team/churn", silent.local_addr().unwrap());
    let mirror = Mirror::open(root.path(), &url).unwrap();
    let error = mirror
        .fetch(None, &Deadline::within(Duration::from_millis(400)))
        .unwrap_err();
    assert!(matches!(error, MirrorError::TimedOut { .. }), "{error}");

    let flag = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let error = mirror.fetch(None, &soon().or_when(flag)).unwrap_err();
    assert!(matches!(error, MirrorError::Cancelled { .. }), "{error}");
}

#[test]
fn the_credential_reaches_the_forge_and_no_message() {
    let forge = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/team/churn", forge.local_addr().unwrap());
    let asked = std::thread::spawn(move || {
        let (mut stream, _) = forge.accept().unwrap();
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
            head.push(byte[0]);
        }
        let answer = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8(head).unwrap()
    });
    let error = mirror::remote_refs(&url, Some("Bearer s3cret"), &soon()).unwrap_err();
    let head = asked.join().unwrap();
    assert!(head.contains("Authorization: Bearer s3cret"), "{head}");
    assert!(matches!(error, MirrorError::Git { .. }), "{error}");
    assert!(
        error.to_string().contains("403") && !error.to_string().contains("s3cret"),
        "{error}"
    );
}

#[test]
fn a_remote_that_is_not_there_says_so() {
    let root = tempfile::tempdir().unwrap();
    let mirror =
        Mirror::open(root.path(), &root.path().join("none").display().to_string()).unwrap();
    let error = mirror.fetch(None, &soon()).unwrap_err().to_string();
    assert!(
        error.contains("does not appear to be a git repository"),
        "{error}"
    );
    assert!(matches!(
        Mirror::open(root.path(), "churn"),
        Err(MirrorError::Url { .. })
    ));
}

#[test]
fn a_project_inside_a_larger_repository_is_read_from_its_own_folder() {
    let folder = tempfile::tempdir().unwrap();
    let project = folder.path().join("examples/digits");
    std::fs::create_dir_all(project.join("sub")).unwrap();
    std::fs::write(folder.path().join("outside.txt"), "no").unwrap();
    std::fs::write(project.join("train.py"), "yes").unwrap();
    std::fs::write(project.join("sub/a.txt"), "too").unwrap();
    let made = std::process::Command::new("git")
        .args(["init", "-q"])
        .current_dir(folder.path())
        .status();
    assert!(made.unwrap().success());
    let tree = mirror::WorkTree::open(&project).unwrap().below(&project);
    let paths: Vec<&str> = tree.files().iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["sub/a.txt", "train.py"]);
    assert_eq!(tree.read("train.py").unwrap(), b"yes");
    let copy = folder.path().join("copy");
    tree.copy_to(&copy, &soon()).unwrap();
    assert!(copy.join("sub/a.txt").exists() && !copy.join("outside.txt").exists());
}
