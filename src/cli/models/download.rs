//! Brings the files of a version into a folder: each verified by its hash, what is whole skipped, what was cut off gone on
//! with, and nothing ever written outside of the folder.

use std::fs::{self, File};
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use protocol::registry::ModelFile;
use protocol::{ByteSize, Digest};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::super::out;

/// Where files lie that are not whole, below the folder itself.
const PARTS: &str = ".trainyard-parts";
/// A server that says nothing for so long has gone away.
const SILENCE: Duration = Duration::from_secs(60);
/// How often a file is asked for that came without its end.
const TRIES: usize = 5;
/// Files that are named where they differ.
const MOST_NAMED: usize = 5;
/// Bytes read at once.
const PIECE: usize = 1 << 20;

/// Pieces of a file, from an offset on.
pub(super) type Pieces = BoxStream<'static, anyhow::Result<Vec<u8>>>;

/// What was done.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Done {
    /// The folder.
    pub(super) to: PathBuf,
    /// Files of the version.
    pub(super) files: usize,
    /// Their bytes.
    pub(super) bytes: ByteSize,
    /// Bytes that came over the network.
    pub(super) fetched: ByteSize,
}

/// Brings `files` to `to`. `source` gives a file's bytes from an offset on. Where files are there that differ nothing is
/// changed, unless `force` says to overwrite them.
pub(super) async fn bring(
    files: &[ModelFile],
    to: &Path,
    force: bool,
    source: impl AsyncFn(&ModelFile, u64) -> anyhow::Result<Pieces>,
) -> anyhow::Result<Done> {
    let bytes = files.iter().map(|file| file.size.0).sum();
    let mut progress = Progress::new(bytes);
    let missing = missing(files, to, force, &mut progress)?;
    let parts = to.join(PARTS);
    if !missing.is_empty() {
        fs::create_dir_all(&parts).with_context(|| cannot("make", &parts))?;
    }
    for (file, place) in missing {
        let part = parts.join(file.blob.as_str());
        fetch(file, &part, &source, &mut progress)
            .await
            .with_context(|| format!("'{}' is not whole; the same command goes on", file.path))?;
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent).with_context(|| cannot("make", parent))?;
        }
        fs::rename(&part, &place).with_context(|| cannot("write", &place))?;
    }
    // Parts of another version may lie there: those stay.
    let _ = fs::remove_dir(&parts);
    progress.end();
    Ok(Done {
        to: to.to_owned(),
        files: files.len(),
        bytes: ByteSize(bytes),
        fetched: ByteSize(progress.fetched),
    })
}

fn cannot(what: &str, path: &Path) -> String {
    format!("cannot {what} '{}'", path.display())
}

/// The files that are not there yet, with their places.
fn missing<'a>(
    files: &'a [ModelFile],
    to: &Path,
    force: bool,
    progress: &mut Progress,
) -> anyhow::Result<Vec<(&'a ModelFile, PathBuf)>> {
    let (mut missing, mut differ) = (Vec::new(), Vec::new());
    for file in files {
        let place = place(to, &file.path)?;
        match fs::symlink_metadata(&place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push((file, place)),
            Err(error) => return Err(error).with_context(|| cannot("read", &place)),
            Ok(there) if is_whole(file, &place, &there, progress)? => {}
            Ok(_) => {
                differ.push(format!("'{}'", file.path));
                missing.push((file, place));
            }
        }
    }
    if !differ.is_empty() && !force {
        let count = differ.len();
        differ.truncate(MOST_NAMED);
        bail!(
            "{count} of the files are in '{}' already and differ, such as {}; nothing was changed: --force overwrites them, --to names another folder",
            to.display(),
            differ.join(", ")
        );
    }
    Ok(missing)
}

fn is_whole(
    file: &ModelFile,
    place: &Path,
    there: &fs::Metadata,
    progress: &mut Progress,
) -> anyhow::Result<bool> {
    if !there.is_file() || there.len() != file.size.0 {
        return Ok(false);
    }
    let (hasher, _) = hash(place, |bytes| progress.has(bytes, &file.path))?;
    Ok(Digest::from_hasher(hasher) == file.blob)
}

/// Where a file goes below `to`. A server's word is not trusted to stay there, nor are links that lie on the way.
fn place(to: &Path, path: &str) -> anyhow::Result<PathBuf> {
    let relative = Path::new(path);
    let plain = relative
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    let ours = relative.starts_with(PARTS);
    ensure!(
        plain && !path.is_empty() && !path.ends_with('/') && !ours,
        "the version has a file with the unsafe path '{path}': nothing was changed"
    );
    let mut place = to.to_owned();
    let above = relative.parent().into_iter().flat_map(Path::components);
    for part in above {
        place.push(part);
        let link = fs::symlink_metadata(&place).is_ok_and(|meta| meta.is_symlink());
        ensure!(
            !link,
            "'{}' is a link, and files would go to where it points: nothing was changed",
            place.display()
        );
    }
    Ok(to.join(relative))
}

