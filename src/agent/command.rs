//! `${parameter}` in a command's text, quoted for the shell. It starts nothing.

use protocol::spec::Parameters;
use serde_json::Value;

/// Puts parameters into the text and makes it a command line for `sh`. A name that is no parameter is left to
/// the shell, as `$NAME` and `$$` are.
pub(crate) fn argv(text: &str, parameters: &Parameters) -> Vec<String> {
    vec!["sh".into(), "-c".into(), substitute(text, parameters)]
}

fn substitute(text: &str, parameters: &Parameters) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let (before, after) = rest.split_at(start);
        out.push_str(before);
        let end = after.find('}');
        match end.and_then(|end| Some((end, parameters.get(&after[2..end])?))) {
            Some((end, value)) => {
                out.push_str(&quote(&plain(value)));
                rest = &after[end + 1..];
            }
            None => {
                out.push_str("${");
                rest = &after[2..];
            }
        }
    }
    out + rest
}

/// A value as a person would type it: text without quotes, all else as JSON.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            value.to_string()
        }
    }
}

/// Quotes a word for `sh`.
pub(crate) fn quote(word: &str) -> String {
    let harmless = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(harmless) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(text: &str, parameters: Value) -> String {
        let Value::Object(parameters) = parameters else {
            panic!()
        };
        let argv = argv(text, &parameters);
        let output = std::process::Command::new(&argv[0])
            .args(&argv[1..])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn a_parameter_is_one_word_whatever_it_holds() {
        let hostile = "a'; echo broken $(id) \"`x`\" \\ \n ${lr} ünï";
        assert_eq!(
            said("printf %s ${x}", json!({"x": hostile, "lr": 1})),
            hostile
        );
        assert_eq!(
            said(
                "printf '%s|' --lr=${lr} ${on} ${empty}",
                json!({"lr": 0.1, "on": true, "empty": ""})
            ),
            "--lr=0.1|true||"
        );
    }

    #[test]
    fn what_is_no_parameter_is_the_shells() {
        assert_eq!(said("x=1; printf %s ${x}-${y:-2}-${", json!({"lr": 1})), "");
        assert_eq!(said("x=1; printf %s ${x}-${y:-2}", json!({"lr": 1})), "1-2");
    }
}
