//! What the registered hosts offer to a plan: whether one could ever fulfil a demand, and the versions of the
//! volumes. It knows rows and `schedule`, not why anybody asks.

use std::collections::BTreeMap;

use protocol::fit::{FitAnswer, FitQuestion};
use protocol::{Failure, FailureKind, Trust};

use crate::dispatch::{empty_host, named};
use crate::schedule::{self, Demand, Host};
use crate::store::projects::{self, Project};
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

/// For each demand why no host could ever fulfil it; none: one could, or no agent is registered yet. Quotas are the
/// project's; without one the demands are of nobody that the server knows.
///
/// # Errors
/// The store's.
pub async fn refusals(
    db: &mut Connection,
    project: Option<&Project>,
    demands: impl IntoIterator<Item = Demand>,
) -> Result<Vec<Option<Failure>>> {
    let fleet = able(db).await?;
    let mut known: Vec<(Demand, Option<Failure>)> = Vec::new();
    let mut refusals = Vec::new();
    for demand in demands {
        let demand = named(
            demand,
            project.map(std::slice::from_ref).unwrap_or_default(),
        );
        let seen = known.iter().find(|(other, _)| *other == demand);
        let refusal = match seen {
            Some((_, refusal)) => refusal.clone(),
            None => {
                let over = project.and_then(|project| over_quota(project, &demand));
                let refusal = over
                    .or_else(|| schedule::impossible(&demand, &fleet))
                    .map(refusal);
                known.push((demand, refusal.clone()));
                refusal
            }
        };
        refusals.push(refusal);
    }
    Ok(refusals)
}

/// The registered hosts with all that they have, also what a driver at fault keeps them from showing: that is to be
/// mended there, and makes no job impossible.
async fn able(db: &mut Connection) -> Result<Vec<Host>> {
    let mut shown = agents::shown(db).await?;
    let mut agents = agents::good(db).await?;
    for agent in &mut agents {
        if let Some(before) = shown.remove(&agent.id) {
            agent.inventory.driver = agent.inventory.driver.take().or(before.driver);
            agent.inventory.gpus.extend(before.gpus);
        }
    }
    Ok(agents.iter().map(empty_host).collect())
}

/// Answers whether jobs that are not there yet could run: what a pipeline with them would be told.
///
/// # Errors
/// The store's.
pub async fn asked(db: &mut Connection, asked: &FitQuestion) -> Result<FitAnswer> {
    let rows = projects::all(db).await?;
    let known = |address: &String| rows.iter().find(|row| bare(&row.url) == bare(address));
    let project = asked.repositories.iter().find_map(known);
    let id = project.map(|project| project.id.to_string());
    let demands = asked.jobs.iter().map(|job| Demand {
        resources: job.resources.clone(),
        runs_on: job.runs_on.clone(),
        volumes: job.volumes.clone(),
        project: id.clone().unwrap_or_default(),
        trust: Trust::Trusted,
    });
    Ok(FitAnswer {
        refusals: refusals(db, project, demands).await?,
        hosts: agents::good(db).await?.len() as u64,
        project: project.map(|project| project.name.clone()),
    })
}

/// An address of a repository without what differs between people: scheme, user, `.git`.
fn bare(address: &str) -> String {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let path = path.trim_end_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    // `git@host:path`
    format!("{}/{path}", host.to_lowercase()).replacen(':', "/", 1)
}

fn over_quota(project: &Project, demand: &Demand) -> Option<String> {
    let (wanted, most) = (demand.resources.gpus, project.quota.gpus?);
    let plural = if wanted == 1 { "" } else { "s" };
    (wanted > most).then(|| {
        format!(
            "needs {wanted} GPU{plural} at once, and the quota of {} is {most}",
            project.name
        )
    })
}

fn refusal(why: String) -> Failure {
    Failure::new(FailureKind::PipelineFileWrong, why)
        .hint("change what the job asks for in .trainyard.yml, or add a host that has it, and run it again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_known_by_each_of_its_addresses() {
        let same = [
            "https://git.example.com/ml/digits.git",
            "https://ada:secret@git.example.com/ml/digits",
            "git@git.example.com:ml/digits.git",
            "ssh://git@Git.example.com/ml/digits/",
        ];
        for address in same {
            assert_eq!(bare(address), "git.example.com/ml/digits", "{address}");
        }
        assert_eq!(bare("/srv/git/digits.git"), bare("file:///srv/git/digits/"));
        assert_ne!(bare("/srv/git/digits"), bare("/srv/digits"));
    }
}
