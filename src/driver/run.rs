//! Runs a notebook: cell after cell, until the end, a failure, a limit or a stop. Knows no container and no agent.

mod start;
mod wind_up;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use notebook::message::{OutputMessage, StreamName};
use protocol::driver::{CellCount, DriverJob, Verdict};
use protocol::event::{CellStatus, LogStream};
use protocol::outcome::Failure;
use protocol::units::{Span, Timestamp};
use serde_json::json;

use crate::clock::Clock;
use crate::failure::{self, Raised};
use crate::kernel::{Channel, Kernel, KernelFault, Said};
use crate::process::End;
use crate::relay::Relay;
use crate::reply::{InputRequest, Reply, count_of, is_idle};
use crate::script::Script;
use crate::signals::Signals;
use crate::story::{Story, StoryError, Voice};
use crate::tail::Tail;
use crate::wire::Message;
use crate::{Ending, comm};

/// After the reply to a cell, silence of this length means that the kernel's `idle` was lost: kernels other than
/// Python's drop messages where a reader is slow.
const IDLE_GRACE: Duration = Duration::from_secs(4);
/// A kernel that was done with a cell has this long to answer: it answers first, on another socket.
const REPLY_GRACE: Span = Span::secs(10);

/// Messages on iopub that are outputs.
const OUTPUTS: [&str; 6] = [
    "stream",
    "display_data",
    "execute_result",
    "error",
    "update_display_data",
    "clear_output",
];

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

/// The cell that runs.
struct Running {
    cell: u32,
    request: String,
    began: Instant,
    reply: Option<Reply>,
    /// Since when the kernel is done with it.
    idle: Option<Instant>,
    /// When something was heard last.
    heard: Instant,
    /// Whether the kernel has begun with it, and its count.
    input: bool,
    count: Option<u64>,
    /// The exception that it showed last, and has not cleared.
    shown: Option<Raised>,
}

impl Running {
    fn is_over(&self) -> bool {
        self.reply.is_some() && (self.idle.is_some() || self.heard.elapsed() >= IDLE_GRACE)
    }

    /// Whether nothing more is to be hoped for after an interrupt: some kernels then say `idle` and never answer.
    fn is_left(&self) -> bool {
        self.is_over() || self.idle.is_some_and(|idle| idle.elapsed() >= IDLE_GRACE)
    }

