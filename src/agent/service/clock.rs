//! The server's clock, as far as it differs from this host's. What the agent sends is in the server's time, so that
//! a host whose clock is wrong tells no job that ended before it began.

use std::borrow::Cow;

use protocol::agent_api::AttemptStatus;
use protocol::report::AttemptReport;
use protocol::{Event, Span, Timestamp};
use tokio::sync::watch;

/// Differences up to here are the network's, not the clocks'.
const SAME: Span = Span::secs(2);

/// How far the server's clock is ahead, in milliseconds; none before the first answer.
#[derive(Debug)]
pub(super) struct Clock {
    ahead: watch::Sender<Option<i64>>,
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            ahead: watch::Sender::new(None),
        }
    }
}

impl Clock {
    /// An answer came that was written at `server`. A server of an earlier version does not say when.
    pub(super) fn learn(&self, server: Option<Timestamp>, here: Timestamp) {
        let ahead = server.map_or(0, |server| server.0.saturating_sub(here.0));
        let ahead = if ahead.unsigned_abs() <= SAME.0 {
            0
        } else {
            ahead
        };
        let known = *self.ahead.borrow();
        let moved = ahead.abs_diff(known.unwrap_or(0)) > SAME.0;
        if known.is_some() && !moved {
            return;
        }
        if moved {
            let by = Span::secs((ahead.unsigned_abs() + 500) / 1_000);
            match ahead {
                0 => tracing::info!("this host's clock agrees with the server's again"),
                1.. => tracing::warn!(
                    "this host's clock is {by} behind the server's; what is reported is corrected by that"
                ),
                _ => tracing::warn!(
                    "this host's clock is {by} ahead of the server's; what is reported is corrected by that"
                ),
            }
        }
        self.ahead.send_replace(Some(ahead));
    }

    /// Returns when the server has answered once.
    pub(super) async fn known(&self) {
        // The sender lives in `self`: this cannot fail while we are here.
        let _ = self.ahead.subscribe().wait_for(Option::is_some).await;
    }

    fn ahead(&self) -> i64 {
        self.ahead.borrow().unwrap_or(0)
    }

    /// A time of this host in the server's time.
    fn corrected(&self, at: Timestamp) -> Timestamp {
        Timestamp(at.0.saturating_add(self.ahead()))
    }

    pub(super) fn events<'a>(&self, events: &'a [Event]) -> Cow<'a, [Event]> {
        if self.ahead() == 0 {
            return Cow::Borrowed(events);
        }
        let correct = |event: &Event| Event {
            at: self.corrected(event.at),
            ..event.clone()
        };
        Cow::Owned(events.iter().map(correct).collect())
    }

    pub(super) fn report(&self, report: &AttemptReport) -> AttemptReport {
        AttemptReport {
            started_at: self.corrected(report.started_at),
            finished_at: self.corrected(report.finished_at),
            ..report.clone()
        }
    }

    pub(super) fn status(&self, status: AttemptStatus) -> AttemptStatus {
        AttemptStatus {
            started_at: self.corrected(status.started_at),
            ..status
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_corrected_by_what_the_server_says_and_not_for_the_networks_sake() {
        let clock = Clock::default();
        clock.learn(Some(Timestamp(11_500)), Timestamp(10_000));
        assert_eq!(clock.corrected(Timestamp(5)), Timestamp(5));
        clock.learn(Some(Timestamp(3_610_000)), Timestamp(10_000));
        assert_eq!(clock.corrected(Timestamp(5)), Timestamp(3_600_005));
        // A slower answer is no other clock.
        clock.learn(Some(Timestamp(3_610_000)), Timestamp(11_000));
        assert_eq!(clock.corrected(Timestamp(5)), Timestamp(3_600_005));
        clock.learn(Some(Timestamp(10_000)), Timestamp(310_000));
        assert_eq!(clock.corrected(Timestamp(300_005)), Timestamp(5));
        clock.learn(None, Timestamp(310_000));
        assert_eq!(clock.corrected(Timestamp(5)), Timestamp(5));
    }
}
