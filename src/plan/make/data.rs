//! What a job's result depends on beside the commit's files: volumes, data that DVC keeps, the model that it goes on from.

use std::collections::BTreeMap;

use protocol::JobSpec;
use protocol::spec::Parent;
use serde_saphyr::Spanned;

use super::Maker;
use crate::PlanError;
use crate::file::{FileError, Job, Word};
use crate::globs::is_glob;
use crate::key::Parts;
use crate::planned::Dep;

impl Maker<'_> {
    /// The parts of volumes: the declared version counts. Gives the versions, and what is to be said of those without one.
    pub(super) fn mounted(
        &self,
        spec: &JobSpec,
        parts: &mut Parts,
    ) -> (BTreeMap<String, Option<String>>, Vec<String>) {
        let (mut versions, mut said) = (BTreeMap::new(), Vec::new());
        for (name, at) in &spec.volumes {
            let declared = self.volumes.and_then(|all| all.get(name)?.clone());
            let version = declared.or_else(|| self.tracked(at));
            parts.text(
                &format!("volume {name}"),
                &format!("{at} {}", version.as_deref().unwrap_or("")),
            );
            if version.is_none() {
                said.push(format!("the volume '{name}' has no declared version"));
            }
            versions.insert(name.clone(), version);
        }
        (versions, said)
    }

    /// What the commit says of a folder of the workspace whose content DVC keeps: the hash of its `.dvc` file.
    fn tracked(&self, at: &str) -> Option<String> {
        let path = at.strip_prefix("/workspace/")?.trim_end_matches('/');
        let dvc = format!("{path}.dvc");
        let id = &self.inputs.tree().get(&dvc)?.id;
        Some(format!("{dvc} {id}"))
    }

    /// The version that a job goes on from, with its part: the same version, however it is named, is the same key.
    pub(super) fn parent(
        &self,
        job: &Job,
        name: &str,
        parts: &mut Parts,
        notes: &mut Vec<String>,
    ) -> Result<Option<Parent>, PlanError> {
        let Some(from) = job.model.as_ref().and_then(|model| model.from.as_ref()) else {
            return Ok(None);
        };
        let text = &from.value.0;
        match self.parents.map(|parents| parents.get(text)) {
            Some(Some(Ok(parent))) => {
                let version = format!("{}/{}", parent.model, parent.version);
                parts.text("parent model", &version);
                Ok(Some(parent.clone()))
            }
            Some(Some(Err(why))) => Err(FileError::at(from.referenced, why.clone()).into()),
            Some(None) | None => {
                parts.text("parent model", text);
                notes.push(format!(
                    "{name}: what '{text}' means is known to the server alone; without it $TRAINYARD_PARENT_DIR is not set"
                ));
                Ok(None)
            }
        }
    }

    /// The `.dvc` files of paths that `deps` names and that DVC keeps: they have the hash of what lies there.
    pub(super) fn kept_by_dvc(&self, list: &[Spanned<Word>], not: &[&str]) -> Vec<Dep> {
        let files = list.iter().filter_map(|glob| dvc_file(&glob.value.0));
        let tracked = files.filter(|file| !not.contains(&file.as_str()));
        let found = tracked.filter_map(|path| {
            let id = self.inputs.tree().get(&path)?.id.clone();
            Some(Dep { path, id })
        });
        found.collect()
    }
}

/// The file in which DVC would keep the hash of a path, or of a folder and all in it.
pub(super) fn dvc_file(glob: &str) -> Option<String> {
    let path = glob.trim_start_matches("./");
    let path = path
        .strip_suffix("/**")
        .unwrap_or(path)
        .trim_end_matches('/');
    (!path.is_empty() && !is_glob(path)).then(|| format!("{path}.dvc"))
}
