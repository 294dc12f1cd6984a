//! Files that differ between commits and the working tree.

use std::fs;
use std::os::unix::fs::symlink;

use protocol::CommitId;

use super::{Repo, mirror};

#[test]
fn files_that_differ_are_found_as_git_diff_finds_them() {
    let repo = Repo::new();
    let text = "a line of some length\n".repeat(20);
    repo.write("kept.ipynb", &text);
    repo.write("sub/old name.ipynb", &format!("{text}x\n"));
    repo.write("gone.ipynb", "gone\n");
    repo.write("train.py", "1\n");
    symlink("kept.ipynb", repo.path().join("link.ipynb")).unwrap();
    let before = repo.commit("one");
    repo.git(&["mv", "sub/old name.ipynb", "sub/new.ipynb"]);
    repo.git(&["rm", "--quiet", "gone.ipynb"]);
    repo.write("train.py", "2\n");
    repo.write("added.ipynb", "added\n");
    fs::remove_file(repo.path().join("link.ipynb")).unwrap();
    let after = repo.commit("two");
    repo.write("kept.ipynb", "changed\n");
    repo.write("untracked.ipynb", "new\n");

    let repository = mirror::Repository::discover(repo.path()).unwrap().unwrap();
    let found = |after: Option<&CommitId>, paths: &[&str]| -> Vec<String> {
        let paths: Vec<String> = paths.iter().map(|&path| path.to_owned()).collect();
        let files = repository.changed(&before, after, &paths, "ipynb").unwrap();
        let word =
            |side: &Option<mirror::Side>| side.as_ref().map_or("-", |side| &side.path).to_owned();
        let mut words: Vec<String> = files
            .iter()
            .map(|file| format!("{} {}", word(&file.before), word(&file.after)))
            .collect();
        words.sort();
        words
    };
    let renamed = "sub/old name.ipynb sub/new.ipynb";
    assert_eq!(
        found(Some(&after), &[]),
        ["- added.ipynb", "gone.ipynb -", renamed]
    );
    assert_eq!(
        found(None, &[]),
        [
            "- added.ipynb",
            "gone.ipynb -",
            "kept.ipynb kept.ipynb",
            renamed
        ]
    );
    assert_eq!(found(None, &["sub"]), [renamed]);
    assert_eq!(
        found(None, &["kept.ipynb", "train.py"]),
        ["kept.ipynb kept.ipynb"]
    );
    assert_eq!(found(Some(&before), &[]), Vec::<String>::new());

    let files = repository.changed(&after, None, &[], "ipynb").unwrap();
    let side = |side: &Option<mirror::Side>| repository.read_side(side.as_ref().unwrap()).unwrap();
    assert_eq!(
        (side(&files[0].before), side(&files[0].after)),
        (text.into_bytes(), b"changed\n".to_vec())
    );
}
