//! Gathers files that a job left into blobs by their hash. The files are foreign: links are not followed, what is
//! no plain file is passed over, number and size are bounded. It knows no reports.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use protocol::event::{Artifact, ArtifactRole};
use protocol::{ByteSize, Digest};
use rustix::fs::CWD;
use sha2::{Digest as _, Sha256};
use walkdir::WalkDir;

/// Most files of one kind.
pub(crate) const MOST_FILES: usize = 10_000;
/// Most bytes of one kind.
pub(crate) const MOST_BYTES: u64 = 200 << 30;

/// Files of so many bytes are not copied where they can be linked.
const LINK_BYTES: u64 = 1 << 20;

/// Why nothing more is gathered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CollectError {
    /// A glob that is none.
    #[error("'{glob}' is no pattern of files: {reason}")]
    Glob { glob: String, reason: String },
    /// More than is kept.
    #[error("{what} has more than {most}, which is the most that is kept")]
    TooMuch { what: String, most: String },
    /// It is not there, leads out of the workspace, or is neither file nor folder.
    #[error("'{path}' is not in the workspace")]
    Missing { path: String },
    /// A link in a model's folder that no other host could follow.
    #[error("'{path}' in the model's folder is a link to '{target}', {why}")]
    Link {
        path: String,
        target: String,
        why: &'static str,
    },
    /// The disk.
    #[error("cannot keep {}: {source}", path.display())]
    Disk { path: PathBuf, source: io::Error },
}

/// Where blobs go.
pub(crate) struct Blobs {
    folder: PathBuf,
}

impl Blobs {
    pub(crate) fn open(folder: PathBuf) -> Result<Self, CollectError> {
        fs::create_dir_all(&folder).map_err(disk(&folder))?;
        Ok(Self { folder })
    }

    /// Keeps what a file holds.
    pub(crate) fn keep(
        &self,
        from: &Path,
        role: ArtifactRole,
        path: String,
    ) -> Result<Artifact, CollectError> {
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let file = fs::OpenOptions::new()
            .read(true)
            .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
            .open(from)
            .map_err(disk(from))?;
        let metadata = file.metadata().map_err(disk(from))?;
        if !metadata.is_file() {
            return Err(CollectError::Missing { path });
        }
        if metadata.len() >= LINK_BYTES {
            let (blob, size) = hash(&file).map_err(disk(from))?;
            // Where it has another name, somebody may still write to it.
            let may_link = metadata.nlink() == 1;
            if self.has(&blob) || may_link && self.link(&file, &blob).is_ok() {
                let size = ByteSize(size);
                return Ok(Artifact {
                    role,
                    path,
                    blob,
                    size,
                });
            }
            (&file).seek(SeekFrom::Start(0)).map_err(disk(from))?;
        }
        self.keep_bytes(file, from, role, path)
    }

    fn has(&self, blob: &Digest) -> bool {
        self.folder.join(blob.as_str()).exists()
    }

    /// Gives a file its name among the blobs, without a copy of its bytes.
    fn link(&self, file: &File, blob: &Digest) -> io::Result<()> {
        file.sync_all()?;
        // By its descriptor: its name may be another's by now.
        let open = format!("/proc/self/fd/{}", file.as_raw_fd());
        let place = self.folder.join(blob.as_str());
        let follow = rustix::fs::AtFlags::SYMLINK_FOLLOW;
        Ok(rustix::fs::linkat(CWD, open, CWD, &place, follow)?)
    }

    /// Keeps what a reader gives; `from` is for messages.
    pub(crate) fn keep_bytes(
        &self,
        mut from: impl io::Read,
        name: &Path,
        role: ArtifactRole,
        path: String,
    ) -> Result<Artifact, CollectError> {
        let mut temporary =
            tempfile::NamedTempFile::new_in(&self.folder).map_err(disk(&self.folder))?;
        let (mut hasher, mut size, mut piece) = (Sha256::new(), 0_u64, vec![0; 1 << 20]);
        loop {
            let read = from.read(&mut piece).map_err(disk(name))?;
            if read == 0 {
                break;
            }
            hasher.update(&piece[..read]);
            size += read as u64;
            temporary
                .write_all(&piece[..read])
                .map_err(disk(&self.folder))?;
        }
        let blob = Digest::from_hasher(hasher);
        let place = self.folder.join(blob.as_str());
        temporary.as_file().sync_all().map_err(disk(&place))?;
        temporary
            .persist(&place)
            .map_err(|error| disk(&place)(error.error))?;
        Ok(Artifact {
            role,
            path,
            blob,
            size: ByteSize(size),
        })
    }
}

/// The hash and the length of what a file holds.
fn hash(mut file: &File) -> io::Result<(Digest, u64)> {
    let (mut hasher, mut size, mut piece) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok((Digest::from_hasher(hasher), size)),
            read => {
                hasher.update(&piece[..read]);
                size += read as u64;
            }
        }
    }
}

fn disk(path: &Path) -> impl FnOnce(io::Error) -> CollectError {
    let path = path.to_owned();
    move |source| CollectError::Disk { path, source }
}

