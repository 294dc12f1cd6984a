//! Runs a notebook: cell after cell, until the end, a failure, a limit or a stop. Knows no container and no agent.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use notebook::message::OutputMessage;
use protocol::driver::{CellCount, DriverJob, Verdict};
use protocol::event::{CellStatus, EventKind, LogStream};
use protocol::outcome::Failure;
use protocol::units::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::clock::Clock;
use crate::failure::{self, Raised};
use crate::kernel::{Channel, Kernel, KernelFault, NotStarted, Said};
use crate::process::End;
use crate::script::Script;
use crate::signals::Signals;
use crate::story::{Story, StoryError, Voice};
use crate::tail::Tail;
use crate::wire::Message;
use crate::{Ending, kernelspec};

/// After the reply to a cell, silence of this length means that the kernel's `idle` was lost: kernels other than
/// Python's drop messages where a reader is slow.
const IDLE_GRACE: Duration = Duration::from_secs(4);

/// Why no further cell runs.
enum Halt {
    /// `sys.exit()` or `exit()`: the rest is not wanted, and that is well.
    Done,
    /// We were told to stop.
    Stopped,
    /// The kernel has ended.
    Ended(End),
    /// The kernel cannot be worked with any more, or the story not be told.
    Broken(Box<Failure>),
    /// The user's code or a limit.
    Failed(Box<Failure>),
}

impl From<StoryError> for Halt {
    fn from(error: StoryError) -> Self {
        Halt::Broken(Box::new(failure::story(&error)))
    }
}

/// How the kernel answered a cell.
#[derive(Deserialize)]
struct Reply {
    status: String,
    #[serde(default)]
    execution_count: Option<u64>,
    #[serde(default)]
    ename: String,
    #[serde(default)]
    evalue: String,
    #[serde(default)]
    traceback: Vec<String>,
    #[serde(default)]
    payload: Vec<Value>,
}

/// The cell that runs.
struct Running {
    cell: u32,
    request: String,
    began: Instant,
    reply: Option<Reply>,
    idle: bool,
    /// When something was heard last.
    heard: Instant,
    count: Option<u64>,
}

impl Running {
    /// `quiet`: nothing that was said lies unread.
    fn is_over(&self, quiet: bool) -> bool {
        self.reply.is_some() && (self.idle || quiet && self.heard.elapsed() >= IDLE_GRACE)
    }
}

struct Run<'a, 'b> {
    job: &'a DriverJob,
    script: &'a Script,
    kernel: Kernel<'b>,
    story: &'a mut Story,
    clock: Clock<'a>,
    /// Which cell a request was for: a thread may speak long after its cell.
    cells: HashMap<String, u32>,
    running: Option<Running>,
    executed: u32,
}

/// Runs the notebook and tells the story.
pub(crate) fn run(
    job: &DriverJob,
    script: &Script,
    signals: &Signals,
    story: &mut Story,
) -> Ending {
    let total = script.cells.iter().filter(|cell| cell.runs).count() as u32;
    match start(job, script, signals, story) {
        Ok(kernel) => {
            let run = Run {
                job,
                script,
                kernel,
                story,
                clock: Clock::start(&job.limits),
                cells: HashMap::new(),
                running: None,
                executed: 0,
            };
            run.finish(total)
        }
        Err(ending) => Ending {
            cells: CellCount { executed: 0, total },
            ..*ending
        },
    }
}

