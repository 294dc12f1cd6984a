//! What a kernel may send: the bytes of a connection, in pieces of any size, and the parts of a message signed with the
//! right key. Nothing panics, nothing larger than the limit is kept, and the pieces' sizes change nothing.
#![no_main]

use driver::foreign;
use libfuzzer_sys::fuzz_target;
use notebook::{Cell, Fold, Notebook, nbformat};

/// Longest message that is taken.
const LIMIT: u64 = 4096;

fuzz_target!(|bytes: &[u8]| {
    let Some((&first, rest)) = bytes.split_first() else {
        return;
    };
    if first & 1 == 0 {
        let size = usize::from(first >> 1).max(1);
        let whole = foreign::connection(rest, rest.len().max(1), LIMIT);
        assert_eq!(whole, foreign::connection(rest, size, LIMIT));
        for message in &whole.messages {
            assert!(message.iter().map(Vec::len).sum::<usize>() as u64 <= LIMIT);
        }
    } else {
        // The parts are told apart by a byte that no JSON text has.
        let parts: Vec<&[u8]> = rest.split(|&byte| byte == 0xff).collect();
        if let Some(output) = foreign::message(&parts) {
            let notebook = Notebook {
                cells: vec![Cell::code("a", "")],
                minor: 5,
                ..Notebook::default()
            };
            let mut fold = Fold::new(notebook);
            fold.output(0, &output).expect("a code cell");
            let text = nbformat::write(fold.notebook());
            let read = nbformat::read(text.as_bytes()).expect("what was folded is read");
            assert_eq!(nbformat::write(&read), text);
        }
    }
});
