//! The fault suite: rounds of jobs on several agents while everything around them fails, planned by a seed. After each
//! round: no job is lost, none has two believed results, no event is missing or out of order, nothing stays booked or
//! lies about, and every failure has its right owner.
//!
//! An engine is shared with others: it is "restarted" by the socket that stands before it for an agent, which cuts callers
//! off and lets none in, while the agent's containers end.
//!
//! `scripts/test` runs the short form, a few rounds. `scripts/faults` runs the long form, says its seed, and goes on where
//! it was stopped; a round that failed is run again by its seed and number.

mod deeds;
mod judge;
mod long;
mod outages;
mod plan;

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use crate::support::World;
use crate::support::engine::{FakeEngine, Manner};
use crate::support::gpus::FakeGpus;
use deeds::Done;
use plan::{MARKS, Round};

/// A server whose patience is short, so that agents are lost within a round.
const SERVER: &str = "poll_interval_local = \"100ms\"\npoll_hold = \"1s\"\nretry_delay = \"100ms\"\n\
    unreachable_after = \"2s\"\nlost_after = \"5s\"\ndisk_reserve = \"8MiB\"";

/// What a host has room for.
const TWO_JOBS: &str = "[capacity]\ncpus = 0.4\n";

/// Where jobs run in containers, and have GPUs.
const ALPHA: &str = "alpha";
/// The same.
const BETA: &str = "beta";
/// Where they run as processes.
const GAMMA: &str = "gamma";
const AGENTS: [&str; 3] = [ALPHA, BETA, GAMMA];

/// What a host with containers stands on.
struct Host {
    gpus: FakeGpus,
    engine: FakeEngine,
    uuids: Vec<String>,
}

/// The hosts that have such.
type Hosts = BTreeMap<&'static str, Host>;

/// An agent that runs jobs in containers, over GPUs of its own.
fn add_containers(world: &mut World, agent: &'static str) -> Host {
    let gpus = FakeGpus::of("mixed");
    let mut uuids = Vec::new();
    gpus.change(|fleet| {
        for gpu in fleet["gpus"].as_array_mut().unwrap() {
            let uuid = format!("{}-{agent}", gpu["uuid"].as_str().unwrap());
            gpu["uuid"] = json!(uuid);
            uuids.push(uuid);
        }
    });
    let folder = world.path(&format!("{agent}-engine"));
    std::fs::create_dir(&folder).unwrap();
    let engine = FakeEngine::start(&folder, &gpus, Manner::Gives);
    let marks = judge::marks(world, agent);
    std::fs::create_dir(&marks).unwrap();
    // Jobs write to it as an ordinary user.
    std::fs::set_permissions(&marks, Permissions::from_mode(0o777)).unwrap();
    let tables = format!(
        "{TWO_JOBS}[executors]\ndocker_host = \"{}\"\n[gpus]\nlibrary = \"{}\"\nclean_grace = \"300ms\"\n\
         [volumes.{MARKS}]\npath = \"{}\"\nwritable = true\n",
        engine.host(),
        gpus.library().display(),
        marks.display(),
    );
    world.add_agent_with(agent, "labels = [\"containers\"]\n", &tables);
    Host {
        gpus,
        engine,
        uuids,
    }
}

/// A world, and all that happens in it. Gives the faults that were done.
async fn run(round: &Round) -> Vec<Done> {
    let mut world = World::clocked(SERVER, round.fills_the_servers()).await;
    if round.fills_disks() {
        for agent in AGENTS {
            world.add_disk(agent);
        }
    }
    let mut hosts = Hosts::new();
    for agent in [ALPHA, BETA] {
        let host = add_containers(&mut world, agent);
        hosts.insert(agent, host);
    }
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
    let mut done = Vec::new();
    for fault in &round.faults {
        let agent = deeds::when(&world, &id, &fault.when).await;
        done.extend(deeds::carry_out(&mut world, &hosts, agent, fault.deed).await);
    }
    judge::judge(&world, &hosts, round, &done, &id).await;
    done
}

#[tokio::test(flavor = "multi_thread")]
async fn some_rounds_of_faults_lose_nothing_and_believe_nothing_twice() {
    for number in 0..plan::SHORT_ROUNDS {
        let round = Round::new(plan::SHORT_SEED, number);
        eprintln!("{round}");
        run(&round).await;
    }
}
