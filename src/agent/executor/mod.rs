//! How an attempt's processes are started, followed and ended. Only this module speaks to a container
//! engine; it knows neither notebooks nor the server.

mod container;
mod engine;
mod in_words;
mod meter;
mod shell;
#[cfg(test)]
pub(crate) mod testing;
mod tree;

pub use engine::{Engine, EngineError, EngineFacts};

pub(crate) use container::{Container, ContainerSpec, MountSpec};
pub(crate) use engine::Image;
pub(crate) use meter::{Meter, Reading};
pub(crate) use shell::{ATTEMPT_VARIABLE, Process};

use std::time::Duration;

/// Something that runs: a container or a process of this host. The driver is its first process.
#[derive(Debug)]
pub(crate) enum Running {
    /// A container.
    Container(Container),
    /// A process; not isolated.
    Process(Process),
}

/// How it ended, as far as the host can tell.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Exit {
    /// Exit code of the driver; 128 + n by signal n. None: not known.
    pub(crate) code: Option<i64>,
    /// The kernel ended something in it for want of memory.
    pub(crate) oom_killed: bool,
    /// It is not there any more, and nobody can say how it ended.
    pub(crate) lost: bool,
}

impl Running {
    /// Waits for the end. Cancel-safe: dropped, it changes nothing.
    pub(crate) async fn wait(&self) -> Exit {
        match self {
            Running::Container(container) => container.wait().await,
            Running::Process(process) => process.wait().await,
        }
    }

    /// Asks the driver to end politely.
    pub(crate) async fn terminate(&self) {
        match self {
            Running::Container(container) => container.signal("SIGTERM").await,
            Running::Process(process) => process.terminate(),
        }
    }

    /// Ends everything at once.
    pub(crate) async fn kill(&self) {
        match self {
            Running::Container(container) => container.signal("SIGKILL").await,
            Running::Process(process) => process.kill(),
        }
    }

    /// Where its use of the host can be read, where this host shows it.
    pub(crate) async fn meter(&self) -> Option<Meter> {
        match self {
            Running::Container(container) => Meter::of_process(container.pid().await?),
            Running::Process(process) => Some(Meter::Tree { root: process.pid }),
        }
    }

    /// Removes what the engine keeps of it.
    pub(crate) async fn remove(&self) {
        match self {
            Running::Container(container) => {
                container.remove().await;
            }
            Running::Process(process) => {
                process.sweep();
            }
        }
    }
}

/// How long is waited between two looks where nothing tells of a change.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
