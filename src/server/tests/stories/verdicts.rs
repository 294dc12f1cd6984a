//! Stories of what forges show, told at each forge's double: real git, real messages, the real way of the data.

mod commands;
mod endings;

use protocol::{Outcome, Span, Timestamp};
use server::forge::{Credential, ForgeConfig, Place, Repository};
use server::registry::Registrar;
use server::report::{Differ, Pass, ReportConfig, Reporter};
use server::store::pipelines::Pipeline;
use server::store::projects::{self, Project};
use server::store::testing;
use server::{pipelines, watch};

use crate::forge::{Comment, Face, ForgeWorld, Limits, MAIN, Outage, Refusal};
use crate::support::{Agent, Times, World, on_both};

const FACES: [Face; 4] = [Face::Github, Face::Gitlab, Face::Gitea, Face::Forgejo];
const FILE: &str = "\
jobs:
  train:
    command: python train.py
    on: {push: [main], pull_request: true}
    deps: [train.py]
";
const SECRET: &str = "of the hook";

/// A forge whose project the server watches, and the loops that report, with a clock of their own.
struct Town<'a> {
    world: &'a World,
    forge: ForgeWorld,
    project: Project,
    agent: &'a Agent,
    registrar: Registrar,
    differ: Differ,
    reporter: Reporter,
    now: Timestamp,
}

impl<'a> Town<'a> {
    /// With a main branch whose job succeeded.
    async fn new(world: &'a World, agent: &'a Agent, face: Face) -> Self {
        let forge = ForgeWorld::start(face).await;
        // Held by what GitHub bears, whoever it is: the forge's clock goes with the story's.
        forge.limits(Some(Limits::of_github()));
        forge
            .push(MAIN, &[(".trainyard.yml", FILE), ("train.py", "print(1)")])
            .await;
        let project = project(world, &forge);
        let server = world.server();
        let mut tx = server.store.begin().await.unwrap();
        projects::insert(&mut tx, &project).await.unwrap();
        tx.commit().await.unwrap();
        forge.hook(&format!("{}/hooks/{}", world.url, project.name), SECRET);
        let mut town = Self {
            world,
            forge,
            project,
            agent,
            registrar: Registrar::new(server.store.clone()),
            differ: Differ::new(server.store.clone(), server.config.mirrors()),
            reporter: reporter(world),
            now: Timestamp::now(),
        };
        town.look().await;
        town.agent.run(Outcome::Succeeded).await;
        town.settle().await;
        town
    }

    /// Looks at the remote; gives the pipelines that it led to.
    async fn look(&self) -> Vec<Pipeline> {
        let mut db = self.world.server().store.read().await.unwrap();
        let project = projects::find(&mut db, &self.project.id).await.unwrap();
        drop(db);
        watch::look(self.world.server(), &project.unwrap())
            .await
            .unwrap()
    }

    /// One pass of the loops.
    async fn pass(&mut self) -> Pass {
        self.registrar.tick(self.now).await.unwrap();
        self.differ.tick().await.unwrap();
        self.reporter.tick(self.now).await.unwrap()
    }

    /// A pass in each second of `span`; gives how often something was sent.
    async fn seconds(&mut self, span: Span) -> usize {
        let mut sent = 0;
        for _ in 0..span.0 / 1_000 {
            let pass = self.pass().await;
            sent += pass.accepted + pass.refused;
            self.wait_until(self.now + Span::secs(1));
        }
        sent
    }

    /// It is later, here and at the forge.
    fn wait_until(&mut self, then: Timestamp) {
        self.forge.advance(then.since(self.now).into());
        self.now = then;
    }

    /// The reporter of a server that starts anew.
    fn restart(&mut self) {
        self.reporter = reporter(self.world);
    }

    /// Passes, a second after each other, until there is nothing to say, not even later.
    async fn settle(&mut self) {
        let mut quiet = false;
        for _ in 0..1_000 {
            let pass = self.pass().await;
            let waits = pass.next.is_some() || pass.accepted + pass.refused > 0;
            if quiet && !waits {
                return;
            }
            quiet = !waits;
            // What is not final may wait for its moment.
            let later = if quiet { 11 } else { 1 };
            let then = pass.next.unwrap_or(self.now + Span::secs(later));
            self.wait_until(then);
        }
        panic!("it never comes to rest");
    }

