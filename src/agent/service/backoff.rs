//! Waiting before something is tried again: longer each time, and never in step with others.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

use protocol::Span;

/// Waits between tries.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    first: Duration,
    most: Duration,
    tries: u32,
}

impl Backoff {
    /// Waits from `first` on, doubled each time, up to `most`.
    pub(super) fn new(first: Span, most: Span) -> Self {
        Self {
            first: first.into(),
            most: most.into(),
            tries: 0,
        }
    }

    /// The next wait: between half and all of what is due.
    pub(super) fn next(&mut self) -> Duration {
        let due = self
            .first
            .saturating_mul(1 << self.tries.min(16))
            .min(self.most);
        self.tries = self.tries.saturating_add(1);
        // Each `RandomState` has keys of its own: enough to keep a fleet out of step.
        let random = RandomState::new().build_hasher().finish() % 1_000;
        due / 2 + (due / 2).mul_f64(random as f64 / 1_000.0)
    }

    /// It went well.
    pub(super) fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_begin_anew_after_success() {
        let mut backoff = Backoff::new(Span::secs(1), Span::secs(30));
        let waits: Vec<_> = (0..40).map(|_| backoff.next()).collect();
        assert!(waits[0] <= Duration::from_secs(1) && waits[0] >= Duration::from_millis(500));
        assert!(waits[39] <= Duration::from_secs(30) && waits[39] >= Duration::from_secs(15));
        backoff.reset();
        assert!(backoff.next() <= Duration::from_secs(1));
    }
}
