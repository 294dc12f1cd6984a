//! Stories of projects that speak alike, and of such that do not: forges count callers, not repositories.

use super::*;

impl World {
    /// Another project with a queued job. `api`: at another forge.
    async fn project(&self, name: &str, api: Option<String>) -> Project {
        let (_, place) = self.project.forge.place().unwrap();
        let repository = Repository::try_from("octo/other".to_owned()).unwrap();
        let place = Place {
            repository,
            api: api.unwrap_or_else(|| place.api.clone()),
            ..place.clone()
        };
        let project = Project {
            forge: ForgeConfig::Github(place),
            ..testing::project(name)
        };
        let pipeline = testing::pipeline(&project, 1);
        let mut tx = self.store.begin().await.unwrap();
        projects::insert(&mut tx, &project).await.unwrap();
        pipelines::insert(&mut tx, &pipeline).await.unwrap();
        jobs::insert(&mut tx, &testing::job(&pipeline, "train"))
            .await
            .unwrap();
        tx.commit().await.unwrap();
        project
    }
}

#[tokio::test]
async fn projects_with_one_token_write_in_turn() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        world.job("train").await;
        world.project("other", None).await;
        let config = ReportConfig {
            write_gap: Span::secs(1),
            ..quick()
        };
        world.reporter = Reporter::new(world.store.clone(), Forges::default(), config);
        // Two statuses of each.
        for written in 1..=4 {
            world.tick().await;
            assert_eq!(world.github.calls(), 1, "write {written}");
            let pass = world.reporter.tick(world.now).await.unwrap();
            assert_eq!(world.github.calls(), 0, "after write {written}");
            let next = pass.next.unwrap_or(world.now + Span::secs(2));
            assert!(next >= world.now + Span::secs(1));
            world.now = next;
        }
        assert_eq!(world.settle().await.len(), 4);
    })
    .await;
}

#[tokio::test]
async fn a_limit_is_kept_by_all_that_speak_alike_and_by_nobody_else() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        world.job("train").await;
        world.project("other", None).await;
        let elsewhere = Github::default();
        let api = elsewhere.start().await;
        world.project("far", Some(api)).await;
        let asks = Some(("retry-after", "30"));
        world.github.fail(403, asks, r#"{"message":"slow down"}"#);
        for _ in 0..3 {
            world.tick().await;
        }
        assert_eq!(world.github.calls(), 1, "neither project calls again");
        world.restart();
        world.wait(Span::secs(20));
        world.tick().await;
        assert_eq!(world.github.calls(), 0, "nor after a restart");
        assert_eq!(elsewhere.taken().len(), 2, "this one was asked nothing");
        world.wait(Span::secs(15));
        assert_eq!(world.settle().await.len(), 4);
    })
    .await;
}

#[tokio::test]
async fn a_forge_that_does_not_answer_holds_up_no_other() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        world.job("train").await;
        let slow = Github::default();
        slow.slow(Duration::from_secs(3_600));
        world.project("slow", Some(slow.start().await)).await;
        let config = ReportConfig {
            patience: Span(50),
            call_timeout: Span::hours(1),
            ..quick()
        };
        world.reporter = Reporter::new(world.store.clone(), Forges::default(), config);
        let until = std::time::Instant::now() + Duration::from_secs(60);
        let mut taken = Vec::new();
        while taken.len() < 2 {
            assert!(std::time::Instant::now() < until, "in vain: {taken:?}");
            let pass = world.reporter.tick(world.now).await.unwrap();
            assert!(pass.under_way >= 1, "it is still asked");
            taken.extend(world.github.taken());
        }
    })
    .await;
}
