//! Faults as they are done to a world.

use std::time::Duration;

use protocol::{FailureKind, PipelineId};
use serde_json::{Value, json};

use super::plan::{Deed, When};
use super::{AGENTS, GAMMA, Hosts};
use crate::support::{SERVER, World, docker, drivers, until};

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

/// A fault that was done.
pub(super) struct Done {
    pub(super) deed: Deed,
    /// The agent that had the job; what befalls the server or the network befalls all.
    agent: &'static str,
}

impl Done {
    /// Whether it may be why an attempt on this agent ended by the platform's failure of this kind.
    pub(super) fn explains(&self, agent: &str, kind: FailureKind) -> bool {
        let here = self.agent == agent;
        match self.deed {
            Deed::KillAgent(_) | Deed::Stop(_) => here && kind == FailureKind::AgentLost,
            Deed::KillServer(_)
            | Deed::Cut(_)
            | Deed::Delay(..)
            | Deed::StepClock(..)
            | Deed::KillAll(_) => kind == FailureKind::AgentLost,
            Deed::KillDriver
            | Deed::RemoveContainer
            | Deed::CutEngine(_)
            | Deed::RestartEngine(_) => here && kind == FailureKind::ExecutorFailed,
            Deed::LoseAnswer(_) | Deed::Repeat(..) | Deed::FillServerDisk(_) => false,
            // A job that is started on one that broke finds it in quarantine.
            Deed::Xid(_) | Deed::LoseGpu(..) => {
                here && [FailureKind::GpuLost, FailureKind::GpuUnclean].contains(&kind)
            }
            Deed::UseGpu(..) => here && kind == FailureKind::GpuUnclean,
            Deed::FillDisk(_) => {
                let kinds = [
                    FailureKind::CheckoutFailed,
                    FailureKind::ExecutorFailed,
                    FailureKind::UploadFailed,
                ];
                here && kinds.contains(&kind)
            }
        }
    }

    /// The GPU of this agent's host that stays out of use after it.
    pub(super) fn broke(&self, hosts: &Hosts, agent: &str) -> Option<String> {
        match self.deed {
            Deed::Xid(gpu) | Deed::LoseGpu(gpu, _) if self.agent == agent => {
                Some(hosts[agent].uuids[gpu].clone())
            }
            _ => None,
        }
    }
}

/// Gives the fault where it was done: one that found nothing to break was not.
pub(super) async fn carry_out(
    world: &mut World,
    hosts: &Hosts,
    agent: &'static str,
    deed: Deed,
) -> Option<Done> {
    let done = act(world, hosts, agent, deed).await;
    done.then_some(Done { deed, agent })
}

/// Whether there was something to break.
async fn act(world: &mut World, hosts: &Hosts, agent: &'static str, deed: Deed) -> bool {
    match deed {
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
        Deed::KillDriver => return kill_drivers(world, agent),
        Deed::RemoveContainer => {
            let containers = world.containers(agent);
            docker::remove(&containers);
            return !containers.is_empty();
        }
        Deed::Cut(time) => world.proxy.cut(time),
        Deed::Delay(each, time) => world.proxy.delay(each, time),
        Deed::LoseAnswer(words) => world.proxy.lose_answer(words),
        Deed::Repeat(words, later) => world.proxy.repeat_request(words, later),
        Deed::Stop(time) => {
            world.signal_agent(agent, "STOP");
            tokio::time::sleep(time).await;
            world.signal_agent(agent, "CONT");
        }
        Deed::Xid(gpu) => return change(hosts, agent, gpu, "xids", json!([79])),
        Deed::LoseGpu(gpu, time) => {
            if !change(hosts, agent, gpu, "lost", json!(true)) {
                return false;
            }
            tokio::time::sleep(time).await;
            change(hosts, agent, gpu, "lost", json!(false));
        }
        Deed::UseGpu(gpu, time) => {
            // The highest process id that there can be.
            let somebody = json!([{"pid": 4_194_303, "memory": 9_000}]);
            if !change(hosts, agent, gpu, "processes", somebody) {
                return false;
            }
            tokio::time::sleep(time).await;
            change(hosts, agent, gpu, "processes", json!([]));
        }
        Deed::FillDisk(time) => return fill(world, agent, time).await,
        Deed::FillServerDisk(time) => return fill(world, SERVER, time).await,
        Deed::StepClock(seconds, time) => {
            let clock = world.clock.as_ref().expect("it can be stepped");
            clock.step(seconds);
            tokio::time::sleep(time).await;
            clock.step(0);
        }
        Deed::CutEngine(time) => return cut_engine(hosts, agent, time).await,
        Deed::RestartEngine(time) => {
            kill_containers(world, agent);
            return cut_engine(hosts, agent, time).await;
        }
    }
    true
}

/// One that does not run yet, or any more, is passed over.
fn kill_containers(world: &World, agent: &str) -> bool {
    let containers = world.containers(agent).into_iter();
    let killed = containers.filter(|container| docker::kill_first_process(container));
    killed.count() > 0
}

fn kill_drivers(world: &World, agent: &str) -> bool {
    match agent {
        GAMMA => drivers::kill(&world.path(agent)),
        _ => kill_containers(world, agent),
    }
}

/// What the fake library tells of a GPU from now on; false where a host has none.
fn change(hosts: &Hosts, agent: &str, gpu: usize, what: &str, value: Value) -> bool {
    let host = hosts.get(agent);
    if let Some(host) = host {
        host.gpus.change(|fleet| fleet["gpus"][gpu][what] = value);
    }
    host.is_some()
}

/// False where a host has no engine.
async fn cut_engine(hosts: &Hosts, agent: &str, time: Duration) -> bool {
    let host = hosts.get(agent);
    if let Some(host) = host {
        host.engine.cut(time);
        tokio::time::sleep(time).await;
    }
    host.is_some()
}

async fn fill(world: &World, whose: &str, time: Duration) -> bool {
    let disk = world.disk(whose);
    match disk {
        Some(disk) => {
            disk.fill();
            tokio::time::sleep(time).await;
            disk.free();
        }
        None => eprintln!("not told: no disk is filled, because only root may mount one"),
    }
    disk.is_some()
}
