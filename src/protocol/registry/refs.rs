//! Versions of models as people and pipeline files write them, and names that may stand for them.

use std::fmt;
use std::str::FromStr;

use crate::ids::AttemptId;

/// One version of a model, as people write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionRef {
    /// `3`: by number.
    Number(u64),
    /// `@champion`: where the alias points.
    Alias(String),
    /// `latest`: the highest number.
    Latest,
    /// A version or candidate by its id.
    Id(String),
}

/// A version of a model as a pipeline file names it: `digits@champion`, `digits@latest`, `digits/3`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelRef {
    /// The model's name.
    pub model: String,
    /// Which version: a number, an alias or the latest.
    pub version: VersionRef,
}

/// Text that names no version of a model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' names no version of a model: write it like digits@champion, digits@latest or digits/3"
)]
pub struct InvalidModelRef(String);

impl FromStr for ModelRef {
    type Err = InvalidModelRef;

    fn from_str(text: &str) -> Result<Self, InvalidModelRef> {
        let wrong = || InvalidModelRef(text.chars().take(64).collect());
        let (model, version) = match text.split_once('@') {
            Some((model, "latest")) => (model, VersionRef::Latest),
            Some((model, alias)) if valid_alias(alias) => (model, VersionRef::Alias(alias.into())),
            Some(_) => return Err(wrong()),
            None => {
                let (model, number) = text.split_once('/').ok_or_else(wrong)?;
                let number = number.parse().ok().filter(|number| *number > 0);
                (model, VersionRef::Number(number.ok_or_else(wrong)?))
            }
        };
        let model = Some(model)
            .filter(|model| valid_model(model))
            .ok_or_else(wrong)?;
        Ok(Self {
            model: model.to_owned(),
            version,
        })
    }
}

/// Whether text may name a model that a job leaves: it stands in URLs, files and MLflow's clients.
#[must_use]
pub fn valid_model(name: &str) -> bool {
    (1..=100).contains(&name.len())
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// Text that names no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' names no version: it wants a number, 'latest', '@alias' or a candidate's id")]
pub struct InvalidVersionRef(String);

impl FromStr for VersionRef {
    type Err = InvalidVersionRef;

    fn from_str(text: &str) -> Result<Self, InvalidVersionRef> {
        let wrong = || InvalidVersionRef(text.chars().take(64).collect());
        if text == "latest" {
            return Ok(Self::Latest);
        }
        if let Some(alias) = text.strip_prefix('@') {
            return valid_alias(alias)
                .then(|| Self::Alias(alias.to_owned()))
                .ok_or_else(wrong);
        }
        if text.parse::<AttemptId>().is_ok() {
            return Ok(Self::Id(text.to_owned()));
        }
        match text.parse::<u64>() {
            Ok(number) if (1..=i64::MAX as u64).contains(&number) => Ok(Self::Number(number)),
            Ok(_) | Err(_) => Err(wrong()),
        }
    }
}

impl fmt::Display for VersionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Alias(alias) => write!(f, "@{alias}"),
            Self::Latest => f.write_str("latest"),
            Self::Id(id) => f.write_str(id),
        }
    }
}

/// Whether text may be an alias: 1 to 64 letters, digits, `-`, `_`, `.`, beginning with a letter, and
/// neither `latest` nor what reads as a version (`v3`), as MLflow refuses them too.
#[must_use]
pub fn valid_alias(text: &str) -> bool {
    let ordinary = text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    let like_version = text
        .strip_prefix(['v', 'V'])
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()));
    ordinary
        && (1..=64).contains(&text.len())
        && text.as_bytes()[0].is_ascii_alphabetic()
        && !like_version
        && !text.eq_ignore_ascii_case("latest")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_as_people_write_it() {
        let id = AttemptId::generate().to_string();
        for text in ["3", "@champion", "latest", id.as_str()] {
            assert_eq!(text.parse::<VersionRef>().unwrap().to_string(), text);
        }
        for wrong in [
            "", "0", "-1", "@", "@v3", "@latest", "@3", "@a/b", "../x", "1.0",
        ] {
            assert!(wrong.parse::<VersionRef>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_version_as_a_pipeline_file_writes_it() {
        let read = |text: &str| text.parse::<ModelRef>().unwrap();
        let champion = read("digits@champion");
        assert_eq!(champion.version, VersionRef::Alias("champion".into()));
        assert_eq!(read("digits@latest").version, VersionRef::Latest);
        let third = read("my.digits/3");
        assert_eq!(
            (&*third.model, third.version),
            ("my.digits", VersionRef::Number(3))
        );
        for wrong in [
            "digits",
            "digits@",
            "digits@v3",
            "@champion",
            "digits/0",
            "digits/x",
            "a/b/3",
            "digits/-1",
            "../x@y",
            "a b@c",
            "",
        ] {
            assert!(wrong.parse::<ModelRef>().is_err(), "{wrong}");
        }
    }
}
