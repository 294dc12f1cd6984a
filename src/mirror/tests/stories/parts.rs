//! What of a remote is fetched for whom: histories without large files, commits without histories.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use mirror::{History, Mirror, MirrorError, Tree as _, Wanted};
use protocol::CommitId;

use super::{Repo, mirror, soon};

/// Larger than what comes with a history.
fn large(of: char) -> String {
    of.to_string().repeat(200 << 10)
}

/// A remote that allows filters, three commits of it, and its `file://` address.
fn remote(repo: &Repo) -> (Vec<CommitId>, String) {
    repo.git(&["config", "uploadpack.allowFilter", "true"]);
    let commits = ['a', 'b', 'c'].map(|of| {
        repo.write("train.ipynb", &large(of));
        repo.write("small.py", &of.to_string());
        repo.commit("Change")
    });
    (commits.to_vec(), format!("file://{}", repo.url()))
}

fn wanted(commit: &CommitId) -> Wanted<'_> {
    Wanted {
        commit,
        reference: Some("refs/heads/main"),
        lfs: false,
        submodules: false,
    }
}

/// Bytes of the objects of a mirror.
fn bytes(mirror: &Mirror) -> u64 {
    let packs = fs::read_dir(mirror.path().join("objects/pack")).unwrap();
    packs
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum()
}

#[test]
fn a_history_comes_without_its_large_files_until_somebody_looks_at_a_commit() {
    let (repo, root) = (Repo::new(), tempfile::tempdir().unwrap());
    let (commits, url) = remote(&repo);
    let mirror = Mirror::open(root.path(), &url).unwrap();
    mirror.fetch(None, &soon()).unwrap();
    let known = mirror.tree(&commits[2]).unwrap();
    assert_eq!(known.read("small.py").unwrap(), b"c");
    assert!(known.read("train.ipynb").is_err(), "it was not asked for");

    let whole = mirror.whole_tree(&commits[2], None, &soon()).unwrap();
    assert_eq!(whole.read("train.ipynb").unwrap(), large('c').as_bytes());
    assert_eq!(whole.get("train.ipynb").unwrap().size, 200 << 10);
    assert!(
        mirror
            .tree(&commits[1])
            .unwrap()
            .read("train.ipynb")
            .is_err()
    );
    let (before, after) = (&commits[1], &commits[2]);
    mirror.bring_changed(before, after, None, &soon()).unwrap();
    let before = mirror.tree(before).unwrap().read("train.ipynb").unwrap();
    assert_eq!(before, large('b').as_bytes());
    assert!(
        mirror
            .tree(&commits[0])
            .unwrap()
            .read("train.ipynb")
            .is_err()
    );

    // What comes later comes likewise, and the commits stay comparable.
    repo.write("train.ipynb", &large('d'));
    let next = repo.commit("Change");
    mirror.fetch(None, &soon()).unwrap();
    assert!(mirror.is_ancestor(&commits[0], &next).unwrap());
    assert!(
        mirror
            .whole_tree(&next, None, &soon())
            .unwrap()
            .read("train.ipynb")
            .is_ok()
    );
}

#[test]
fn a_server_that_knows_no_filter_sends_all() {
    let (repo, root) = (Repo::new(), tempfile::tempdir().unwrap());
    let (commits, url) = remote(&repo);
    repo.git(&["config", "uploadpack.allowFilter", "false"]);
    let mirror = Mirror::open(root.path(), &url).unwrap();
    mirror.fetch(None, &soon()).unwrap();
    for (commit, of) in commits.iter().zip(['a', 'b', 'c']) {
        let text = mirror.tree(commit).unwrap().read("train.ipynb").unwrap();
        assert_eq!(text, large(of).as_bytes());
    }
}

#[test]
fn a_job_gets_a_commit_alone() {
    let (repo, root) = (Repo::new(), tempfile::tempdir().unwrap());
    let (commits, url) = remote(&repo);
    // Not to be packed smaller than it is.
    let noise: String = (0..60_000_u32)
        .map(|n| format!("{:x}", n.wrapping_mul(2_654_435_761)))
        .collect();
    repo.write("old.ipynb", &noise);
    repo.commit("Once");
    fs::remove_file(repo.path().join("old.ipynb")).unwrap();
    let last = repo.commit("Gone");
    let mirror = Mirror::open(root.path(), &url).unwrap();
    let dest = root.path().join("last");
    mirror
        .deliver(&wanted(&last), &dest, None, &soon())
        .unwrap();
    assert_eq!(
        fs::read_to_string(dest.join("train.ipynb")).unwrap(),
        large('c')
    );
    assert!(
        !mirror.has(&commits[2]),
        "what led to it is nobody's business here"
    );
    let alone = bytes(&mirror);
    assert!(alone < 20_000, "{alone} bytes");

    // An older one, later: it lies behind its branch by now.
    let dest = root.path().join("first");
    mirror
        .deliver(&wanted(&commits[0]), &dest, None, &soon())
        .unwrap();
    assert_eq!(
        fs::read_to_string(dest.join("train.ipynb")).unwrap(),
        large('a')
    );
    assert!(!mirror.has(&commits[1]));
}

