//! The last stage: what the job left becomes events, blobs and the report. Run twice, it gives the same.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use protocol::driver::{
    BLOBS_DIR, DriverJob, EVENTS_FILE, JOB_FILE, NOTEBOOK_FILE, OUT_DIR, REST_DIR,
};
use protocol::event::{Artifact, ArtifactRole, EventKind, LogStream, OutputContent};
use protocol::outcome::CellPlace;
use protocol::report::{AttemptReport, MetricValue, Setting};
use protocol::{Failure, FailureKind, Outcome, Owner, Span, Work};

use super::follow::{open_plain, parse};
use super::numbers::{numbers, scrap};
use super::state::{Ended, State};
use super::told::told;
use super::{Attempt, clean, dir, now, rebuild};
use crate::collect::{self, Blobs, CollectError};
use crate::executor::{Process, Running};
use crate::{command, lint, workspace};

/// The file of metrics in the workspace, and its largest size.
const METRICS_FILE: &str = "metrics.json";
const METRICS_BYTES: u64 = 1 << 20;
/// Most metrics of one job.
const MOST_METRICS: usize = 10_000;

/// What was gathered.
#[derive(Default)]
struct Gathered {
    events: Vec<EventKind>,
    artifacts: Vec<Artifact>,
    metrics: BTreeMap<String, (f64, i64)>,
    /// There were more metrics than are kept.
    crowded: bool,
    /// Set where gathering shows that the job did not do what it should.
    failure: Option<Failure>,
    /// Lint tools that had not ended when the job was.
    unfinished: Vec<String>,
}

impl Gathered {
    fn say(&mut self, text: impl Into<String>) {
        self.events.push(EventKind::Log {
            stream: LogStream::Platform,
            text: text.into() + "\n",
        });
    }

    fn lint(&mut self, verdict: lint::Verdict) {
        for text in verdict.log {
            self.say(text);
        }
        let findings = verdict.findings.into_iter().map(EventKind::Finding);
        self.events.extend(findings);
        let runs = verdict.runs.into_iter().map(EventKind::ToolFinished);
        self.events.extend(runs);
        self.failure = verdict.failure;
        self.unfinished = verdict.unfinished;
    }

    fn keep(&mut self, artifact: Artifact) {
        self.events.push(EventKind::Artifact(artifact.clone()));
        self.artifacts.push(artifact);
    }

    fn metric(&mut self, name: String, value: f64, step: i64, told: bool) {
        let known = self.metrics.contains_key(&name);
        if self.metrics.len() == MOST_METRICS && !known && !self.crowded {
            self.crowded = true;
            self.say(format!(
                "the job has more than {MOST_METRICS} metrics; '{name}' and those after it are left out"
            ));
        }
        if self.metrics.len() < MOST_METRICS || known {
            if !told {
                self.events.push(EventKind::Metric {
                    name: name.clone(),
                    value,
                    step,
                });
            }
            self.metrics.insert(name, (value, step));
        }
    }
}

