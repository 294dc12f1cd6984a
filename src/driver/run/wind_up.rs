//! How a run ends: the cell that still runs is interrupted and heard out, the kernel asked to end, then killed.

use std::time::{Duration, Instant};

use protocol::event::CellStatus;
use protocol::outcome::{Failure, Owner};

use super::start::kernel_event;
use super::{Halt, Run, Running};
use crate::failure;
use crate::process::End;

/// How long a kernel may take to end once all is done: twice what Jupyter's own clients give it (`shutdown_wait_time` of
/// jupyter_client is 5 s), because a host may be busy with other jobs.
const END: Duration = Duration::from_secs(10);

impl Run<'_, '_> {
    /// A failure with what the cell said when it was interrupted for it, and where it was then.
    pub(super) fn interrupted(&self, failure: Failure, end: Option<End>) -> Failure {
        let Some(running) = &self.running else {
            return failure;
        };
        let Some(reply) = &running.reply else {
            let killed = end.is_none_or(|end| end.signal() == Some(libc::SIGKILL));
            return match killed && failure.owner() == Owner::Limit {
                true => failure::unmoved(failure, self.job.grace),
                false => failure,
            };
        };
        let Some(raised) = reply.raised() else {
            return failure;
        };
        let line = reply.execution_count.and_then(|count| raised.line(count));
        self.placed(failure::interrupted(failure, &raised), line)
    }

    pub(super) fn died(&self, end: End) -> Failure {
        self.placed(failure::kernel_ended(end, &self.kernel.stderr, false), None)
    }

    /// Ends the kernel, politely where that may help, and closes the cell that still runs. Says how the kernel ended.
    pub(super) fn wind_up(&mut self, halt: &Halt) -> Option<End> {
        let polite = !matches!(halt, Halt::Ended(_) | Halt::Broken(_));
        if polite && self.running.is_some() {
            self.interrupt();
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
        if polite && self.running.as_ref().is_none_or(Running::is_left) {
            self.kernel.shut_down();
            self.wait_for_end(self.end_of(halt));
        }
        if self.kernel.end().is_none() {
            self.kernel.kill();
            self.wait_for_end(self.grace());
        }
        let end = self.kernel.end();
        let lost = self.story.widget_changes_lost();
        if lost > 0 {
            let _ = self.story.note(&format!(
                "The widgets hold more than is kept: {lost} changes of them are not in the executed notebook."
            ));
        }
        let (status, detail) = match (halt, end) {
            (Halt::Ended(end), _) => ("died", end.to_string()),
            (_, Some(end)) => ("ended", end.to_string()),
            (_, None) => ("ended", "it does not react to SIGKILL".to_owned()),
        };
        let _ = kernel_event(self.story, status, &detail);
        end
    }

    /// Interrupts the cell that runs, and listens to what it says about that.
    fn interrupt(&mut self) {
        let (deadline, left) = (self.grace(), |running: &Running| running.is_left());
        let begun = |running: &Running| running.input;
        let early = self.running.as_ref().is_some_and(|running| !begun(running));
        self.kernel.interrupt();
        if early {
            // IPython ignores the interrupt of a cell that it has not begun.
            self.listen(deadline, |running| left(running) || begun(running));
            if self.running.as_ref().is_none_or(left) {
                return;
            }
            self.kernel.interrupt();
        }
        self.listen(deadline, left);
    }

    /// Waits for the kernel's end. Its channels are closed before that, perhaps long before on a busy host, and a full
    /// disk may not take what it says: neither is the end.
    fn wait_for_end(&mut self, deadline: Instant) {
        while Instant::now() < deadline && self.kernel.end().is_none() {
            self.listen(deadline, |_| false);
        }
    }

    /// Until when the kernel may take to end by itself.
    fn end_of(&self, halt: &Halt) -> Instant {
        let grace = Duration::from(self.job.grace);
        let patience = match halt {
            Halt::Done => grace.min(END),
            Halt::Stopped | Halt::Ended(_) | Halt::Broken(_) | Halt::Failed(_) => grace,
        };
        Instant::now() + patience
    }

    fn grace(&self) -> Instant {
        Instant::now() + Duration::from(self.job.grace)
    }

    /// Goes on listening until then, or until `enough` of the cell that runs, or until the kernel has ended or cannot be
    /// heard any more.
    fn listen(&mut self, deadline: Instant, enough: impl Fn(&Running) -> bool) {
        while Instant::now() < deadline && !self.running.as_ref().is_some_and(&enough) {
            match self.step(Some(deadline)) {
                // A second SIGTERM changes nothing, nor does it that somebody is asked again.
                Ok(()) | Err(Halt::Stopped | Halt::Failed(_)) => {}
                Err(Halt::Ended(_) | Halt::Broken(_) | Halt::Done) => return,
            }
        }
    }
}

/// A cell that was cut short by a dead kernel or a time-out did not run to its end.
fn running_is_counted(halt: &Halt) -> bool {
    match halt {
        Halt::Done => true,
        Halt::Stopped | Halt::Ended(_) | Halt::Broken(_) | Halt::Failed(_) => false,
    }
}
