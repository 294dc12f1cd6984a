//! Stories of a journal whose process and host may end at any byte.

use std::collections::BTreeMap;

use proptest::prelude::*;
use protocol::event::{EventBody, EventKind, LogStream};

use super::*;

fn log(text: &str) -> Unnumbered {
    Unnumbered {
        at: protocol::Timestamp(1),
        body: EventKind::Log {
            stream: LogStream::Stdout,
            text: text.to_owned(),
        }
        .into(),
    }
}

fn text(event: &Event) -> &str {
    match &event.body {
        EventBody::Known(EventKind::Log { text, .. }) => text,
        body => panic!("not a log: {body:?}"),
    }
}

#[test]
fn events_are_numbered_from_one_and_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    assert_eq!((journal.first(), journal.last()), (1, 0));
    assert!(journal.read(1, 100).unwrap().is_empty());
    let seen = journal.watch();
    assert_eq!(journal.append(log("a")).unwrap(), 1);
    assert_eq!(
        journal.append_driver(vec![log("b"), log("c")], 77).unwrap(),
        3
    );
    assert_eq!(*seen.borrow(), 3);
    assert_eq!(journal.driver_offset(), 77);

    let all = journal.read(1, usize::MAX).unwrap();
    assert_eq!(all.iter().map(text).collect::<Vec<_>>(), ["a", "b", "c"]);
    let one = journal.read(2, 1).unwrap();
    assert_eq!((one.len(), one[0].seq), (1, 2), "at least one event");
    assert_eq!(journal.read(3, 1).unwrap()[0].seq, 3, "the cursor goes on");
    assert_eq!(journal.read(1, 1).unwrap()[0].seq, 1, "and back");
}

#[test]
fn an_offset_without_events_is_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    assert_eq!(journal.append_driver(vec![], 5).unwrap(), 0);
    drop(journal);
    let journal = Journal::open(dir.path()).unwrap();
    assert_eq!((journal.driver_offset(), journal.last()), (5, 0));
}

#[test]
fn delivered_segments_are_removed_and_numbering_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open_with(dir.path(), 200).unwrap();
    for n in 1..=20 {
        journal
            .append_driver(vec![log("some text")], n * 10)
            .unwrap();
    }
    let files = || std::fs::read_dir(dir.path()).unwrap().count();
    assert!(files() > 3);
    journal.ack(21).unwrap();
    assert_eq!(files(), 1);
    drop(journal);

    let journal = Journal::open_with(dir.path(), 200).unwrap();
    assert_eq!((journal.last(), journal.driver_offset()), (20, 200));
    assert_eq!(journal.append(log("next")).unwrap(), 21);
    let rest = journal.read(1, usize::MAX).unwrap();
    assert_eq!(
        rest[0].seq,
        journal.first(),
        "a read begins at what is still here"
    );
    assert_eq!(rest.last().unwrap().seq, 21);
}

#[test]
fn a_server_that_has_seen_more_moves_the_numbering() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    journal.append(log("a")).unwrap();
    journal.ack(9).unwrap();
    assert_eq!(journal.append(log("b")).unwrap(), 9);
    drop(journal);
    let journal = Journal::open(dir.path()).unwrap();
    let events = journal.read(1, usize::MAX).unwrap();
    assert_eq!(events.iter().map(|e| e.seq).collect::<Vec<_>>(), [9]);
}

#[test]
fn a_line_damaged_in_the_middle_is_an_error_and_not_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    for text in ["a", "b", "c"] {
        journal.append(log(text)).unwrap();
    }
    drop(journal);
    let path = segment::list(dir.path()).unwrap()[0].path.clone();
    let damaged = std::fs::read_to_string(&path)
        .unwrap()
        .replacen("\"seq\":2", "\"seq\"!2", 1);
    std::fs::write(&path, damaged).unwrap();
    let error = Journal::open(dir.path()).unwrap_err();
    assert!(matches!(error, JournalError::Damaged { .. }), "{error}");
}

