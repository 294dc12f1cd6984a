//! `trainyard plan`: what a commit would run, from the files as they are.

mod hosts;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args as ClapArgs;
use comfy_table::{ContentArrangement, Table, presets};
use mirror::{Repository, Tree, WorkTree};
use plan::{Context, Decision, Plan, PlanError, PlannedJob, Verdict};
use protocol::fit::Needs;
use protocol::{CommitId, Timestamp, Trigger, TriggerKind, Trust};
use serde::Serialize;
use serde_json::json;

use super::client::ServerArgs;
use super::{Exit, out};

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  trainyard plan                                  the files as they are, pushed to this branch
  trainyard plan --commit HEAD~3
  trainyard plan --server https://trainyard.example

A server that answers is asked whether one of its hosts could ever run each job; what none could is refused, and the plan ends with 1.")]
pub(crate) struct Args {
    /// Plan this commit, branch or tag instead of the files as they are
    #[arg(long, value_name = "REV")]
    commit: Option<String>,
    /// Plan a push to this branch [default: the one that is checked out]
    #[arg(long)]
    branch: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// A folder of the repository
    #[arg(default_value = ".")]
    path: PathBuf,
    #[command(flatten)]
    server: ServerArgs,
}

/// The files that are planned, and the commit that they are compared with.
struct Subject {
    tree: Box<dyn Tree>,
    /// As a person would say it.
    name: String,
    repository: Option<Repository>,
    commit: Option<CommitId>,
    base: Option<CommitId>,
}

pub(crate) async fn run(args: &Args) -> anyhow::Result<Exit> {
    let subject = subject(args)?;
    let branch = match (&args.branch, &subject.repository) {
        (Some(branch), _) => Some(branch.clone()),
        (None, Some(repository)) => repository.default_branch()?,
        (None, None) => None,
    };
    let trigger = push(&subject, branch.as_deref());
    let now = plan::plan(subject.tree.as_ref(), &trigger, &Context::default())?;
    let earlier = match (&subject.repository, &subject.base) {
        (Some(repository), Some(base)) => earlier(repository, base, &trigger)?,
        (_, _) => None,
    };
    let before = subject.base.as_ref().map_or("", CommitId::short);
    let mut verdicts = plan::verdicts(&now, earlier.as_ref(), before);
    let repository = subject.repository.as_ref();
    let hosts = hosts::ask(&args.server, repository, &now, &mut verdicts).await;
    let refused = |verdict: &Verdict| verdict.decision == Decision::Refused;
    let exit = match verdicts.iter().any(refused) {
        true => Exit::Failed,
        false => Exit::Done,
    };
    if args.json {
        let report = json!({
            "commit": subject.commit,
            "base": subject.base,
            "branch": branch,
            "hosts": hosts,
            "jobs": lines(&verdicts, &now),
            "plan": now,
        });
        out::json(&report)?;
        return Ok(exit);
    }
    let on = branch.map_or_else(String::new, |branch| format!(", pushed to {branch}"));
    let with = match &earlier {
        Some(_) => format!(", compared with {before}"),
        None => String::new(),
    };
    let title = format!("{}{on}{with}", subject.name);
    let not_asked = hosts
        .not_asked
        .map(|why| format!("hosts were not asked: {why}"));
    let notes: String = now
        .notes
        .iter()
        .chain(&not_asked)
        .map(|note| format!("note: {note}\n"))
        .collect();
    out::say(&format!(
        "{title}\n\n{}\n{notes}\n{}",
        table(&verdicts, &now).trim_fmt(),
        summary(&verdicts)
    ))?;
    Ok(exit)
}

/// A verdict, and what its job needs of a host.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    verdict: &'a Verdict,
    needs: Option<Needs>,
}

fn lines<'a>(verdicts: &'a [Verdict], plan: &Plan) -> Vec<Line<'a>> {
    let line = |verdict| Line {
        verdict,
        needs: job_of(plan, verdict).map(|job| Needs::of(&job.spec)),
    };
    verdicts.iter().map(line).collect()
}