impl Attempt<'_> {
    pub(super) async fn collect(&self, state: &State, ended: &Ended, from: u64) -> AttemptReport {
        let began = std::time::Instant::now();
        self.remove_what_ran().await;
        let mut ended = ended.clone();
        let gathered = match ended.ran {
            // Hashing a large model takes its time; other attempts share this runtime.
            true => tokio::task::block_in_place(|| self.gather(&ended)),
            false => Gathered::default(),
        };
        if let (Some(failure), true) = (&gathered.failure, ended.outcome.is_success()) {
            ended.outcome = Outcome::Failed(failure.clone());
        }
        if let Outcome::Failed(failure) = &mut ended.outcome {
            if !gathered.unfinished.is_empty() && failure.kind.owner() == Owner::Limit {
                let tools = gathered.unfinished.join(", ");
                failure.message += &format!("; of the lint tools these had not ended: {tools}");
            }
            self.place_cell(failure);
        }
        for event in self.untold(&gathered.events, from) {
            self.insist(event.clone()).await;
        }
        let mut phases: BTreeMap<String, Span> = state
            .phases
            .iter()
            .map(|(phase, total)| (phase.clone(), total.0))
            .collect();
        phases.insert("collect".into(), began.elapsed().into());
        let report = AttemptReport {
            outcome: ended.outcome,
            withdrawn: None,
            started_at: state.started_at,
            finished_at: now(),
            phases,
            artifacts: gathered.artifacts,
            metrics: gathered
                .metrics
                .into_iter()
                .map(|(name, (value, step))| MetricValue { name, value, step })
                .collect(),
            params: self.params(),
            setting: state.setting.clone(),
            usage: ended.usage,
            cells_executed: ended.cells.executed,
            cells_total: ended.cells.total,
        };
        self.finish(&report);
        report
    }

    /// What an earlier try of this stage has not written yet. Where nobody can tell, an event may be there twice: none is
    /// missing.
    fn untold<'a>(&self, events: &'a [EventKind], from: u64) -> &'a [EventKind] {
        let told = told(self.journal, events, from).unwrap_or_else(|error| {
            tracing::error!(attempt = %self.order.attempt, "{error}; what was gathered is told anew");
            0
        });
        &events[told..]
    }

    fn finish(&self, report: &AttemptReport) {
        self.sync_story();
        if let Err(error) = dir::write_json(&self.dir.report_file(), report) {
            tracing::error!(attempt = %self.order.attempt, "cannot write report.json: {error}");
            return;
        }
        let failed = matches!(report.outcome, Outcome::Failed(_));
        let keep = failed
            .then_some(self.host.config.jobs.keep_failed)
            .filter(|keep| keep.0 > 0);
        if keep.is_some() {
            self.strip_secrets();
        }
        if let Err(error) = clean::leave(&self.dir, keep) {
            tracing::warn!(attempt = %self.order.attempt, "cannot remove what the job had: {error}");
        }
    }

    /// What is kept for a look has no secrets.
    fn strip_secrets(&self) {
        let path = self.dir.contract().join(JOB_FILE);
        let stripped = dir::read_json::<DriverJob>(&path).and_then(|job| match job {
            Some(mut job) => {
                job.env
                    .retain(|name, _| !self.order.secrets.contains_key(name));
                dir::write_json(&path, &job)
            }
            None => Ok(()),
        });
        if let Err(error) = stripped {
            tracing::warn!(attempt = %self.order.attempt, "{} is removed: {error}", path.display());
            let _ = workspace::remove(&path);
        }
    }

    /// The container, or the processes, are not wanted any more.
    async fn remove_what_ran(&self) {
        if !self.in_container() {
            Process::known(0, 0, self.order.attempt.as_str()).sweep();
            return;
        }
        let Ok(engine) = self.engine().await else {
            return;
        };
        match engine.find(&self.labels()).await {
            Ok(found) => {
                for one in found {
                    Running::Container(one.container).remove().await;
                }
            }
            Err(error) => {
                tracing::warn!(attempt = %self.order.attempt, "cannot look for the container: {error}")
            }
        }
    }

    fn params(&self) -> BTreeMap<String, String> {
        let parameters = self.order.spec.parameters.iter();
        parameters
            .map(|(name, value)| (name.clone(), command::plain(value)))
            .collect()
    }

    fn gather(&self, ended: &Ended) -> Gathered {
        let mut gathered = Gathered::default();
        // What a job has locked is kept all the same, whoever the agent is.
        workspace::unlock(&self.dir.workspace());
        for (name, value) in self.params() {
            gathered.events.push(EventKind::Param { name, value });
        }
        let result = Blobs::open(self.dir.blobs())
            .and_then(|blobs| self.gather_files(&blobs, ended, &mut gathered));
        if let Err(error) = result {
            gathered.failure = Some(trouble(&error));
        }
        gathered
    }

    fn gather_files(
        &self,
        blobs: &Blobs,
        ended: &Ended,
        gathered: &mut Gathered,
    ) -> Result<(), CollectError> {
        let spec = &self.order.spec;
        let workspace = self.dir.workspace();
        match &spec.work {
            Work::Notebook { path } => self.keep_notebook(path, blobs, gathered)?,
            Work::Command { .. } => {}
            Work::Lint { tools, notebooks } => {
                let places = self.places(None);
                let verdict = lint::read(&lint::Ran {
                    tools,
                    notebooks,
                    workspace: &workspace,
                    originals: &self.dir.originals(),
                    inside: &places.workspace,
                    tmp: &self.dir.tmp(),
                    whole: ended.outcome.is_success(),
                });
                gathered.lint(verdict);
                return Ok(());
            }
        }
        self.read_story(blobs, gathered)?;
        for file in self.rest() {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            gathered.keep(blobs.keep(&file, ArtifactRole::Output, format!("outputs/{name}"))?);
        }
        self.read_metrics(&workspace, gathered);
        if let Some(model) = &spec.model {
            match collect::model(&workspace, &model.path, blobs) {
                Ok(files) if files.is_empty() => {
                    gathered.failure = Some(model_missing(&model.path))
                }
                Ok(files) => files.into_iter().for_each(|file| gathered.keep(file)),
                Err(CollectError::Missing { .. }) => {
                    gathered.failure = Some(model_missing(&model.path))
                }
                Err(error) => return Err(error),
            }
        }
        for file in collect::declared(&workspace, &spec.artifacts, blobs)? {
            gathered.keep(file);
        }
        Ok(())
    }

    /// The executed notebook; where the driver died, folded from its events.
    fn keep_notebook(
        &self,
        path: &str,
        blobs: &Blobs,
        gathered: &mut Gathered,
    ) -> Result<(), CollectError> {
        let out = self.dir.contract().join(OUT_DIR);
        let written = out.join(NOTEBOOK_FILE);
        let whole = self.result().is_some() && written.exists();
        let rebuilt = match whole {
            true => None,
            false => rebuild::executed(
                &self.dir.workspace().join(path),
                &self.order.spec.parameters,
                &out,
            ),
        };
        let kept = match rebuilt {
            Some(text) => blobs.keep_bytes(
                text.as_bytes(),
                &written,
                ArtifactRole::Notebook,
                path.to_owned(),
            )?,
            None if written.exists() => {
                blobs.keep(&written, ArtifactRole::Notebook, path.to_owned())?
            }
            None => return Ok(()),
        };
        gathered.keep(kept);
        Ok(())
    }

    /// Metrics that were displayed or told, and outputs that lie in blobs.
    fn read_story(&self, blobs: &Blobs, gathered: &mut Gathered) -> Result<(), CollectError> {
        let out = self.dir.contract().join(OUT_DIR);
        let Ok(file) = open_plain(&out.join(EVENTS_FILE)) else {
            return Ok(());
        };
        for line in BufReader::new(file).split(b'\n').map_while(Result::ok) {
            let event = parse(&line);
            match event.body.known() {
                Some(EventKind::Metric { name, value, step }) => {
                    gathered.metric(name.clone(), *value, *step, true)
                }
                Some(EventKind::Output { content, .. }) => {
                    if let OutputContent::Stored { blob, .. } = content {
                        let file = out.join(BLOBS_DIR).join(blob.as_str());
                        let kept =
                            blobs.keep(&file, ArtifactRole::Output, format!("outputs/{blob}"))?;
                        if kept.blob == *blob && !gathered.artifacts.contains(&kept) {
                            gathered.keep(kept);
                        }
                    } else if let Some((name, value)) = scrap(content) {
                        gathered.metric(name, value, 0, false);
                    }
                }
                Some(_) | None => {}
            }
        }
        Ok(())
    }

    /// Files of what cells said past their limit, in the driver's folder.
    fn rest(&self) -> Vec<PathBuf> {
        let folder = self.dir.contract().join(OUT_DIR).join(REST_DIR);
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        files.sort();
        files.truncate(collect::MOST_FILES);
        files
    }

    /// `metrics.json`: one flat object of numbers.
    fn read_metrics(&self, workspace: &Path, gathered: &mut Gathered) {
        let path = workspace.join(METRICS_FILE);
        let Ok(bytes) = collect::small(&path, METRICS_BYTES) else {
            return;
        };
        match numbers(&String::from_utf8_lossy(&bytes)) {
            Ok(values) => {
                for (name, value) in values {
                    match value {
                        Some(value) => gathered.metric(name, value, 0, false),
                        None => gathered.say(format!(
                            "{METRICS_FILE}: '{name}' is no number and was left out"
                        )),
                    }
                }
            }
            Err(error) => gathered.say(format!(
                "{METRICS_FILE} is not one flat JSON object and was left out: {error}"
            )),
        }
    }

    /// Where a failure's cell stands in the raw file.
    fn place_cell(&self, failure: &mut Failure) {
        let Some(CellPlace {
            path,
            index,
            line: Some(line),
            raw_line: raw @ None,
        }) = &mut failure.cell
        else {
            return;
        };
        let bytes = collect::small(&self.dir.workspace().join(path), 64 << 20).unwrap_or_default();
        if let Ok(map) = notebook::LineMap::read(&bytes) {
            *raw = map.raw_line(*index as usize, *line as usize);
        }
    }
}

