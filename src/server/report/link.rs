//! The way to a project's forge: whether it refused who we are, and is left alone until somebody acts.

use std::sync::Arc;

use protocol::{Digest, Span, Timestamp};

use super::ReportConfig;
use super::lane::waits;
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
        if let Some(at) = waits(self.not_before, now) {
            return May::At(at);
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

    /// It did what it was asked, or refused something that says nothing of the rest; or it did not answer, which says
    /// nothing of who we are.
    pub(super) fn heard(
        &mut self,
        answer: Result<(), &ForgeError>,
        config: &ReportConfig,
        name: &str,
        now: Timestamp,
    ) {
        match answer {
            Err(ForgeError::RateLimited { .. } | ForgeError::Transport { .. }) => {}
            Err(
                error @ (ForgeError::Unauthorized { .. }
                | ForgeError::Moved { .. }
                | ForgeError::Credential(_)
                | ForgeError::App { .. }),
            ) if error.concerns_project() => {
                self.not_before = now + config.wait(self.failures, name);
                self.failures = self.failures.saturating_add(1);
                // A repository that gets its name back changes nothing here: it is asked for as long as something waits.
                let is_away = matches!(error, ForgeError::Moved { .. });
                self.refused = (!is_away).then(|| Refused {
                    at: now,
                    token: self.config.token_digest(),
                });
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
                self.not_before = Timestamp(0);
                self.failures = 0;
                self.refused = None;
            }
        }
    }
}

impl ReportConfig {
    /// How long after the begin of a call that took so long the next one may begin. The gap counts from the answer:
    /// a call that was long under way came late, and the next one may be quick.
    pub(super) fn gap_after(&self, took: Span) -> Span {
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
