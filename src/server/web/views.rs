//! From rows to what the public API shows. Pages are made from the same values.

use std::collections::BTreeMap;

use protocol::api::{self, Page};
use protocol::{AgentId, AttemptId, JobId, PipelineId, ProjectId, Span, Timestamp};

use crate::state::Server;
use crate::store::jobs::{Job, Tally};
use crate::store::pipelines::Pipeline;
use crate::store::{
    Connection, Result, agents, attempts, jobs, notices, pipelines, projects, queue, report,
};

/// How long it is said of a project that its forge did not show something.
const NOT_SHOWN_FOR: Span = Span::hours(7 * 24);

/// Projects by name, oldest first.
pub(crate) async fn projects(db: &mut Connection) -> Result<Page<api::Project>> {
    let since = Timestamp::now() - NOT_SHOWN_FOR;
    let mut not_shown = report::problems(db, since).await?;
    for (project, (rule, why)) in notices::problems(db, since).await? {
        let not_told = format!("not told to {rule}: {why}");
        not_shown.entry(project).or_insert(not_told);
    }
    for (project, why) in projects::commands_problems(db).await? {
        let not_obeyed = format!("commands are not obeyed: {why}");
        not_shown.entry(project).or_insert(not_obeyed);
    }
    let all = projects::all(db).await?;
    let shown = all.iter().map(|row| api::Project {
        not_shown: not_shown.remove(&row.id),
        ..project(row)
    });
    Ok(Page {
        items: shown.collect(),
        next: None,
    })
}

/// A project without what is nobody's business.
pub(crate) fn project(project: &projects::Project) -> api::Project {
    api::Project {
        id: project.id.clone(),
        name: project.name.clone(),
        url: without_user(&project.url),
        forge: project.forge.word().to_owned(),
        default_branch: project.default_branch.clone(),
        error: project.problem.clone(),
        not_shown: None,
        quota: project.quota,
    }
}

/// A URL without the user and password that somebody may have put into it.
fn without_user(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let end = rest.find('/').unwrap_or(rest.len());
            let host = rest[..end].rsplit('@').next().unwrap_or_default();
            format!("{scheme}://{host}{}", &rest[end..])
        }
        None => url.to_owned(),
    }
}

/// A page of pipelines, newest first.
pub(crate) async fn pipelines(
    db: &mut Connection,
    project: Option<&ProjectId>,
    before: Option<&PipelineId>,
    limit: u32,
) -> Result<Page<api::Pipeline>> {
    let mut rows = pipelines::recent(db, project, before, limit + 1).await?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let names = project_names(db).await?;
    let ids: Vec<PipelineId> = rows.iter().map(|row| row.id.clone()).collect();
    let mut tallies: BTreeMap<PipelineId, Vec<Tally>> = BTreeMap::new();
    for tally in jobs::tallies(db, &ids).await? {
        let of = tallies.entry(tally.pipeline.clone()).or_default();
        of.push(tally);
    }
    let items = rows
        .iter()
        .map(|row| {
            let tallies = tallies.remove(&row.id).unwrap_or_default();
            pipeline(row, &names, &tallies)
        })
        .collect();
    let next = rows.last().filter(|_| more).map(|row| row.id.to_string());
    Ok(Page { items, next })
}

/// Names of all projects.
pub(crate) async fn project_names(db: &mut Connection) -> Result<BTreeMap<ProjectId, String>> {
    let all = projects::all(db).await?;
    Ok(all
        .into_iter()
        .map(|project| (project.id, project.name))
        .collect())
}

/// What is counted of jobs that are at hand.
fn tallied(jobs: &[Job]) -> Vec<Tally> {
    jobs.iter()
        .map(|job| Tally {
            pipeline: job.pipeline.clone(),
            word: job.state.word().to_owned(),
            last_end: job.finished_at,
        })
        .collect()
}

