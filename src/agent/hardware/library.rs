//! Where the loader finds a library: it does not say itself which file it tried. It loads nothing.

use std::path::{Path, PathBuf};

/// Where distributions keep libraries, for loaders that have no cache.
const USUAL: [&str; 6] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib/wsl/lib",
    "/usr/lib",
    "/lib",
];

/// The file that a library's name or path means; none: there is none.
pub(super) fn place(library: &Path) -> Option<PathBuf> {
    place_in(library, &searched())
}

fn searched() -> Vec<PathBuf> {
    let said = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let usual = USUAL.iter().map(PathBuf::from);
    std::env::split_paths(&said).chain(usual).collect()
}

fn place_in(library: &Path, folders: &[PathBuf]) -> Option<PathBuf> {
    if library.components().count() > 1 {
        return library.exists().then(|| library.to_owned());
    }
    let places = folders.iter().map(|folder| folder.join(library));
    // An empty entry is the current folder to the loader; nobody means that.
    places
        .filter(|path| path.is_absolute())
        .find(|path| path.exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_for_and_a_path_is_taken_at_its_word() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("lib.so.1");
        std::fs::write(&file, "").unwrap();
        let folders = [PathBuf::new(), folder.path().to_owned()];
        assert_eq!(
            place_in(Path::new("lib.so.1"), &folders),
            Some(file.clone())
        );
        assert_eq!(place_in(&file, &[]), Some(file.clone()));
        assert_eq!(place_in(Path::new("lib.so.2"), &folders), None);
        assert_eq!(place_in(&file.with_extension("2"), &folders), None);
    }
}
