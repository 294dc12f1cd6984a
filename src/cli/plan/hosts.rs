//! What the hosts of the server say to a plan: it asks, and takes the refusals in.

use std::time::Duration;

use anyhow::Context as _;
use mirror::Repository;
use plan::{Decision, Plan, Verdict};
use protocol::fit::{FitAnswer, FitQuestion, MOST_ASKED, Needs};
use serde::Serialize;

use crate::cli::client::{Client, ServerArgs};

/// A plan is for people who look at their files: a server that does not answer keeps nobody waiting.
const WITHIN: Duration = Duration::from_secs(10);

/// Whether hosts were asked.
#[derive(Debug, Serialize)]
pub(super) struct Hosts {
    /// Why they were not.
    pub(super) not_asked: Option<String>,
    /// How many the server has.
    registered: u64,
    /// The server's project that the repository is.
    project: Option<String>,
}

/// Asks whether hosts could run what is planned. Those jobs that none could become refused.
pub(super) async fn ask(
    server: &ServerArgs,
    repository: Option<&Repository>,
    plan: &Plan,
    verdicts: &mut [Verdict],
) -> Hosts {
    match answer(server, repository, plan).await {
        Ok((asked, answer)) => {
            refuse(plan, verdicts, &asked, &answer);
            Hosts {
                not_asked: None,
                registered: answer.hosts,
                project: answer.project,
            }
        }
        Err(error) => Hosts {
            not_asked: Some(format!("{error:#}")),
            registered: 0,
            project: None,
        },
    }
}

/// What was asked, each need once, and the answer.
async fn answer(
    server: &ServerArgs,
    repository: Option<&Repository>,
    plan: &Plan,
) -> anyhow::Result<(Vec<Needs>, FitAnswer)> {
    let client = Client::new(server)?;
    let mut jobs: Vec<Needs> = Vec::new();
    for job in &plan.jobs {
        let needs = Needs::of(&job.spec);
        if jobs.len() < MOST_ASKED && !jobs.contains(&needs) {
            jobs.push(needs);
        }
    }
    let question = FitQuestion {
        repositories: repository
            .map(Repository::addresses)
            .transpose()?
            .unwrap_or_default(),
        jobs,
    };
    let call = client.post("agents/fit", Some(&question));
    let answer = tokio::time::timeout(WITHIN, call).await;
    let answer = answer.with_context(|| {
        let seconds = WITHIN.as_secs();
        format!("{} did not answer within {seconds} s", client.page("/"))
    })??;
    Ok((question.jobs, answer))
}

fn refuse(plan: &Plan, verdicts: &mut [Verdict], asked: &[Needs], answer: &FitAnswer) {
    let runs = |verdict: &&mut Verdict| verdict.decision == Decision::Run;
    for verdict in verdicts.iter_mut().filter(runs) {
        let job = plan.jobs.iter().find(|job| job.spec.name == verdict.name);
        let needs = job.map(|job| Needs::of(&job.spec));
        let place = needs.and_then(|needs| asked.iter().position(|other| *other == needs));
        let refusal = place.and_then(|place| answer.refusals.get(place)?.as_ref());
        if let Some(failure) = refusal {
            verdict.decision = Decision::Refused;
            verdict.why.insert(0, failure.message.clone());
        }
    }
}
