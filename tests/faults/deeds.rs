//! Faults as they are done to a world.

use protocol::PipelineId;
use serde_json::{Value, json};

use super::plan::{Deed, When};
use super::{AGENTS, Gpus};
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

pub(super) async fn carry_out(world: &mut World, gpus: &Gpus, agent: &'static str, deed: &Deed) {
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
        Deed::Xid(gpu) => change(gpus, agent, gpu, "xids", json!([79])),
        Deed::LoseGpu(gpu, time) => {
            change(gpus, agent, gpu, "lost", json!(true));
            tokio::time::sleep(time).await;
            change(gpus, agent, gpu, "lost", json!(false));
        }
        Deed::UseGpu(gpu, time) => {
            // The highest process id that there can be.
            let somebody = json!([{"pid": 4_194_303, "memory": 9_000}]);
            change(gpus, agent, gpu, "processes", somebody);
            tokio::time::sleep(time).await;
            change(gpus, agent, gpu, "processes", json!([]));
        }
    }
}

/// What the fake library tells of a GPU from now on. Where a host has none, nothing happens.
fn change(gpus: &Gpus, agent: &str, gpu: usize, what: &str, value: Value) {
    if let Some(gpus) = gpus.get(agent) {
        gpus.change(|fleet| fleet["gpus"][gpu][what] = value);
    }
}
