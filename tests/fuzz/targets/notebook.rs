//! Any bytes: what is read as a notebook and written is read back as the same, with the same meaning, and written
//! again byte for byte. What is read in pieces is read whole as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use notebook::nbformat::{read, read_in_pieces, write};
use notebook::{Fold, fingerprint};

fuzz_target!(|bytes: &[u8]| {
    let whole = read(bytes);
    if let Some(in_pieces) = read_in_pieces(&mut &*bytes) {
        assert_eq!(whole.as_ref(), Ok(&in_pieces));
    }
    let Ok(first) = whole else { return };
    let text = write(&first);
    let second = match read(text.as_bytes()) {
        Ok(second) => second,
        Err(error) => panic!("what was written is not read: {error}\n{text}"),
    };
    assert_eq!(first, second);
    assert_eq!(text, write(&second));
    assert_eq!(fingerprint(&first), fingerprint(&second));

    // What a kernel said, said again, is what the file holds: the fold knows every output that is read.
    let mut fold = Fold::new(first.clone());
    for (index, cell) in first.code_cells() {
        for message in cell.outputs.iter().filter_map(|output| output.message()) {
            fold.output(index, message).expect("a code cell");
        }
    }
    let folded = write(fold.notebook());
    assert!(
        read(folded.as_bytes()).is_ok(),
        "what was folded is not read:\n{folded}"
    );
    assert_eq!(fingerprint(fold.notebook()), fingerprint(&first));
});
