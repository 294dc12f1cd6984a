//! Faults as they are done to a world.

use protocol::PipelineId;

use super::AGENTS;
use super::plan::{Deed, When};
use crate::support::{World, docker, until};

/// Waits for the moment of a fault; where all jobs are over, it has come.
pub(super) async fn when(world: &World, pipeline: &PipelineId, when: &When) {
    until("the moment of a fault", async || {
        let pipeline = world.api().pipeline(pipeline).await;
        let job = &pipeline.jobs[when.job].id;
        let over = pipeline.pipeline.finished_at.is_some();
        let told = world.api().events(job, None).await.len();
        (over || told >= when.events).then_some(())
    })
    .await;
}

pub(super) async fn carry_out(world: &mut World, deed: &Deed) {
    match *deed {
        Deed::KillAgent(agent, pause) => {
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
        Deed::KillDriver(agent) => world
            .containers(agent)
            .iter()
            .for_each(|container| docker::kill_first_process(container)),
        Deed::RemoveContainer(agent) => docker::remove(&world.containers(agent)),
        Deed::Cut(time) => world.proxy.cut(time),
        Deed::Delay(each, time) => world.proxy.delay(each, time),
        Deed::LoseAnswer(words) => world.proxy.lose_answer(words),
        Deed::Repeat(words, later) => world.proxy.repeat_request(words, later),
        Deed::Stop(agent, time) => {
            world.signal_agent(agent, "STOP");
            tokio::time::sleep(time).await;
            world.signal_agent(agent, "CONT");
        }
    }
}
