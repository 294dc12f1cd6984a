use std::fs;
use std::path::Path;

use protocol::event::EventBody;

use super::*;

#[path = "../../../tests/support/disk.rs"]
mod disk;

fn story(folder: impl AsRef<Path>, limit: u64) -> Story {
    let limits = OutputLimits {
        job: ByteSize(limit),
        ..OutputLimits::default()
    };
    Story::new(Out::open(folder.as_ref(), None).unwrap(), &limits).unwrap()
}

fn told(folder: impl AsRef<Path>) -> Vec<EventKind> {
    let text = fs::read_to_string(folder.as_ref().join("out/events.ndjson")).unwrap();
    let event = |line: &str| match serde_json::from_str::<Unnumbered>(line).unwrap().body {
        EventBody::Known(kind) => kind,
        EventBody::Unknown(other) => panic!("{other:?}"),
    };
    text.lines().map(event).collect()
}

#[test]
fn text_is_joined_by_voice_and_cut_at_64_kib_of_json() {
    let folder = tempfile::tempdir().unwrap();
    let mut story = story(&folder, 1 << 30);
    let line = "\u{1}é\"\n".repeat(100);
    for _ in 0..200 {
        story.text(Voice::Log(LogStream::Stdout), &line).unwrap();
    }
    story.text(Voice::Log(LogStream::Stderr), "oops").unwrap();
    story.close().unwrap();

    let raw = fs::read_to_string(folder.path().join("out/events.ndjson")).unwrap();
    assert!(raw.lines().all(|line| line.len() <= INLINE_LIMIT));
    let mut all = String::new();
    let events = told(&folder);
    for event in &events[..events.len() - 1] {
        let EventKind::Log {
            stream: LogStream::Stdout,
            text,
        } = event
        else {
            panic!("{event:?}")
        };
        all.push_str(text);
    }
    assert_eq!(all, line.repeat(200));
    assert_eq!(
        events.last(),
        Some(&EventKind::Log {
            stream: LogStream::Stderr,
            text: "oops".into()
        })
    );
    assert!(events.len() < 10, "{}", events.len());
}

#[test]
fn what_waits_is_written_after_a_while() {
    let folder = tempfile::tempdir().unwrap();
    let mut story = story(&folder, 1 << 30);
    assert_eq!(story.due(), None);
    story.text(Voice::Log(LogStream::Stdout), "x").unwrap();
    story.tick().unwrap();
    let due = story.due().unwrap();
    std::thread::sleep(due.saturating_duration_since(Instant::now()));
    story.tick().unwrap();
    assert_eq!(story.due(), None);
    assert_eq!(told(&folder).len(), 1);
}

#[test]
fn a_job_without_end_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut story = story(&folder, 10_000);
    let more = |story: &mut Story| {
        story.say(EventKind::Log {
            stream: LogStream::Stdout,
            text: "x".repeat(4_000),
        })
    };
    more(&mut story).unwrap();
    more(&mut story).unwrap();
    assert!(matches!(more(&mut story), Err(StoryError::TooLong(10_000))));
    story.note("that was too much").unwrap();
    story.close().unwrap();
    assert_eq!(told(&folder).len(), 3);
}

/// While a kernel ends the story is asked again and again.
#[test]
fn a_disk_that_takes_no_notebook_is_not_asked_without_a_pause() {
    let folder = tempfile::tempdir().unwrap();
    let mut story = story(&folder, 1 << 30);
    story.fold_into(Notebook::default());
    let in_the_way = format!("out/{NOTEBOOK_FILE}.new");
    fs::create_dir(folder.path().join(&in_the_way)).unwrap();
    assert!(story.save().is_err());
    assert!(story.due().unwrap() > Instant::now() + Duration::from_secs(1));
    fs::remove_dir(folder.path().join(&in_the_way)).unwrap();
    story.close().unwrap();
    assert!(folder.path().join("out").join(NOTEBOOK_FILE).exists());
}

#[test]
fn half_a_line_that_a_full_disk_took_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("disk");
    let Some(disk) = disk::SmallDisk::mount(&at, 1) else {
        eprintln!("not told: only root may mount a disk");
        return;
    };
    let log = |text: &str| EventKind::Log {
        stream: LogStream::Stdout,
        text: text.into(),
    };
    let mut story = story(&at, 1 << 30);
    story.say(log("before")).unwrap();
    disk.fill();
    // The file's last block has room for some of it.
    let long = "x".repeat(32 << 10);
    assert!(matches!(story.say(log(&long)), Err(StoryError::Io(_))));
    disk.free();
    story.say(log("after")).unwrap();
    assert_eq!(told(&at), [log("before"), log("after")]);
    let length = fs::metadata(at.join("out/events.ndjson")).unwrap().len();
    assert_eq!(story.written, length, "where the next line stands");
}