/// Finds and starts the kernel; where there is none, how the attempt ended.
fn start<'b>(
    job: &DriverJob,
    script: &Script,
    signals: &'b Signals,
    story: &mut Story,
) -> Result<Kernel<'b>, Box<Ending>> {
    let failed = |failure| Box::new(Ending::of(Verdict::Failed { failure }));
    let told = |told: Result<(), StoryError>| told.map_err(|error| failed(failure::story(&error)));

    let command = kernelspec::find(script.kernel.as_deref(), &job.env)
        .map_err(|error| failed(failure::no_kernel(&error)))?;
    told(kernel_event(story, "starting", &command.name))?;
    let mut kernel = Kernel::spawn(&command, job, signals)
        .map_err(|fault| failed(failure::kernel_fault(&fault, &Tail::default())))?;
    let mut trouble = Ok(());
    let connected = kernel.connect(job.kernel_start_timeout, |stream, text| {
        let said = story.text(Voice::Log(stream), text);
        trouble = std::mem::replace(&mut trouble, Ok(())).and(said);
    });
    told(trouble)?;
    match connected {
        Ok(info) => {
            story.language_info(info.language);
            told(kernel_event(story, "ready", &info.name))?;
            Ok(kernel)
        }
        Err(NotStarted::Stopped) => Err(Box::new(Ending::of(Verdict::Stopped))),
        Err(NotStarted::Ended(end)) => {
            told(kernel_event(story, "died", &end.to_string()))?;
            Err(Box::new(Ending {
                signal: end.signal(),
                ..*failed(failure::kernel_ended(end, &kernel.stderr, true))
            }))
        }
        Err(NotStarted::Fault(fault)) => Err(failed(failure::kernel_fault(&fault, &kernel.stderr))),
    }
}

fn kernel_event(story: &mut Story, status: &str, detail: &str) -> Result<(), StoryError> {
    story.say(EventKind::Kernel {
        status: status.to_owned(),
        detail: Some(detail.to_owned()),
    })
}

impl Run<'_, '_> {
    fn finish(mut self, total: u32) -> Ending {
        let started_at = Timestamp::now();
        let halt = self.all_cells(total).err().unwrap_or(Halt::Done);
        let end = self.wind_up(&halt);
        let verdict = match halt {
            Halt::Done => Verdict::Succeeded,
            Halt::Stopped => Verdict::Stopped,
            Halt::Ended(end) => Verdict::Failed {
                failure: self.died(end),
            },
            Halt::Broken(failure) | Halt::Failed(failure) => Verdict::Failed { failure: *failure },
        };
        let died = end.filter(|_| !matches!(verdict, Verdict::Succeeded | Verdict::Stopped));
        Ending {
            verdict,
            started_at,
            cells: CellCount {
                executed: self.executed,
                total,
            },
            exit_code: None,
            signal: died.and_then(End::signal),
        }
    }

    fn all_cells(&mut self, total: u32) -> Result<(), Halt> {
        for index in 0..self.script.cells.len() {
            let cell = &self.script.cells[index];
            let at = cell.index;
            self.story.cell_started(at, total)?;
            if cell.runs {
                self.run_cell(index)?;
            } else {
                self.story
                    .cell_finished(at, CellStatus::Skipped, Duration::ZERO, None)?;
            }
        }
        Ok(())
    }

    /// Whether the cell that runs has ended.
    fn is_over(&self) -> bool {
        let quiet = self.kernel.is_quiet();
        self.running
            .as_ref()
            .is_some_and(|running| running.is_over(quiet))
    }

    fn run_cell(&mut self, index: usize) -> Result<(), Halt> {
        let cell = &self.script.cells[index];
        let request = json!({
            "code": cell.source, "silent": false, "store_history": true, "user_expressions": {},
            "allow_stdin": false, "stop_on_error": !cell.may_raise,
        });
        let request = self.kernel.ask(Channel::Shell, "execute_request", &request);
        self.cells.insert(request.clone(), cell.index);
        let now = Instant::now();
        self.running = Some(Running {
            cell: cell.index,
            request,
            began: now,
            reply: None,
            idle: false,
            heard: now,
            count: None,
        });
        self.clock.cell_started();
        let reply = loop {
            self.step(None)?;
            let heard = match self.kernel.is_quiet() {
                true => self.story.last_said(),
                false => Instant::now(),
            };
            if let Some(failure) = self.clock.reached(heard) {
                return Err(Halt::Failed(Box::new(self.placed(failure, None))));
            }
            if self.is_over()
                && let Some(Running {
                    reply: Some(reply),
                    began,
                    idle,
                    ..
                }) = self.running.take()
            {
                if !idle {
                    self.story
                        .note("The kernel's last words about the cell were lost.")?;
                }
                break (reply, began.elapsed());
            }
        };
        self.clock.cell_finished();
        self.judge(index, reply.0, reply.1)
    }

