//! What the scheduler reads seldom: how long jobs usually take, what projects used, which hosts have which
//! environment. It is derived from rows and kept for a minute, so that a pass does not read histories. And what waits,
//! which is kept from pass to pass, so that one does not read the whole queue.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use protocol::{AgentId, ProjectId, Span, Timestamp};
use tokio::time::Instant;

use crate::store::queue::{self, Used};
use crate::store::waiting::Waiting;
use crate::store::{Connection, Result};

/// How long it is kept.
const LIFE: Duration = Duration::from_secs(60);
/// Most names that one pass looks up; the others have their time-outs until the next.
const MOST_LOOKUPS: usize = 500;
/// Most names that are remembered.
const MOST_NAMES: usize = 200_000;
/// Quotas count so many days back.
pub(super) const WEEK: Span = Span::hours(7 * 24);
/// An environment is taken to be on a host so long after its last job there.
const WARM: Span = Span::hours(14 * 24);

/// The agents that ran each environment.
pub(super) type Warm = BTreeMap<Arc<str>, BTreeSet<AgentId>>;
/// A job's project and name.
type Name = (ProjectId, String);

/// See the module.
#[derive(Debug, Default)]
pub struct Recent {
    state: Mutex<State>,
    /// What waited at the last pass; a pass has it as long as it takes.
    pub(super) waiting: tokio::sync::Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct State {
    usual: HashMap<Name, Kept<Option<Span>>>,
    used: Option<Kept<Arc<Vec<Used>>>>,
    warm: Option<Kept<Arc<Warm>>>,
}

/// A value and when it was read.
#[derive(Debug, Clone)]
struct Kept<T>(T, Instant);

impl<T: Clone> Kept<T> {
    fn new(value: T) -> Self {
        Self(value, Instant::now())
    }

    fn fresh(&self) -> Option<T> {
        (self.1.elapsed() < LIFE).then(|| self.0.clone())
    }
}

impl Recent {
    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What projects used in the last week.
    pub(super) async fn used(&self, db: &mut Connection, now: Timestamp) -> Result<Arc<Vec<Used>>> {
        let kept = self.with(|state| state.used.as_ref().and_then(Kept::fresh));
        if let Some(used) = kept {
            return Ok(used);
        }
        let used = Arc::new(queue::used(db, now - WEEK).await?);
        self.with(|state| state.used = Some(Kept::new(used.clone())));
        Ok(used)
    }

    /// Which hosts have which environment.
    pub(super) async fn warm(&self, db: &mut Connection, now: Timestamp) -> Result<Arc<Warm>> {
        let kept = self.with(|state| state.warm.as_ref().and_then(Kept::fresh));
        if let Some(warm) = kept {
            return Ok(warm);
        }
        let warm = Arc::new(queue::warm(db, now - WARM).await?);
        self.with(|state| state.warm = Some(Kept::new(warm.clone())));
        Ok(warm)
    }

    /// How long the jobs of these names usually take; what nobody knows is not in it.
    pub(super) async fn usual<'a>(
        &self,
        db: &mut Connection,
        names: impl Iterator<Item = (&'a ProjectId, &'a str)>,
    ) -> Result<HashMap<(&'a ProjectId, &'a str), Span>> {
        let names: BTreeSet<_> = names.collect();
        let (mut known, mut missing) = (HashMap::new(), Vec::new());
        self.with(|state| {
            if state.usual.len() > MOST_NAMES {
                state.usual.clear();
            }
            for (project, name) in names {
                let key = (project.clone(), name.to_owned());
                match state.usual.get(&key).and_then(Kept::fresh) {
                    Some(usual) => known.extend(usual.map(|usual| ((project, name), usual))),
                    None if missing.len() < MOST_LOOKUPS => missing.push((project, name)),
                    None => {}
                }
            }
        });
        for (project, name) in missing {
            let usual = queue::usual(db, project, name).await?;
            known.extend(usual.map(|usual| ((project, name), usual)));
            let key = (project.clone(), name.to_owned());
            self.with(|state| state.usual.insert(key, Kept::new(usual)));
        }
        Ok(known)
    }
}
