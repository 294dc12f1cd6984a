//! What a forge counts: writes by their times and by who makes them, whatever they write to, and the refusals that a
//! story asks for.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// GitHub's secondary limits, as far as a well-behaved client has to know them. Each is counted; a forge that
/// `refuses` answers 403 with `Retry-After` as well.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Writes within [`Limits::minute`].
    pub(crate) writes: usize,
    pub(crate) minute: Duration,
    /// From the start of one write to the start of the next.
    pub(crate) apart: Duration,
    /// With this `Retry-After`, in seconds.
    pub(crate) refuses: Option<u64>,
}

impl Limits {
    /// As GitHub documents them.
    pub(crate) fn of_github() -> Self {
        Self {
            writes: 80,
            minute: Duration::from_secs(60),
            apart: Duration::from_secs(1),
            refuses: None,
        }
    }
}

/// How a forge says that somebody called too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// `Retry-After`, in seconds.
    After(u64),
    /// Nothing is left of the hour; it begins anew in so many seconds.
    Spent(u64),
}

#[derive(Debug, Default)]
pub(super) struct Limiter {
    /// None: this forge has no such limits.
    pub(super) limits: Option<Limits>,
    /// The next so many calls are refused.
    pub(super) refused: Option<(u32, Refusal)>,
    /// Whoever was refused should not call before.
    pub(super) quiet_until: BTreeMap<String, Duration>,
    /// By caller.
    writes: BTreeMap<String, VecDeque<Duration>>,
    /// The hour since 1970 that is counted, and the calls in it.
    pub(super) hour: u64,
    pub(super) spent: u64,
    /// Callers and paths of the writes that are being answered.
    in_flight: Vec<(String, String)>,
}

impl Limiter {
    /// The refusal that a story asked for, for one call.
    pub(super) fn refusal(&mut self) -> Option<Refusal> {
        let (left, refusal) = self.refused?;
        self.refused = (left > 1).then(|| (left - 1, refusal));
        Some(refusal)
    }

    /// A write begins. Says what is wrong with its time.
    pub(super) fn begin(&mut self, caller: &str, path: &str, now: Duration) -> Option<String> {
        let wrong = self.wrong(caller, path, now);
        let writes = self.writes.entry(caller.to_owned()).or_default();
        writes.push_back(now);
        self.in_flight.push((caller.to_owned(), path.to_owned()));
        wrong
    }

    fn wrong(&mut self, caller: &str, path: &str, now: Duration) -> Option<String> {
        let limits = self.limits.as_ref()?;
        let writes = self.writes.get_mut(caller)?;
        while writes.front().is_some_and(|at| *at + limits.minute <= now) {
            writes.pop_front();
        }
        let mut others = self.in_flight.iter();
        if let Some((_, other)) = others.find(|(who, _)| who == caller) {
            return Some(format!("{path}: written while {other} was not answered"));
        }
        if writes.len() >= limits.writes {
            return Some(format!(
                "{path}: more than {} writes a minute",
                limits.writes
            ));
        }
        // The way here takes one write longer than the other: a twentieth is let pass.
        let since = now - *writes.back()?;
        let early = since < limits.apart.mul_f64(0.95);
        early.then(|| format!("{path}: written {since:?} after the last"))
    }

    /// Whether a write to this path is being answered.
    pub(super) fn writes_to(&self, path: &str) -> bool {
        self.in_flight.iter().any(|(_, other)| other == path)
    }

    pub(super) fn end(&mut self, caller: &str, path: &str) {
        let ended = |(who, other): &(String, String)| who == caller && other == path;
        if let Some(place) = self.in_flight.iter().position(ended) {
            self.in_flight.remove(place);
        }
    }
}