#[test]
fn a_server_of_plain_files_gives_the_whole_history() {
    let (repo, root) = (Repo::new(), tempfile::tempdir().unwrap());
    let (commits, _) = remote(&repo);
    repo.git(&["update-server-info"]);
    let url = plain_files(repo.path().join(".git"));
    let mirror = Mirror::open(root.path(), &url).unwrap();
    let dest = root.path().join("last");
    mirror
        .deliver(&wanted(&commits[2]), &dest, None, &soon())
        .unwrap();
    assert_eq!(
        fs::read_to_string(dest.join("train.ipynb")).unwrap(),
        large('c')
    );
    assert!(mirror.has(&commits[0]), "it cannot do less");
}

/// Serves a folder over HTTP and knows nothing of git.
fn plain_files(folder: PathBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let first = lines.next().unwrap_or(Ok(String::new())).unwrap();
            while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
            let path = first.split([' ', '?']).nth(1).unwrap_or_default();
            let found = fs::read(folder.join(Path::new(path.trim_start_matches('/'))));
            let (status, body) = found.map_or(("404 Not Found", Vec::new()), |b| ("200 OK", b));
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            // Who has heard enough goes.
            let _ = stream
                .write_all(head.as_bytes())
                .and_then(|()| stream.write_all(&body));
        }
    });
    url
}

#[test]
fn a_commit_of_somebody_unknown_brings_no_more_than_it_may() {
    let (repo, root) = (Repo::new(), tempfile::tempdir().unwrap());
    let (commits, url) = remote(&repo);
    let mirror = Mirror::open(root.path(), &url).unwrap();
    mirror.fetch(None, &soon()).unwrap();
    // What no packing makes smaller: ids of other ids.
    let mut digest = protocol::Digest::of("begin");
    let mut text = String::new();
    for _ in 0..8_000 {
        digest = protocol::Digest::of(digest.as_str());
        text.push_str(digest.as_str());
    }
    repo.write("noise.txt", &text);
    let noise = repo.commit("Noise");
    repo.git(&["update-ref", "refs/pull/1/head", "HEAD"]);
    let fetch = |mirror: &Mirror| {
        let reference = Some("refs/pull/1/head");
        mirror.fetch_commit(&noise, reference, History::Whole, None, &soon())?;
        mirror.whole_tree(&noise, None, &soon()).map(drop)
    };
    let before = bytes(&mirror);
    let bounded = mirror.clone().at_most(64 << 10);
    let error = fetch(&bounded).unwrap_err();
    assert!(matches!(error, MirrorError::TooMuch { .. }), "{error}");
    assert!(error.is_the_commits());
    assert!(error.to_string().contains("brings more than"), "{error}");
    assert!(bytes(&mirror) - before < 64 << 10, "what was torn is gone");
    assert!(mirror.has(&commits[2]), "and what was there is");
    fetch(&mirror).unwrap();
}

#[test]
fn folders_without_end_and_without_a_file_are_refused() {
    let (repo, root) = (Repo::new(), tempfile::tempdir().unwrap());
    repo.write("a", "a");
    repo.commit("Change");
    let mut id = repo.git_with(&["mktree"], b"");
    let commit = |id: &str| {
        let commit = repo.git(&["commit-tree", id, "-m", "Folders"]);
        repo.git(&["update-ref", "refs/heads/folders", &commit]);
        commit.parse::<CommitId>().unwrap()
    };
    for _ in 0..12 {
        let entries = (0..10).map(|n| format!("040000 tree {}\tn{n}\n", id));
        id = repo.git_with(&["mktree"], entries.collect::<String>().as_bytes());
    }
    let wide = commit(&id);
    let mut id = repo.git_with(&["mktree"], b"");
    for _ in 0..25 {
        let entry = format!("040000 tree {}\t{}\n", id, "n".repeat(200));
        id = repo.git_with(&["mktree"], entry.as_bytes());
    }
    let deep = commit(&id);
    repo.git(&["update-ref", "refs/heads/wide", wide.as_str()]);
    let mirror = Mirror::open(root.path(), &repo.url()).unwrap();
    mirror.fetch(None, &soon()).unwrap();
    let error = mirror.tree(&wide).err().unwrap();
    assert!(matches!(error, MirrorError::TooManyFiles { .. }), "{error}");
    let error = mirror.tree(&deep).err().unwrap();
    assert!(matches!(error, MirrorError::UnsafePath { .. }), "{error}");
}
