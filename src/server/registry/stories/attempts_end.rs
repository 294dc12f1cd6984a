//! Stories of attempts that end, and of what each end is worth.

use super::*;
use crate::store::attempts::Fate;
use crate::store::runs::RunStatus;

#[tokio::test]
async fn only_a_believed_success_counts() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        let lost = Failure::new(FailureKind::UploadFailed, "disk full");
        let retried = world.finished(Outcome::Succeeded, |_, _| {}).await;
        world
            .attempt(&retried, 1, report(Outcome::Failed(lost.clone()), &[]))
            .await;
        world
            .attempt(
                &retried,
                2,
                report(Outcome::Succeeded, &[("accuracy", 0.9)]),
            )
            .await;
        let failed = world
            .finished(Outcome::Failed(lost.clone()), |_, _| {})
            .await;
        world
            .attempt(&failed, 1, report(Outcome::Failed(lost), &[]))
            .await;
        // The job was ended; an attempt that nobody believed said otherwise.
        let cancelled = world
            .finished(Outcome::Cancelled { by: "ana".into() }, |_, _| {})
            .await;
        world
            .attempt(&cancelled, 1, report(Outcome::Succeeded, &[]))
            .await;
        let mut tx = world.store.begin().await.unwrap();
        let fenced = attempts::of_job(&mut tx, &cancelled.id)
            .await
            .unwrap()
            .remove(0);
        attempts::set_fate(&mut tx, &fenced.id, Fate::Abandoned)
            .await
            .unwrap();
        tx.commit().await.unwrap();

        assert_eq!(world.tick().await, 3);
        assert_eq!(world.versions().await, [(Some(1), retried.id.clone())]);
        let mut db = world.store.read().await.unwrap();
        assert!(
            rows::succeeded_run(&mut db, &cancelled.id)
                .await
                .unwrap()
                .is_none()
        );
        assert!(
            rows::succeeded_run(&mut db, &failed.id)
                .await
                .unwrap()
                .is_none()
        );
    })
    .await;
}

#[tokio::test]
async fn the_run_of_a_lost_attempt_ends_when_it_cannot_return() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        let mut runs = Vec::new();
        let over = State::Finished {
            outcome: Outcome::Succeeded,
        };
        for state in [State::Queued, over] {
            let job = world.finished(Outcome::Succeeded, |_, job| job.state = state);
            let job = job.await;
            let attempt = testing::attempt(&world.project, &job, &world.agent, 1, &[]);
            let mut tx = world.store.begin().await.unwrap();
            attempts::insert(&mut tx, &attempt).await.unwrap();
            runs.push(begin_run(&mut tx, &attempt).await.unwrap());
            let lost = Failure::new(FailureKind::AgentLost, "gpu-1 was not seen");
            attempts::end(
                &mut tx,
                &attempt.id,
                Fate::Lost,
                &Outcome::Failed(lost),
                NOW,
            )
            .await
            .unwrap();
            tx.commit().await.unwrap();
        }
        world.tick().await;
        let mut db = world.store.read().await.unwrap();
        let mut statuses = Vec::new();
        for run in &runs {
            let run = crate::store::runs::find(&mut db, run).await.unwrap();
            statuses.push(run.unwrap().status);
        }
        assert_eq!(statuses, [RunStatus::Running, RunStatus::Killed]);
    })
    .await;
}
