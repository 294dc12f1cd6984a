//! Why there is no NVML, in words. It loads nothing.

use std::path::Path;

use protocol::Span;

use super::library;

/// NVML is not there, or not usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NvmlAbsent {
    /// There is no NVIDIA driver on this host.
    #[error("no NVIDIA driver ({library} was not found)")]
    NoDriver {
        /// What was looked for.
        library: String,
    },
    /// What was found, or named by the configuration, is not NVIDIA's management library.
    #[error("{library} cannot be loaded as NVIDIA's management library: {why}")]
    Unusable {
        /// Its path.
        library: String,
        /// The loader's words.
        why: String,
    },
    /// There is one, and it does not work.
    #[error("the NVIDIA driver does not answer: {0}")]
    Broken(String),
    /// It was asked, and has said nothing for so long.
    #[error("the NVIDIA driver has not answered within {0}")]
    Silent(Span),
}

/// Why a library was not loaded. The loader says of one for another machine that it is not there.
pub(super) fn unloaded(library: &Path, why: &str) -> NvmlAbsent {
    let unusable = |path: &Path, why: &str| NvmlAbsent::Unusable {
        library: path.display().to_string(),
        why: why.to_owned(),
    };
    let is_missing = why.contains("No such file");
    match library::place(library) {
        Some(path) if is_missing => {
            let words = "it is there, and is for another kind of machine than this program";
            unusable(&path, words)
        }
        Some(path) => {
            // The loader begins with the path.
            let begin = format!("{}: ", path.display());
            unusable(&path, why.strip_prefix(&begin).unwrap_or(why))
        }
        // A path is somebody's word that it is there.
        None if library.components().count() > 1 => unusable(library, "there is no such file"),
        None if is_missing => NvmlAbsent::NoDriver {
            library: library.display().to_string(),
        },
        None => unusable(library, why),
    }
}
