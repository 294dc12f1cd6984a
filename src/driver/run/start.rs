//! The kernel found, started and asked who it is; what goes wrong there is how the attempt ends.

use protocol::driver::{DriverJob, Verdict};
use protocol::event::EventKind;

use crate::kernel::{Kernel, NotStarted};
use crate::relay::Relay;
use crate::script::Script;
use crate::signals::Signals;
use crate::story::{Story, StoryError, Voice};
use crate::tail::Tail;
use crate::{Ending, failure, kernelspec};

/// Finds and starts the kernel; where there is none, how the attempt ended.
pub(super) fn start<'b>(
    job: &DriverJob,
    script: &Script,
    signals: &'b Signals,
    story: &mut Story,
    relay: Option<Relay>,
) -> Result<Kernel<'b>, Box<Ending>> {
    let failed = |failure| Box::new(Ending::of(Verdict::Failed { failure }));
    let told = |told: Result<(), StoryError>| told.map_err(|error| failed(failure::story(&error)));

    let command = kernelspec::find(script.kernel.as_deref(), &job.env)
        .map_err(|error| failed(failure::no_kernel(&error)))?;
    told(kernel_event(story, "starting", &command.name))?;
    let mut kernel = Kernel::spawn(&command, job, signals, relay)
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

/// Says where the kernel is in its life.
pub(super) fn kernel_event(
    story: &mut Story,
    status: &str,
    detail: &str,
) -> Result<(), StoryError> {
    story.say(EventKind::Kernel {
        status: status.to_owned(),
        detail: Some(detail.to_owned()),
    })
}