/// The hash of a file so far, and its length; nothing where there is none.
fn hash(path: &Path, mut told: impl FnMut(u64)) -> anyhow::Result<(Sha256, u64)> {
    let (mut hasher, mut size) = (Sha256::new(), 0);
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((hasher, 0)),
        Err(error) => return Err(error).with_context(|| cannot("read", path)),
    };
    let mut piece = vec![0; PIECE];
    loop {
        let read = file
            .read(&mut piece)
            .with_context(|| cannot("read", path))?;
        if read == 0 {
            return Ok((hasher, size));
        }
        hasher.update(&piece[..read]);
        size += read as u64;
        told(read as u64);
    }
}

/// Brings one file to `part`, whole and with its hash.
async fn fetch(
    file: &ModelFile,
    part: &Path,
    source: &impl AsyncFn(&ModelFile, u64) -> anyhow::Result<Pieces>,
    progress: &mut Progress,
) -> anyhow::Result<()> {
    let (mut why, mut wrong) = (None, false);
    for _ in 0..TRIES {
        let (mut hasher, began) = hash(part, |_| ())?;
        let mut at = began;
        progress.is_at(at, &file.path);
        if at < file.size.0 {
            let ended = append(file, part, &mut hasher, &mut at, source, progress).await;
            match ended {
                Err(error) if at == began => return Err(error),
                Err(error) => why = Some(error),
                Ok(()) => {}
            }
        } else if file.size.0 == 0 {
            File::create(part).with_context(|| cannot("write", part))?;
        }
        if at < file.size.0 {
            continue;
        }
        if at == file.size.0 && Digest::from_hasher(hasher) == file.blob {
            progress.is_whole(file.size.0);
            return Ok(());
        }
        // An old part may be to blame once; what came anew is the server's.
        fs::remove_file(part).with_context(|| cannot("remove", part))?;
        ensure!(
            !wrong && began > 0,
            "the server's content has another hash than the version says: it is damaged there ('trainyard fsck')"
        );
        wrong = true;
    }
    Err(why.unwrap_or_else(|| anyhow::anyhow!("it came without its end {TRIES} times")))
}

async fn append(
    file: &ModelFile,
    part: &Path,
    hasher: &mut Sha256,
    at: &mut u64,
    source: &impl AsyncFn(&ModelFile, u64) -> anyhow::Result<Pieces>,
    progress: &mut Progress,
) -> anyhow::Result<()> {
    let open = File::options().create(true).append(true).open(part);
    let mut into = open.with_context(|| cannot("write", part))?;
    let silent = || format!("the server said nothing for {SILENCE:?}");
    let pieces = tokio::time::timeout(SILENCE, source(file, *at)).await;
    let mut pieces = pieces.with_context(silent)??;
    loop {
        let next = tokio::time::timeout(SILENCE, pieces.next()).await;
        let next = next.with_context(silent)?;
        let Some(piece) = next else { break };
        let piece = piece?;
        ensure!(
            *at + piece.len() as u64 <= file.size.0,
            "the server sends more than the file has"
        );
        into.write_all(&piece)
            .with_context(|| cannot("write", part))?;
        hasher.update(&piece);
        *at += piece.len() as u64;
        progress.came(piece.len() as u64, &file.path);
    }
    into.sync_all().with_context(|| cannot("write", part))
}

/// A line on the terminal that says how far it is; nothing elsewhere.
struct Progress {
    terminal: bool,
    began: Instant,
    drawn: Option<Instant>,
    total: u64,
    /// Bytes of files that are whole.
    whole: u64,
    /// Bytes of the one that is under way.
    current: u64,
    fetched: u64,
}

impl Progress {
    fn new(total: u64) -> Self {
        Self {
            terminal: io::stderr().is_terminal(),
            began: Instant::now(),
            drawn: None,
            total,
            whole: 0,
            current: 0,
            fetched: 0,
        }
    }

    /// So many bytes more of a file that is there are looked at.
    fn has(&mut self, bytes: u64, path: &str) {
        self.whole += bytes;
        self.draw(path);
    }

    fn is_at(&mut self, at: u64, path: &str) {
        self.current = at;
        self.draw(path);
    }

    fn came(&mut self, bytes: u64, path: &str) {
        self.current += bytes;
        self.fetched += bytes;
        self.draw(path);
    }

    fn is_whole(&mut self, size: u64) {
        self.whole += size;
        self.current = 0;
    }

    fn draw(&mut self, path: &str) {
        let due = self
            .drawn
            .is_none_or(|at| at.elapsed() >= Duration::from_millis(200));
        if !self.terminal || !due {
            return;
        }
        self.drawn = Some(Instant::now());
        let seconds = self.began.elapsed().as_secs_f64().max(0.1);
        let speed = ByteSize((self.fetched as f64 / seconds) as u64);
        let done = ByteSize((self.whole + self.current).min(self.total));
        let line = format!("{done} of {}  {speed}/s  {path}", ByteSize(self.total));
        let line = render::terminal::clean(&line, false).replace('\n', " ");
        let line: String = line.chars().take(out::width().saturating_sub(1)).collect();
        let _ = write!(io::stderr(), "\r\u{1b}[K{line}");
    }