/// What a story's hand does next.
#[derive(Debug, Clone)]
enum Step {
    /// The agent says something itself.
    Own,
    /// So many lines of the driver are taken.
    Driver(usize),
    /// A batch of at most so many bytes goes to the server; its answer may get lost.
    Send { bytes: usize, answered: bool },
    /// The host fails: of what was not forced to the disk, this share (in 256ths) is left.
    Crash(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Own),
        4 => (0_usize..5).prop_map(Step::Driver),
        3 => (1_usize..600, any::<bool>()).prop_map(|(bytes, answered)| Step::Send { bytes, answered }),
        3 => any::<u8>().prop_map(Step::Crash),
    ]
}

/// A journal on a disk that may lose what was not forced to it, and the server behind it.
struct World {
    dir: tempfile::TempDir,
    journal: Journal,
    /// Newest file and its length when it was last forced to the disk.
    durable: BTreeMap<PathBuf, u64>,
    /// What the server has, by number.
    server: BTreeMap<u64, String>,
}

const STORY_SEGMENT: u64 = 400;
const DRIVER_LINE: u64 = 10;

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open_with(dir.path(), STORY_SEGMENT).unwrap();
        let mut world = Self {
            dir,
            journal,
            durable: BTreeMap::new(),
            server: BTreeMap::new(),
        };
        world.forced();
        world
    }

    fn forced(&mut self) {
        let state = self.journal.lock();
        self.durable = [(state.newest().path.clone(), state.newest().bytes)].into();
    }

    fn take(&mut self, lines: usize) {
        let from = self.journal.driver_offset() / DRIVER_LINE;
        let events = (from..from + lines as u64).map(|n| log(&format!("driver {n}")));
        let after = (from + lines as u64) * DRIVER_LINE;
        self.journal.append_driver(events.collect(), after).unwrap();
    }

    fn send(&mut self, bytes: usize, answered: bool) {
        let wanted = self.server.len() as u64 + 1;
        let from = if answered {
            wanted
        } else {
            self.journal.first()
        };
        let batch = self.journal.read(from, bytes).unwrap();
        self.forced();
        for event in batch {
            let next = self.server.len() as u64 + 1;
            assert!(event.seq <= next, "a gap before {}", event.seq);
            let line = text(&event).to_owned();
            let kept = self.server.entry(event.seq).or_insert_with(|| line.clone());
            assert_eq!(*kept, line, "number {} used twice", event.seq);
        }
        if answered {
            self.journal.ack(self.server.len() as u64 + 1).unwrap();
        }
    }

    fn crash(&mut self, share: u8) {
        let (path, written) = {
            let state = self.journal.lock();
            (state.newest().path.clone(), state.newest().bytes)
        };
        // A new segment's head is on the disk before its name is; the ones before it were closed.
        let head = std::fs::read(&path)
            .unwrap()
            .iter()
            .position(|&b| b == b'\n')
            .unwrap() as u64
            + 1;
        let durable = self.durable.get(&path).copied().unwrap_or(head);
        let left = durable + (written - durable) * u64::from(share) / 255;
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(left).unwrap();
        self.journal = Journal::open_with(self.dir.path(), STORY_SEGMENT).unwrap();
        assert_eq!(self.journal.driver_offset() % DRIVER_LINE, 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_or_numbered_twice(steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World::new();
        for step in steps {
            match step {
                Step::Own => { world.journal.append(log("own")).unwrap(); }
                Step::Driver(lines) => world.take(lines),
                Step::Send { bytes, answered } => world.send(bytes, answered),
                Step::Crash(share) => world.crash(share),
            }
        }
        while (world.server.len() as u64) < world.journal.last() {
            world.send(1, true);
        }
        let numbers: Vec<u64> = world.server.keys().copied().collect();
        prop_assert_eq!(numbers, (1..=world.journal.last()).collect::<Vec<_>>());
        let driver: Vec<&str> = world.server.values().filter(|t| t.starts_with("driver")).map(String::as_str).collect();
        let wanted: Vec<String> = (0..world.journal.driver_offset() / DRIVER_LINE).map(|n| format!("driver {n}")).collect();
        prop_assert_eq!(driver, wanted);
    }
}
