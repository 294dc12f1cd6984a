//! What the service sees of its host between polls: the engine, the GPUs, the disk. Looks are bounded: an
//! engine or a GPU that hangs must not keep the agent from its server.

use std::sync::Arc;
use std::time::Duration;

use protocol::hardware::Engine as EngineWords;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::config::Config;
use crate::executor::Engine;
use crate::hardware::{Disk, GpuReading, Hardware};

/// How long a look at the engine holds; where there is none, how soon it is looked for again.
const ENGINE_HOLDS: Duration = Duration::from_secs(60);
const ENGINE_MISSING: Duration = Duration::from_secs(5);
/// How long the first look is waited for.
const FIRST_LOOK: Duration = Duration::from_secs(3);
/// How long NVML may take for all GPUs.
const GPUS_WITHIN: Duration = Duration::from_secs(20);

/// The engine, or why it cannot be used.
pub(super) type Seen = Result<EngineWords, String>;

/// What is seen of the host.
#[derive(Debug)]
pub(super) struct Sight {
    /// None: jobs run without containers, or not at all.
    engine: Option<Looks>,
    shell: bool,
}

/// The engine as it was last seen, by a task of its own: nobody waits for an engine that hangs.
#[derive(Debug)]
struct Looks {
    last: watch::Receiver<Seen>,
    _task: AbortOnDropHandle<()>,
}

impl Looks {
    /// Begins to look, and waits a little for the first answer.
    async fn begin(config: &Config) -> Self {
        let (seen, mut last) =
            watch::channel(Err("the container engine has not answered yet".into()));
        let config = config.clone();
        let task = tokio::spawn(async move { keep_looking(&config, &seen).await });
        let _ = tokio::time::timeout(FIRST_LOOK, last.changed()).await;
        Self {
            last,
            _task: AbortOnDropHandle::new(task),
        }
    }
}

async fn keep_looking(config: &Config, seen: &watch::Sender<Seen>) {
    let mut was_there = true;
    loop {
        let now = look(config).await;
        match &now {
            Err(reason) if was_there => tracing::warn!("{reason}"),
            Ok(engine) if !was_there => {
                tracing::info!(engine = engine.name, "the engine answers again");
            }
            Ok(_) | Err(_) => {}
        }
        was_there = now.is_ok();
        // Only what is new is news.
        seen.send_if_modified(|last| {
            let is_new = *last != now;
            *last = now;
            is_new
        });
        let holds = if was_there {
            ENGINE_HOLDS
        } else {
            ENGINE_MISSING
        };
        tokio::time::sleep(holds).await;
    }
}

impl Sight {
    /// Begins to look.
    pub(super) async fn begin(config: &Config) -> Self {
        let engine = match config.executors.docker {
            true => Some(Looks::begin(config).await),
            false => None,
        };
        Self {
            engine,
            shell: config.executors.shell,
        }
    }

    /// The engine as it was last seen.
    pub(super) fn engine(&self) -> Option<EngineWords> {
        self.seen().ok()
    }

    /// What is seen of it from now on; none: jobs run without containers.
    pub(super) fn follow(&self) -> Option<watch::Receiver<Seen>> {
        self.engine.as_ref().map(|looks| looks.last.clone())
    }

    fn seen(&self) -> Seen {
        match &self.engine {
            Some(looks) => looks.last.borrow().clone(),
            None => Err(
                "the configuration has no executor: set `executors.docker` or `executors.shell`"
                    .into(),
            ),
        }
    }

    /// Whether the disk has less free than its watermark.
    pub(super) fn is_low(config: &Config) -> bool {
        Disk::of(&config.data).is_ok_and(|disk| disk.free < config.disk.watermark)
    }

    /// Why no new attempt is taken.
    pub(super) fn closed(&self, config: &Config) -> Option<String> {
        if let (Err(reason), false) = (self.seen(), self.shell) {
            return Some(reason);
        }
        let data = config.data.display();
        match Disk::of(&config.data) {
            Ok(disk) if disk.free < config.disk.watermark => Some(format!(
                "the disk of {data} has {} free, less than the watermark of {}",
                disk.free, config.disk.watermark
            )),
            Ok(_) => None,
            Err(error) => Some(format!("the disk of {data} cannot be looked at: {error}")),
        }
    }
}

async fn look(config: &Config) -> Result<EngineWords, String> {
    let engine = Engine::connect(config)
        .await
        .map_err(|error| error.to_string())?;
    let facts = tokio::time::timeout(config.timing.engine.into(), engine.facts())
        .await
        .map_err(|_| {
            format!(
                "the container engine did not answer within {}",
                config.timing.engine
            )
        })?
        .map_err(|error| error.to_string())?;
    match crate::doctor::refusal(&facts).await {
        Some(why) => Err(why),
        None => Ok(facts.inventory()),
    }
}

/// The GPUs now. None where NVML hangs: what nobody can see is booked by nobody.
pub(super) async fn gpus(hardware: &Arc<Hardware>) -> Vec<GpuReading> {
    let look = async {
        let (turn, hardware) = (hardware.turn().await, Arc::clone(hardware));
        let look = move || {
            let readings = hardware.gpus();
            drop(turn);
            readings
        };
        tokio::task::spawn_blocking(look).await
    };
    match tokio::time::timeout(GPUS_WITHIN, look).await {
        Ok(Ok(readings)) => readings,
        Ok(Err(error)) => {
            tracing::error!("looking at the GPUs failed: {error}");
            vec![]
        }
        Err(_) => {
            tracing::error!("NVML has not answered for {GPUS_WITHIN:?}");
            vec![]
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn nobody_waits_for_an_engine_that_hangs() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("engine.sock");
        // Who comes is let in, and never hears a word.
        let _hangs = tokio::net::UnixListener::bind(&socket).unwrap();
        let mut config = Config::default();
        config.executors.docker_host = Some(format!("unix://{}", socket.display()));
        let began = Instant::now();
        let sight = Sight::begin(&config).await;
        assert!(sight.engine().is_none());
        let closed = sight.closed(&config).unwrap();
        assert!(closed.contains("has not answered yet"), "{closed}");
        // Far less than after which a server counts an agent as unreachable.
        assert!(began.elapsed() < Duration::from_secs(15));
    }
}
