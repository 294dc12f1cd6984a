//! The GPUs of this host as the service sees them: every look goes through the ledger, which takes in what they report.

use std::time::Duration;

use protocol::hardware::Gpu;

use super::{Shared, sight};
use crate::hardware::GpuReading;

impl Shared {
    /// The GPUs now. The ledger knows of their faults when this returns.
    pub(super) async fn gpus(&self) -> Vec<GpuReading> {
        let readings = sight::gpus(&self.hardware).await;
        let faults = self.hardware.take_faults();
        if let Err(error) = self.ledger.notice(&faults, &readings) {
            tracing::error!("{error}");
        }
        readings
    }

    /// Returns when the GPUs are otherwise than the server was told. It need not wait for a poll's end to hear that one
    /// is lost, or lent to a person.
    pub(super) async fn gpus_change(&self, told: &[Gpu]) {
        loop {
            tokio::time::sleep(Duration::from(self.host.config.timing.gpus)).await;
            // A driver that was slow or broken may come later.
            if self.hardware.absent().is_some() {
                continue;
            }
            if self.offered(&self.gpus().await) != told {
                return;
            }
        }
    }
}