    /// What the reply means for the cell and the rest.
    fn judge(&mut self, index: usize, reply: Reply, took: Duration) -> Result<(), Halt> {
        let cell = &self.script.cells[index];
        let (at, count) = (cell.index, reply.execution_count);
        let mut raised = Raised {
            ename: reply.ename,
            evalue: reply.evalue,
            traceback: reply.traceback,
        };
        let leaves = reply
            .payload
            .iter()
            .any(|payload| payload["source"] == "ask_exit");
        if reply.status == "aborted" {
            raised.ename = "The kernel did not run the cell".to_owned();
        }
        self.executed += 1;
        if reply.status == "ok" || raised.is_clean_exit() {
            self.story.cell_finished(at, CellStatus::Ok, took, count)?;
            return if leaves || reply.status != "ok" {
                Err(Halt::Done)
            } else {
                Ok(())
            };
        }
        if cell.may_raise {
            self.story
                .cell_finished(at, CellStatus::ErrorAllowed, took, count)?;
            return Ok(());
        }
        self.story
            .cell_finished(at, CellStatus::Error, took, count)?;
        let line = count.and_then(|count| raised.line(count));
        let failure = failure::raised(&raised, self.script.installs, self.job.user);
        Err(Halt::Failed(Box::new(self.script.placed(
            failure,
            Some(at),
            line,
        ))))
    }

    /// Waits once, and takes in what was said; not longer than until `until`, the next limit, or what the story waits for.
    fn step(&mut self, until: Option<Instant>) -> Result<(), Halt> {
        let idle = self
            .running
            .as_ref()
            .filter(|running| running.reply.is_some());
        let next = [
            until.or_else(|| self.clock.next(self.story.last_said())),
            self.story.due(),
            idle.map(|running| running.heard + IDLE_GRACE),
        ];
        let until = next.into_iter().flatten().min().unwrap_or_else(Clock::idle);
        let said = self
            .kernel
            .wait(until)
            .map_err(|fault| self.broken(&fault))?;
        let mut halt = None;
        for said in said {
            match said {
                Said::Message(Channel::Iopub, message) => self.heard(message)?,
                Said::Message(Channel::Shell, message) => self.replied(&message)?,
                Said::Message(Channel::Control, _) => {}
                Said::Text(stream, text) => self.story.text(Voice::Log(stream), &text)?,
                Said::Ended(end) => halt = Some(Halt::Ended(end)),
                Said::Stop => halt = halt.or(Some(Halt::Stopped)),
            }
        }
        self.story.tick()?;
        halt.map_or(Ok(()), Err)
    }

    fn broken(&self, fault: &KernelFault) -> Halt {
        Halt::Broken(Box::new(
            self.placed(failure::kernel_fault(fault, &self.kernel.stderr), None),
        ))
    }

    /// A message on iopub: an output, or a state of the cell that runs.
    fn heard(&mut self, message: Message) -> Result<(), StoryError> {
        let of = message
            .parent
            .as_ref()
            .and_then(|id| self.cells.get(id))
            .copied();
        if let Some(running) = &mut self.running {
            running.heard = Instant::now();
            if message.parent.as_deref() == Some(running.request.as_str()) {
                match message.kind.as_str() {
                    "status" => running.idle |= is_idle(&message),
                    "execute_input" => running.count = count_of(&message),
                    _ => {}
                }
            }
        }
        let outputs = [
            "stream",
            "display_data",
            "execute_result",
            "error",
            "update_display_data",
            "clear_output",
        ];
        if !outputs.contains(&message.kind.as_str()) {
            return Ok(());
        }
        // Said for no cell that we know: by something that was started outside all, shown where we are.
        let cell = of.or(self.running.as_ref().map(|running| running.cell));
        let kind = message.kind.clone();
        if let (Some(content), Some(cell)) = (message.large_content(), cell) {
            return self.story.large_output(cell, &kind, content);
        }
        match (message.into_output::<OutputMessage>(), cell) {
            (Ok(output), Some(cell)) => self.story.output(cell, output),
            (Ok(OutputMessage::Stream { text, .. }), None) => {
                self.story.text(Voice::Log(LogStream::Stdout), &text)
            }
            (Ok(_), None) => self.story.note(&format!(
                "The kernel showed a {kind} outside all cells; it is not kept."
            )),
            (Err(error), _) => self.story.note(&format!(
                "An output of the kernel ({kind}) is not kept: {error}."
            )),
        }
    }

