//! What a definition asks for: the job's own words, else the defaults of the file, else ours.

use protocol::spec::{
    Checkout, Checkpoints, Goal, Limits, MetricSpec, ModelSpec, Network, PythonSource,
};
use protocol::{JobSpec, Work};

use super::{Maker, RETRIES};
use crate::expand::Member;
use crate::file::{self, Image, Job};
use crate::inputs::Lock;

impl Maker<'_> {
    pub(super) fn spec(
        &self,
        name: &str,
        job: &Job,
        member: Member,
        lock: Option<&Lock>,
    ) -> JobSpec {
        let defaults = &self.file.defaults;
        let work = match member.notebook {
            Some(path) => Work::Notebook { path },
            None => Work::Command {
                text: job
                    .command
                    .as_ref()
                    .map_or_else(String::new, |c| c.value.0.clone()),
            },
        };
        let texts = |list: &[serde_saphyr::Spanned<file::Word>]| -> Vec<String> {
            list.iter().map(|word| word.value.0.clone()).collect()
        };
        let env = job.env.as_ref().or(defaults.env.as_ref());
        let secrets = job.secrets.as_deref().or(defaults.secrets.as_deref());
        let labels = job.runs_on.as_ref().or(defaults.runs_on.as_ref());
        let network = job
            .network
            .or(defaults.network)
            .unwrap_or(file::Network::Full);
        JobSpec {
            name: member.name,
            definition: name.to_owned(),
            work,
            parameters: member.parameters,
            checkout: self.checkout(job),
            image: self.image_of(job),
            python: lock.map(|lock: &Lock| -> PythonSource { lock.source.clone() }),
            env: env
                .iter()
                .flat_map(|env| env.iter())
                .map(|(k, v)| (k.to_owned(), v.0.clone()))
                .collect(),
            secrets: secrets.map(texts).unwrap_or_default(),
            network: match network {
                file::Network::Full => Network::Full,
                file::Network::None => Network::None,
            },
            resources: file::demands(job.resources.as_ref().or(defaults.resources.as_ref())),
            runs_on: labels
                .map(|l| l.iter().map(|w| w.0.clone()).collect())
                .unwrap_or_default(),
            volumes: file::mounts(job),
            turn: file::turn_of(job),
            needs: texts(&job.needs),
            artifacts: texts(&job.artifacts),
            limits: self.limits(job),
            checkpoints: self.checkpoints(job),
            model: job.model.as_ref().map(|model| ModelSpec {
                name: model.name.value.0.clone(),
                path: model.path.value.0.clone(),
            }),
            metrics: job
                .metrics
                .iter()
                .map(|(name, metric)| (name.to_owned(), judged(metric)))
                .collect(),
            parent: None,
            first_metric: job.metrics.names().next().map(str::to_owned),
            retries: job.retries.or(defaults.retries).unwrap_or(RETRIES),
            reuse: job.reuse.or(defaults.reuse).unwrap_or(true),
        }
    }

    fn image_of(&self, job: &Job) -> String {
        match job
            .image
            .as_ref()
            .or(self.file.defaults.image.as_ref())
            .map(|image| &image.value)
        {
            Some(Image::Name(name)) => name.clone(),
            // The check has refused images that are to be built.
            Some(Image::Build(_)) | None => self.image.to_owned(),
        }
    }

    fn limits(&self, job: &Job) -> Limits {
        let defaults = &self.file.defaults;
        Limits {
            timeout: job
                .timeout
                .or(defaults.timeout)
                .map_or(Limits::default().timeout, |d| d.0),
            cell_timeout: job.cell_timeout.or(defaults.cell_timeout).map(|d| d.0),
            silence_timeout: job
                .silence_timeout
                .or(defaults.silence_timeout)
                .map(|d| d.0),
            gpu_idle_timeout: job
                .gpu_idle_timeout
                .as_ref()
                .map(|d| d.value)
                .or(defaults.gpu_idle_timeout)
                .map(|d| d.0),
            grace: job
                .grace
                .as_ref()
                .or(defaults.grace.as_ref())
                .map(|d| d.value.0),
            lost_after: job.lost_after.or(defaults.lost_after).map(|d| d.0),
        }
    }

    fn checkout(&self, job: &Job) -> Checkout {
        let declared = job.checkout.or(self.file.defaults.checkout);
        let file::Checkout { lfs, submodules } = declared.unwrap_or_default();
        Checkout { lfs, submodules }
    }

    fn checkpoints(&self, job: &Job) -> Checkpoints {
        let declared = job.checkpoints.or(self.file.defaults.checkpoints);
        let declared = declared.unwrap_or_default();
        Checkpoints {
            across_hosts: declared.across_hosts,
            max_size: declared
                .max_size
                .map_or(Checkpoints::default().max_size, |size| size.0),
        }
    }
}

fn judged(metric: &file::Metric) -> MetricSpec {
    MetricSpec {
        goal: match metric.goal {
            file::Goal::Maximize => Goal::Maximize,
            file::Goal::Minimize => Goal::Minimize,
        },
        max_regression: metric.max_regression.as_ref().map(|limit| limit.value),
    }
}
