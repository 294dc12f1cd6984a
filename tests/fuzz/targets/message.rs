//! What a kernel may send: the bytes of a connection, in pieces of any size, and the parts of a message signed with the
//! right key. Nothing panics, nothing larger than the limit is kept, and the pieces' sizes change nothing.
#![no_main]

use driver::foreign;
use libfuzzer_sys::fuzz_target;
use notebook::message::OutputMessage;
use notebook::{Cell, Fold, Notebook, nbformat};

/// Longest message that is taken.
const LIMIT: u64 = 4096;

/// The kernel's word for an output.
fn kind(output: &OutputMessage) -> Option<&'static str> {
    Some(match output {
        OutputMessage::Stream { .. } => "stream",
        OutputMessage::DisplayData { .. } => "display_data",
        OutputMessage::ExecuteResult { .. } => "execute_result",
        OutputMessage::Error { .. } => "error",
        OutputMessage::UpdateDisplayData { .. } => "update_display_data",
        OutputMessage::ClearOutput { .. } => "clear_output",
        OutputMessage::Widget(_) => return None,
    })
}

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
        let output = foreign::message(&parts);
        // Read where it lies, as a large one is, it is the same.
        if let (Some(output), Some(content)) = (&output, parts.get(3))
            && let Ok(content) = std::str::from_utf8(content)
            && let Some(kind) = kind(output)
            && let Some(large) = foreign::large(kind, content)
        {
            assert_eq!(large, *output);
        }
        if let Some(output) = output {
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
