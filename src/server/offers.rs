//! What the registered hosts offer to a plan: whether one could ever fulfil a demand, and the versions of the
//! volumes. It knows rows and `schedule`, not why anybody asks.

use std::collections::BTreeMap;

use plan::PlannedJob;
use protocol::{Failure, FailureKind};

use crate::dispatch::{empty_host, named};
use crate::schedule::{self, Demand};
use crate::store::projects::Project;
use crate::store::{Connection, Result, agents};

/// The volumes of all agents by name, with the version that they declare. Where two say otherwise there is none.
///
/// # Errors
/// The store's.
pub async fn volumes(db: &mut Connection) -> Result<BTreeMap<String, Option<String>>> {
    let mut all: BTreeMap<String, Option<String>> = BTreeMap::new();
    for agent in agents::good(db).await? {
        for (name, version) in agent.inventory.volumes {
            all.entry(name)
                .and_modify(|known| *known = known.take().filter(|k| Some(k) == version.as_ref()))
                .or_insert(version);
        }
    }
    Ok(all)
}

/// For each job of a plan why no host could ever run it; none: one could, or no agent is registered yet.
///
/// # Errors
/// The store's.
pub async fn refusals(
    db: &mut Connection,
    project: &Project,
    jobs: &[PlannedJob],
) -> Result<Vec<Option<Failure>>> {
    let fleet: Vec<_> = agents::good(db).await?.iter().map(empty_host).collect();
    let mut known: Vec<(Demand, Option<Failure>)> = Vec::new();
    let mut refusals = Vec::with_capacity(jobs.len());
    for job in jobs {
        let demand = Demand::of(&job.spec, job.trust, &project.id);
        let demand = named(demand, std::slice::from_ref(project));
        let seen = known.iter().find(|(other, _)| *other == demand);
        let refusal = match seen {
            Some((_, refusal)) => refusal.clone(),
            None => {
                let why =
                    over_quota(project, &demand).or_else(|| schedule::impossible(&demand, &fleet));
                let refusal = why.map(refusal);
                known.push((demand, refusal.clone()));
                refusal
            }
        };
        refusals.push(refusal);
    }
    Ok(refusals)
}

fn over_quota(project: &Project, demand: &Demand) -> Option<String> {
    let (wanted, most) = (demand.resources.gpus, project.quota.gpus?);
    (wanted > most).then(|| {
        format!(
            "needs {wanted} GPUs at once, and the quota of {} is {most}",
            project.name
        )
    })
}

fn refusal(why: String) -> Failure {
    Failure::new(FailureKind::PipelineFileWrong, why)
        .hint("change what the job asks for in .trainyard.yml, or add a host that has it, and run it again")
}