    /// When to look again, whatever is said: one of answer and `idle` is there, and the other is missing.
    fn look_again(&self, winding_up: bool) -> Option<Instant> {
        let patience = match winding_up {
            true => IDLE_GRACE,
            false => REPLY_GRACE.into(),
        };
        match (&self.reply, self.idle) {
            (Some(_), _) => Some(self.heard + IDLE_GRACE),
            (None, Some(idle)) => Some(idle + patience),
            (None, None) => None,
        }
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
    relay: Option<Relay>,
) -> Ending {
    let total = script.cells.iter().filter(|cell| cell.runs).count() as u32;
    match start::start(job, script, signals, story, relay) {
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
            Halt::Broken(failure) => Verdict::Failed { failure: *failure },
            Halt::Failed(failure) => Verdict::Failed {
                failure: self.interrupted(*failure, end),
            },
        };
        // Of one that was stopped too: what a kernel wrote that had to be killed may be torn.
        let died = end.filter(|_| !matches!(verdict, Verdict::Succeeded));
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
            if let Some(end) = self.kernel.end().filter(|_| cell.runs) {
                return Err(Halt::Ended(end));
            }
            self.story.cell_started(at, total, self.script.source(at))?;
            if cell.runs {
                self.run_cell(index)?;
            } else {
                self.story
                    .cell_finished(at, CellStatus::Skipped, Duration::ZERO, None)?;
            }
        }
        Ok(())
    }

    fn run_cell(&mut self, index: usize) -> Result<(), Halt> {
        self.tell_captured();
        let cell = &self.script.cells[index];
        let request = json!({
            "code": cell.source, "silent": false, "store_history": true, "user_expressions": {},
            "allow_stdin": false, "stop_on_error": !cell.may_raise,
        });
        let request = self.kernel.ask(Channel::Shell, "execute_request", &request);
        // What an earlier cell said is not why this one fails.
        self.kernel.stderr = Tail::default();
        self.cells.insert(request.clone(), cell.index);
        let now = Instant::now();
        self.running = Some(Running {
            cell: cell.index,
            request,
            began: now,
            reply: None,
            idle: None,
            heard: now,
            input: false,
            count: None,
            shown: None,
        });
        self.clock.cell_started(cell.limit);
        let (reply, shown, took) = loop {
            match self.step(None) {
                // It has said before its end that the cell was over: `exit()`, and we were slow to listen.
                Err(Halt::Ended(_)) if self.running.as_ref().is_some_and(Running::is_over) => {}
                other => other?,
            }
            if let Some(failure) = self.clock.reached(self.story.last_said()) {
                return Err(Halt::Failed(Box::new(self.placed(failure, None))));
            }
            let Some(running) = &self.running else {
                continue;
            };
            let silent = |idle: Instant| idle.elapsed() >= Duration::from(REPLY_GRACE);
            if running.reply.is_none() && running.idle.is_some_and(silent) {
                return Err(self.broken(&KernelFault::NoReply(REPLY_GRACE)));
            }
            if running.is_over()
                && let Some(Running {
                    reply: Some(reply),
                    began,
                    idle,
                    shown,
                    ..
                }) = self.running.take()
            {
                if idle.is_none() {
                    self.story
                        .note("The kernel's last words about the cell were lost.")?;
                }
                break (reply, shown, began.elapsed());
            }
        };
        self.clock.cell_finished();
        self.judge(index, &reply, shown, took)
    }

    /// Output widgets took outputs of the cells before: the kernel is told, as a front end would, so that code sees
    /// them (`out.outputs`). Once for all of a cell: it listens to nothing while it runs one.
    fn tell_captured(&mut self) {
        for (comm, outputs) in self.story.take_captured() {
            let update =
                json!({"method": "update", "state": {"outputs": outputs}, "buffer_paths": []});
            let content = json!({"comm_id": comm, "data": update});
            self.kernel.ask(Channel::Shell, "comm_msg", &content);
        }
    }

    /// What the reply means for the cell and the rest. `shown`: an exception that it showed, whatever it answered:
    /// `%run` shows what the script raised and goes on. Green it is not, as with papermill.
    fn judge(
        &mut self,
        index: usize,
        reply: &Reply,
        shown: Option<Raised>,
        took: Duration,
    ) -> Result<(), Halt> {
        let cell = &self.script.cells[index];
        let (at, count) = (cell.index, reply.execution_count);
        self.executed += 1;
        let shown = shown.filter(|shown| reply.is_ok() && !shown.is_clean_exit());
        let hint = shown.is_some().then_some(failure::SHOWN);
        let Some(raised) = reply.raised().or(shown) else {
            self.story.cell_finished(at, CellStatus::Ok, took, count)?;
            return match reply.leaves() {
                true => Err(Halt::Done),
                false => Ok(()),
            };
        };
        // What may raise may raise SystemExit, too, as with nbclient.
        if cell.may_raise {
            self.story
                .cell_finished(at, CellStatus::ErrorAllowed, took, count)?;
            return Ok(());
        }
        if raised.is_clean_exit() {
            self.story.cell_finished(at, CellStatus::Ok, took, count)?;
            return Err(Halt::Done);
        }
        self.story
            .cell_finished(at, CellStatus::Error, took, count)?;
        let line = count.and_then(|count| raised.line(count));
        let mut failure = failure::raised(&raised, self.script.installs, self.job.user);
        failure.hint = failure.hint.or(hint.map(str::to_owned));
        Err(Halt::Failed(Box::new(self.script.placed(
            failure,
            Some(at),
            line,
        ))))
    }

    /// Waits once, and takes in what was said; not longer than until `until`, the next limit, or what the story waits for.
    fn step(&mut self, until: Option<Instant>) -> Result<(), Halt> {
        let next = [
            until.or_else(|| self.clock.next(self.story.last_said())),
            self.story.due(),
            self.running
                .as_ref()
                .and_then(|running| running.look_again(until.is_some())),
        ];
        let until = next.into_iter().flatten().min().unwrap_or_else(Clock::idle);
        let said = self
            .kernel
            .wait(until)
            .map_err(|fault| self.broken(&fault))?;
        let began = Instant::now();
        let mut halt = None;
        for said in said {
            match said {
                Said::Message(Channel::Iopub, message) => self.heard(message)?,
                Said::Message(Channel::Shell, message) => self.replied(&message)?,
                Said::Message(Channel::Control, _) => {}
                Said::Message(Channel::Stdin, message) if message.kind == "input_request" => {
                    let failure = failure::asks(&InputRequest::read(&message));
                    let failure = Halt::Failed(Box::new(self.placed(failure, None)));
                    halt.get_or_insert(failure);
                }
                Said::Message(Channel::Stdin, _) => {}
                Said::Text(stream, text) => self.story.text(self.voice(stream), &text)?,
                Said::Ended(end) => halt = Some(Halt::Ended(end)),
                Said::Stop => halt = halt.or(Some(Halt::Stopped)),
            }
        }
        self.story.tick()?;
        self.forgive(began.elapsed());
        halt.map_or(Ok(()), Err)
    }

    /// Whose text beside the protocol is.
    fn voice(&self, stream: LogStream) -> Voice {
        match (&self.running, stream) {
            (Some(running), LogStream::Stderr) if self.kernel.leaves_stderr => {
                Voice::Cell(running.cell, StreamName::Stderr)
            }
            (_, stream) => Voice::Log(stream),
        }
    }

    /// Time in which we did not listen, kept by a slow disk, is no silence of the kernel.
    fn forgive(&mut self, kept: Duration) {
        self.story.forgive(kept);
        if let Some(running) = &mut self.running {
            running.heard += kept;
            running.idle = running.idle.map(|idle| idle + kept);
        }
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
        if let Some(running) = &mut self.running
            && message.parent.as_deref() == Some(running.request.as_str())
        {
            match message.kind.as_str() {
                // What is not counted may come without end.
                kind if OUTPUTS.contains(&kind) => running.heard = Instant::now(),
                "status" if is_idle(&message) => {
                    running.idle.get_or_insert_with(Instant::now);
                }
                "execute_input" => {
                    running.input = true;
                    running.count = count_of(&message);
                }
                _ => {}
            }
        }
        let kind = message.kind.clone();
        // Said for no cell that we know: by something that was started outside all, shown where we are.
        let cell = of.or(self.running.as_ref().map(|running| running.cell));
        if let (Some(content), Some(cell)) = (message.large_content(), cell)
            && OUTPUTS.contains(&kind.as_str())
        {
            return self.story.large_output(cell, &kind, content);
        }
        let output = if OUTPUTS.contains(&kind.as_str()) {
            message.into_output().map_err(|error| error.to_string())
        } else if comm::KINDS.contains(&kind.as_str()) {
            match comm::change(message, |id| self.cells.get(id).copied()) {
                Ok(Some(change)) => Ok(OutputMessage::Widget(change)),
                Ok(None) => return Ok(()),
                Err(error) => Err(error.to_string()),
            }
        } else {
            return Ok(());
        };
        if let (Ok(output), Some(cell)) = (&output, of) {
            self.note_shown(cell, output);
        }
        match (output, cell) {
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

    /// Remembers an exception that the cell which runs shows; what an Output widget captures is none of its outputs.
    fn note_shown(&mut self, cell: u32, output: &OutputMessage) {
        let running = self.running.as_mut().filter(|running| running.cell == cell);
        let Some(running) = running.filter(|_| !self.story.is_captured(cell)) else {
            return;
        };
        match output {
            OutputMessage::Error {
                ename,
                evalue,
                traceback,
            } => {
                running.shown = Some(Raised {
                    ename: ename.clone(),
                    evalue: evalue.clone(),
                    traceback: traceback.clone(),
                });
            }
            OutputMessage::ClearOutput { .. } => running.shown = None,
            OutputMessage::Stream { .. }
            | OutputMessage::DisplayData { .. }
            | OutputMessage::ExecuteResult { .. }
            | OutputMessage::UpdateDisplayData { .. }
            | OutputMessage::Widget(_) => {}
        }
    }

    fn replied(&mut self, message: &Message) -> Result<(), Halt> {
        let Some(running) = &mut self.running else {
            return Ok(());
        };
        // The first answer counts.
        if message.kind != "execute_reply"
            || message.parent.as_deref() != Some(running.request.as_str())
            || running.reply.is_some()
        {
            return Ok(());
        }
        running.heard = Instant::now();
        match Reply::read(message) {
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
}
