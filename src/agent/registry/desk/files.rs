//! The journal's files: read as far as they can be, and written anew.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, BufWriter, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::io::Errno;
use tempfile::NamedTempFile;

/// Whether what lies there will never be read. What is only short for now, as room or open files, comes back.
pub(super) fn is_lost(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    let kinds = [
        Kind::InvalidData,
        Kind::UnexpectedEof,
        Kind::IsADirectory,
        Kind::PermissionDenied,
    ];
    kinds.contains(&error.kind()) || error.raw_os_error() == Some(Errno::IO.raw_os_error())
}

/// Puts what cannot be read out of the way, in place of what was put there before.
pub(super) fn set_aside(path: &Path) -> io::Result<()> {
    let aside = path.with_extension("damaged");
    let before = match aside.is_dir() {
        true => fs::remove_dir_all(&aside),
        false => fs::remove_file(&aside),
    };
    match before {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    fs::rename(path, &aside)
}

fn appended(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).append(true).create(true).open(path)
}

/// Opens a file, made where it is missing; what lies there and is none is set aside, and counted.
pub(super) fn open(path: &Path) -> io::Result<(File, u64)> {
    match appended(path) {
        Ok(file) => Ok((file, 0)),
        Err(error) if is_lost(&error) => {
            set_aside(path)?;
            Ok((appended(path)?, 1))
        }
        Err(error) => Err(error),
    }
}

/// Reads the whole lines of a file, each with its place; what is behind the last line end is cut. Gives where the next line
/// begins, and how many lines could not be read: `each` refuses them, or the disk does all that follows.
pub(super) fn lines(
    file: &mut File,
    mut each: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<(u64, u64)> {
    file.seek(SeekFrom::Start(0))?;
    let mut reader = BufReader::new(&*file);
    let (mut at, mut damaged, mut line) = (0, 0, Vec::new());
    loop {
        line.clear();
        let read = match reader.read_until(b'\n', &mut line) {
            Ok(read) => read as u64,
            Err(error) if is_lost(&error) => return Ok((at, damaged + 1)),
            Err(error) => return Err(error),
        };
        let Some((b'\n', text)) = line.split_last() else {
            break;
        };
        match each(at, text) {
            Ok(()) => {}
            Err(error) if is_lost(&error) => damaged += 1,
            Err(error) => return Err(error),
        }
        at += read;
    }
    file.set_len(at)?;
    Ok((at, damaged))
}

/// A new file with these lines of another: where each lies, and its length without its end.
pub(super) fn copy(
    from: &File,
    places: impl Iterator<Item = (u64, usize)>,
    folder: &Path,
) -> io::Result<NamedTempFile> {
    let fresh = NamedTempFile::new_in(folder)?;
    let mut writer = BufWriter::new(fresh.as_file());
    let mut line = Vec::new();
    for (at, length) in places {
        line.resize(length, 0);
        from.read_exact_at(&mut line, at)?;
        writer.write_all(&line)?;
        writer.write_all(b"\n")?;
    }
    writer.flush()?;
    drop(writer);
    fresh.as_file().sync_all()?;
    Ok(fresh)
}

/// Puts a new file in an old one's place, and opens it.
pub(super) fn replace(fresh: NamedTempFile, path: &Path) -> io::Result<File> {
    fresh.persist(path)?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    appended(path)
}
