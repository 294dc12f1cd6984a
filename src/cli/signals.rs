//! Signals that end a service, or a person's run.

use std::future::pending;
use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cancels `shutdown` at the first signal; at the second the process ends at once.
pub(crate) fn cancel_on_signal(shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        for _ in 0..2 {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            if shutdown.is_cancelled() {
                std::process::exit(130);
            }
            shutdown.cancel();
        }
    });
    Ok(())
}

/// How a person's run is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Ctrl-C.
    Interrupt,
    /// `kill`, or a host that shuts down.
    Terminate,
    /// Its terminal was closed, or the connection to it.
    HangUp,
}

impl End {
    /// Who asked, as the outcome says it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            End::Interrupt => "Ctrl-C",
            End::Terminate => "SIGTERM",
            End::HangUp => "a terminal that was closed",
        }
    }
}

/// Hears them from when it is made.
pub(crate) struct Ends {
    interrupt: Signal,
    terminate: Signal,
    /// None: whoever started it (`nohup`) has it ignored.
    hang_up: Option<Signal>,
}

impl Ends {
    pub(crate) fn listen() -> io::Result<Self> {
        let heard = !ignores_hang_up();
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: heard.then(|| signal(SignalKind::hangup())).transpose()?,
        })
    }

    /// The next one.
    pub(crate) async fn next(&mut self) -> End {
        let hang_up = async {
            match &mut self.hang_up {
                Some(signal) => signal.recv().await,
                None => pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => End::Interrupt,
            _ = self.terminate.recv() => End::Terminate,
            _ = hang_up => End::HangUp,
        }
    }
}

/// Whether this process was started with SIGHUP ignored: the lowest bit of the kernel's mask.
fn ignores_hang_up() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 == 1)
}
