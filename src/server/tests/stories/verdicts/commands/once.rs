//! Stories of what is asked for once and told several times, or not at all: by messages, by lists, by a server that died.

use server::forge::event::{Comment as Said, ForgeEvent};
use server::inbox::Message;
use server::store::projects::Word;
use tokio::net::TcpListener;

use super::*;

impl Town<'_> {
    /// Somebody comments, and no message comes of it. As it would have been read, had it come.
    async fn unheard(&self, number: u64, by: &str, text: &str) -> Message {
        self.forge.lose_hooks();
        let id = self.forge.comment(number, by, text).await;
        self.forge.release_hooks().await;
        let lost = self.forge.deliveries().pop().unwrap();
        let lost: serde_json::Value = serde_json::from_str(&lost.body).unwrap();
        let mut message = self.message(number, id, text);
        if let ForgeEvent::Comment(said) = &mut message.event {
            // GitLab's way to say who it was.
            said.by_id = lost["user"]["id"].as_u64();
        }
        message
    }

    /// A message of a comment of the owner.
    fn message(&self, number: u64, id: u64, text: &str) -> Message {
        let at = Timestamp::now();
        Message {
            project: self.project.id.clone(),
            kind: self.project.forge.place().unwrap().0,
            delivery: format!("{} of {}", id, self.project.name),
            name: "issue_comment".to_owned(),
            event: ForgeEvent::Comment(Said {
                number,
                id,
                by: "octo".to_owned(),
                by_id: None,
                at: Some(at),
                text: text.to_owned(),
            }),
            at,
        }
    }

    /// A message comes, and is done with.
    async fn keep(&self, message: &Message) {
        let server = self.world.server();
        inbox::keep(server, message.clone()).await.unwrap();
        self.obeyed().await;
    }

    /// As if the server had died between doing what people asked for and noting that.
    async fn forget(&self) {
        let store = &self.world.server().store;
        let mut tx = store.begin().await.unwrap();
        let (id, later) = (&self.project.id, Timestamp::now() + Span::hours(1));
        rows::forget_deliveries(&mut tx, id, Word::Asks, later, 0)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        testing::forget_reports(store).await;
    }

    /// The owner comments, the server does it, dies before it notes that, and does it again. Gives how jobs stand.
    async fn twice(
        &self,
        number: u64,
        commit: &str,
        text: &str,
    ) -> Vec<Vec<(String, &'static str)>> {
        let message = self.unheard(number, "octo", text).await;
        self.keep(&message).await;
        let once = self.told(commit).await;
        self.forget().await;
        self.keep(&message).await;
        assert_eq!(self.told(commit).await, once, "{text}");
        once
    }

    /// What was said under a request that is not done.
    async fn refusals(&mut self, number: u64) -> Vec<String> {
        self.settle().await;
        let seen = self.forge.seen();
        let on = seen.on(number).into_iter();
        let not_done = on.filter(|said| said.text.contains("Not done"));
        not_done.map(|said| said.text.clone()).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_while_nobody_listened_is_done_once() {
    on_both(Times::default(), |world| async move {
        let world = world
            .restart_with(|config| config.requests_interval = Span(0))
            .await;
        let _obeying = obeying(&world);
        let agent = world.agent("gpu-1").await;
        for face in FACES {
            let mut town = Town::new(&world, &agent, face).await;
            hosts::drain(world.server(), "gpu-1", false, "ana")
                .await
                .unwrap();
            let (number, head) = town.request(&[("train.py", "print(2)")]).await;
            let pipelines = async |town: &Town<'_>| {
                town.look().await;
                town.obeyed().await;
                town.told(&head).await.len()
            };
            let command = "Hm.\n\n/trainyard rerun train";
            let first = town.forge.deliveries().len();
            town.unheard(number, "octo", command).await;
            // Who may not write, who says nothing, and words that somebody else may have put there.
            town.unheard(number, "eve", command).await;
            town.unheard(number, "octo", "Hm.").await;
            let Message { event, .. } = town.unheard(number, "octo", "Hm.").await;
            let ForgeEvent::Comment(edited) = event else {
                panic!("{event:?}")
            };
            let messages: Vec<_> = town.forge.deliveries()[first..].to_vec();
            town.forge.advance(Span::secs(10).into());
            town.forge.edit_comment(edited.id, "octo", command).await;
            assert_eq!(pipelines(&town).await, 2, "{face:?}");
            assert_eq!(pipelines(&town).await, 2, "{face:?}: listed again");
            // The messages come after all.
            assert!(messages.len() >= 4);
            for message in &messages {
                assert_eq!(town.forge.redeliver(&message.id).await, Some(202));
            }
            assert_eq!(pipelines(&town).await, 2, "{face:?}: told as well");
            // One that was told is not done again because it is listed.
            town.ask(number, command).await;
            assert_eq!(pipelines(&town).await, 3, "{face:?}");
            assert_eq!(town.thumbs(number).await, 2, "{face:?}");
            // Of one that is closed nothing is listed.
            town.unheard(number, "octo", command).await;
            town.forge.close(number, "ana").await;
            assert_eq!(pipelines(&town).await, 3, "{face:?}: it is closed");
            assert_eq!(town.refusals(number).await, [""; 0]);
            assert_eq!(town.forge.violations(), [""; 0], "{face:?}");
            // Nothing of it is left for the next one.
            town.ask(number, "/trainyard cancel").await;
            hosts::undrain(world.server(), "gpu-1", "ana")
                .await
                .unwrap();
            town.settle().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listed_approval_is_of_the_head_that_was_seen() {
    on_both(Times::default(), |world| async move {
        let world = world
            .restart_with(|config| config.requests_interval = Span(0))
            .await;
        let _obeying = obeying(&world);
        let agent = world.agent("gpu-1").await;
        let mut town = Town::new(&world, &agent, Face::Gitlab).await;
        hosts::drain(world.server(), "gpu-1", false, "ana")
            .await
            .unwrap();
        let files = [("train.py", "print(4)")];
        let number = town
            .forge
            .open_from_fork("eve", "patch", &files, "Please")
            .await;
        town.look().await;
        town.unheard(number, "octo", "/trainyard approve").await;
        // The server hears of neither before it looks.
        town.forge.lose_hooks();
        let files = [("train.py", "print(5)")];
        let head = town.forge.push_to_request(number, &files).await;
        town.forge.release_hooks().await;
        town.look().await;
        town.obeyed().await;
        let jobs = town.all_jobs(&head).await.concat();
        let on = Block::Approval;
        assert_eq!(jobs[0].state, State::Blocked { on });
        let said = town.refusals(number).await.concat();
        assert!(said.contains("may have moved"), "{said}");
        // Whole, it is meant whenever it was said.
        let whole = format!("/trainyard approve {head}");
        town.unheard(number, "octo", &whole).await;
        town.look().await;
        town.obeyed().await;
        let told = town.told(&head).await;
        assert_eq!(told, [named(&[("train", "queued")])]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_without_a_name_is_of_a_head_that_was_there_for_a_while() {
    on_both(Times::default(), |world| async move {
        let _obeying = obeying(&world);
        let agent = world.agent("gpu-1").await;
        for face in FACES {
            let mut town = Town::new(&world, &agent, face).await;
            hosts::drain(world.server(), "gpu-1", false, "ana")
                .await
                .unwrap();
            let files = [("train.py", "print(4)")];
            let number = town
                .forge
                .open_from_fork("eve", "patch", &files, "Please")
                .await;
            town.look().await;
            let head = town.forge.head(number);
            let later = Timestamp::now() + Span::hours(1);
            for (at, word) in [(Timestamp::now(), "blocked"), (later, "queued")] {
                let mut message = town.unheard(number, "octo", "/trainyard approve").await;
                if let ForgeEvent::Comment(said) = &mut message.event {
                    said.at = Some(at);
                }
                town.keep(&Message { at, ..message }).await;
                let told = town.told(&head).await;
                assert_eq!(told, [named(&[("train", word)])], "{face:?}");
            }
            assert_eq!(town.refusals(number).await.len(), 1, "{face:?}");
            // Nothing of it is left for the next one.
            let cancel = town.unheard(number, "octo", "/trainyard cancel").await;
            town.keep(&cancel).await;
            hosts::undrain(world.server(), "gpu-1", "ana")
                .await
                .unwrap();
            town.settle().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_before_the_server_died_is_not_done_again() {
    on_both(Times::default(), |world| async move {
        let _obeying = obeying(&world);
        let agent = world.agent("gpu-1").await;
        let mut town = Town::new(&world, &agent, Face::Github).await;
        let (number, head) = town.request(&[(".trainyard.yml", JOBS)]).await;
        agent.run(red()).await;
        // What is queued from now on stays so.
        hosts::drain(world.server(), "gpu-1", false, "ana")
            .await
            .unwrap();
        let both = "/trainyard retry\n/trainyard rerun a lr=0.1";
        assert_eq!(town.twice(number, &head, both).await.len(), 3);
        let told = town.twice(number, &head, "/trainyard cancel").await;
        let is_over = |(_, word): &(String, &str)| !["queued", "blocked"].contains(word);
        assert!(told.concat().iter().all(is_over), "{told:?}");
        town.keep(&town.unheard(number, "octo", "/trainyard retry").await)
            .await;
        let anew = "/trainyard cancel\n/trainyard retry";
        let told = town.twice(number, &head, anew).await;
        assert_eq!(told.len(), 5, "{told:?}");
        assert!(told[3].iter().all(is_over), "{told:?}");
        assert!(!told[4].iter().all(is_over), "the last is not cancelled");
        assert_eq!(town.refusals(number).await, [""; 0]);

        // It died after the first of two.
        let message = town.unheard(number, "octo", "").await;
        let ForgeEvent::Comment(said) = &message.event else {
            panic!("{message:?}")
        };
        let first = "/trainyard rerun a lr=0.2";
        let second = format!("{first}\n/trainyard rerun a lr=0.3");
        for (text, pipelines) in [(first, 6), (second.as_str(), 7)] {
            let event = ForgeEvent::Comment(Said {
                text: text.to_owned(),
                ..said.clone()
            });
            town.keep(&Message {
                event,
                ..message.clone()
            })
            .await;
            assert_eq!(town.told(&head).await.len(), pipelines);
            town.forget().await;
        }

        // An approval.
        let files = [("train.py", "print(4)")];
        let number = town
            .forge
            .open_from_fork("eve", "patch", &files, "Please")
            .await;
        town.look().await;
        let head = town.forge.head(number);
        let whole = format!("/trainyard approve {head}");
        let told = town.twice(number, &head, &whole).await;
        assert_eq!(told, [named(&[("train", "queued")])]);
        assert_eq!(town.refusals(number).await, [""; 0]);
        assert_eq!(town.forge.violations(), [""; 0]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forge_that_is_down_hides_nobody_elses_commands() {
    on_both(Times::default(), |world| async move {
        let _obeying = obeying(&world);
        let agent = world.agent("gpu-1").await;
        let down = Town::new(&world, &agent, Face::Gitea).await;
        let mut well = Town::new(&world, &agent, Face::Gitea).await;
        let (number, _) = well.request(&[("train.py", "print(2)")]).await;
        down.forge.down(Outage::BadGateway);
        for id in 1..=150 {
            let message = down.message(1, id, "/trainyard deploy");
            inbox::keep(world.server(), message).await.unwrap();
        }
        well.forge
            .comment(number, "octo", "/trainyard deploy")
            .await;
        let left = async |town: &Town<'_>| {
            let mut db = world.server().store.read().await.unwrap();
            let all = rows::asked(&mut db, Timestamp(i64::MAX), 200);
            let all = all.await.unwrap().into_iter();
            all.filter(|row| row.project == town.project.id).count()
        };
        world
            .until("the other's is done", || async { left(&well).await == 0 })
            .await;
        assert_eq!(well.refusals(number).await.len(), 1);
        assert_eq!(left(&down).await, 150);

        // It is up again, and its pause over.
        down.forge.up();
        let mut tx = world.server().store.begin().await.unwrap();
        rows::asked_later(&mut tx, &down.project.id, "", Timestamp(0))
            .await
            .unwrap();
        tx.commit().await.unwrap();
        down.obeyed().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forge_that_is_silent_holds_up_nobody_elses_commands() {
    on_both(Times::default(), |world| async move {
        let _obeying = obeying(&world);
        let agent = world.agent("gpu-1").await;
        let well = Town::new(&world, &agent, Face::Gitea).await;
        let (number, _) = well.request(&[("train.py", "print(2)")]).await;
        // It takes a call, and never answers.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut project = testing::project("silent");
        let mut place = well.project.forge.place().unwrap().1.clone();
        place.api = format!("http://{}/api/v1", silent.local_addr().unwrap());
        project.forge = ForgeConfig::Gitea(place);
        let server = world.server();
        let mut tx = server.store.begin().await.unwrap();
        projects::insert(&mut tx, &project).await.unwrap();
        tx.commit().await.unwrap();
        let message = Message {
            project: project.id.clone(),
            ..well.message(1, 1, "/trainyard retry")
        };
        inbox::keep(server, message).await.unwrap();
        let _call = silent.accept().await.unwrap();

        // Asked for after that pass began.
        let left = async || {
            let mut db = server.store.read().await.unwrap();
            // What was put off is left too.
            let later = Timestamp::now() + Span::hours(1);
            let all = rows::asked(&mut db, later, 9).await.unwrap();
            all.into_iter().map(|row| row.project).collect::<Vec<_>>()
        };
        well.forge
            .comment(number, "octo", "/trainyard deploy")
            .await;
        let is_done = || async { !left().await.contains(&well.project.id) };
        world.until("the other's is done", is_done).await;
        assert_eq!(left().await, [project.id], "its call goes on");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_right_after_a_push_waits_for_the_look_at_it() {
    on_both(Times::default(), |world| async move {
        let _obeying = obeying(&world);
        let agent = world.agent("gpu-1").await;
        let mut town = Town::new(&world, &agent, Face::Github).await;
        hosts::drain(world.server(), "gpu-1", false, "ana")
            .await
            .unwrap();
        let (number, _) = town.request(&[("train.py", "print(2)")]).await;
        let files = [("train.py", "print(3)")];
        let head = town.forge.push_to_request(number, &files).await;
        town.forge
            .comment(number, "octo", "/trainyard rerun train")
            .await;
        let asked = async || {
            let mut db = world.server().store.read().await.unwrap();
            let waiting = rows::asked(&mut db, Timestamp::now(), 9).await.unwrap();
            let all = rows::asked(&mut db, Timestamp(i64::MAX), 9).await.unwrap();
            (waiting.len(), all.len())
        };
        world
            .until("it waits", || async { asked().await == (0, 1) })
            .await;
        town.look().await;
        let mut tx = world.server().store.begin().await.unwrap();
        rows::asked_later(&mut tx, &town.project.id, "", Timestamp(0))
            .await
            .unwrap();
        tx.commit().await.unwrap();
        town.obeyed().await;
        assert_eq!(town.told(&head).await.len(), 2);
        assert_eq!(town.thumbs(number).await, 1);
        assert_eq!(town.refusals(number).await, [""; 0]);
    })
    .await;
}
