//! When a job is measured, and how its GPUs are used then. A GPU that hangs keeps nobody waiting but this.

use std::sync::Arc;
use std::time::Duration;

use protocol::event::GpuSample;
use tokio::sync::mpsc;

use crate::hardware::Hardware;
use crate::host::Host;

/// Samples come quickly at first: short jobs want a curve too.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// How long NVML may take for a job's GPUs.
const GPUS_WITHIN: Duration = Duration::from_secs(20);

/// Says that it is time to measure, with the use of these GPUs, until the other end is dropped.
pub(super) fn begin(host: &Host, gpus: &[String]) -> mpsc::Receiver<Vec<GpuSample>> {
    let (sender, receiver) = mpsc::channel(1);
    let (hardware, gpus) = (Arc::clone(&host.hardware), gpus.to_owned());
    let usual = Duration::from(host.config.timing.sample);
    tokio::spawn(async move {
        let mut wait = FIRST_WAIT;
        while sender.send(uses(&hardware, &gpus).await).await.is_ok() {
            tokio::select! {
                () = tokio::time::sleep(wait.min(usual)) => {}
                () = sender.closed() => return,
            }
            wait = wait.saturating_mul(2);
        }
    });
    receiver
}

/// Nothing where NVML hangs.
async fn uses(hardware: &Arc<Hardware>, gpus: &[String]) -> Vec<GpuSample> {
    if gpus.is_empty() {
        return Vec::new();
    }
    let look = async {
        let (turn, hardware, gpus) = (hardware.turn().await, Arc::clone(hardware), gpus.to_owned());
        let look = move || {
            let uses = hardware.uses(&gpus);
            drop(turn);
            uses
        };
        tokio::task::spawn_blocking(look).await
    };
    match tokio::time::timeout(GPUS_WITHIN, look).await {
        Ok(Ok(uses)) => uses,
        Ok(Err(error)) => {
            tracing::error!("looking at a job's GPUs failed: {error}");
            Vec::new()
        }
        Err(_) => {
            tracing::error!("NVML has not answered for {GPUS_WITHIN:?}");
            Vec::new()
        }
    }
}
