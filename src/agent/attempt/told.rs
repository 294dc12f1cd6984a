//! Which events of a stage that is begun again stand in the journal. It writes none.

use protocol::event::EventKind;

use crate::journal::{Journal, JournalError};

/// As much of the journal is read at once.
const READ_BYTES: usize = 1 << 20;

/// How many of `events`, which are written in their order, the journal has from number `from` on. Others write to it too:
/// theirs are passed over. Its front may be gone to the server: the first that is found counts for those before it.
pub(super) fn told(
    journal: &Journal,
    events: &[EventKind],
    from: u64,
) -> Result<usize, JournalError> {
    if journal.last() < from {
        return Ok(0);
    }
    // As they are read back: not every number comes back as it was.
    let words = events.iter().map(|event| {
        let event = serde_json::from_str(&json(event));
        event.map(|event: EventKind| json(&event))
    });
    let words: Vec<String> = words.map(Result::unwrap_or_default).collect();
    let (mut next, mut told) = (from, 0);
    while told < words.len() {
        let read = journal.read(next, READ_BYTES)?;
        let Some(last) = read.last() else { break };
        next = last.seq + 1;
        for event in read.iter().filter_map(|event| event.body.known()) {
            let said = json(event);
            let found = words[told..].iter().position(|words| *words == said);
            told += found.map_or(0, |at| at + 1);
        }
    }
    Ok(told)
}

fn json(event: &EventKind) -> String {
    serde_json::to_string(event).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use protocol::Unnumbered;
    use protocol::event::LogStream;

    use super::*;

    #[test]
    fn what_was_told_is_found_among_what_others_told() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path()).unwrap();
        let say = |event: &EventKind| {
            let event = Unnumbered::now(event.clone().into());
            journal.append(event).unwrap()
        };
        let log = |text: String| EventKind::Log {
            stream: LogStream::Platform,
            text,
        };
        let metric = |value| EventKind::Metric {
            name: "loss".into(),
            value,
            step: 0,
        };
        let events = [
            metric(0.1 + 0.2),
            metric(f64::NAN),
            metric(7.0),
            metric(2.0),
        ];
        let from = journal.last() + 1;
        assert_eq!(told(&journal, &events, from).unwrap(), 0);
        say(&log("a checkpoint".into()));
        assert_eq!(told(&journal, &events, from).unwrap(), 0);
        say(&events[0]);
        say(&log("a call to the registry".into()));
        say(&events[1]);
        assert_eq!(told(&journal, &events, from).unwrap(), 2);
        // The server has the front.
        say(&log("x".repeat(9 << 20)));
        say(&events[2]);
        say(&log("a checkpoint".into()));
        journal.ack(journal.last()).unwrap();
        assert!(journal.first() > from + 1);
        assert_eq!(told(&journal, &events, from).unwrap(), 3);
        say(&events[3]);
        assert_eq!(told(&journal, &events, from).unwrap(), 4);
    }
}
