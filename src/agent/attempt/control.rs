//! How an attempt is asked to end, from outside, while it runs. It does not know who asks.

use protocol::Span;
use tokio::sync::watch;

/// Why an attempt is to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopReason {
    /// Somebody asked; a report is wanted.
    Stop {
        /// Who or what asked; becomes the outcome's `by`.
        by: String,
        /// Time to write a checkpoint; zero ends it at once.
        grace: Span,
    },
    /// Nobody believes it any more: ended at once, and no report is wanted.
    Abandon,
}

/// The two ends of a request to stop: clones share it. A later request replaces an earlier one, so that a
/// polite stop can be followed by a hard one.
#[derive(Debug, Clone)]
pub struct Control {
    sender: watch::Sender<Option<StopReason>>,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            sender: watch::channel(None).0,
        }
    }
}

impl Control {
    /// Nothing asked yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for an end with a report. An attempt that was abandoned stays so.
    pub fn stop(&self, by: impl Into<String>, grace: Span) {
        let wanted = StopReason::Stop {
            by: by.into(),
            grace,
        };
        self.sender.send_if_modified(|reason| match reason {
            Some(StopReason::Abandon) => false,
            Some(StopReason::Stop { .. }) | None => {
                let changed = reason.as_ref() != Some(&wanted);
                *reason = Some(wanted);
                changed
            }
        });
    }

    /// Asks for an end without a report.
    pub fn abandon(&self) {
        self.sender.send_replace(Some(StopReason::Abandon));
    }

    /// What was asked last.
    #[must_use]
    pub fn asked(&self) -> Option<StopReason> {
        self.sender.borrow().clone()
    }

    /// Waits until something is asked.
    pub async fn stopped(&self) -> StopReason {
        let mut requests = self.sender.subscribe();
        // The sender lives in `self`: this cannot fail while we are here.
        match requests.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(StopReason::Abandon),
            Err(_) => StopReason::Abandon,
        }
    }

    /// Waits until nobody believes the attempt any more.
    pub async fn abandoned(&self) {
        let mut requests = self.sender.subscribe();
        // The sender lives in `self`: this cannot fail while we are here.
        let _ = requests
            .wait_for(|reason| *reason == Some(StopReason::Abandon))
            .await;
    }

    /// Waits until something else than `known` is asked.
    pub async fn changed_from(&self, known: &StopReason) -> StopReason {
        let mut requests = self.sender.subscribe();
        match requests
            .wait_for(|reason| reason.as_ref().is_some_and(|r| r != known))
            .await
        {
            Ok(reason) => reason.clone().unwrap_or(StopReason::Abandon),
            Err(_) => StopReason::Abandon,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_polite_stop_may_be_followed_by_a_hard_one_and_abandoned_is_final() {
        let control = Control::new();
        let other = control.clone();
        other.stop("ada", Span::secs(30));
        let first = control.stopped().await;
        assert_eq!(
            first,
            StopReason::Stop {
                by: "ada".into(),
                grace: Span::secs(30)
            }
        );
        other.stop("ada", Span(0));
        assert_ne!(control.changed_from(&first).await, first);
        other.abandon();
        other.stop("ada", Span(0));
        assert_eq!(control.asked(), Some(StopReason::Abandon));
    }
}