fn model_missing(path: &str) -> Failure {
    Failure::new(FailureKind::ModelMissing, format!("the job declares a model at '{path}' and left nothing there"))
        .hint("Save the model below that path (it is in $TRAINYARD_MODEL_DIR), or correct `model:` in .trainyard.yml.")
}

fn trouble(error: &CollectError) -> Failure {
    match error {
        CollectError::Glob { .. } => {
            Failure::new(FailureKind::PipelineFileWrong, error.to_string())
                .hint("Correct `artifacts:` in .trainyard.yml.")
        }
        CollectError::TooMuch { .. } => Failure::new(FailureKind::OutputLimit, error.to_string())
            .hint("Name fewer files, or pack them into one."),
        CollectError::Link { .. } => Failure::new(FailureKind::ModelMissing, error.to_string())
            .hint("Copy the file into the model's folder, or take the link away."),
        CollectError::Missing { .. } => Failure::new(FailureKind::Internal, error.to_string()),
        CollectError::Disk { .. } => Failure::new(FailureKind::UploadFailed, error.to_string()),
    }
}

/// A report of an attempt that could not even begin.
pub(super) fn bare_report(outcome: Outcome) -> AttemptReport {
    AttemptReport {
        outcome,
        withdrawn: None,
        started_at: now(),
        finished_at: now(),
        phases: BTreeMap::new(),
        artifacts: Vec::new(),
        metrics: Vec::new(),
        params: BTreeMap::new(),
        setting: Setting::default(),
        usage: protocol::report::Usage::default(),
        cells_executed: 0,
        cells_total: 0,
    }
}
