//! Globs over paths and branches: `*` stays within a folder, `**` does not.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// A list of globs.
#[derive(Debug, Clone)]
pub struct Globs(GlobSet);

impl Globs {
    /// Reads them.
    ///
    /// # Errors
    /// A sentence on the first that is none.
    pub fn new<'a>(globs: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut set = GlobSetBuilder::new();
        for glob in globs {
            if glob.is_empty() || glob.starts_with('/') || glob.split('/').any(|part| part == "..")
            {
                return Err(format!(
                    "'{glob}' is not a glob relative to the repository such as src/**"
                ));
            }
            let trimmed = glob.strip_prefix("./").unwrap_or(glob);
            // A folder means all that is in it.
            let whole = match trimmed.strip_suffix('/') {
                Some(folder) => format!("{folder}/**"),
                None => trimmed.to_owned(),
            };
            let built = GlobBuilder::new(&whole).literal_separator(true).build();
            set.add(built.map_err(|error| format!("'{glob}' is not a glob: {}", error.kind()))?);
        }
        set.build()
            .map(Globs)
            .map_err(|error| format!("these globs cannot be used: {}", error.kind()))
    }

    /// Whether one of them means this path or branch.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        self.0.is_match(path)
    }
}

/// Whether text has a character that means something in a glob.
pub(crate) fn is_glob(text: &str) -> bool {
    text.contains(['*', '?', '[', '{'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stay_within_a_folder() {
        let globs = Globs::new(["src/*.py", "data/**", "models/"]).unwrap();
        for (path, expected) in [
            ("src/a.py", true),
            ("src/deep/a.py", false),
            ("data/deep/a.csv", true),
            ("models/x/y", true),
            ("other", false),
        ] {
            assert_eq!(globs.matches(path), expected, "{path}");
        }
        for wrong in ["", "/etc/*", "../x", "a[", "a{b"] {
            assert!(Globs::new([wrong]).is_err(), "{wrong}");
        }
    }
}
