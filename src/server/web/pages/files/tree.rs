//! Files as a tree, in a list that opens and closes its folders. Pure.

use super::super::super::access::encode;
use crate::store::files::KeptFile;

/// One step of a tree, from top to bottom.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) enum Entry {
    /// A folder begins.
    Open { name: String, href: String },
    /// It ends.
    Close,
    /// A file.
    File {
        name: String,
        href: String,
        size: String,
    },
}

/// What lies in a folder.
pub(in super::super) struct Tree {
    pub(in super::super) entries: Vec<Entry>,
    /// Whether there are files that are not listed.
    pub(in super::super) more: bool,
    /// How many are.
    pub(in super::super) shown: usize,
}

impl Tree {
    /// Most files of a tree.
    pub(in super::super) const MOST: u32 = 1_000;

    /// The tree of an owner's files below `folder` (empty: all), that are sorted by path; one more than [`Tree::MOST`] tells
    /// that there are more.
    pub(in super::super) fn new(owner: &str, folder: &str, mut files: Vec<KeptFile>) -> Self {
        let more = files.len() > Self::MOST as usize;
        files.truncate(Self::MOST as usize);
        let skip = match folder {
            "" => 0,
            folder => folder.len() + 1,
        };
        let mut entries = Vec::new();
        let mut open: Vec<&str> = Vec::new();
        for file in &files {
            let inside = &file.path[skip..];
            let (folders, name) = match inside.rsplit_once('/') {
                Some((folders, name)) => (folders.split('/').collect(), name),
                None => (Vec::new(), inside),
            };
            let same = open
                .iter()
                .zip(&folders)
                .take_while(|(a, b)| a == b)
                .count();
            entries.extend(open.drain(same..).map(|_| Entry::Close));
            for folder in &folders[same..] {
                open.push(folder);
                let path = &file.path[..skip + open.join("/").len()];
                entries.push(Entry::Open {
                    name: (*folder).to_owned(),
                    href: href(owner, path),
                });
            }
            entries.push(Entry::File {
                name: name.to_owned(),
                href: href(owner, &file.path),
                size: file.size.to_string(),
            });
        }
        entries.extend(open.drain(..).map(|_| Entry::Close));
        Self {
            entries,
            more,
            shown: files.len(),
        }
    }
}

/// Where a file or a folder is looked at.
pub(super) fn href(owner: &str, path: &str) -> String {
    format!("/files/{owner}/{}", encode(path))
}

#[cfg(test)]
mod tests {
    use protocol::{ByteSize, Digest};

    use super::*;

    fn tree(folder: &str, paths: &[&str]) -> Vec<String> {
        let file = |path: &&str| KeptFile {
            path: (*path).to_owned(),
            blob: Digest::of(path),
            size: ByteSize(1),
        };
        let tree = Tree::new("o", folder, paths.iter().map(file).collect());
        let word = |entry: &Entry| match entry {
            Entry::Open { name, href } => format!("{name}[ {href}"),
            Entry::Close => "]".to_owned(),
            Entry::File { name, href, .. } => format!("{name} {href}"),
        };
        tree.entries.iter().map(word).collect()
    }

    #[test]
    fn folders_open_and_close_around_their_files() {
        let paths = ["a.txt", "a/b/c", "a/b/d e", "a/f", "g/h"];
        assert_eq!(
            tree("", &paths),
            [
                "a.txt /files/o/a.txt",
                "a[ /files/o/a",
                "b[ /files/o/a/b",
                "c /files/o/a/b/c",
                "d e /files/o/a/b/d%20e",
                "]",
                "f /files/o/a/f",
                "]",
                "g[ /files/o/g",
                "h /files/o/g/h",
                "]",
            ]
        );
        assert_eq!(
            tree("a", &["a/b/c"]),
            ["b[ /files/o/a/b", "c /files/o/a/b/c", "]"]
        );
        assert_eq!(tree("", &[]), [""; 0]);
    }
}
