//! Faults as they are done to a world.

use std::time::Duration;

use protocol::PipelineId;
use serde_json::{Value, json};

use super::plan::{Deed, When};
use super::{AGENTS, Hosts};
use crate::support::{World, docker, until};

/// Waits for the moment of a fault; where all jobs are over, it has come. Gives the agent that has the job, or had it.
pub(super) async fn when(world: &World, pipeline: &PipelineId, when: &When) -> &'static str {
    until("the moment of a fault", async || {
        let pipeline = world.api().pipeline(pipeline).await;
        let job = &pipeline.jobs[when.job].id;
        let over = pipeline.pipeline.finished_at.is_some();
        let told = world.api().events(job, None).await.len();
        if !over && told < when.events {
            return None;
        }
        let last = world.api().job(job).await.attempts.pop();
        let has_it = |agent: &&str| last.as_ref().is_some_and(|last| last.agent == *agent);
        Some(AGENTS.into_iter().find(has_it).unwrap_or(AGENTS[0]))
    })
    .await
}

pub(super) async fn carry_out(world: &mut World, hosts: &Hosts, agent: &'static str, deed: &Deed) {
    match *deed {
        Deed::KillAgent(pause) => {
            world.kill_agent(agent).await;
            tokio::time::sleep(pause).await;
            world.start_agent(agent);
        }
        Deed::KillServer(pause) => {
            world.kill_server().await;
            tokio::time::sleep(pause).await;
            world.start_server().await;
        }
        Deed::KillAll(pause) => {
            for agent in AGENTS {
                world.kill_agent(agent).await;
            }
            world.kill_server().await;
            tokio::time::sleep(pause).await;
            world.start_server().await;
            for agent in AGENTS {
                world.start_agent(agent);
            }
        }
        // One that does not run yet, or any more, is passed over.
        Deed::KillDriver => world.containers(agent).iter().for_each(|container| {
            docker::kill_first_process(container);
        }),
        Deed::RemoveContainer => docker::remove(&world.containers(agent)),
        Deed::Cut(time) => world.proxy.cut(time),
        Deed::Delay(each, time) => world.proxy.delay(each, time),
        Deed::LoseAnswer(words) => world.proxy.lose_answer(words),
        Deed::Repeat(words, later) => world.proxy.repeat_request(words, later),
        Deed::Stop(time) => {
            world.signal_agent(agent, "STOP");
            tokio::time::sleep(time).await;
            world.signal_agent(agent, "CONT");
        }
        Deed::Xid(gpu) => change(hosts, agent, gpu, "xids", json!([79])),
        Deed::LoseGpu(gpu, time) => {
            change(hosts, agent, gpu, "lost", json!(true));
            tokio::time::sleep(time).await;
            change(hosts, agent, gpu, "lost", json!(false));
        }
        Deed::UseGpu(gpu, time) => {
            // The highest process id that there can be.
            let somebody = json!([{"pid": 4_194_303, "memory": 9_000}]);
            change(hosts, agent, gpu, "processes", somebody);
            tokio::time::sleep(time).await;
            change(hosts, agent, gpu, "processes", json!([]));
        }
        Deed::FillDisk(time) => fill(world, agent, time).await,
        Deed::StepClock(seconds, time) => {
            let clock = world.clock.as_ref().expect("it can be stepped");
            clock.step(seconds);
            tokio::time::sleep(time).await;
            clock.step(0);
        }
        Deed::CutEngine(time) => cut_engine(hosts, agent, time).await,
        Deed::RestartEngine(time) => {
            world.containers(agent).iter().for_each(|container| {
                docker::kill_first_process(container);
            });
            cut_engine(hosts, agent, time).await;
        }
    }
}

/// What the fake library tells of a GPU from now on. Where a host has none, nothing happens.
fn change(hosts: &Hosts, agent: &str, gpu: usize, what: &str, value: Value) {
    if let Some(host) = hosts.get(agent) {
        host.gpus.change(|fleet| fleet["gpus"][gpu][what] = value);
    }
}

/// Where a host has no engine, nothing happens.
async fn cut_engine(hosts: &Hosts, agent: &str, time: Duration) {
    if let Some(host) = hosts.get(agent) {
        host.engine.cut(time);
        tokio::time::sleep(time).await;
    }
}

async fn fill(world: &World, agent: &str, time: Duration) {
    match world.disk(agent) {
        Some(disk) => {
            disk.fill();
            tokio::time::sleep(time).await;
            disk.free();
        }
        None => eprintln!("not told: no disk is filled, because only root may mount one"),
    }
}