/// The files of a model, a file or a folder of the workspace; none where there is nothing. A link to a file of the folder
/// is kept as that file; one that leads elsewhere is an error: the model would lack something.
pub(crate) fn model(
    workspace: &Path,
    path: &str,
    blobs: &Blobs,
) -> Result<Vec<Artifact>, CollectError> {
    let missing = || CollectError::Missing {
        path: path.to_owned(),
    };
    // A link on the way would lead out of the workspace.
    let root = workspace.canonicalize().map_err(disk(workspace))?;
    let real = root.join(path).canonicalize().map_err(|_| missing())?;
    if !real.starts_with(&root) || real == root {
        return Err(missing());
    }
    let name = |file: &Path| {
        let relative = if real.is_file() {
            file.file_name().map(Path::new)
        } else {
            file.strip_prefix(&real).ok()
        };
        relative.and_then(as_text)
    };
    let linked = |link: &Path| linked(&real, link);
    let model = ArtifactRole::Model;
    gather(&real, "the model", |file| name(file), linked, model, blobs)
}

/// The file of the folder `root` that a link in it leads to.
fn linked(root: &Path, link: &Path) -> Result<Option<PathBuf>, CollectError> {
    let shown = |path: &Path| path.display().to_string();
    let target = fs::read_link(link).map_err(disk(link))?;
    let wrong = |why| CollectError::Link {
        path: shown(link.strip_prefix(root).unwrap_or(link)),
        target: shown(&target),
        why,
    };
    let real = link
        .canonicalize()
        .map_err(|_| wrong("which is not there"))?;
    if !real.starts_with(root) {
        return Err(wrong("which is outside of it"));
    }
    match real.is_file() {
        true => Ok(Some(real)),
        false => Err(wrong("which is a folder")),
    }
}

/// The files of the workspace that one of the globs names.
pub(crate) fn declared(
    workspace: &Path,
    globs: &[String],
    blobs: &Blobs,
) -> Result<Vec<Artifact>, CollectError> {
    let wanted = compile(globs)?;
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let name = |file: &Path| {
        let relative = file.strip_prefix(workspace).ok()?;
        wanted
            .is_match(relative)
            .then(|| as_text(relative))
            .flatten()
    };
    let role = ArtifactRole::Declared;
    let what = "the declared artifacts";
    gather(workspace, what, name, |_| Ok(None), role, blobs)
}

/// `*` stays in its folder; a folder's name means all in it, a pattern for names does not.
fn compile(globs: &[String]) -> Result<GlobSet, CollectError> {
    let mut set = GlobSetBuilder::new();
    for glob in globs {
        let wrong = |error: globset::Error| CollectError::Glob {
            glob: glob.clone(),
            reason: error.kind().to_string(),
        };
        let text = glob.trim_start_matches("./").trim_end_matches('/');
        let last = text.rsplit('/').next().unwrap_or_default();
        let named = !last.contains(['*', '?', '[', '{']);
        let below = named.then(|| format!("{text}/**"));
        for pattern in below.into_iter().chain([text.to_owned()]) {
            set.add(
                GlobBuilder::new(&pattern)
                    .literal_separator(true)
                    .build()
                    .map_err(wrong)?,
            );
        }
    }
    set.build().map_err(|error| CollectError::Glob {
        glob: globs.join(" "),
        reason: error.kind().to_string(),
    })
}

fn gather(
    root: &Path,
    what: &str,
    name: impl Fn(&Path) -> Option<String>,
    linked: impl Fn(&Path) -> Result<Option<PathBuf>, CollectError>,
    role: ArtifactRole,
    blobs: &Blobs,
) -> Result<Vec<Artifact>, CollectError> {
    let too_much = |most: String| CollectError::TooMuch {
        what: what.to_owned(),
        most,
    };
    let (mut found, mut bytes) = (Vec::new(), 0_u64);
    let walk = WalkDir::new(root).follow_links(false).sort_by_file_name();
    for entry in walk
        .into_iter()
        .filter_entry(|entry| entry.file_name() != ".git")
    {
        // A folder that cannot be read is passed over: the job made it so.
        let Ok(entry) = entry else { continue };
        let from = match entry.file_type() {
            kind if kind.is_file() => Some(entry.path().to_owned()),
            kind if kind.is_symlink() => linked(entry.path())?,
            _ => None,
        };
        let (Some(from), Some(path)) = (from, name(entry.path())) else {
            continue;
        };
        if found.len() >= MOST_FILES {
            return Err(too_much(format!("{MOST_FILES} files")));
        }
        bytes += fs::metadata(&from).map(|meta| meta.len()).unwrap_or(0);
        if bytes > MOST_BYTES {
            return Err(too_much(ByteSize(MOST_BYTES).to_string()));
        }
        found.push(blobs.keep(&from, role, path)?);
    }
    Ok(found)
}

fn as_text(path: &Path) -> Option<String> {
    path.to_str().map(str::to_owned)
}

