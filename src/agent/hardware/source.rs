//! Where NVML comes from: a thread of its own loads it, so that a driver that hangs keeps nobody for ever. What is not there
//! is looked for again.

use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use protocol::Span;

use super::absent::NvmlAbsent;
use super::nvml::Nvml;

/// How long after a failure it is tried again.
const AGAIN: Duration = Duration::from_secs(60);

/// NVML, or why it is not there yet.
#[derive(Debug)]
pub(super) struct Source(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    nvml: Result<Arc<Nvml>, NvmlAbsent>,
    /// Whether it is to listen for faults as soon as it is there.
    listens: bool,
}

impl Source {
    /// Loads a library, which is waited for no longer than `within`. One that answers later is there from then on.
    pub(super) fn open(library: &Path, within: Span) -> Self {
        let source = Self(Arc::new(Mutex::new(State {
            nvml: Err(NvmlAbsent::Silent(within)),
            listens: false,
        })));
        let (first, loaded) = sync_channel(1);
        let (library, state) = (library.to_owned(), Arc::downgrade(&source.0));
        let thread = thread::Builder::new()
            .name("nvml".into())
            .spawn(move || keep_loading(&library, &state, &first));
        match thread {
            Ok(_) => {
                let _ = loaded.recv_timeout(within.into());
            }
            Err(error) => lock(&source.0).nvml = Err(NvmlAbsent::Broken(error.to_string())),
        }
        source
    }

    pub(super) fn nvml(&self) -> Result<Arc<Nvml>, NvmlAbsent> {
        lock(&self.0).nvml.clone()
    }

    /// Listens from now on for faults, or from when it is there.
    pub(super) fn listen(&self) {
        let nvml = {
            let mut state = lock(&self.0);
            state.listens = true;
            state.nvml.clone()
        };
        if let Ok(nvml) = nvml {
            nvml.listen();
        }
    }
}

/// Loads until it is there, or nobody wants it any more. Whoever waits for the first answer hears of it.
fn keep_loading(library: &Path, state: &Weak<Mutex<State>>, first: &SyncSender<()>) {
    while state.strong_count() > 0 {
        let loaded = Nvml::load(library).map(Arc::new);
        let Some(state) = state.upgrade() else {
            return;
        };
        let listens = {
            let mut state = lock(&state);
            state.nvml = loaded.clone();
            state.listens
        };
        drop(state);
        let is_late = first.try_send(()).is_err();
        if let Ok(nvml) = loaded {
            if is_late {
                tracing::info!("NVIDIA's driver answers now");
            }
            if listens {
                nvml.listen();
            }
            return;
        }
        thread::sleep(AGAIN);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn nobody_waits_for_a_library_that_does_not_load_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("libnvidia-ml.so.1");
        // Who opens it waits until somebody writes.
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
        let mode = mode | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &library, kind, mode, 0).unwrap();
        // What a thread waits with for the first time asks for the system loader's lock, which a library that hangs while it
        // is loaded holds.
        let (_held, channel) = sync_channel::<()>(1);
        let _ = channel.recv_timeout(Duration::from_millis(50));
        let source = Source::open(&library, Span(20));
        let absent = source.nvml().unwrap_err();
        assert_eq!(absent, NvmlAbsent::Silent(Span(20)));
        assert!(absent.to_string().contains("within 20ms"), "{absent}");
        std::fs::write(&library, "no library").unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while matches!(source.nvml(), Err(NvmlAbsent::Silent(_))) {
            assert!(Instant::now() < deadline, "it never comes to an end");
            thread::yield_now();
        }
        assert!(matches!(source.nvml(), Err(NvmlAbsent::Unusable { .. })));
    }
}
