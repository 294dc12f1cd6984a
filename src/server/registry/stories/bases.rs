//! Stories of what a job is compared with.

use protocol::{CommitId, Failure, FailureKind, TriggerKind};

use super::*;

fn commit(number: u64) -> CommitId {
    format!("{number:040x}").parse().unwrap()
}

#[tokio::test]
async fn a_pull_request_is_compared_with_where_it_left_the_branch() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        for accuracy in [0.90, 0.95] {
            world.ran(&[("accuracy", accuracy)], |_, _| {}).await;
        }
        let broken = Failure::new(FailureKind::CommandFailed, "exit code 1");
        world.finished(Outcome::Failed(broken), |_, _| {}).await;
        world.ran(&[("accuracy", 0.99)], |_, _| {}).await;
        let mut of_request = testing::pipeline(&world.project, 50);
        let job = world.finished(Outcome::Succeeded, |_, _| {}).await;
        while world.tick().await > 0 {}

        of_request.trigger.kind = TriggerKind::PullRequest { number: 5 };
        of_request.trigger.reference = Some("refs/pull/5/head".into());
        let mut db = world.store.read().await.unwrap();
        for (left, accuracy, at) in [
            // It succeeded there; it failed there, so the last success before counts; nothing is known of it.
            (1, 0.90, 1),
            (3, 0.95, 2),
            (77, 0.99, 4),
        ] {
            of_request.trigger.base = Some(commit(left));
            let base = rows::base(&mut db, &job, &of_request).await.unwrap();
            let base = base.unwrap();
            assert_eq!(
                (base.metrics[0].value, base.commit),
                (accuracy, commit(at)),
                "left at {left}"
            );
        }
        // A branch's own last commit is no place where it left another.
        of_request.trigger.kind = TriggerKind::Push;
        of_request.trigger.reference = Some("refs/heads/main".into());
        of_request.trigger.base = Some(commit(1));
        let base = rows::base(&mut db, &job, &of_request).await.unwrap();
        assert_eq!(base.unwrap().commit, commit(4));
    })
    .await;
}
