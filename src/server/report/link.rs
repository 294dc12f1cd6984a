//! The way to a project's forge: from when it may be used again, and whether it is left alone until somebody acts.

use std::sync::Arc;

use protocol::{Digest, Span, Timestamp};

use super::ReportConfig;
use crate::forge::{Forge, ForgeConfig, ForgeError};
use crate::outgoing;

/// How often in a row a forge may refuse us before it is left alone.
const MOST_REFUSALS: u32 = 10;

/// The way to one forge.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) config: ForgeConfig,
    pub(super) forge: Arc<dyn Forge>,
    not_before: Timestamp,
    failures: u32,
    refused: Option<Refused>,
}

/// The last time that it refused who we are.
#[derive(Debug)]
struct Refused {
    at: Timestamp,
    token: Option<Digest>,
}

/// Whether a forge may be called.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum May {
    /// It may.
    Now,
    /// Not before then.
    At(Timestamp),
    /// Only where there is more to say than there was then.
    OnChangeSince(Timestamp),
}

impl Link {
    pub(super) fn new(config: ForgeConfig, forge: Arc<dyn Forge>) -> Self {
        Self {
            config,
            forge,
            not_before: Timestamp(0),
            failures: 0,
            refused: None,
        }
    }

    pub(super) fn may(&self, now: Timestamp) -> May {
        // A wait that is too long to be ours was set before the clock went back.
        let clock_went_back = self.not_before > now + Span::hours(24);
        if self.not_before > now && !clock_went_back {
            return May::At(self.not_before);
        }
        match &self.refused {
            Some(refused) if self.failures >= MOST_REFUSALS => May::OnChangeSince(refused.at),
            Some(_) | None => May::Now,
        }
    }

    /// Begins anew where it was refused and has another token by now. Whether it was so.
    pub(super) fn has_another_token(&mut self) -> bool {
        let Some(refused) = &self.refused else {
            return false;
        };
        let changed = refused.token != self.config.token_digest();
        if changed {
            *self = Self::new(self.config.clone(), Arc::clone(&self.forge));
        }
        changed
    }

    /// It did what it was asked, or refused something that says nothing of the rest; `took` after `now`.
    pub(super) fn answered(&mut self, config: &ReportConfig, now: Timestamp, took: Span) {
        self.not_before = now + config.gap_after(took);
        self.failures = 0;
        self.refused = None;
    }

    /// It did not, and would not do anything else of this project either; `took` after `now`.
    pub(super) fn failed(
        &mut self,
        error: &ForgeError,
        config: &ReportConfig,
        name: &str,
        (now, took): (Timestamp, Span),
    ) {
        let is_refusal = match error {
            ForgeError::Unauthorized { .. }
            | ForgeError::Credential(_)
            | ForgeError::App { .. } => true,
            ForgeError::UnknownCommit { .. }
            | ForgeError::Refused { .. }
            | ForgeError::Unreadable { .. }
            | ForgeError::RateLimited { .. }
            | ForgeError::Transport { .. } => false,
        };
        self.not_before = match error {
            ForgeError::RateLimited { wait, .. } => now + took + *wait,
            ForgeError::Unauthorized { .. }
            | ForgeError::Credential(_)
            | ForgeError::App { .. }
            | ForgeError::UnknownCommit { .. }
            | ForgeError::Refused { .. }
            | ForgeError::Unreadable { .. }
            | ForgeError::Transport { .. } => now + config.wait(self.failures, name),
        };
        self.failures = self.failures.saturating_add(1);
        self.refused = is_refusal.then(|| Refused {
            at: now,
            token: self.config.token_digest(),
        });
    }
}

impl ReportConfig {
    /// How long after the begin of a call that took so long the next one may begin. The gap counts from the answer:
    /// a call that was long under way came late, and the next one may be quick.
    fn gap_after(&self, took: Span) -> Span {
        match self.write_gap {
            Span(0) => Span(0),
            Span(gap) => Span(gap + took.0),
        }
    }

    /// How long what failed so often waits.
    pub(super) fn wait(&self, tries: u32, name: &str) -> Span {
        outgoing::wait(self.retry_first, self.retry_most, tries, name)
    }
}
