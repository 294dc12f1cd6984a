//! `${name}` in a command's text. What replaces them is the driver's.

/// Names between `${` and `}` that are plain names: `${lr}`, but not `${x:-1}`, which is the shell's.
pub(crate) fn placeholders(text: &str) -> impl Iterator<Item = &str> {
    text.split("${").skip(1).filter_map(|rest| {
        let (name, _) = rest.split_once('}')?;
        let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        (plain && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_are_placeholders() {
        let text = "python train.py --lr ${lr} --seed=${seed} $HOME ${X:-1} ${unclosed";
        assert_eq!(placeholders(text).collect::<Vec<_>>(), ["lr", "seed"]);
    }
}
