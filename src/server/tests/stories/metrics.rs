//! Stories of metrics that are held against the default branch.

use std::collections::BTreeMap;

use protocol::report::MetricValue;
use protocol::spec::{Goal, MetricSpec};
use protocol::{FailureKind, Outcome, Span, Timestamp};
use server::registry::Registrar;
use server::store::{jobs, pipelines, projects, testing};

use crate::support::{Agent, Times, World, on_both, released, report};

/// Runs `train` at a new commit of the project to this accuracy; gives how it ended.
async fn train(
    (world, agent): (&World, &Agent),
    project: &projects::Project,
    number: u64,
    accuracy: f64,
) -> Outcome {
    let pipeline = testing::pipeline(project, number);
    let mut job = testing::job(&pipeline, "train");
    let spec = MetricSpec {
        goal: Goal::Maximize,
        max_regression: Some(0.01),
    };
    job.spec.metrics = BTreeMap::from([("accuracy".to_owned(), spec)]);
    let store = &world.server().store;
    let mut tx = store.begin().await.unwrap();
    pipelines::insert(&mut tx, &pipeline).await.unwrap();
    jobs::insert(&mut tx, &job).await.unwrap();
    tx.commit().await.unwrap();
    world.server().live.queue_changed();

    let order = agent.begin().await;
    let mut done = report(Outcome::Succeeded);
    done.metrics.push(MetricValue {
        name: "accuracy".into(),
        value: accuracy,
        step: 0,
    });
    agent.finish(&order, &done).await.unwrap();
    let free = released(&order.attempt, order.generation);
    agent.poll(vec![free], Span(0)).await;
    let mut registrar = Registrar::new(store.clone());
    registrar.tick(Timestamp::now()).await.unwrap();
    world.outcome(&job.id).await
}

#[tokio::test]
async fn a_metric_that_fell_behind_the_default_branch_fails_the_job() {
    on_both(Times::default(), |world| async move {
        let project = testing::project("digits");
        let mut tx = world.server().store.begin().await.unwrap();
        projects::insert(&mut tx, &project).await.unwrap();
        projects::checked(&mut tx, &project.id, Some("main"), Timestamp(1))
            .await
            .unwrap();
        tx.commit().await.unwrap();
        let agent = world.agent("a").await;
        assert_eq!(
            train((&world, &agent), &project, 1, 0.96).await,
            Outcome::Succeeded,
            "nothing to fall behind"
        );
        let Outcome::Failed(failure) = train((&world, &agent), &project, 2, 0.9).await else {
            panic!("it regressed")
        };
        assert_eq!(failure.kind, FailureKind::MetricRegressed);
        assert_eq!(
            failure.message,
            "accuracy is 0.9 and was 0.96 on the base branch; at most 0.01 worse is allowed"
        );
        assert_eq!(
            train((&world, &agent), &project, 3, 0.95).await,
            Outcome::Succeeded,
            "the failure is no base: 0.96 still is"
        );
    })
    .await;
}
