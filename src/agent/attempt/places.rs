//! Where a job finds its things: paths in its container, or on the host. It makes none of them.

use std::path::{Path, PathBuf};

use protocol::Trust;
use protocol::agent_api::AttemptOrder;
use protocol::driver::AGENT_MOUNT;

use super::Attempt;
use crate::checkpoints::Checkpoints;
use crate::environment::{self, Environment};
use crate::executor::MountSpec;

/// Paths as the job sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Places {
    pub(super) workspace: String,
    pub(super) needs: String,
    /// None: the job goes on from no model.
    pub(super) parent: Option<String>,
    pub(super) home: String,
    pub(super) tmp: String,
    pub(super) cache: String,
    pub(super) checkpoints: String,
    pub(super) environment: Option<String>,
}

/// Caches of torch, Triton and Hugging Face: kept for the next job of the same project and trust.
pub(crate) fn cache_of(data: &Path, order: &AttemptOrder) -> PathBuf {
    let trust = match order.trust {
        Trust::Untrusted => "untrusted",
        Trust::Trusted => "trusted",
    };
    data.join("caches").join(order.project.as_str()).join(trust)
}

impl Attempt<'_> {
    pub(super) fn places(&self, environment: Option<&Environment>) -> Places {
        let show = |path: &Path| path.display().to_string();
        let goes_on = self.order.parent.is_some();
        if self.in_container() {
            let inside = |environment: &Environment| {
                let name = environment.folder.file_name().unwrap_or_default();
                format!("{}/{}", environment::MOUNT, name.to_string_lossy())
            };
            Places {
                workspace: "/workspace".into(),
                needs: "/needs".into(),
                parent: goes_on.then(|| "/parent".into()),
                home: "/home/trainyard".into(),
                tmp: "/tmp".into(),
                cache: "/cache".into(),
                checkpoints: "/checkpoints".into(),
                environment: environment.map(inside),
            }
        } else {
            Places {
                workspace: show(&self.dir.workspace()),
                needs: show(&self.dir.needs()),
                parent: goes_on.then(|| show(&self.dir.parent())),
                home: show(&self.dir.home()),
                tmp: show(&self.dir.tmp()),
                cache: show(&self.cache()),
                checkpoints: show(&self.checkpoints().files()),
                environment: environment.map(|environment| show(&environment.folder)),
            }
        }
    }

    pub(super) fn cache(&self) -> PathBuf {
        cache_of(self.host.data(), &self.order)
    }

    pub(super) fn checkpoints(&self) -> Checkpoints {
        Checkpoints::of(self.host.data(), &self.order.job)
    }

    /// What of the host is in the container at these places.
    pub(super) fn mounts(
        &self,
        places: &Places,
        environment: Option<&Environment>,
    ) -> Vec<MountSpec> {
        let contract = self.dir.contract();
        let mut mounts = vec![
            MountSpec::writable(self.dir.workspace(), &places.workspace),
            MountSpec::read_only(self.dir.needs(), &places.needs),
            MountSpec::writable(self.dir.home(), &places.home),
            MountSpec::writable(self.dir.tmp(), &places.tmp),
            MountSpec::writable(self.dir.tmp(), "/var/tmp"),
            MountSpec::writable(self.cache(), &places.cache),
            MountSpec::writable(self.checkpoints().files(), &places.checkpoints),
            MountSpec::writable(&contract, protocol::driver::MOUNT),
            MountSpec::read_only(
                contract.join(protocol::driver::JOB_FILE),
                format!("{}/{}", protocol::driver::MOUNT, protocol::driver::JOB_FILE),
            ),
            MountSpec::read_only(&self.host.driver, super::job::DRIVER),
        ];
        if let Some(at) = &places.parent {
            mounts.push(MountSpec::read_only(self.dir.parent(), at));
        }
        if self.order.run.is_some() {
            // Read-only: a job that is the agent's user could put another socket in its place.
            mounts.push(MountSpec::read_only(self.dir.agent(), AGENT_MOUNT));
        }
        if let (Some(environment), Some(at)) = (environment, &places.environment) {
            mounts.push(MountSpec::read_only(&environment.folder, at));
        }
        mounts
    }
}
