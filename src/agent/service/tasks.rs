//! The tasks that carry attempts out. It does not know what they do: only which attempt each is for, and whether it panicked.

use std::collections::HashMap;

use protocol::agent_api::AttemptOrder;
use tokio::task::{Id, JoinSet};

use crate::attempt::AttemptDir;

/// So often an attempt is begun anew from its folder; one that goes on to panic would do so for ever.
const MOST_PANICS: u32 = 3;

/// An attempt that a task carries out.
#[derive(Debug, Clone)]
pub(super) struct Carried {
    pub(super) dir: AttemptDir,
    pub(super) order: AttemptOrder,
    panics: u32,
}

/// What is to be done about an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// It is carried out from where its folder says that it is.
    GoOn,
    /// Its job is ended, and it ends with the platform's failure.
    GiveUp,
    /// Not even that is possible in this process.
    Leave,
}

impl Carried {
    pub(super) fn new(dir: AttemptDir, order: AttemptOrder) -> Self {
        Self {
            dir,
            order,
            panics: 0,
        }
    }

    pub(super) fn next(&self) -> Next {
        match self.panics {
            0..=MOST_PANICS => Next::GoOn,
            n if n == MOST_PANICS + 1 => Next::GiveUp,
            _ => Next::Leave,
        }
    }
}

/// Dropped, they end; the jobs do not.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    running: JoinSet<()>,
    carried: HashMap<Id, Carried>,
}

impl Tasks {
    pub(super) fn spawn(
        &mut self,
        carried: Carried,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let task = self.running.spawn(task);
        self.carried.insert(task.id(), carried);
    }

    /// Forgets tasks that ended. Answers the attempts of those that panicked: nobody carries them out any more.
    pub(super) fn reap(&mut self) -> Vec<Carried> {
        let mut panicked = Vec::new();
        while let Some(ended) = self.running.try_join_next_with_id() {
            let (id, error) = match ended {
                Ok((id, ())) => (id, None),
                Err(error) => (error.id(), Some(error)),
            };
            let carried = self.carried.remove(&id);
            if let (Some(mut carried), Some(error)) = (carried, error) {
                tracing::error!(attempt = %carried.order.attempt, "carrying an attempt out failed: {error}");
                carried.panics += 1;
                panicked.push(carried);
            }
        }
        panicked
    }

    /// Ends them.
    pub(super) async fn shutdown(&mut self) {
        self.running.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;
    use crate::service::world;

    fn carried() -> Carried {
        Carried::new(AttemptDir::open("/nowhere"), world::order())
    }

    /// The attempts that panicked, when all tasks have ended.
    async fn reaped(tasks: &mut Tasks) -> Vec<Carried> {
        let mut panicked = Vec::new();
        while !tasks.carried.is_empty() {
            panicked.extend(tasks.reap());
            tokio::task::yield_now().await;
        }
        panicked
    }

    #[tokio::test]
    async fn an_attempt_whose_task_panics_goes_on_until_it_is_given_up() {
        let mut tasks = Tasks::default();
        let (well, mut sick) = (carried(), carried());
        let mut done = Vec::new();
        for _ in 0..5 {
            done.push(sick.next());
            tasks.spawn(well.clone(), ready(()));
            tasks.spawn(sick.clone(), async { panic!("a bug") });
            let mut panicked = reaped(&mut tasks).await;
            assert_eq!(panicked.len(), 1);
            sick = panicked.remove(0);
        }
        done.push(sick.next());
        use Next::{GiveUp, GoOn, Leave};
        assert_eq!(done, [GoOn, GoOn, GoOn, GoOn, GiveUp, Leave]);
    }
}
