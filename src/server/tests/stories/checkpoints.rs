//! Stories of checkpoints on their way from one host to another.

use protocol::agent_api::{AttemptOrder, CheckpointFile};
use protocol::{ByteSize, Digest, Failure, FailureKind, Outcome, Span, Timestamp};
use reqwest::StatusCode;
use server::store::checkpoints;

use crate::support::{Agent, Refusal, Times, World, on_both, report};

fn file(path: &str, text: &str) -> CheckpointFile {
    CheckpointFile {
        path: path.to_owned(),
        blob: Digest::of(text),
        size: ByteSize(text.len() as u64),
    }
}

impl Agent {
    pub(crate) async fn upload(&self, order: &AttemptOrder, text: &'static str) {
        let (digest, size) = (Digest::of(text), text.len());
        let url = format!(
            "{}/blobs/{digest}?attempt={}&offset=0&size={size}",
            self.url, order.attempt
        );
        let call = self.http.patch(url).bearer_auth(&self.secret).body(text);
        assert_eq!(call.send().await.unwrap().status(), StatusCode::CREATED);
    }

    async fn checkpoint(
        &self,
        order: &AttemptOrder,
        files: &[CheckpointFile],
    ) -> Result<(), Refusal> {
        let url = format!(
            "{}/attempts/{}/checkpoint?generation={}",
            self.url, order.attempt, order.generation
        );
        let call = self.http.post(url).bearer_auth(&self.secret).json(files);
        let answer = call.send().await.unwrap();
        match answer.status() {
            StatusCode::NO_CONTENT => Ok(()),
            status => Err((status, answer.json().await.unwrap())),
        }
    }

    async fn fetch(&self, order: &AttemptOrder, blob: &Digest) -> (StatusCode, String) {
        let url = format!("{}/blobs/{blob}?attempt={}", self.url, order.attempt);
        let answer = self.http.get(url).bearer_auth(&self.secret).send().await;
        let answer = answer.unwrap();
        (answer.status(), answer.text().await.unwrap())
    }
}

fn fault() -> Outcome {
    Outcome::Failed(Failure::new(FailureKind::GpuLost, "it fell off the bus"))
}

async fn kept(world: &World, text: &str) -> bool {
    let there = world.server().blobs.exists(&Digest::of(text)).await;
    there.unwrap()
}

#[tokio::test]
async fn the_next_attempt_goes_on_from_the_last_set_and_a_success_ends_it() {
    on_both(Times::default(), |world| async move {
        let job = world
            .queue_job_with("train", |spec| spec.checkpoints.across_hosts = true)
            .await;
        let agent = world.agent("a").await;
        let order = agent.begin().await;
        assert_eq!(order.checkpoint, None);
        agent.upload(&order, "epoch 1").await;
        let first = [file("model.pt", "epoch 1")];
        agent.checkpoint(&order, &first).await.unwrap();
        agent.upload(&order, "epoch 2").await;
        let second = [file("model.pt", "epoch 2")];
        agent.checkpoint(&order, &second).await.unwrap();
        assert!(!kept(&world, "epoch 1").await, "what was replaced is gone");
        // The same content can come again.
        agent.upload(&order, "epoch 1").await;
        assert!(kept(&world, "epoch 1").await);

        let other = world.agent("b").await;
        agent.finish(&order, &report(fault())).await.unwrap();
        let next = other.begin().await;
        let checkpoint = next.checkpoint.clone().unwrap();
        assert_eq!((checkpoint.number, &checkpoint.files[..]), (1, &second[..]));
        assert_eq!(
            other.fetch(&next, &second[0].blob).await,
            (StatusCode::OK, "epoch 2".to_owned())
        );
        let late = agent.checkpoint(&order, &first).await;
        assert!(late.is_ok(), "its report was first: nothing changes");
        let stranger = world.agent("c").await;
        assert_eq!(
            stranger.fetch(&next, &second[0].blob).await.0,
            StatusCode::CONFLICT
        );
        other
            .finish(&next, &report(Outcome::Succeeded))
            .await
            .unwrap();
        let mut db = world.server().store.read().await.unwrap();
        assert_eq!(checkpoints::of_job(&mut db, &job.id).await.unwrap(), None);
        assert!(!kept(&world, "epoch 2").await);
    })
    .await;
}

#[tokio::test]
async fn a_checkpoint_that_was_not_asked_for_or_is_too_large_is_refused() {
    on_both(Times::default(), |world| async move {
        let agent = world.agent("a").await;
        world.queue_job("here").await;
        let order = agent.begin().await;
        let refused = agent.checkpoint(&order, &[]).await.unwrap_err();
        assert!(refused.1.message.contains("stay on its host"));
        world
            .queue_job_with("there", |spec| {
                spec.checkpoints.across_hosts = true;
                spec.checkpoints.max_size = ByteSize(10);
            })
            .await;
        let order = agent.begin().await;
        let large = [file("a", "more than ten bytes")];
        let refused = agent.checkpoint(&order, &large).await.unwrap_err();
        assert!(refused.1.message.contains("max_size"), "{refused:?}");
        let missing = [file("a", "not there")];
        let refused = agent.checkpoint(&order, &missing).await.unwrap_err();
        assert!(refused.1.message.contains("upload blob"), "{refused:?}");
    })
    .await;
}

#[tokio::test]
async fn the_checkpoint_of_a_job_that_failed_is_kept_for_a_week() {
    on_both(Times::default(), |world| async move {
        let job = world
            .queue_job_with("train", |spec| spec.checkpoints.across_hosts = true)
            .await;
        let agent = world.agent("a").await;
        let order = agent.begin().await;
        agent.upload(&order, "epoch 1").await;
        let files = [file("model.pt", "epoch 1")];
        agent.checkpoint(&order, &files).await.unwrap();
        let raised = Failure::new(FailureKind::CellRaised, "ValueError");
        agent
            .finish(&order, &report(Outcome::Failed(raised)))
            .await
            .unwrap();
        let ended = world.job(&job.id).await.finished_at.unwrap();
        let tick = |at: Timestamp| server::housekeeping::tick(world.server(), at);
        tick(ended + Span::hours(6 * 24)).await.unwrap();
        assert!(kept(&world, "epoch 1").await);
        tick(ended + Span::hours(8 * 24)).await.unwrap();
        assert!(!kept(&world, "epoch 1").await);
    })
    .await;
}
