//! What a plan means beside an earlier one: which jobs would run, which have a result already, which
//! are not started, and why. Only a server knows results; here an equal key stands for one.

use serde::{Deserialize, Serialize};

use crate::explain::explain;
use crate::planned::Plan;

/// What becomes of a definition or one of its jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// It runs.
    Run,
    /// Its key is the same as before: if it succeeded then, that result stands for it.
    Cached,
    /// The trigger does not start it.
    Ignored,
    /// No host could ever run it. Only a server knows that, and refuses it when it plans.
    Refused,
}

/// One line of a plan for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Name of the job, or of the definition that is ignored.
    pub name: String,
    /// What becomes of it.
    pub decision: Decision,
    /// Why, most telling first.
    pub why: Vec<String>,
}

/// A line for every job and every definition that is ignored. `before` says what `earlier` was, such
/// as a commit's short id.
#[must_use]
pub fn verdicts(now: &Plan, earlier: Option<&Plan>, before: &str) -> Vec<Verdict> {
    let mut all: Vec<Verdict> = Vec::new();
    for job in &now.jobs {
        let same_name = |plan: &Plan| {
            plan.jobs
                .iter()
                .find(|j| j.spec.name == job.spec.name)
                .cloned()
        };
        let equal = earlier.is_some_and(|plan| plan.jobs.iter().any(|j| j.key == job.key));
        let (decision, why) = match (equal, earlier.and_then(same_name)) {
            (true, _) if !job.spec.reuse => (
                Decision::Run,
                vec!["its 'reuse' is false: it always runs".to_owned()],
            ),
            (true, _) => (
                Decision::Cached,
                vec![format!("nothing that it depends on changed since {before}")],
            ),
            (false, Some(old)) => (Decision::Run, explain(job, &old)),
            (false, None) if earlier.is_none() => (
                Decision::Run,
                vec!["there is no earlier plan to compare with".to_owned()],
            ),
            (false, None) => (Decision::Run, vec![format!("it was not there at {before}")]),
        };
        all.push(Verdict {
            name: job.spec.name.clone(),
            decision,
            why,
        });
    }
    all.extend(now.ignored.iter().map(|ignored| Verdict {
        name: ignored.definition.clone(),
        decision: Decision::Ignored,
        why: vec![ignored.why.clone()],
    }));
    all
}