/// Reads a small file of the job's.
pub(crate) fn small(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file: File = fs::OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
        .open(path)?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf, Blobs) {
        let folder = tempfile::tempdir().unwrap();
        let workspace = folder.path().join("workspace");
        for (path, text) in files {
            let path = workspace.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        fs::create_dir_all(&workspace).unwrap();
        let blobs = Blobs::open(folder.path().join("blobs")).unwrap();
        (folder, workspace, blobs)
    }

    #[test]
    fn a_large_file_is_linked_and_one_that_others_have_too_is_copied() {
        let large = "x".repeat(usize::try_from(LINK_BYTES).unwrap());
        let (_folder, workspace, blobs) =
            world(&[("own", &large), ("shared", &(large.clone() + "y"))]);
        fs::hard_link(workspace.join("shared"), workspace.join("elsewhere")).unwrap();
        // Twice, as after a run that was cut short.
        for (name, linked) in [("own", true), ("own", true), ("shared", false)] {
            let file = workspace.join(name);
            let kept = blobs
                .keep(&file, ArtifactRole::Model, name.to_owned())
                .unwrap();
            let blob = blobs.folder.join(kept.blob.as_str());
            assert_eq!(fs::read(&blob).unwrap(), fs::read(&file).unwrap());
            assert_eq!(kept.blob, Digest::of(fs::read(&file).unwrap()));
            assert_eq!(kept.size.0, fs::metadata(&file).unwrap().len());
            let same = fs::metadata(&blob).unwrap().ino() == fs::metadata(&file).unwrap().ino();
            assert_eq!(same, linked, "{name}");
        }
    }

    fn paths(artifacts: &[Artifact]) -> Vec<&str> {
        artifacts
            .iter()
            .map(|artifact| artifact.path.as_str())
            .collect()
    }

    #[test]
    fn globs_choose_and_links_are_left() {
        let (_folder, workspace, blobs) = world(&[
            ("reports/a.txt", "a"),
            ("reports/deep/b.txt", "b"),
            ("x.csv", "c"),
            ("sub/y.csv", "d"),
        ]);
        std::os::unix::fs::symlink("/etc/passwd", workspace.join("reports/passwd")).unwrap();
        std::os::unix::fs::symlink("/etc", workspace.join("reports/etc")).unwrap();
        let globs = ["reports/**".to_owned(), "*.csv".to_owned()];
        let found = declared(&workspace, &globs, &blobs).unwrap();
        assert_eq!(
            paths(&found),
            ["reports/a.txt", "reports/deep/b.txt", "x.csv"]
        );
        assert_eq!(
            fs::read(blobs.folder.join(Digest::of("a").as_str())).unwrap(),
            b"a"
        );
        for (glob, chosen) in [
            ("reports", &["reports/a.txt", "reports/deep/b.txt"][..]),
            ("./reports/", &["reports/a.txt", "reports/deep/b.txt"]),
            ("reports/*", &["reports/a.txt"]),
            ("*", &["x.csv"]),
            ("*/deep", &["reports/deep/b.txt"]),
        ] {
            let found = declared(&workspace, &[glob.to_owned()], &blobs).unwrap();
            assert_eq!(paths(&found), chosen, "{glob}");
        }
        assert!(matches!(
            declared(&workspace, &["a[".into()], &blobs),
            Err(CollectError::Glob { .. })
        ));
    }

    #[test]
    fn a_link_in_a_model_is_its_file_or_an_error() {
        let (_folder, workspace, blobs) = world(&[
            ("model/w-1.bin", "w"),
            ("model/deep/x", "x"),
            ("secret", "s"),
        ]);
        let link = |target: &str, path: &str| {
            std::os::unix::fs::symlink(target, workspace.join(path)).unwrap();
        };
        link("w-1.bin", "model/latest.bin");
        let found = model(&workspace, "model", &blobs).unwrap();
        assert_eq!(paths(&found), ["deep/x", "latest.bin", "w-1.bin"]);
        assert_eq!(found[1].blob, Digest::of("w"));
        for (target, why) in [
            ("/etc/passwd", "which is outside of it"),
            ("../secret", "which is outside of it"),
            ("nowhere", "which is not there"),
            ("deep", "which is a folder"),
        ] {
            link(target, "model/bad");
            let error = model(&workspace, "model", &blobs).unwrap_err();
            let said = format!("'bad' in the model's folder is a link to '{target}', {why}");
            assert_eq!(error.to_string(), said);
            fs::remove_file(workspace.join("model/bad")).unwrap();
        }
    }

    #[test]
    fn a_model_is_a_file_or_a_folder_inside() {
        let (_folder, workspace, blobs) = world(&[
            ("model/w.bin", "w"),
            ("model/conf/c.json", "{}"),
            ("m.pkl", "p"),
        ]);
        std::os::unix::fs::symlink("/etc", workspace.join("out")).unwrap();
        assert_eq!(
            paths(&model(&workspace, "model/", &blobs).unwrap()),
            ["conf/c.json", "w.bin"]
        );
        assert_eq!(
            paths(&model(&workspace, "m.pkl", &blobs).unwrap()),
            ["m.pkl"]
        );
        for path in ["missing", "out", "../", "."] {
            assert!(
                matches!(
                    model(&workspace, path, &blobs),
                    Err(CollectError::Missing { .. })
                ),
                "{path}"
            );
        }
    }
}
