//! What holds of a job and its attempts whatever agents, people and the scheduler do, in whatever order, on real rows.

use proptest::prelude::*;
use proptest::test_runner::{TestCaseResult, TestRunner};
use protocol::agent_api::AttemptStatus;
use protocol::event::Phase;
use protocol::report::AttemptReport;
use protocol::{Failure, FailureKind, Outcome};

use super::*;
use crate::pipelines::cancel;
use crate::store::testing;
use crate::store::{Address, Store, pipelines, projects};

/// What happens.
#[derive(Debug, Clone)]
enum Deed {
    /// The scheduler gives the job to the agent, where it waits.
    Lease,
    /// A person cancels the job.
    Cancel,
    /// Something with an attempt, counted from the newest.
    With(usize, What),
}

/// What happens with an attempt.
#[derive(Debug, Clone)]
enum What {
    /// Its agent says that it works on it.
    Report,
    /// Its agent's last word on it.
    Succeed,
    /// The same: a fault of the platform.
    Fail,
    /// The server gives it up.
    Lose,
}

fn any_deed() -> impl Strategy<Value = Deed> {
    let what = prop_oneof![
        3 => Just(What::Report),
        1 => Just(What::Succeed),
        2 => Just(What::Fail),
        2 => Just(What::Lose),
    ];
    prop_oneof![
        3 => Just(Deed::Lease),
        1 => Just(Deed::Cancel),
        8 => (0..3_usize, what).prop_map(|(of, what)| Deed::With(of, what)),
    ]
}

fn report(outcome: Outcome) -> AttemptReport {
    let report = serde_json::json!({"outcome": outcome, "started_at": 7, "finished_at": 8});
    serde_json::from_value(report).unwrap()
}

fn fault(kind: FailureKind) -> Outcome {
    Outcome::Failed(Failure::new(kind, "x"))
}

/// One job in a world that is thrown away.
struct World<'a> {
    db: &'a mut Connection,
    agent: Agent,
    job: Job,
    project: projects::Project,
    attempts: Vec<Attempt>,
}

impl<'a> World<'a> {
    async fn new(db: &'a mut Connection) -> Self {
        let project = testing::project("digits");
        projects::insert(db, &project).await.unwrap();
        let pipeline = testing::pipeline(&project, 1);
        pipelines::insert(db, &pipeline).await.unwrap();
        let mut job = testing::job(&pipeline, "train");
        job.spec.retries = 2;
        jobs::insert(db, &job).await.unwrap();
        let mut agent = testing::agent("gpu-1");
        agent.id = agents::register(db, &agent).await.unwrap();
        Self {
            db,
            agent,
            job,
            project,
            attempts: Vec::new(),
        }
    }

    /// Does it; gives the attempt that it was about. What is not possible now is refused, and nothing happens.
    async fn does(&mut self, deed: &Deed) -> Option<Attempt> {
        match deed {
            Deed::Lease => self.lease().await,
            Deed::Cancel => {
                let _ = cancel(self.db, &self.job, "ada").await;
                None
            }
            Deed::With(of, what) => {
                let attempt = self.attempts.iter().rev().nth(*of).cloned()?;
                self.with(&attempt, what).await;
                Some(attempt)
            }
        }
    }

    async fn with(&mut self, attempt: &Attempt, what: &What) {
        let id = &attempt.id;
        match what {
            What::Report => {
                let status = AttemptStatus {
                    attempt: id.clone(),
                    generation: attempt.generation,
                    phase: Phase::Run,
                    started_at: Timestamp(7),
                    released: false,
                };
                let taken = poll::take_status(self.db, &self.agent, &status).await;
                taken.unwrap();
            }
            What::Succeed => {
                let said = report(Outcome::Succeeded);
                let _ = finish::believe(self.db, &self.agent, id, &said).await;
            }
            What::Fail => {
                let said = report(fault(FailureKind::ExecutorFailed));
                let _ = finish::believe(self.db, &self.agent, id, &said).await;
            }
            What::Lose => {
                let outcome = fault(FailureKind::AgentLost);
                let given_up = finish::give_up(self.db, id, Fate::Lost, outcome).await;
                given_up.unwrap();
            }
        }
    }

    async fn lease(&mut self) -> Option<Attempt> {
        let number = u32::try_from(self.attempts.len()).unwrap() + 1;
        let attempt = testing::attempt(&self.project, &self.job, &self.agent.id, number, &[]);
        let lease = Move::Lease {
            attempt: attempt.id.clone(),
        };
        let leased = jobs::advance(self.db, &self.job, lease, None, Timestamp(6)).await;
        leased.ok()?;
        attempts::insert(self.db, &attempt).await.unwrap();
        self.attempts.push(attempt.clone());
        Some(attempt)
    }

    async fn look(&mut self) {
        self.job = jobs::get(self.db, &self.job.id).await.unwrap();
        self.attempts = attempts::of_job(self.db, &self.job.id).await.unwrap();
    }
}

async fn live(store: &Store, deeds: &[Deed]) -> TestCaseResult {
    let mut tx = store.begin().await.unwrap();
    let mut world = World::new(&mut tx).await;
    for deed in deeds {
        let before = world.job.clone();
        let about = world.does(deed).await;
        world.look().await;
        let after = &world.job;
        let context = format!("{deed:?}: {:?} -> {:?}", before.state, after.state);
        if before.state.outcome().is_some() {
            prop_assert_eq!(&before, after, "what is over stays over");
        }
        prop_assert!(after.generation >= before.generation, "{context}");
        if after.generation > before.generation {
            let began = !matches!(deed, Deed::Lease | Deed::Cancel | Deed::With(_, What::Lose));
            let of = about.map(|attempt| attempt.generation);
            prop_assert!(began && of == Some(after.generation), "{context}");
        }
        let mut believed = 0;
        for attempt in &world.attempts {
            match standing(attempt, after) {
                Standing::Believed => believed += 1,
                Standing::Resumable => {
                    prop_assert!(attempt.generation >= after.generation, "{context}");
                    prop_assert!(after.state.outcome().is_none(), "{context}");
                }
                Standing::Over | Standing::Abandoned => {}
            }
        }
        prop_assert!(believed <= 1, "{context}");
        prop_assert!(
            believed == 0 || after.state.outcome().is_none(),
            "{context}"
        );
    }
    Ok(())
}

#[test]
fn whatever_comes_a_job_has_one_result_and_its_generation_rises_when_a_replacement_starts() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let address = Address::Sqlite(folder.path().join("trainyard.db"));
    let store = runtime.block_on(Store::open(&address)).unwrap();
    let mut runner = TestRunner::new(ProptestConfig::with_cases(128));
    let deeds = prop::collection::vec(any_deed(), 1..24);
    let told = runner.run(&deeds, |deeds| runtime.block_on(live(&store, &deeds)));
    told.unwrap_or_else(|error| panic!("{error}"));
}