    /// The one comment of ours under a request.
    fn comment(&self, request: u64) -> Comment {
        let seen = self.forge.seen();
        let all = seen.on(request);
        let ours: Vec<_> = all
            .into_iter()
            .filter(|c| c.text.starts_with("<!--"))
            .collect();
        assert_eq!(ours.len(), 1, "{ours:?}");
        ours[0].clone()
    }

    fn headline(&self, request: u64) -> String {
        let text = self.comment(request).text;
        text.lines().nth(1).unwrap_or_default().to_owned()
    }

    /// The state of the job `train`, in the forge's word.
    fn state(&self, commit: &str) -> String {
        let seen = self.forge.seen();
        let state = seen.state(commit, "trainyard/train");
        state.unwrap_or("nothing").to_owned()
    }

    /// Calls that write, by their paths.
    fn writes(&self) -> Vec<String> {
        let calls = self.forge.calls().into_iter();
        let writes = calls.filter(|call| call.method != "GET");
        writes.map(|call| call.path).collect()
    }
}

fn reporter(world: &World) -> Reporter {
    let config = ReportConfig {
        pages: Some(world.url.clone()),
        patience: Span::secs(30),
        ..ReportConfig::default()
    };
    let server = world.server();
    Reporter::new(server.store.clone(), server.forges.clone(), config)
}

