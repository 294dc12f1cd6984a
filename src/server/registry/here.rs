//! Where a run on somebody's own machine comes from, by the same rule as a job's. Pure.

use plan::PlannedJob;
use protocol::agent_api::AttemptOrder;
use protocol::registry::{Lineage, LockFile};
use protocol::report::{Setting, Usage};
use protocol::{CommitId, Timestamp};

use super::derive;

/// What is known of a run before its code begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Here {
    /// The job as it was planned; none: no pipeline file names its notebook.
    pub planned: Option<PlannedJob>,
    /// The commit that is checked out; zeros where there is none.
    pub commit: CommitId,
    /// Whether files differ from it, untracked ones counted.
    pub dirty: bool,
    /// Who runs it.
    pub by: String,
}

/// Its lineage; `setting` is that of the host, as far as it is known.
#[must_use]
pub fn lineage_here(here: &Here, order: &AttemptOrder, setting: Setting) -> Lineage {
    let (spec, planned) = (&order.spec, here.planned.as_ref());
    let deps = planned.iter().flat_map(|planned| &planned.deps);
    let lock = planned.and_then(|planned| planned.lock.clone());
    let lock = lock.zip(spec.python.as_ref());
    let now = Timestamp::now();
    Lineage {
        project: order.project_name.clone(),
        repository: String::new(),
        commit: here.commit.clone(),
        dirty: here.dirty,
        reference: None,
        trigger: "person".to_owned(),
        by: Some(here.by.clone()),
        trust: order.trust,
        pipeline: order.pipeline.clone(),
        job: order.job.clone(),
        attempt: order.attempt.clone(),
        work: derive::work(&spec.work),
        fingerprint: planned.and_then(|planned| planned.fingerprint.clone()),
        pipeline_file: planned.and_then(|planned| planned.pipeline_file.clone()),
        key: planned.map(|planned| planned.key.clone()),
        parameters: spec.parameters.clone(),
        deps: deps.map(|dep| (dep.path.clone(), dep.id.clone())).collect(),
        volumes: Vec::new(),
        parent: None,
        lock: lock.map(|(digest, source)| LockFile {
            path: source.path().to_owned(),
            digest,
        }),
        unversioned: planned.map_or_else(Vec::new, |planned| planned.unversioned.clone()),
        setting,
        usage: Usage::default(),
        started_at: now,
        finished_at: now,
    }
}
