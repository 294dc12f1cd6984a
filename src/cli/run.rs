//! `trainyard run`: a notebook or a job here and now, as CI would run it.

mod volumes;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use agent::attempt::{self, AttemptDir, Control};
use agent::config::Config;
use agent::host::Host;
use agent::journal::Journal;
use agent::local::{self, Desk, Held, Own};
use anyhow::{Context as _, anyhow, bail};
use clap::{Args as ClapArgs, ValueEnum};
use mirror::{Tree, WorkTree};
use plan::{Context, DEFAULT_IMAGE, FILE_NAME, PlannedJob};
use protocol::report::AttemptReport;
use protocol::spec::Parameters;
use protocol::{
    ByteSize, CommitId, Failure, JobSpec, Outcome, Owner, Span, Timestamp, Trigger, TriggerKind,
    Trust, Work,
};
use server::registry::{self, Here};
use server::schedule::{Lacking, gpus_here};
use server::web::throw_away::{self, Begun};

use super::live::Live;
use super::signals::{End, Ends};
use super::{Exit, notebooks, out};

/// How long a job that is told to end has to write a checkpoint.
pub(crate) const STOP_GRACE: Span = Span::secs(30);

/// Examples, and where things go.
const HELP: &str = "\
Examples:
  trainyard run train.ipynb
  trainyard run train.ipynb -p lr=0.01 -p 'layers=[64, 64]' -p name=first
  trainyard run train                       the job 'train' and those it needs
  trainyard run train.ipynb --memory 8GiB --timeout 2h
  trainyard run train.ipynb --executor shell

The notebook itself is not touched: the executed one, the model and the files that the job leaves go to .trainyard/runs/ID/ beside .trainyard.yml, at the root of the repository or beside the notebook; the last lines say where. A notebook that no job of .trainyard.yml names gets what a job gets that asks for nothing (1 CPU, 2 GiB of memory), the network, and requirements.txt beside it.

GPUs are booked with the agent of this host, where there is one: neither takes what the other has, nor what is lent to somebody else. Its folder wants the agent's user, or root. Volumes are those of that agent's configuration, but for those that it has for certain projects only.";

#[derive(Debug, ClapArgs)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// A notebook, or the name of a job of .trainyard.yml
    #[arg(value_name = "NOTEBOOK_OR_JOB")]
    what: String,
    /// Give a parameter a value: JSON (0.1, true, null, [1, 2], {"a": 1}) or Python's True, False, None are read as such, all else is text
    #[arg(short, long = "parameter", value_name = "NAME=VALUE")]
    parameters: Vec<String>,
    /// Give notebooks parameters too that their cell tagged 'parameters' does not assign
    #[arg(long)]
    allow_unknown: bool,
    #[command(flatten)]
    place: Place,
    /// End it after this time, such as 90s or 2h
    #[arg(long, value_name = "TIME")]
    timeout: Option<Span>,
    /// Give it this much memory, such as 512MiB or 8GiB [default: what the job asks for, else 2GiB]
    #[arg(long, value_name = "SIZE")]
    memory: Option<ByteSize>,
    /// The configuration of this host's agent; /etc/trainyard/agent.toml where that is there
    #[arg(
        long,
        value_name = "FILE",
        env = "TRAINYARD_AGENT_CONFIG",
        value_parser = super::agent::file()
    )]
    agent_config: Option<PathBuf>,
}

