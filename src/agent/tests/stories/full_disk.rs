//! A disk without room.

use std::time::Duration;

use agent::attempt::{self, Control};
use agent::journal::Journal;
use protocol::event::{EventKind, LogStream, Phase};
use protocol::{Outcome, Unnumbered};

use crate::disk::SmallDisk;
use crate::support::{World, events, text};

/// How long a story stands still at least where it has to wait.
const WAITS: Duration = Duration::from_millis(1_500);

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_the_story_waits_for_room() {
    let world = World::with(|config| {
        (config.executors.docker, config.executors.shell) = (false, true);
    });
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&folder.path().join("disk"), 1) else {
        eprintln!("not told: only root may mount a disk");
        return;
    };
    let journal = Journal::open(&folder.path().join("disk/journal")).unwrap();
    disk.fill();
    // What the journal's last block still has room for.
    let line = EventKind::Log {
        stream: LogStream::Platform,
        text: "before\n".into(),
    };
    while journal.append(Unnumbered::now(line.clone().into())).is_ok() {}
    let order = world.command("echo one; echo two");
    let control = Control::new();
    let mut run = Box::pin(attempt::run(
        &world.host,
        world.dir(&order),
        &journal,
        control,
    ));
    let early = tokio::time::timeout(WAITS, &mut run).await;
    assert!(
        early.is_err(),
        "it ended though nothing could be told: {early:?}"
    );
    disk.free();
    assert_eq!(run.await.outcome, Outcome::Succeeded);
    assert_eq!(text(&journal), "one\ntwo\n");
    let phase = |event: &EventKind| match event {
        EventKind::Phase { phase, .. } => Some(*phase),
        _ => None,
    };
    let phases: Vec<Phase> = events(&journal).iter().filter_map(phase).collect();
    assert_eq!(
        phases,
        [
            Phase::Workspace,
            Phase::Environment,
            Phase::Run,
            Phase::Collect
        ]
    );
}