/// A pipeline with one word over all its jobs.
fn pipeline(row: &Pipeline, names: &BTreeMap<ProjectId, String>, jobs: &[Tally]) -> api::Pipeline {
    let state = word(row, jobs);
    let over = !matches!(state, "running" | "queued");
    let last_end = jobs.iter().filter_map(|tally| tally.last_end).max();
    api::Pipeline {
        id: row.id.clone(),
        project: names.get(&row.project).cloned().unwrap_or_default(),
        number: row.number,
        commit: row.trigger.commit.clone(),
        title: row.subject.clone(),
        reference: row.trigger.reference.clone(),
        trigger: row.trigger.kind.clone(),
        by: row.trigger.by.clone().or_else(|| Some(row.author.clone())),
        trust: row.trigger.trust,
        created_at: row.created_at,
        finished_at: over.then(|| last_end.unwrap_or(row.created_at)),
        state: state.to_owned(),
        problem: row.problem.clone(),
        notes: if state == "neutral" && row.notes.is_empty() {
            vec!["no job asks to run at this commit".to_owned()]
        } else {
            row.notes.clone()
        },
    }
}

/// One word over all jobs of a pipeline.
fn word(row: &Pipeline, jobs: &[Tally]) -> &'static str {
    let any = |words: &[&str]| {
        jobs.iter()
            .any(|tally| words.contains(&tally.word.as_str()))
    };
    if row.problem.is_some() {
        "failed"
    } else if jobs.is_empty() {
        "neutral"
    } else if any(&["leased", "running", "stopping"]) {
        "running"
    } else if any(&["blocked", "queued"]) {
        "queued"
    } else if any(&["failed"]) {
        "failed"
    } else if any(&["cancelled"]) {
        "cancelled"
    } else {
        "succeeded"
    }
}

/// A pipeline with its jobs.
pub(crate) async fn pipeline_detail(
    db: &mut Connection,
    row: &Pipeline,
) -> Result<api::PipelineDetail> {
    let rows = jobs::of_pipeline(db, &row.id).await?;
    let names = project_names(db).await?;
    let started = attempts::started(db, &row.id).await?;
    let items = rows
        .iter()
        .map(|row| job(row, started.get(&row.id).copied()))
        .collect();
    Ok(api::PipelineDetail {
        pipeline: pipeline(row, &names, &tallied(&rows)),
        jobs: items,
    })
}

fn job(row: &Job, started_at: Option<Timestamp>) -> api::Job {
    api::Job {
        id: row.id.clone(),
        pipeline: row.pipeline.clone(),
        name: row.spec.name.clone(),
        state: row.state.clone(),
        reason: row.reason.clone().filter(|_| row.state.outcome().is_none()),
        created_at: row.created_at,
        started_at,
        finished_at: row.finished_at,
    }
}

/// A job with all that is known of it.
pub(crate) async fn job_detail(db: &mut Connection, row: &Job) -> Result<api::JobDetail> {
    let of = pipelines::get(db, &row.pipeline).await?;
    let siblings = jobs::of_pipeline(db, &row.pipeline).await?;
    let names = project_names(db).await?;
    let hosts: BTreeMap<AgentId, String> = agents::all(db)
        .await?
        .into_iter()
        .map(|agent| (agent.id, agent.name))
        .collect();
    let attempts = attempts::of_job(db, &row.id).await?;
    let started_at = attempts.last().and_then(|attempt| attempt.started_at);
    let mut shown = Vec::with_capacity(attempts.len());
    for attempt in attempts {
        shown.push(api::Attempt {
            artifacts: attempts::artifacts(db, &attempt.id).await?,
            id: attempt.id,
            number: attempt.number,
            agent: hosts.get(&attempt.agent).cloned().unwrap_or_default(),
            created_at: attempt.created_at,
            outcome: attempt.outcome,
            report: attempt.report,
        });
    }
    Ok(api::JobDetail {
        job: job(row, started_at),
        in_pipeline: pipeline(&of, &names, &tallied(&siblings)),
        spec: row.spec.clone(),
        key: row.key.clone(),
        lineage: serde_json::to_value(&row.lineage).unwrap_or_default(),
        attempts: shown,
    })
}

