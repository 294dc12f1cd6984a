//! How long a call may take, and who may end it earlier. It knows nothing of what is waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::MirrorError;

/// A point in time after which a call gives up, and a flag that ends it earlier.
#[derive(Debug, Clone)]
pub struct Deadline {
    started: Instant,
    within: Duration,
    cancelled: Option<Arc<AtomicBool>>,
}

impl Deadline {
    /// From now on, for that long.
    #[must_use]
    pub fn within(within: Duration) -> Self {
        Self {
            started: Instant::now(),
            within,
            cancelled: None,
        }
    }

    /// The same, and over as soon as `flag` is true.
    #[must_use]
    pub fn or_when(mut self, flag: Arc<AtomicBool>) -> Self {
        self.cancelled = Some(flag);
        self
    }

    /// An error once it has passed or somebody cancelled; `what` says what was being done.
    pub(crate) fn check(&self, what: &str) -> Result<(), MirrorError> {
        if self
            .cancelled
            .as_ref()
            .is_some_and(|flag| flag.load(Ordering::Relaxed))
        {
            return Err(MirrorError::Cancelled {
                what: what.to_owned(),
            });
        }
        if self.started.elapsed() >= self.within {
            let seconds = self.within.as_secs_f64();
            return Err(MirrorError::TimedOut {
                what: what.to_owned(),
                seconds,
            });
        }
        Ok(())
    }
}