    fn end(&self) {
        if self.drawn.is_some() {
            let _ = write!(io::stderr(), "\r\u{1b}[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn file(path: &str, text: &str) -> ModelFile {
        ModelFile {
            path: path.into(),
            blob: Digest::of(text),
            size: ByteSize(text.len() as u64),
        }
    }

    /// A server that has these texts, and breaks off after `most` bytes of an answer.
    struct Server {
        texts: Vec<&'static str>,
        most: usize,
        asked: RefCell<Vec<(String, u64)>>,
    }

    impl Server {
        fn new(texts: &[&'static str], most: usize) -> Self {
            Self {
                texts: texts.to_vec(),
                most,
                asked: RefCell::default(),
            }
        }

        async fn bring(&self, files: &[ModelFile], to: &Path, force: bool) -> anyhow::Result<Done> {
            bring(files, to, force, async |file, from| {
                self.asked.borrow_mut().push((file.path.clone(), from));
                let all = self.texts.iter();
                let text = all.into_iter().find(|text| Digest::of(text) == file.blob);
                let text = text.map_or("damaged!", |text| text);
                let rest = &text.as_bytes()[usize::try_from(from).unwrap()..];
                let some = rest[..rest.len().min(self.most)].to_vec();
                let pieces = some.chunks(3).map(|piece| Ok(piece.to_vec()));
                let pieces: Vec<anyhow::Result<Vec<u8>>> = pieces.collect();
                Ok(futures_util::stream::iter(pieces).boxed())
            })
            .await
        }
    }

    #[tokio::test]
    async fn what_is_cut_off_goes_on_and_what_is_whole_is_not_asked_for_again() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("digits-3");
        let files = [
            file("a/w.bin", "weights of it"),
            file("b.txt", "words"),
            file("empty", ""),
        ];
        let server = Server::new(&["weights of it", "words"], 6);
        let done = server.bring(&files, &to, false).await.unwrap();
        assert_eq!(
            (done.files, done.bytes, done.fetched),
            (3, ByteSize(18), ByteSize(18))
        );
        let asked: Vec<(String, u64)> = server.asked.take();
        let offsets: Vec<u64> = asked.iter().map(|(_, from)| *from).collect();
        assert_eq!(offsets, [0, 6, 12, 0], "{asked:?}");
        assert_eq!(fs::read(to.join("a/w.bin")).unwrap(), b"weights of it");
        assert_eq!(fs::read(to.join("empty")).unwrap(), b"");
        assert!(!to.join(PARTS).exists());

        fs::remove_file(to.join("b.txt")).unwrap();
        let again = server.bring(&files, &to, false).await.unwrap();
        assert_eq!(again.fetched, ByteSize(5));
        assert_eq!(server.asked.take(), [("b.txt".to_owned(), 0)]);
    }

    #[tokio::test]
    async fn what_differs_is_overwritten_only_by_force() {
        let folder = tempfile::tempdir().unwrap();
        let files = [file("a", "right"), file("b", "new")];
        fs::write(folder.path().join("a"), "wrong").unwrap();
        let server = Server::new(&["right", "new"], 99);
        let refused = server
            .bring(&files, folder.path(), false)
            .await
            .unwrap_err();
        assert!(refused.to_string().contains("1 of the files"), "{refused}");
        assert!(server.asked.borrow().is_empty() && !folder.path().join("b").exists());
        server.bring(&files, folder.path(), true).await.unwrap();
        assert_eq!(fs::read(folder.path().join("a")).unwrap(), b"right");
    }

    #[tokio::test]
    async fn a_wrong_hash_is_never_kept() {
        let folder = tempfile::tempdir().unwrap();
        let files = [file("a", "expected")];
        let server = Server::new(&[], 99);
        let error = server
            .bring(&files, folder.path(), false)
            .await
            .unwrap_err();
        assert!(format!("{error:#}").contains("another hash"), "{error:#}");
        assert!(!folder.path().join("a").exists());
        // A part that is damaged is fetched anew.
        let part = folder.path().join(PARTS).join(files[0].blob.as_str());
        fs::write(&part, "expec!").unwrap();
        let server = Server::new(&["expected"], 99);
        server.bring(&files, folder.path(), false).await.unwrap();
        assert_eq!(fs::read(folder.path().join("a")).unwrap(), b"expected");
    }

    #[tokio::test]
    async fn no_path_leaves_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("to");
        fs::create_dir_all(&to).unwrap();
        std::os::unix::fs::symlink(folder.path(), to.join("out")).unwrap();
        let server = Server::new(&["x"], 99);
        for path in [
            "../x",
            "/etc/x",
            "a/../../x",
            "",
            ".",
            "a/",
            "out/x",
            ".trainyard-parts/x",
        ] {
            let error = server
                .bring(&[file(path, "x")], &to, true)
                .await
                .unwrap_err();
            assert!(
                error.to_string().contains("nothing was changed"),
                "{path}: {error}"
            );
        }
        assert!(server.asked.borrow().is_empty());
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "only the folder itself");
    }
}
