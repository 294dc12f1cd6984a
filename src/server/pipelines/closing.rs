//! The end of a pull request: nobody waits for what was to run of it.

use protocol::{ProjectId, Timestamp, TriggerKind};

use super::{cancel, may_end};
use crate::forge::ForgeKind;
use crate::store::jobs::Job;
use crate::store::pipelines::{self, Pipeline};
use crate::store::{Connection, Result, jobs, projects, requests};
use crate::trigger::Request;

/// Who cancels the jobs of a pull request that is merged or given up.
pub const CLOSED: &str = "the end of its pull request";

/// Writes down what a forge says of a pull request. What git shows of its head is looked at anew: it may go to another
/// branch, or be open again. With one that is over now ends what waits of it; gives the jobs that changed. What is older
/// than what is known changes nothing. `opens`: it says that the request is open now, not what else happened to it.
pub(crate) async fn told_of(
    tx: &mut Connection,
    project: &ProjectId,
    kind: ForgeKind,
    (told, opens): (&Request, bool),
    at: Timestamp,
) -> Result<Vec<Job>> {
    let before = requests::find(tx, project, told.number).await?;
    if before
        .as_ref()
        .is_some_and(|before| is_late(before, told, opens))
    {
        return Ok(Vec::new());
    }
    let was_open = before.is_none_or(|before| before.open);
    requests::put(tx, project, told, at).await?;
    let reference = kind.head_of(told.number);
    projects::remove_ref(tx, project, &reference).await?;
    match was_open && !told.open {
        true => close(tx, project, &reference).await,
        false => Ok(Vec::new()),
    }
}

/// Whether something else was told of a request since this happened. Forges count in seconds: within one, or without a
/// time, what is over stays over until the forge says that it is open.
fn is_late(before: &Request, told: &Request, opens: bool) -> bool {
    match (before.updated_at, told.updated_at) {
        (Some(known), Some(then)) if known != then => then < known,
        (Some(_) | None, Some(_) | None) => !before.open && told.open && !opens,
    }
}

/// Cancels what no host has yet at the head of a pull request that is over, and what runs where its pipeline file says
/// `supersede: running`. Gives the jobs that changed. What was cancelled stands for nothing: open again, the request is
/// planned anew.
async fn close(tx: &mut Connection, project: &ProjectId, reference: &str) -> Result<Vec<Job>> {
    let mut changed = Vec::new();
    for pipeline in pipelines::open_at(tx, project, reference).await? {
        let mut ended = Vec::new();
        for job in jobs::of_pipeline(tx, &pipeline.id).await? {
            if may_end(&job, pipeline.supersede_running) {
                ended.extend(cancel(tx, &job, CLOSED).await?);
            }
        }
        if !ended.is_empty() {
            pipelines::stands_no_more(tx, &pipeline.id).await?;
        }
        changed.extend(ended);
    }
    Ok(changed)
}

/// The same for a pipeline that was just made: its request may have been closed while it was planned.
pub(super) async fn close_if_over(tx: &mut Connection, pipeline: &Pipeline) -> Result<Vec<Job>> {
    let (TriggerKind::PullRequest { number }, Some(reference)) =
        (&pipeline.trigger.kind, &pipeline.trigger.reference)
    else {
        return Ok(Vec::new());
    };
    let request = requests::find(tx, &pipeline.project, *number).await?;
    match request.filter(|request| !request.open) {
        Some(_) => close(tx, &pipeline.project, reference).await,
        None => Ok(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(open: bool, updated_at: Option<i64>) -> Request {
        Request {
            number: 1,
            head: "a".repeat(40).parse().unwrap(),
            head_branch: "patch".to_owned(),
            base_branch: "main".to_owned(),
            title: String::new(),
            author: None,
            fork: false,
            open,
            updated_at: updated_at.map(Timestamp),
        }
    }

    #[test]
    fn what_is_older_than_what_is_known_is_late() {
        let known = request(false, Some(2_000));
        for (then, opens, late) in [
            (Some(1_000), false, true),
            (Some(1_000), true, true),
            (Some(2_000), false, true),
            (Some(2_000), true, false),
            (Some(3_000), false, false),
            (None, false, true),
            (None, true, false),
        ] {
            let told = request(true, then);
            assert_eq!(is_late(&known, &told, opens), late, "{then:?} {opens}");
        }
        let open = request(true, Some(2_000));
        assert!(is_late(&open, &request(false, Some(1_000)), false));
        assert!(!is_late(&open, &request(false, Some(2_000)), false));
        assert!(!is_late(&open, &request(true, Some(2_000)), false));
    }
}
