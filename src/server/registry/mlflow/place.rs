//! Where files lie: `<experiment>/<run>/artifacts/…` and `<experiment>/models/<model>/artifacts/…`, the paths that clients
//! are told and come back with. A path is looked at as it came, and again after each time that it can be decoded. Pure.

use super::check::{quoted, stays_inside};
use super::{Answer, Fault};

/// Longest path.
const LONGEST: usize = 1_024;
/// So often a path is decoded before it is held to be an attack.
const MOST_ROUNDS: usize = 8;
/// How clients name files of this server.
pub(super) const SCHEME: &str = "mlflow-artifacts:/";

/// Whose files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// A run's.
    Run {
        /// The number of its experiment.
        experiment: i64,
        /// Its id.
        run: String,
    },
    /// A logged model's.
    Model {
        /// The number of its experiment.
        experiment: i64,
        /// Its id.
        model: String,
    },
}

impl Owner {
    /// The id that the files are kept by.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Owner::Run { run, .. } => run,
            Owner::Model { model, .. } => model,
        }
    }

    /// Where the files lie, as clients are told.
    #[must_use]
    pub fn uri(&self) -> String {
        match self {
            Owner::Run { experiment, run } => format!("{SCHEME}{experiment}/{run}/artifacts"),
            Owner::Model { experiment, model } => {
                format!("{SCHEME}{experiment}/models/{model}/artifacts")
            }
        }
    }
}

/// A file or folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Whose it is.
    pub owner: Owner,
    /// Relative to the owner's folder; empty: the folder itself.
    pub path: String,
}

impl Place {
    /// Reads a path as it stands in an address.
    ///
    /// # Errors
    /// Where it leads out of its folder, or into nobody's.
    pub fn read(raw: &str) -> Answer<Self> {
        let path = safe(raw)?;
        let nobody = || {
            Fault::invalid(format!(
                "{} is the path of no run and of no logged model: it begins with EXPERIMENT/RUN/artifacts or \
                 EXPERIMENT/models/MODEL/artifacts",
                quoted(&path)
            ))
        };
        let mut parts = path.splitn(5, '/');
        let mut part = || parts.next().unwrap_or_default();
        let (first, second, third) = (part(), part(), part());
        let experiment = first.parse().ok();
        // As it is told to clients, and no other way: `07` and `+7` are no experiment.
        let experiment = experiment.filter(|number: &i64| number.to_string() == first);
        let experiment = experiment.ok_or_else(nobody)?;
        let owner = match (second, third) {
            ("models", model) if is_model_id(model) => {
                if part() != "artifacts" {
                    return Err(nobody());
                }
                Owner::Model {
                    experiment,
                    model: model.to_owned(),
                }
            }
            (run, "artifacts") if is_run_id(run) => Owner::Run {
                experiment,
                run: run.to_owned(),
            },
            _ => return Err(nobody()),
        };
        let root = owner.uri();
        let inside = path[root.len() - SCHEME.len()..].trim_start_matches('/');
        Ok(Self {
            path: inside.to_owned(),
            owner,
        })
    }
}

/// 32 hex digits.
pub(super) fn is_run_id(text: &str) -> bool {
    text.len() == 32
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// `m-` and 32 hex digits.
pub(super) fn is_model_id(text: &str) -> bool {
    text.strip_prefix("m-").is_some_and(is_run_id)
}

/// The path that text means in the end, where it stays inside at every stage of its decoding.
pub(super) fn safe(raw: &str) -> Answer<String> {
    let refused = || {
        Fault::invalid(format!(
            "{} is no path of a file here: no '..', no '.', no empty part, no leading slash or drive, no backslash, '#' \
             or control character, at most {LONGEST} bytes",
            quoted(raw)
        ))
    };
    let mut text = raw.to_owned();
    for _ in 0..MOST_ROUNDS {
        if !is_safe(&text) {
            return Err(refused());
        }
        let decoded = decode(&text).ok_or_else(refused)?;
        if decoded == text {
            return Ok(text);
        }
        text = decoded;
    }
    Err(refused())
}

fn is_safe(path: &str) -> bool {
    let bytes = path.as_bytes();
    let drive = bytes.len() >= 2 && bytes[0].is_ascii_alphabetic() && bytes[1] == b':';
    !path.is_empty()
        && path.len() <= LONGEST
        && stays_inside(path)
        && !drive
        && !path.contains(['\\', '#'])
        && !path.chars().any(char::is_control)
        && !path.to_ascii_lowercase().starts_with("file:")
}

/// Percent-decodes once; none where that is no text. What is no escape stays.
fn decode(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = (bytes[at] == b'%')
            .then(|| bytes.get(at + 1..at + 3))
            .flatten()
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        decoded.push(escape.unwrap_or(bytes[at]));
        at += if escape.is_some() { 3 } else { 1 };
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = "0123456789abcdef0123456789abcdef";

    proptest::proptest! {
        #[test]
        fn what_is_let_through_stays_inside(raw in "(%2e|%25|%2f|%5c|%00|[./a:C#\\\\%]|\\PC){0,12}") {
            if let Ok(path) = safe(&raw) {
                proptest::prop_assert!(is_safe(&path), "{}", path);
                proptest::prop_assert_eq!(decode(&path), Some(path.clone()), "nothing is left to decode");
            }
        }
    }

    #[test]
    fn a_path_leads_to_its_owner() {
        let place = Place::read(&format!("3/{RUN}/artifacts/model/a%20b.bin")).unwrap();
        assert_eq!(place.path, "model/a b.bin");
        assert_eq!(
            place.owner.uri(),
            format!("mlflow-artifacts:/3/{RUN}/artifacts")
        );
        let place = Place::read(&format!("0/models/m-{RUN}/artifacts/MLmodel")).unwrap();
        assert_eq!(
            (place.owner.id(), place.path.as_str()),
            (&*format!("m-{RUN}"), "MLmodel")
        );
        assert_eq!(Place::read(&format!("3/{RUN}/artifacts")).unwrap().path, "");
    }

    #[test]
    fn a_path_that_leads_elsewhere_is_refused() {
        for bad in [
            "",
            ".",
            "..",
            "../",
            "..%2f",
            "%252e%252e%252f",
            "/tmp",
            "//tmp",
            "C:\\",
            "file:///etc",
            "a%00b",
            "..\\..\\x",
            "%2e",
            "%2E%2E",
            "a/%2e%2e/b",
            "%2f%2ftmp",
            "file%3a%2f%2f%2fetc",
            "a#b",
            "a%0ab",
            "%25252525252525252525252e",
            "%ff",
        ] {
            assert!(safe(bad).is_err(), "{bad}");
            let below = format!("0/{RUN}/artifacts/{bad}");
            if !matches!(bad, "C:\\" | "file:///etc" | "") {
                assert!(Place::read(&below).is_err(), "{below}");
            }
        }
        for nobody in [
            "a".to_owned(),
            format!("x/{RUN}/artifacts/a"),
            format!("0/{RUN}/other/a"),
            "0/models/m-1/artifacts/a".to_owned(),
            format!("0/models/m-{RUN}/a"),
            "0/traces/tr-1/artifacts/a".to_owned(),
            format!("00/{RUN}/artifacts/a.bin"),
            format!("+0/{RUN}/artifacts/a.bin"),
            format!("007/models/m-{RUN}/artifacts/a.bin"),
        ] {
            assert!(Place::read(&nobody).is_err(), "{nobody}");
        }
        assert_eq!(safe("100%/a b").as_deref(), Ok("100%/a b"));
    }
}
