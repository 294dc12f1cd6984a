//! What the service sees of its host between polls: the engine, the GPUs, the disk. Looks are bounded: an
//! engine or a GPU that hangs must not keep the agent from its server.

use std::sync::Arc;
use std::time::Duration;

use protocol::hardware::Engine as EngineWords;
use tokio::time::Instant;

use crate::config::Config;
use crate::executor::Engine;
use crate::hardware::{Disk, GpuReading, Hardware};

/// How long a look at the engine holds; where there is none, how soon it is looked for again.
const ENGINE_HOLDS: Duration = Duration::from_secs(60);
const ENGINE_MISSING: Duration = Duration::from_secs(5);
/// How long NVML may take for all GPUs.
const GPUS_WITHIN: Duration = Duration::from_secs(20);

/// The engine as it was last seen.
#[derive(Debug)]
pub(super) struct Sight {
    looked: Option<Instant>,
    engine: Result<EngineWords, String>,
    shell: bool,
}

impl Sight {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            looked: None,
            engine: Err(
                "the configuration has no executor: set `executors.docker` or `executors.shell`"
                    .into(),
            ),
            shell: config.executors.shell,
        }
    }

    /// The engine, looked at anew where the last look is old.
    pub(super) async fn engine(&mut self, config: &Config) -> Option<EngineWords> {
        let holds = if self.engine.is_ok() {
            ENGINE_HOLDS
        } else {
            ENGINE_MISSING
        };
        let fresh = self.looked.is_some_and(|at| at.elapsed() < holds);
        if config.executors.docker && !fresh {
            let was_there = self.looked.is_none() || self.engine.is_ok();
            self.engine = look(config).await;
            self.looked = Some(Instant::now());
            match &self.engine {
                Err(reason) if was_there => tracing::warn!("{reason}"),
                Ok(engine) if !was_there => {
                    tracing::info!(engine = engine.name, "the engine answers again")
                }
                Ok(_) | Err(_) => {}
            }
        }
        self.engine.clone().ok()
    }

    /// Whether the disk has less free than its watermark.
    pub(super) fn is_low(config: &Config) -> bool {
        Disk::of(&config.data).is_ok_and(|disk| disk.free < config.disk.watermark)
    }

    /// Why no new attempt is taken.
    pub(super) fn closed(&self, config: &Config) -> Option<String> {
        if let (Err(reason), false) = (&self.engine, self.shell) {
            return Some(reason.clone());
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
