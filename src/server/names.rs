//! What may name a project or a token: it stands in URLs, tables and folders.

/// Most characters of a name.
const MOST: usize = 64;

/// Text that cannot be a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{name}' cannot name a {what}: 1 to 64 letters, digits, '-', '_' and '.', beginning with a letter, digit or '_'"
)]
pub struct BadName {
    what: &'static str,
    name: String,
}

/// Checks a name; `what` it would name is for the message.
///
/// # Errors
/// [`BadName`].
pub fn check(what: &'static str, name: &str) -> Result<(), BadName> {
    let well_formed = (1..=MOST).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        && !name.starts_with(['.', '-']);
    if well_formed {
        return Ok(());
    }
    let name = name.escape_debug().take(80).collect();
    Err(BadName { what, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_stand_in_a_url_and_a_folder() {
        for good in ["digits", "a.b-c_d", "_x", "7"] {
            assert_eq!(check("project", good), Ok(()), "{good}");
        }
        let long = "x".repeat(65);
        for bad in ["", ".", "..", "-x", "a/b", "a b", "é", "a\n", &long] {
            assert!(check("project", bad).is_err(), "{bad}");
        }
    }
}
