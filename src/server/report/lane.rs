//! Whom a forge counts the calls of: one write at a time for all projects that speak alike, and a pause after each. Who
//! is slow holds up no other.

use protocol::{Span, Timestamp};

use super::ReportConfig;
use crate::forge::ForgeError;

/// The way of all that is written as one caller.
#[derive(Debug)]
pub(super) struct Lane {
    not_before: Timestamp,
    /// How often in a row it did not answer.
    failures: u32,
    /// Whether a write is under way.
    pub(super) busy: bool,
}

impl Default for Lane {
    fn default() -> Self {
        Self {
            not_before: Timestamp(0),
            failures: 0,
            busy: false,
        }
    }
}

impl Lane {
    /// Not before when it may be written to; none: now.
    pub(super) fn waits(&self, now: Timestamp) -> Option<Timestamp> {
        waits(self.not_before, now)
    }

    /// Whether it has anything to remember.
    pub(super) fn matters(&self, now: Timestamp) -> bool {
        self.busy || self.failures > 0 || self.waits(now).is_some()
    }

    /// A write was answered, `took` after `now`.
    pub(super) fn done(
        &mut self,
        answer: Result<(), &ForgeError>,
        config: &ReportConfig,
        name: &str,
        (now, took): (Timestamp, Span),
    ) {
        self.busy = false;
        match answer {
            Err(ForgeError::RateLimited { wait, .. }) => self.not_before = now + took + *wait,
            Err(ForgeError::Transport { .. }) => {
                self.not_before = now + config.wait(self.failures, name);
                self.failures = self.failures.saturating_add(1);
            }
            Ok(())
            | Err(
                ForgeError::Unauthorized { .. }
                | ForgeError::Moved { .. }
                | ForgeError::Credential(_)
                | ForgeError::App { .. }
                | ForgeError::UnknownCommit { .. }
                | ForgeError::Refused { .. }
                | ForgeError::Unreadable { .. },
            ) => {
                self.not_before = now + config.gap_after(took);
                self.failures = 0;
            }
        }
    }
}

/// The end of a wait that is not over. One that is too long to be ours was set before the clock went back.
pub(super) fn waits(not_before: Timestamp, now: Timestamp) -> Option<Timestamp> {
    let clock_went_back = not_before > now + Span::hours(24);
    (not_before > now && !clock_went_back).then_some(not_before)
}