/// The job of a line; none: its definition is ignored.
fn job_of<'a>(plan: &'a Plan, verdict: &Verdict) -> Option<&'a PlannedJob> {
    plan.jobs.iter().find(|job| job.spec.name == verdict.name)
}

/// What is planned: a commit, or the folder as it is.
fn subject(args: &Args) -> anyhow::Result<Subject> {
    if let Some(name) = &args.commit {
        let repository = Repository::discover(&args.path)?
            .with_context(|| format!("'{}' lies in no git repository", args.path.display()))?;
        let commit = repository.resolve(name)?;
        let base = repository.commit(&commit)?.parents.into_iter().next();
        return Ok(Subject {
            tree: Box::new(repository.tree(&commit)?),
            name: format!("Commit {}", commit.short()),
            repository: Some(repository),
            commit: Some(commit),
            base,
        });
    }
    let folder = WorkTree::open(&args.path)?;
    let (repository, head) = (folder.repository().cloned(), folder.head().cloned());
    let parent = match (&repository, &head) {
        (Some(repository), Some(head)) => repository.commit(head)?.parents.into_iter().next(),
        (_, _) => None,
    };
    let clean = !folder.dirty();
    let (name, base) = match &head {
        Some(head) if clean => (format!("Commit {}", head.short()), parent),
        Some(head) => ("The files as they are".to_owned(), Some(head.clone())),
        None => ("The files as they are".to_owned(), None),
    };
    let commit = head.filter(|_| clean);
    Ok(Subject {
        tree: Box::new(folder),
        name,
        repository,
        commit,
        base,
    })
}

/// A push of the subject. Without a commit the id is of no commit; a plan does not look at it.
fn push(subject: &Subject, branch: Option<&str>) -> Trigger {
    let nothing = || "0".repeat(40).parse().expect("forty zeros are a commit id");
    Trigger {
        kind: TriggerKind::Push,
        commit: subject.commit.clone().unwrap_or_else(nothing),
        reference: branch.map(|branch| format!("refs/heads/{branch}")),
        base: subject.base.clone(),
        trust: Trust::Trusted,
        by: None,
        at: Timestamp::now(),
        asked_in: None,
    }
}

/// The plan of the commit before; none where it has no file, or a wrong one.
fn earlier(
    repository: &Repository,
    base: &CommitId,
    trigger: &Trigger,
) -> anyhow::Result<Option<Plan>> {
    let tree = repository.tree(base)?;
    match plan::plan(&tree, trigger, &Context::default()) {
        Ok(plan) => Ok(Some(plan)),
        Err(PlanError::Tree(error)) => Err(error.into()),
        Err(
            PlanError::NoFile
            | PlanError::File(_)
            | PlanError::Notebook { .. }
            | PlanError::Definition(_)
            | PlanError::Untrusted,
        ) => Ok(None),
    }
}

fn table(verdicts: &[Verdict], plan: &Plan) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["JOB", "PLAN", "NEEDS", "WHY"]);
    for verdict in verdicts {
        let job = job_of(plan, verdict);
        let needs = job.map_or_else(String::new, |job| plan::needs(&job.spec));
        table.add_row([
            &verdict.name,
            word(verdict.decision),
            &needs,
            &verdict.why.join("\n"),
        ]);
    }
    table
}

fn word(decision: Decision) -> &'static str {
    match decision {
        Decision::Run => "run",
        Decision::Cached => "cached",
        Decision::Ignored => "ignored",
        Decision::Refused => "refused",
    }
}

fn summary(verdicts: &[Verdict]) -> String {
    let count = |decision| verdicts.iter().filter(|v| v.decision == decision).count();
    let refused = match count(Decision::Refused) {
        0 => String::new(),
        refused => format!(", {refused} refused: no host could ever run them"),
    };
    format!(
        "{} to run, {} cached where they succeeded before, {} ignored{refused}",
        count(Decision::Run),
        count(Decision::Cached),
        count(Decision::Ignored)
    )
}
