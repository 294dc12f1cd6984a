//! The fault suite: rounds of jobs on several agents while everything around them fails, planned by a seed. After each
//! round: no job is lost, none has two believed results, no event is missing or out of order, nothing stays booked or
//! lies about, and every failure has its right owner.
//!
//! `scripts/test` runs the short form, a few rounds. `scripts/faults` runs the long form, says its seed, and goes on where
//! it was stopped; a round that failed is run again by its seed and number.

mod deeds;
mod judge;
mod long;
mod outages;
mod plan;

use crate::support::World;
use plan::Round;

/// A server whose patience is short, so that agents are lost within a round.
const SERVER: &str = "poll_interval_local = \"100ms\"\npoll_hold = \"1s\"\nretry_delay = \"100ms\"\n\
    unreachable_after = \"2s\"\nlost_after = \"5s\"";

const CONTAINERS: &str = "labels = [\"containers\"]\n";
/// What a host has room for.
const TWO_JOBS: &str = "[capacity]\ncpus = 0.4\n";

/// Where jobs run in containers.
const ALPHA: &str = "alpha";
/// The same.
const BETA: &str = "beta";
/// Where they run as processes.
const GAMMA: &str = "gamma";
const AGENTS: [&str; 3] = [ALPHA, BETA, GAMMA];

/// A world, and all that happens in it.
async fn run(round: &Round) {
    let mut world = World::bare(SERVER).await;
    world.add_agent_with(ALPHA, CONTAINERS, TWO_JOBS);
    world.add_agent_with(BETA, CONTAINERS, TWO_JOBS);
    let shell = format!("{TWO_JOBS}[executors]\ndocker = false\nshell = true\n");
    world.add_agent_with(GAMMA, "labels = [\"processes\"]\n", &shell);
    let files = round.files();
    let files: Vec<_> = files
        .iter()
        .map(|(path, text)| (*path, text.as_str()))
        .collect();
    world.project.commit(&files);
    world.watch(&[]);
    let id = world.pipeline(&world.project.head()).await.pipeline.id;
    for fault in &round.faults {
        let agent = deeds::when(&world, &id, &fault.when).await;
        deeds::carry_out(&mut world, agent, &fault.deed).await;
    }
    judge::judge(&world, round, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn some_rounds_of_faults_lose_nothing_and_believe_nothing_twice() {
    for number in 0..plan::SHORT_ROUNDS {
        let round = Round::new(plan::SHORT_SEED, number);
        eprintln!("{round}");
        run(&round).await;
    }
}