fn project(world: &World, forge: &ForgeWorld) -> Project {
    // A forge's port is its own.
    let port = forge.url().rsplit(':').next().unwrap();
    let name = format!("{:?}-{port}", forge.face()).to_lowercase();
    let secret = |what: &str, text: &str| {
        let path = world.folder.path().join(format!("{name}-{what}"));
        std::fs::write(&path, text).unwrap();
        Some(Credential::File(path))
    };
    let repository = Repository::try_from("octo/hello".to_owned()).unwrap();
    let mut place = Place::new(repository, forge.api());
    place.token = secret("token", &forge.owners_token());
    place.webhook_secret = secret("hook", SECRET);
    Project {
        url: forge.clone_url(),
        forge: match forge.face() {
            Face::Github => ForgeConfig::Github(place),
            Face::Gitlab => ForgeConfig::Gitlab(place),
            Face::Gitea | Face::Forgejo => ForgeConfig::Gitea(place),
        },
        ..testing::project(&name)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_shows_the_same_at_every_forge() {
    on_both(Times::default(), |world| async move {
        let mut said: Vec<String> = Vec::new();
        let agent = world.agent("gpu-1").await;
        for face in FACES {
            let mut town = Town::new(&world, &agent, face).await;
            let first = town.forge.push("better", &[("train.py", "print(2)")]).await;
            let number = town
                .forge
                .open_request("better", "Better @everyone", "ana")
                .await;
            assert_eq!(town.look().await.len(), 2, "the branch's and the request's");
            town.settle().await;
            assert_eq!(town.state(&first), "pending", "{face:?}");
            assert_eq!(town.headline(number), "### ⏳ 0 of 1 job done");

            town.agent.run(Outcome::Succeeded).await;
            town.settle().await;
            assert_eq!(town.state(&first), "success", "{face:?}");
            assert_eq!(town.headline(number), "### ✅ 1 job succeeded");
            let comment = town.comment(number);
            assert!(comment.edits > 0, "edited, and not followed by another");
            said.push(plain(&comment.text, &first));

            // A further push: the comment speaks of it.
            let second = town
                .forge
                .push_to_request(number, &[("train.py", "print(3)")])
                .await;
            town.look().await;
            town.settle().await;
            assert_eq!(town.state(&second), "pending", "{face:?}");
            assert_eq!(town.headline(number), "### ⏳ 0 of 1 job done");

            // A stranger's fork waits for a person, and says how.
            let fork = town
                .forge
                .open_from_fork("eve", "patch", &[("train.py", "print(4)")], "Please")
                .await;
            let made = town.look().await.remove(0);
            town.settle().await;
            assert_eq!(town.headline(fork), "### ⏳ Waits for an approval");
            assert!(town.comment(fork).text.contains("`/trainyard approve"));
            let (project, commit) = (&made.project, &made.trigger.commit);
            pipelines::approve(world.server(), project, commit, "ana")
                .await
                .unwrap();
            town.settle().await;
            assert_eq!(town.headline(fork), "### ⏳ 0 of 1 job done");
            for _ in 0..2 {
                town.agent.run(Outcome::Succeeded).await;
            }
            town.settle().await;
            assert_eq!(town.headline(number), "### ✅ 1 job succeeded");
            assert_eq!(town.headline(fork), "### ✅ 1 job succeeded");
            assert_eq!(town.forge.violations(), [""; 0], "{face:?}");
        }
        said.dedup();
        assert_eq!(said.len(), 1, "{said:#?}");
    })
    .await;
}

/// A comment without what differs between projects by nature: its first line, ids, and commits, which have their time.
fn plain(text: &str, commit: &str) -> String {
    let (_, text) = text.split_once('\n').unwrap();
    let words = text.replace(&commit[..10], "COMMIT");
    let is_id = |word: &&str| word.len() == 26;
    let ids: Vec<String> = words
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(is_id)
        .map(str::to_owned)
        .collect();
    ids.iter().fold(words, |text, id| text.replace(id, "ID"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_costs_time_and_few_calls() {
    on_both(Times::default(), |world| async move {
        let agent = world.agent("gpu-1").await;
        for face in FACES {
            let mut town = Town::new(&world, &agent, face).await;
            let commit = town.forge.push("better", &[("train.py", "print(2)")]).await;
            let number = town.forge.open_request("better", "Better", "ana").await;
            town.look().await;
            town.settle().await;

            let before = town.writes().len();
            town.forge.down(Outage::BadGateway);
            town.agent.run(Outcome::Succeeded).await;
            let tried = town.seconds(Span::secs(600)).await;
            town.forge.up();
            assert_eq!(town.writes().len(), before, "nothing came through");
            // Each wait is twice the one before: 2 s, 4 s, … and a little more.
            assert!(
                (5..=9).contains(&tried),
                "{face:?}: {tried} calls in ten minutes"
            );
            town.settle().await;
            // What is over goes first, and what was in between is never said.
            assert_eq!(town.state(&commit), "success", "{face:?}");
            assert_eq!(town.headline(number), "### ✅ 1 job succeeded");
            let writes = &town.writes()[before..];
            assert_eq!(
                writes.len(),
                3,
                "the whole, the job, the comment: {writes:?}"
            );
            assert_eq!(town.forge.violations(), [""; 0], "{face:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forge_that_asks_to_wait_is_not_called_before() {
    on_both(Times::default(), |world| async move {
        let agent = world.agent("gpu-1").await;
        for face in FACES {
            let mut town = Town::new(&world, &agent, face).await;
            let commit = town.forge.push("better", &[("train.py", "print(2)")]).await;
            let number = town.forge.open_request("better", "Better", "ana").await;
            town.look().await;
            for refusal in [Refusal::After(60), Refusal::Spent(60)] {
                town.forge.limit_for(1, refusal);
                let before = town.forge.calls().len();
                let tried = town.seconds(Span::secs(30)).await;
                // A server that starts anew has not forgotten it.
                town.restart();
                let again = town.seconds(Span::secs(28)).await;
                assert_eq!((tried, again), (1, 0), "{face:?} {refusal:?}");
                assert_eq!(town.forge.calls().len() - before, 1, "{face:?} {refusal:?}");
                // The one that was refused had waited a second for its turn.
                town.seconds(Span::secs(5)).await;
                let since = town.forge.calls().split_off(before);
                assert!(since.len() > 1, "{face:?} {refusal:?}: {since:?}");
            }
            town.settle().await;
            assert_eq!(town.state(&commit), "pending", "{face:?}");
            assert_eq!(town.headline(number), "### ⏳ 0 of 1 job done");

            // Jobs of two commits end while it rests: what was in between is never said.
            town.forge.limit_for(1, Refusal::After(60));
            let before = town.writes().len();
            town.forge
                .push_to_request(number, &[("train.py", "print(3)")])
                .await;
            let head = town.forge.head(number);
            town.look().await;
            town.seconds(Span::secs(5)).await;
            for _ in 0..2 {
                town.agent.run(Outcome::Succeeded).await;
            }
            town.settle().await;
            assert_eq!(town.state(&head), "success", "{face:?}");
            assert_eq!(town.headline(number), "### ✅ 1 job succeeded");
            let writes = &town.writes()[before + 1..];
            assert!(writes.len() <= 7, "{face:?}: {writes:?}");
            assert_eq!(town.forge.violations(), [""; 0], "{face:?}");
        }
    })
    .await;
}
