//! The key of a job: a hash of named parts. What might change a result has a part; what only changes
//! when, where and how often a job runs (time-outs, retries, memory, `on`) has none.

use protocol::Digest;
use serde::Serialize;

use crate::planned::{Dep, KeyPart};

/// Longest value that is kept as text.
const TEXT_CHARS: usize = 200;

/// Collects parts in a fixed order.
#[derive(Debug, Default)]
pub(crate) struct Parts(Vec<KeyPart>);

impl Parts {
    /// A part with its text; a long one by its beginning and its digest.
    pub(crate) fn text(&mut self, name: &str, text: &str) {
        let value = if text.chars().count() <= TEXT_CHARS {
            text.to_owned()
        } else {
            let begin: String = text.chars().take(60).collect();
            format!("{begin}… {}", Digest::of(text))
        };
        self.0.push(KeyPart {
            name: name.to_owned(),
            value,
        });
    }

    /// A part as JSON.
    pub(crate) fn json(&mut self, name: &str, value: &impl Serialize) {
        // Plain values of ours: maps have text keys, so that writing them cannot fail.
        let text = serde_json::to_string(value).unwrap_or_default();
        self.text(name, &text);
    }

    /// A part by its digest.
    pub(crate) fn digest(&mut self, name: &str, digest: &Digest) {
        self.0.push(KeyPart {
            name: name.to_owned(),
            value: digest.to_string(),
        });
    }

    /// A part that is made elsewhere.
    pub(crate) fn part(&mut self, part: KeyPart) {
        self.0.push(part);
    }

    /// All files, by path and content.
    pub(crate) fn files(&mut self, deps: &[Dep]) {
        let parts = deps
            .iter()
            .flat_map(|dep| [dep.path.as_str(), dep.id.as_str()]);
        self.digest("files", &digest_of(parts));
    }

    /// The key and its parts.
    pub(crate) fn finish(self) -> (Digest, Vec<KeyPart>) {
        let parts = self
            .0
            .iter()
            .flat_map(|part| [part.name.as_str(), part.value.as_str()]);
        (
            digest_of(std::iter::once("trainyard key 1").chain(parts)),
            self.0,
        )
    }
}

/// A hash in which each part stands with its length: no two lists of parts give the same bytes.
pub(crate) fn digest_of<'a>(parts: impl IntoIterator<Item = &'a str>) -> Digest {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend((part.len() as u64).to_le_bytes());
        bytes.extend(part.as_bytes());
    }
    Digest::of(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(digest_of(["ab", "c"]), digest_of(["a", "bc"]));
        assert_ne!(digest_of(["a"]), digest_of(["a", ""]));
    }

    #[test]
    fn a_long_text_counts_to_its_end() {
        let key = |text: &str| {
            let mut parts = Parts::default();
            parts.text("command", text);
            parts.finish().0
        };
        let long = "x".repeat(1_000);
        assert_ne!(key(&format!("{long}a")), key(&format!("{long}b")));
    }
}