    fn replied(&mut self, message: &Message) -> Result<(), Halt> {
        let Some(running) = &mut self.running else {
            return Ok(());
        };
        if message.kind != "execute_reply"
            || message.parent.as_deref() != Some(running.request.as_str())
        {
            return Ok(());
        }
        running.heard = Instant::now();
        match message.content() {
            Ok(reply) => running.reply = Some(reply),
            Err(error) => {
                return Err(self.broken(&KernelFault::Wire {
                    channel: Channel::Shell,
                    error,
                }));
            }
        }
        Ok(())
    }

    /// A failure with its place: the cell that runs.
    fn placed(&self, failure: Failure, line: Option<u32>) -> Failure {
        let cell = self.running.as_ref().map(|running| running.cell);
        self.script.placed(failure, cell, line)
    }

    fn died(&self, end: End) -> Failure {
        self.placed(failure::kernel_ended(end, &self.kernel.stderr, false), None)
    }

    /// Ends the kernel, politely where that may help, and closes the cell that still runs. Says how the kernel ended.
    fn wind_up(&mut self, halt: &Halt) -> Option<End> {
        let mut end = match halt {
            Halt::Ended(end) => Some(*end),
            Halt::Done | Halt::Stopped | Halt::Broken(_) | Halt::Failed(_) => None,
        };
        let polite = !matches!(halt, Halt::Ended(_) | Halt::Broken(_));
        if polite && self.running.is_some() {
            self.kernel.interrupt();
            end = self.listen(|run| run.running.is_none() || run.is_over());
        }
        if let Some(running) = &self.running {
            let (cell, took) = (running.cell, running.began.elapsed());
            let count = running
                .reply
                .as_ref()
                .and_then(|reply| reply.execution_count)
                .or(running.count);
            let _ = self
                .story
                .cell_finished(cell, CellStatus::Interrupted, took, count);
            self.executed += u32::from(running_is_counted(halt));
        }
        if polite && end.is_none() && (self.running.is_none() || self.is_over()) {
            self.kernel.shut_down();
            end = self.listen(|_| false);
        }
        if !self.kernel.has_ended() {
            self.kernel.kill();
            end = self.listen(|_| false).or(end);
        }
        let (status, detail) = match (halt, end) {
            (Halt::Ended(end), _) => ("died", end.to_string()),
            (_, Some(end)) => ("ended", end.to_string()),
            (_, None) => ("ended", "it does not react to SIGKILL".to_owned()),
        };
        let _ = kernel_event(self.story, status, &detail);
        end
    }

    /// Goes on listening for the grace, or until `enough`, or until the kernel has ended, and says how it did.
    fn listen(&mut self, enough: impl Fn(&Self) -> bool) -> Option<End> {
        let deadline = Instant::now() + Duration::from(self.job.grace);
        while Instant::now() < deadline && !enough(self) {
            match self.step(Some(deadline)) {
                // A second SIGTERM changes nothing.
                Ok(()) | Err(Halt::Stopped) => {}
                Err(Halt::Ended(end)) => return Some(end),
                Err(Halt::Broken(_) | Halt::Failed(_) | Halt::Done) => return None,
            }
        }
        None
    }
}

/// A cell that was cut short by a dead kernel or a time-out did not run to its end.
fn running_is_counted(halt: &Halt) -> bool {
    match halt {
        Halt::Done => true,
        Halt::Stopped | Halt::Ended(_) | Halt::Broken(_) | Halt::Failed(_) => false,
    }
}

fn is_idle(message: &Message) -> bool {
    #[derive(Deserialize)]
    struct Status {
        execution_state: String,
    }
    message
        .content::<Status>()
        .is_ok_and(|status| status.execution_state == "idle")
}

fn count_of(message: &Message) -> Option<u64> {
    #[derive(Deserialize)]
    struct Input {
        execution_count: Option<u64>,
    }
    message.content::<Input>().ok()?.execution_count
}
