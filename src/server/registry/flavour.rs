//! What a version's files show it to be, from their names and first bytes. Nothing is loaded or unpickled. Pure.

use protocol::registry::ModelFile;

/// What of a file is read to tell its format.
pub(super) const HEAD_BYTES: u64 = 16;
/// Most files whose beginning is read: the largest, weights are among them.
pub(super) const MOST_HEADS: usize = 20;
/// Longest `MLmodel` that is read.
pub(super) const MLMODEL_BYTES: u64 = 64 << 10;
/// Most flavours of one version, and the longest name of one.
const MOST: usize = 20;
const NAME_LIMIT: usize = 50;
/// A header above this is none (the format's own limit).
const SAFETENSORS_HEADER: u64 = 100_000_000;

/// MLflow's own description of a model, the one that lies highest.
pub(super) fn mlmodel(files: &[ModelFile]) -> Option<&ModelFile> {
    let named = files.iter().filter(|file| name(&file.path) == "MLmodel");
    named.min_by_key(|file| (file.path.matches('/').count(), &file.path))
}

/// The files whose beginning is worth a look.
pub(super) fn worth_a_look(files: &[ModelFile]) -> Vec<&ModelFile> {
    let mut all: Vec<&ModelFile> = files.iter().filter(|file| file.size.0 > 0).collect();
    all.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.path.cmp(&b.path)));
    all.truncate(MOST_HEADS);
    all
}

/// The keys below `flavors:` of an `MLmodel`, as MLflow writes it: YAML in blocks.
pub(super) fn of_mlmodel(text: &str) -> Vec<String> {
    let mut below = text
        .lines()
        .skip_while(|line| line.trim_end() != "flavors:");
    below.next();
    let (mut indent, mut found) = (None, Vec::new());
    for line in below {
        let depth = line.len() - line.trim_start().len();
        if depth == 0 && !line.trim().is_empty() {
            break;
        }
        let indent = *indent.get_or_insert(depth);
        let key = line.trim().split_once(':').map(|(key, _)| key);
        if let Some(key) = key.filter(|key| depth == indent && is_word(key)) {
            found.push(key.to_owned());
        }
    }
    tidy(found)
}

fn is_word(text: &str) -> bool {
    let ordinary = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    (1..=NAME_LIMIT).contains(&text.len()) && text.bytes().all(ordinary)
}

/// The format of one file: by its first bytes where it has a mark, else by its name.
pub(super) fn of_file(file: &ModelFile, head: &[u8]) -> Option<&'static str> {
    let path = file.path.to_ascii_lowercase();
    let ends = |end: &str| path.ends_with(end);
    if head.starts_with(b"GGUF") {
        return Some("gguf");
    }
    if is_safetensors(file.size.0, head) {
        return Some("safetensors");
    }
    // ONNX is protobuf without a mark, joblib may be compressed.
    if ends(".onnx") {
        return Some("onnx");
    }
    if matches!(name(&path), "saved_model.pb" | "saved_model.pbtxt") {
        return Some("saved_model");
    }
    if ends(".joblib") {
        return Some("joblib");
    }
    // PROTO with its number, and from protocol 4 on a frame.
    let proto = matches!(head, [0x80, 2..=5, ..]);
    let framed = matches!(head, [0x80, 4..=5, 0x95, ..]);
    (framed || proto && (ends(".pkl") || ends(".pickle"))).then_some("pickle")
}

/// The length of a JSON header in eight bytes, and its brace.
fn is_safetensors(size: u64, head: &[u8]) -> bool {
    let Some((length, rest)) = head.split_first_chunk::<8>() else {
        return false;
    };
    let header = u64::from_le_bytes(*length);
    rest.first() == Some(&b'{') && header <= SAFETENSORS_HEADER && header <= size - 8
}

fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Sorted, each once, bounded.
pub(super) fn tidy(mut found: Vec<String>) -> Vec<String> {
    found.sort();
    found.dedup();
    found.truncate(MOST);
    found
}

#[cfg(test)]
mod tests {
    use protocol::{ByteSize, Digest};

    use super::*;

    fn file(path: &str, size: u64) -> ModelFile {
        ModelFile {
            path: path.into(),
            blob: Digest::of(path),
            size: ByteSize(size),
        }
    }

    #[test]
    fn a_format_is_told_by_its_mark_else_by_its_name() {
        let safe = [&64_u64.to_le_bytes()[..], b"{\"w\":{}}"].concat();
        let long = [&6_400_u64.to_le_bytes()[..], b"{\"w\":{}}"].concat();
        for (path, head, expected) in [
            ("weights.bin", &b"GGUF\x03\0\0\0"[..], Some("gguf")),
            ("model.gguf", b"not one", None),
            ("model.safetensors", &safe, Some("safetensors")),
            ("part-1", &safe, Some("safetensors")),
            ("model.safetensors", &long, None),
            ("net.ONNX", b"\x08\x08", Some("onnx")),
            ("m/saved_model.pb", b"\x08\x01", Some("saved_model")),
            ("model.joblib", b"\x78\x9c", Some("joblib")),
            ("model", b"\x80\x04\x95\x10", Some("pickle")),
            ("model.pkl", b"\x80\x02}q", Some("pickle")),
            ("data.bin", b"\x80\x02}q", None),
            ("classes.json", b"{}", None),
            ("empty", b"", None),
        ] {
            assert_eq!(of_file(&file(path, 1_000), head), expected, "{path}");
        }
    }

    #[test]
    fn mlflows_own_words_are_read_and_nothing_else_of_the_file() {
        let text = "artifact_path: model\nflavors:\n  python_function:\n    env:\n      conda: conda.yaml\n    loader_module: mlflow.sklearn\n  sklearn:\n    code: null\nmodel_size_bytes: 3\nrun_id: x\n";
        assert_eq!(of_mlmodel(text), ["python_function", "sklearn"]);
        for nothing in ["", "flavors:", "flavors: {}", "x:\n  flavors:\n    a:\n"] {
            assert!(of_mlmodel(nothing).is_empty(), "{nothing}");
        }
        let many: String = (0..99).map(|n| format!("  f{n}:\n")).collect();
        assert_eq!(of_mlmodel(&format!("flavors:\n{many}")).len(), MOST);
        let files = [file("a/b/MLmodel", 1), file("z/MLmodel", 1), file("w", 9)];
        assert_eq!(mlmodel(&files).unwrap().path, "z/MLmodel");
        assert_eq!(worth_a_look(&files)[0].path, "w");
    }
}
