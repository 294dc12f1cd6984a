//! Runs a command: its text as log events, its end as the verdict. Knows no notebook.

use std::path::Path;
use std::time::{Duration, Instant};

use protocol::driver::{DriverJob, DriverWork, Verdict};
use protocol::event::LogStream;
use protocol::outcome::FailureKind;
use rustix::process::Signal;

use crate::Ending;
use crate::clock::Clock;
use crate::failure;
use crate::process::{Child, End, Start};
use crate::relay::Relay;
use crate::signals::Signals;
use crate::story::{Story, StoryError, Voice};
use crate::tail::Tail;
use crate::watch::{Happening, Watch};

/// Between one SIGKILL and the next.
const KILL_AGAIN: Duration = Duration::from_secs(1);

/// After so many it is given up; everything left of the job is ended then anyway.
const KILLS: u32 = 10;

/// A command that is being ended.
struct Winding {
    verdict: Verdict,
    kill_at: Instant,
    kills: u32,
}

/// Runs it to its end, or to that of its time.
///
/// # Errors
/// Where the story cannot be told any more; the command still runs then.
pub(crate) fn run(
    job: &DriverJob,
    argv: &[String],
    signals: &Signals,
    story: &mut Story,
    relay: Option<Relay>,
) -> Result<Ending, StoryError> {
    let start = Start {
        argv,
        env: &job.env,
        workdir: Path::new(&job.workdir),
        user: job.user,
    };
    let child = match Child::start(&start) {
        Ok(child) => child,
        Err(e) => {
            let failure = failure::not_spawned(
                FailureKind::CommandFailed,
                program_of(job),
                &job.workdir,
                &e,
            );
            return Ok(Ending::of(Verdict::Failed { failure }));
        }
    };
    let mut watch = Watch::<()>::new(child, signals, relay);
    let mut stderr = Tail::default();
    let clock = Clock::start(&job.limits);
    let mut winding: Option<Winding> = None;
    loop {
        let limits = winding
            .as_ref()
            .map(|winding| winding.kill_at)
            .or_else(|| clock.next(story.last_said()));
        let until = limits.into_iter().chain(story.due()).min();
        let happenings = watch.wait(until.unwrap_or_else(Clock::idle))?;
        let mut stop = None;
        for happening in happenings {
            match happening {
                Happening::Text(stream, text) => {
                    if stream == LogStream::Stderr {
                        stderr.push(&text);
                    }
                    story.text(Voice::Log(stream), &text)?;
                }
                Happening::Ended(end) => return Ok(ended(end, winding, job, &stderr)),
                Happening::Stop => stop = Some(Verdict::Stopped),
                Happening::Frames(..) | Happening::Broken(..) => {}
            }
        }
        story.tick()?;
        let over = || {
            clock
                .reached(story.last_said())
                .map(|failure| Verdict::Failed { failure })
        };
        if winding.is_none()
            && let Some(verdict) = stop.or_else(over)
        {
            watch.child.ask_to_end();
            winding = Some(Winding {
                verdict,
                kill_at: Instant::now() + Duration::from(job.grace),
                kills: 0,
            });
        }
        if let Some(winding) = winding
            .as_mut()
            .filter(|winding| Instant::now() >= winding.kill_at)
        {
            watch.child.signal(Signal::KILL);
            winding.kill_at = Instant::now() + KILL_AGAIN;
            winding.kills += 1;
        }
        if winding
            .as_ref()
            .is_some_and(|winding| winding.kills > KILLS)
        {
            return Ok(ended(End::Signal(libc::SIGKILL), winding, job, &stderr));
        }
    }
}

fn ended(end: End, winding: Option<Winding>, job: &DriverJob, stderr: &Tail) -> Ending {
    let verdict = match (winding, end) {
        (Some(winding), _) => winding.verdict,
        (None, End::Code(0)) => Verdict::Succeeded,
        (None, end) => Verdict::Failed {
            failure: failure::command_ended(end, program_of(job), stderr, job.user),
        },
    };
    Ending {
        exit_code: end.code(),
        signal: end.signal(),
        ..Ending::of(verdict)
    }
}

fn program_of(job: &DriverJob) -> &str {
    match &job.work {
        DriverWork::Command { argv } => argv.first().map_or("", String::as_str),
        DriverWork::Notebook { .. } => "",
    }
}