/// The agents, oldest first, and what they work on.
pub(crate) async fn agents(
    db: &mut Connection,
    server: &Server,
    now: Timestamp,
) -> Result<Page<api::Agent>> {
    let mut work: BTreeMap<AgentId, Vec<JobId>> = BTreeMap::new();
    for attempt in attempts::open(db).await? {
        work.entry(attempt.agent).or_default().push(attempt.job);
    }
    let mut gpus: BTreeMap<AgentId, BTreeMap<String, AttemptId>> = BTreeMap::new();
    for booking in queue::bookings(db).await? {
        let booked = booking
            .gpus
            .into_iter()
            .map(|gpu| (gpu, booking.attempt.clone()));
        gpus.entry(booking.agent).or_default().extend(booked);
    }
    let items = agents::listed(db)
        .await?
        .into_iter()
        .map(|agent| {
            let jobs = work.remove(&agent.id).unwrap_or_default();
            let silence = server.leases.last_heard(&agent.id);
            let seen = silence.map_or(agent.seen_at, |silence| now - silence.into());
            let state = match (agent.accepting, jobs.is_empty()) {
                _ if agent.revoked_by.is_some() => "revoked",
                _ if now.since(seen) > server.config.unreachable_after => "unreachable",
                _ if agent.drained_by.is_some() => "drained",
                (false, _) => "closed",
                (true, false) => "busy",
                (true, true) => "idle",
            };
            api::Agent {
                gpu_bookings: gpus.remove(&agent.id).unwrap_or_default(),
                closed: why_closed(&agent),
                id: agent.id,
                name: agent.name,
                state: state.to_owned(),
                last_seen: seen,
                inventory: Some(agent.inventory),
                jobs,
            }
        })
        .collect();
    Ok(Page { items, next: None })
}

/// Who or what keeps an agent from new jobs.
fn why_closed(agent: &agents::Agent) -> Option<String> {
    let by = agent.revoked_by.as_ref().or(agent.drained_by.as_ref());
    by.map(|by| format!("by {by}"))
        .or_else(|| agent.closed.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing;
    use protocol::job::State;
    use protocol::{Failure, FailureKind, Outcome};

    fn jobs_in(states: &[State]) -> (Pipeline, Vec<Job>) {
        let pipeline = testing::pipeline(&testing::project("p"), 1);
        let jobs = states
            .iter()
            .enumerate()
            .map(|(i, state)| Job {
                state: state.clone(),
                ..testing::job(&pipeline, &format!("job-{i}"))
            })
            .collect();
        (pipeline, jobs)
    }

    #[test]
    fn one_word_stands_for_all_jobs() {
        let done = State::Finished {
            outcome: Outcome::Succeeded,
        };
        let failed = State::Finished {
            outcome: Outcome::Failed(Failure::new(FailureKind::CellRaised, "x")),
        };
        let leased = State::Leased {
            attempt: protocol::AttemptId::generate(),
        };
        for (states, wanted) in [
            (vec![done.clone(), State::Queued], "queued"),
            (vec![failed.clone(), leased], "running"),
            (vec![failed, done.clone()], "failed"),
            (vec![done], "succeeded"),
            (vec![], "neutral"),
        ] {
            let (pipeline, jobs) = jobs_in(&states);
            assert_eq!(word(&pipeline, &tallied(&jobs)), wanted);
        }
    }

    #[test]
    fn a_password_in_a_url_is_not_shown() {
        assert_eq!(
            without_user("https://u:p@x.example/a@b.git"),
            "https://x.example/a@b.git"
        );
        assert_eq!(without_user("/srv/git/x.git"), "/srv/git/x.git");
    }
}
