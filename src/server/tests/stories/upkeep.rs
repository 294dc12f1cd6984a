//! What becomes of contents: those that are needed are missed when they are gone, the others go.

use bytes::Bytes;
use protocol::event::{Artifact, ArtifactRole};
use protocol::{AgentId, ByteSize, Digest, Outcome, Timestamp};
use server::store::blobs;
use server::upkeep::{self, Manner, Unneeded, UpkeepError};

use crate::support::{Times, World, on_both, report};

const TO_COME: Timestamp = Timestamp(i64::MAX);

/// Contents that an agent uploaded.
async fn upload(world: &World, texts: &[&'static str]) {
    let agent = world.agent("a").await;
    let job = world.queue_job("train").await;
    let order = agent.begin().await;
    for text in texts {
        let url = format!("{}/blobs/{}", agent.url, Digest::of(text));
        let size = text.len();
        let url = format!("{url}?attempt={}&offset=0&size={size}", order.attempt);
        let patch = agent.http.patch(url).bearer_auth(&agent.secret).body(*text);
        assert!(patch.send().await.unwrap().status().is_success());
    }
    // The first of them is an artifact.
    let mut done = report(Outcome::Succeeded);
    done.artifacts.push(Artifact {
        role: ArtifactRole::Declared,
        path: "out/model.bin".into(),
        blob: Digest::of(texts[0]),
        size: ByteSize(texts[0].len() as u64),
    });
    agent.finish(&order, &done).await.unwrap();
    assert_eq!(world.outcome(&job.id).await, Outcome::Succeeded);
}

#[tokio::test]
async fn a_content_that_is_lost_is_told_with_what_needs_it() {
    on_both(Times::default(), |world| async move {
        upload(&world, &["needed", "spare"]).await;
        let (store, contents) = (&world.server().store, &world.server().blobs);
        let mut told = Vec::new();
        let checked = upkeep::check(store, contents, true, |now| told.push(now.contents));
        let checked = checked.await.unwrap();
        assert_eq!((checked.contents, checked.bytes), (2, ByteSize(11)));
        assert!(checked.lost.is_empty() && checked.more_lost == 0);
        assert_eq!(told, [2]);

        contents.remove(&Digest::of("needed")).await.unwrap();
        contents.put(&Digest::of("spare"), "spore").await.unwrap();
        let quick = upkeep::check(store, contents, false, |_| ()).await.unwrap();
        assert_eq!(quick.lost.len(), 1, "its length is right");
        let checked = upkeep::check(store, contents, true, |_| ()).await.unwrap();
        let lost = |text: &str| {
            let digest = Digest::of(text);
            checked
                .lost
                .iter()
                .find(|lost| lost.digest == digest)
                .unwrap()
        };
        assert!(lost("spare").wrong && lost("spare").needed_by.is_empty());
        assert!(!lost("needed").wrong);
        let needed = &lost("needed").needed_by;
        assert!(
            needed.iter().any(|by| by.ends_with("out/model.bin")),
            "{needed:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn what_nothing_needs_goes_after_its_grace_and_nothing_else() {
    on_both(Times::default(), |world| async move {
        upload(&world, &["needed", "spare"]).await;
        let (store, contents) = (&world.server().store, &world.server().blobs);
        let there = async |text: &str| contents.exists(&Digest::of(text)).await.unwrap();
        let unlinked = async |before, manner| {
            let found = upkeep::unlinked(store, contents, before, 10, manner);
            found.await.unwrap()
        };
        let one = Unneeded {
            contents: 1,
            bytes: ByteSize(5),
            ..Unneeded::default()
        };
        assert_eq!(
            unlinked(Timestamp(0), Manner::Remove).await,
            Unneeded::default()
        );
        assert_eq!(unlinked(TO_COME, Manner::Count).await, one);
        assert!(there("spare").await);
        assert_eq!(unlinked(TO_COME, Manner::Remove).await, one);
        assert!(!there("spare").await && there("needed").await);
        let mut db = store.read().await.unwrap();
        assert_eq!(
            blobs::size(&mut db, &Digest::of("spare")).await.unwrap(),
            None
        );
        drop(db);

        // A server that ended between content and row left one without.
        contents.put(&Digest::of("stray"), "stray").await.unwrap();
        let strays = async |before, manner| upkeep::strays(store, contents, before, manner).await;
        let found = strays(Timestamp(0), Manner::Remove).await.unwrap();
        assert_eq!(
            (found.strays, there("stray").await),
            (0, true),
            "it is too young"
        );
        assert_eq!(strays(TO_COME, Manner::Count).await.unwrap().strays, 1);
        // Of another server's contents nothing goes.
        contents.put(&Digest::of("theirs"), "theirs").await.unwrap();
        let refused = strays(TO_COME, Manner::Remove).await.unwrap_err();
        assert!(
            matches!(
                refused,
                UpkeepError::Foreign {
                    strays: 2,
                    known: 1
                }
            ),
            "{refused}"
        );
        contents.remove(&Digest::of("theirs")).await.unwrap();
        assert_eq!(strays(TO_COME, Manner::Remove).await.unwrap().strays, 1);
        assert!(!there("stray").await && there("needed").await);
        // What is on its way is no content yet.
        let agent = AgentId::generate();
        let hello = Digest::of("hello");
        let half = contents.append(&agent, &hello, 0, 5, Bytes::from("he"));
        half.await.unwrap();
        assert_eq!(strays(TO_COME, Manner::Remove).await.unwrap().strays, 0);
        assert_eq!(contents.offset(&agent, &hello).await, 2);
    })
    .await;
}
