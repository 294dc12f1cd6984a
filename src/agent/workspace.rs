//! The files of an attempt: a checkout or a copy, and what earlier jobs left for it. It knows no executor.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use mirror::{Deadline, Mirror, MirrorError, Wanted, WorkTree};
use protocol::agent_api::{AttemptOrder, Source};
use protocol::event::{Artifact, ArtifactRole};
use protocol::{Failure, FailureKind, Trust};

use crate::attempt::AttemptDir;

/// Makes the workspace anew; what an interrupted try left is removed first. Blocks.
///
/// # Errors
/// A failure with owner and words, ready for the report.
pub(crate) fn prepare(
    mirrors: &Path,
    dir: &AttemptDir,
    order: &AttemptOrder,
    deadline: &Deadline,
) -> Result<(), Failure> {
    let disk = |error: io::Error| disk_failure(&dir.workspace(), &error);
    remove(&dir.workspace()).map_err(disk)?;
    match &order.source {
        Source::Git {
            url,
            commit,
            reference,
            authorization,
        } => {
            let wanted = Wanted {
                commit,
                reference: reference.as_deref(),
                lfs: order.spec.checkout.lfs,
                // What an untrusted commit names is not gone to.
                submodules: order.spec.checkout.submodules && order.trust == Trust::Trusted,
            };
            let auth = authorization.as_deref();
            Mirror::open(mirrors, url)
                .and_then(|mirror| mirror.deliver(&wanted, &dir.workspace(), auth, deadline))
                .map_err(|error| checkout_failure(&error))?;
        }
        Source::Folder { path } => {
            WorkTree::open(Path::new(path))
                .and_then(|tree| {
                    tree.below(Path::new(path))
                        .copy_to(&dir.workspace(), deadline)
                })
                .map_err(|error| checkout_failure(&error))?;
        }
    }
    place_needs(dir, order)?;
    place_parent(dir, order)
}

fn checkout_failure(error: &MirrorError) -> Failure {
    let failure = Failure::new(
        FailureKind::CheckoutFailed,
        format!("the files could not be fetched: {error}"),
    );
    match error {
        MirrorError::NoSuchCommit { .. } => failure.hint("Was the branch rewritten (force-pushed) meanwhile? Then start the pipeline of its new head."),
        MirrorError::NoGit { .. } => failure.hint("Install git on the agent's host."),
        MirrorError::NoLfs { .. } => failure.hint("Install git-lfs on the agent's host (Debian and Ubuntu: apt-get install git-lfs)."),
        MirrorError::Lfs { .. } => failure.hint("Was it pushed (`git lfs push --all origin`), and may the project's token read the repository's Git LFS?"),
        MirrorError::Submodule { .. } => failure.hint("The project's credential goes to its own server alone, and must be allowed to read the submodule there; repositories of other servers must be open to everybody."),
        _ => failure,
    }
}

fn disk_failure(path: &Path, error: &io::Error) -> Failure {
    Failure::new(
        FailureKind::CheckoutFailed,
        format!("cannot write {}: {error}", path.display()),
    )
    .hint("Look at the disk of the agent's data folder (`trainyard doctor`).")
}

/// Links the artifacts of needed jobs to `needs/<definition>/<path>`; a model's files below `model/`.
fn place_needs(dir: &AttemptDir, order: &AttemptOrder) -> Result<(), Failure> {
    let root = dir.needs();
    let disk = |path: &Path| {
        let path = path.to_owned();
        move |error: io::Error| disk_failure(&path, &error)
    };
    remove(&root).map_err(disk(&root))?;
    fs::create_dir_all(&root).map_err(disk(&root))?;
    for (definition, artifacts) in &order.needs {
        for artifact in artifacts {
            let Some(place) = place_of(&root.join(definition), artifact) else {
                return Err(Failure::new(
                    FailureKind::Internal,
                    format!(
                        "an artifact of '{definition}' has the unsafe path '{}'",
                        artifact.path
                    ),
                ));
            };
            if let Some(parent) = place.parent() {
                fs::create_dir_all(parent).map_err(disk(parent))?;
            }
            let blob = dir.needs_blobs().join(artifact.blob.as_str());
            hand_out(&blob, &place).map_err(disk(&place))?;
        }
    }
    open_folders(&root).map_err(disk(&root))
}

/// Copies the files of the model that the job goes on from to where it finds them.
fn place_parent(dir: &AttemptDir, order: &AttemptOrder) -> Result<(), Failure> {
    let root = dir.parent();
    let disk = |path: &Path| {
        let path = path.to_owned();
        move |error: io::Error| disk_failure(&path, &error)
    };
    remove(&root).map_err(disk(&root))?;
    let Some(parent) = &order.parent else {
        return Ok(());
    };
    let name = format!("version {} of '{}'", parent.version, parent.model);
    if parent.files.is_empty() {
        let words =
            format!("{name}, from which the job goes on, was removed and has no files any more");
        return Err(Failure::new(FailureKind::ModelMissing, words)
            .hint("Let `from:` in .trainyard.yml name a version that is there, and push."));
    }
    for file in &parent.files {
        let Some(place) = below(&root, &file.path) else {
            let words = format!("{name} has a file with the unsafe path '{}'", file.path);
            return Err(Failure::new(FailureKind::Internal, words));
        };
        if let Some(folder) = place.parent() {
            fs::create_dir_all(folder).map_err(disk(folder))?;
        }
        let blob = dir.needs_blobs().join(file.blob.as_str());
        hand_out(&blob, &place).map_err(disk(&place))?;
    }
    open_folders(&root).map_err(disk(&root))
}