/// Where jobs run; shared with `trainyard lint`.
#[derive(Debug, ClapArgs)]
pub(crate) struct Place {
    /// How it is isolated: docker, or shell (not at all)
    #[arg(long, value_enum, default_value_t = Executor::Docker)]
    executor: Executor,
    /// Run in this image
    #[arg(long)]
    image: Option<String>,
    /// Print every event as a line of JSON, the report last
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Executor {
    Docker,
    Shell,
}

pub(crate) async fn run(args: &Args) -> anyhow::Result<Exit> {
    // Who wants no GPU and no volume may be one who cannot read it.
    let agent = super::agent::of_host(args.agent_config.as_deref());
    let host = host(&args.place, agent.as_ref().ok()).await?;
    let given = parameters(&args.parameters)?;
    let Found { root, jobs } = find(args, &given)?;
    for (spec, _) in &jobs {
        check(&root, spec)?;
        volumes::check(spec, agent.as_ref())?;
    }
    let wants =
        |(spec, _): &(JobSpec, Here)| spec.resources.gpus > 0 || spec.resources.cuda.is_some();
    let desk = match jobs.iter().any(wants) {
        true => Some(Desk::open(&host, &agent?, &person()).await?),
        false => None,
    };
    local::sweep(host.data(), Timestamp::now()).await;
    let (mut left, mut done, mut exit) = (Vec::new(), Vec::new(), Exit::Done);
    for (mut spec, here) in jobs {
        adjust(&mut spec, args);
        let held = match &desk {
            Some(desk) => hold(desk, &spec)?,
            None => Held::nothing(),
        };
        let has = (left.as_slice(), &held);
        let job = (spec.clone(), here);
        let carried = carry_out(&host, &root, job, has, args.place.json).await;
        if let Some(desk) = &desk {
            give_back(desk, held).await?;
        }
        let (report, dir) = carried?;
        exit = exit_of(&report.outcome);
        left.push(local::Left {
            definition: spec.definition,
            artifacts: report.artifacts,
            blobs: dir.blobs(),
        });
        done.push(dir);
        if exit != Exit::Done {
            break;
        }
    }
    // Later jobs do not want the blobs any more; the results lie in the project.
    for dir in done {
        attempt::forget(&dir, Timestamp::now())?;
    }
    Ok(exit)
}

/// Who runs it.
fn person() -> String {
    super::local_user().unwrap_or_else(|| "somebody".to_owned())
}

/// Books what a job wants of GPUs, chosen as the queue would.
fn hold(desk: &Desk<'_>, spec: &JobSpec) -> anyhow::Result<Held> {
    let look = desk.look()?;
    let (wants, now) = (&spec.resources, Timestamp::now());
    let found = gpus_here(wants, &look.inventory, &look.taken, now);
    let gpus = found.map_err(|lacking| {
        let rest = match &lacking {
            Lacking::Ever(_) => String::new(),
            Lacking::Now { such, .. } => format!(": {}", desk.who(&look, such)),
        };
        let name = &spec.name;
        anyhow!(
            "'{name}' cannot run on this host: {lacking}{rest}\n'trainyard gpus' shows them all"
        )
    })?;
    desk.book(look, gpus).map_err(in_words)
}

/// Gives a job's GPUs back, and says what is left on them. Who does not wait leaves them to whoever looks next.
async fn give_back(desk: &Desk<'_>, held: Held) -> anyhow::Result<()> {
    let mut ends = Ends::listen()?;
    let unclean = tokio::select! {
        unclean = desk.give_back(held) => unclean?,
        _ = ends.next() => return Ok(()),
    };
    for (uuid, why) in unclean {
        out::aside(&format!("note: GPU {uuid} is quarantined: {why}"));
    }
    Ok(())
}

fn in_words(failure: Failure) -> anyhow::Error {
    let hint = failure.hint.map(|hint| format!("\n{hint}"));
    anyhow!("{}{}", failure.message, hint.unwrap_or_default())
}

/// The host for local runs, with the executor that was asked for, and GPUs and volumes as its agent has them.
pub(crate) async fn host(place: &Place, agent: Option<&Config>) -> anyhow::Result<Host> {
    let mut config = Config {
        data: std::path::absolute(local::data_folder())?,
        gpus: agent.map(|agent| agent.gpus.clone()).unwrap_or_default(),
        volumes: agent.map(volumes::shared).unwrap_or_default(),
        ..Config::default()
    };
    config.executors.docker = place.executor == Executor::Docker;
    config.executors.shell = place.executor == Executor::Shell;
    Ok(local::host(config).await?)
}

impl Place {
    pub(crate) fn image(&self) -> Option<&str> {
        self.image.as_deref()
    }
}

/// What runs, where each comes from, and the folder that is their repository.
struct Found {
    root: PathBuf,
    jobs: Vec<(JobSpec, Here)>,
}

/// Where a job of these files comes from.
fn here(tree: Option<&WorkTree>, planned: Option<PlannedJob>) -> anyhow::Result<Here> {
    Ok(Here {
        planned,
        commit: commit(tree)?,
        dirty: tree.is_some_and(WorkTree::dirty),
        by: person(),
    })
}

/// The commit that is checked out; zeros where there is none.
fn commit(tree: Option<&WorkTree>) -> anyhow::Result<CommitId> {
    match tree.and_then(WorkTree::head) {
        Some(head) => Ok(head.clone()),
        None => Ok("0".repeat(40).parse()?),
    }
}

fn adjust(spec: &mut JobSpec, args: &Args) {
    if let Some(image) = &args.place.image {
        spec.image.clone_from(image);
    }
    if let Some(timeout) = args.timeout {
        spec.limits.timeout = timeout;
    }
    if let Some(memory) = args.memory {
        spec.resources.memory = memory;
    }
}

/// Says before anything is started what can be said of a notebook here, as `trainyard inspect` does.
fn check(root: &Path, spec: &JobSpec) -> anyhow::Result<()> {
    let Work::Notebook { path } = &spec.work else {
        return Ok(());
    };
    let whole = root.join(path);
    let here = std::env::current_dir()?;
    let read = notebooks::read(whole.strip_prefix(here).unwrap_or(&whole))?;
    if let Some(problem) = notebooks::problems(&read).first() {
        bail!("{path}: {problem}");
    }
    let injected = notebook::parameters::inject(&read, &spec.parameters);
    injected.map(drop).with_context(|| path.clone())
}

fn find(args: &Args, given: &Parameters) -> anyhow::Result<Found> {
    let path = Path::new(&args.what);
    if args.what.ends_with(".ipynb") {
        if !path.is_file() {
            bail!("there is no notebook '{}' here", args.what);
        }
        return find_notebook(args, path, given);
    }
    if path.is_file() {
        bail!(
            "'{}' is no notebook; a script runs as a job of {FILE_NAME} (command: python {})",
            args.what,
            args.what
        );
    }
    let root = root_of(&std::env::current_dir()?)
        .with_context(|| format!("there is no {FILE_NAME} here or above, so '{}' is no job; give the path of a notebook, or run `trainyard init`", args.what))?;
    let tree = WorkTree::open(&root)?.below(&root);
    let jobs = planned(&tree, vec![args.what.clone()], given, args)?;
    Ok(Found { root, jobs })
}

/// A notebook runs as the job that names it, else with what lies beside it.
fn find_notebook(args: &Args, path: &Path, given: &Parameters) -> anyhow::Result<Found> {
    let path = path.canonicalize()?;
    notebooks::check_size(&path.metadata()?, &args.what)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    if let Some(root) = root_of(folder) {
        let tree = WorkTree::open(&root)?.below(&root);
        let inside = relative(&root, &path)?;
        if let Some(definition) = plan::definition_of(&tree, &inside)? {
            let jobs = planned(&tree, vec![definition], given, args)?;
            // Of a glob or a matrix: this notebook's jobs, and what they need.
            let wanted = |(spec, _): &(JobSpec, Here)| !matches!(&spec.work, Work::Notebook { path } if *path != inside && spec.needs.is_empty());
            return Ok(Found {
                root,
                jobs: jobs.into_iter().filter(wanted).collect(),
            });
        }
    }
    let tree = WorkTree::open(folder).ok();
    let tree = tree.filter(|tree| tree.repository().is_some());
    let root = tree.as_ref().map_or(folder, WorkTree::root).to_owned();
    let beside = folder.join("requirements.txt");
    let requirements = beside
        .is_file()
        .then(|| relative(&root, &beside))
        .transpose()?;
    let image = args.place.image().unwrap_or(DEFAULT_IMAGE);
    let mut spec = local::notebook_spec(&relative(&root, &path)?, requirements, image);
    spec.parameters.clone_from(given);
    if !given.is_empty() {
        let read = notebooks::read(&path)?;
        note(&plan::check_parameters(
            &read,
            &args.what,
            given,
            args.allow_unknown,
        )?);
    }
    Ok(Found {
        root,
        jobs: vec![(spec, here(tree.as_ref(), None)?)],
    })
}

/// The folder with the pipeline file, here or above.
pub(crate) fn root_of(folder: &Path) -> Option<PathBuf> {
    let folder = folder.canonicalize().ok()?;
    folder
        .ancestors()
        .find(|at| at.join(FILE_NAME).is_file())
        .map(Path::to_owned)
}

pub(crate) fn relative(root: &Path, path: &Path) -> anyhow::Result<String> {
    let inside = path
        .strip_prefix(root)
        .with_context(|| format!("{} is not below {}", path.display(), root.display()))?;
    let text = inside
        .to_str()
        .with_context(|| format!("the path {} is not UTF-8", inside.display()))?;
    Ok(text.to_owned())
}

/// Jobs of the pipeline file: those definitions and what they need. Lint is a command of its own.
fn planned(
    tree: &WorkTree,
    definitions: Vec<String>,
    given: &Parameters,
    args: &Args,
) -> anyhow::Result<Vec<(JobSpec, Here)>> {
    let context = Context {
        allow_unknown: args.allow_unknown,
        ..Context::default()
    };
    let plan = plan::plan(tree, &trigger(tree, definitions, given)?, &context)?;
    let mut jobs = plan.jobs;
    jobs.retain(|job| !matches!(job.spec.work, Work::Lint { .. }));
    // What is said of these jobs; the rest is about pushes.
    let theirs = |note: &&String| jobs.iter().any(|job| note.starts_with(&job.spec.name));
    note(
        &plan
            .notes
            .iter()
            .filter(theirs)
            .cloned()
            .collect::<Vec<_>>(),
    );
    let with_origin = |job: PlannedJob| Ok((job.spec.clone(), here(Some(tree), Some(job))?));
    jobs.into_iter().map(with_origin).collect()
}

fn note(sentences: &[String]) {
    for sentence in sentences {
        out::aside(&format!("note: {sentence}"));
    }
}

/// A person asks, for the files as they are.
fn trigger(
    tree: &WorkTree,
    definitions: Vec<String>,
    given: &Parameters,
) -> anyhow::Result<Trigger> {
    Ok(Trigger {
        kind: TriggerKind::Person {
            definitions,
            parameters: given.clone(),
        },
        commit: commit(Some(tree))?,
        reference: None,
        base: None,
        trust: Trust::Trusted,
        by: None,
        at: Timestamp::now(),
        asked_in: None,
    })
}

/// Values as they were written.
fn parameters(given: &[String]) -> anyhow::Result<Parameters> {
    let one = |text: &String| plan::written(text).map_err(anyhow::Error::msg);
    given.iter().map(one).collect()
}

/// What a job finds: what earlier ones left, and its GPUs.
pub(crate) type Has<'a> = (&'a [local::Left], &'a Held);

/// Runs one job with its story on the terminal; its results lie below `.trainyard/runs` afterwards.
async fn carry_out(
    host: &Host,
    root: &Path,
    (spec, here): (JobSpec, Here),
    has: Has<'_>,
    json: bool,
) -> anyhow::Result<(AttemptReport, Own)> {
    let mut live = Live::new(root, &spec, json);
    let (report, dir) = follow(host, root, (spec, Some(here)), has, &mut live).await?;
    finish(root, &mut live, &report, &dir)?;
    Ok((report, dir))
}

/// Runs one job with its story on the terminal, all but its end. One that comes from somewhere has a registry.
pub(crate) async fn follow(
    host: &Host,
    root: &Path,
    (spec, here): (JobSpec, Option<Here>),
    (left, held): Has<'_>,
    live: &mut Live,
) -> anyhow::Result<(AttemptReport, Own)> {
    let id = registry::new_run_id();
    let run = here.is_some().then(|| id.clone());
    let ends = Ends::listen()?;
    let dir = local::prepare(host, root, spec, left, held, run).map_err(in_words)?;
    let journal = Journal::open(&dir.journal())?;
    let control = Control::new();
    let interrupts = tokio::spawn(listen(control.clone(), ends));
    let run = attempt::run(host, dir.clone(), &journal, control.clone());
    let report = match here {
        None => live.follow(&journal, run, &control).await,
        Some(here) => {
            let (order, place) = (dir.order()?, AttemptDir::clone(&dir));
            let begun = move || Begun {
                run: id,
                experiment: order.experiment(),
                name: order.spec.name.clone(),
                lineage: registry::lineage_here(&here, &order, attempt::setting(&place)),
            };
            let socket = local::registry_socket(&dir)?;
            let registry = tokio::spawn(async move {
                if let Err(error) = throw_away::serve(socket, begun).await {
                    eprintln!(
                        "note: this run has no registry, calls of MLflow's API wait in vain: {error}"
                    );
                }
            });
            let report = live.follow(&journal, run, &control).await;
            registry.abort();
            report
        }
    };
    interrupts.abort();
    let report = report?;
    Ok((report, dir))
}

/// Tells how a job ended, and puts its results below `.trainyard/runs`.
pub(crate) fn finish(
    root: &Path,
    live: &mut Live,
    report: &AttemptReport,
    dir: &Own,
) -> anyhow::Result<()> {
    let results = local::results_folder(root, dir)?;
    let notebook = local::deliver(dir, report, &results)?;
    live.finish(report, &results, notebook.as_deref())
}

/// The first Ctrl-C asks politely, the second does not.
async fn listen(control: Control, mut ends: Ends) {
    let first = ends.next().await;
    control.stop(first.word(), STOP_GRACE);
    if first == End::Interrupt {
        // The terminal may be gone already.
        let _ = writeln!(std::io::stderr(), "\nstopping; press Ctrl-C again to kill");
    }
    // A terminal that closes says so more than once: the kernel does, and the shell in it.
    let mut again = ends.next().await;
    while again == End::HangUp {
        again = ends.next().await;
    }
    control.stop(again.word(), Span(0));
}

/// The exit code of an outcome.
pub(crate) fn exit_of(outcome: &Outcome) -> Exit {
    match outcome {
        Outcome::Succeeded | Outcome::Reused { .. } => Exit::Done,
        Outcome::Skipped { .. } => Exit::Failed,
        Outcome::Cancelled { .. } => Exit::Cancelled,
        Outcome::Failed(failure) => match failure.owner() {
            Owner::User | Owner::Limit => Exit::Failed,
            Owner::Platform => Exit::Platform,
        },
    }
}

/// For `trainyard lint`: what the files below a root are.
pub(crate) fn tree_of(root: &Path) -> anyhow::Result<WorkTree> {
    Ok(WorkTree::open(root)?.below(root))
}

/// Paths of a tree that are notebooks.
pub(crate) fn notebook_paths(tree: &WorkTree) -> Vec<String> {
    let files = tree.files().iter().map(|file| file.path.clone());
    files.filter(|path| path.ends_with(".ipynb")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_a_person_means_them() {
        let given = [
            "lr=0.1",
            "name=a b",
            "on=True",
            "deep={\"a\":[1]}",
            "empty=",
        ]
        .map(str::to_owned);
        let read = parameters(&given).unwrap();
        assert_eq!(
            serde_json::Value::Object(read),
            serde_json::json!({"lr": 0.1, "name": "a b", "on": true, "deep": {"a": [1]}, "empty": ""})
        );
        for (text, why) in [
            ("x", "is not NAME=VALUE"),
            ("=3", "lacks the parameter's name"),
        ] {
            let error = parameters(&[text.to_owned()]).unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
        }
    }
}