/// Opens folders to the job, which is another user than the agent: an agent's umask may keep new ones to itself.
fn open_folders(root: &Path) -> io::Result<()> {
    for entry in walkdir::WalkDir::new(root).follow_links(false) {
        let entry = entry?;
        if entry.file_type().is_dir() {
            fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o755))?;
        }
    }
    Ok(())
}

/// Copies a content to where the job finds it: it must not change what others may still read. The job is another user than
/// the agent, who keeps contents to itself.
fn hand_out(blob: &Path, place: &Path) -> io::Result<()> {
    fs::copy(blob, place)?;
    fs::set_permissions(place, fs::Permissions::from_mode(0o644))
}

/// A path below `root`; none where it would lead out of it.
fn below(root: &Path, path: &str) -> Option<PathBuf> {
    let relative = Path::new(path);
    let plain = relative
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    (plain && !path.is_empty()).then(|| root.join(relative))
}

/// Where an artifact goes below `root`; none where its path would lead out of it.
fn place_of(root: &Path, artifact: &Artifact) -> Option<PathBuf> {
    let folder = match artifact.role {
        ArtifactRole::Model => root.join("model"),
        ArtifactRole::Notebook | ArtifactRole::Declared | ArtifactRole::Output => root.to_owned(),
    };
    below(&folder, &artifact.path)
}

/// Removes a file or folder; one that is not there is fine, and one that a job has locked is unlocked first.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match try_remove(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            unlock(path);
            try_remove(path)
        }
        other => other,
    }
}

fn try_remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Lets the owner into every folder and read every file. Root needs no letting in; what is not ours stays locked.
pub(crate) fn unlock(path: &Path) {
    if rustix::process::geteuid().is_root() {
        return;
    }
    let mut left = vec![path.to_owned()];
    while let Some(path) = left.pop() {
        open_up(&path);
        // Links are not followed: only a folder itself is walked into.
        let is_folder = fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir());
        if is_folder && let Ok(entries) = fs::read_dir(&path) {
            left.extend(entries.flatten().map(|entry| entry.path()));
        }
    }
}

/// Adds what the owner needs to a folder or plain file.
fn open_up(path: &Path) {
    let Ok(meta) = fs::symlink_metadata(path) else {
        return;
    };
    let wanted = match (meta.is_dir(), meta.is_file()) {
        (true, _) => 0o700,
        (false, true) => 0o600,
        (false, false) => return,
    };
    let mode = meta.permissions().mode();
    if mode & wanted != wanted {
        let opened = fs::set_permissions(path, fs::Permissions::from_mode(mode | wanted));
        if let Err(error) = opened {
            tracing::debug!("{} stays locked: {error}", path.display());
        }
    }
}

/// Gives a folder with all that is in it to the user that jobs run as; links are given, not followed. Does
/// nothing where the agent is no root: jobs run as the agent's user then.
pub(crate) fn give(folder: &Path, (uid, gid): (u32, u32)) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    for entry in walkdir::WalkDir::new(folder).follow_links(false) {
        let entry = entry?;
        std::os::unix::fs::lchown(entry.path(), Some(uid), Some(gid))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::{ByteSize, Digest};

    #[test]
    fn what_is_handed_out_can_be_read_whatever_the_agents_umask_is() {
        let folder = tempfile::tempdir().unwrap();
        let (root, inner) = (folder.path().join("needs"), folder.path().join("needs/a/b"));
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("secret"), "x").unwrap();
        let closed = fs::Permissions::from_mode(0o600);
        fs::set_permissions(inner.join("secret"), closed).unwrap();
        for path in [&inner, &root] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
        }
        open_folders(&root).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!([mode(&root), mode(&inner)], [0o755, 0o755]);
        assert_eq!(mode(&inner.join("secret")), 0o600);
    }

    #[test]
    fn an_artifact_stays_below_its_definition() {
        let artifact = |path: &str, role| Artifact {
            role,
            path: path.into(),
            blob: Digest::of("x"),
            size: ByteSize(1),
        };
        let place = |path: &str, role| place_of(Path::new("/n"), &artifact(path, role));
        assert_eq!(
            place("reports/a.csv", ArtifactRole::Declared),
            Some("/n/reports/a.csv".into())
        );
        assert_eq!(
            place("weights.pt", ArtifactRole::Model),
            Some("/n/model/weights.pt".into())
        );
        for unsafe_path in ["../x", "/etc/passwd", "a/../../x", ""] {
            assert_eq!(
                place(unsafe_path, ArtifactRole::Declared),
                None,
                "{unsafe_path}"
            );
        }
    }
}
