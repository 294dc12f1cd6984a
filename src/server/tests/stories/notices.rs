//! Stories of who is told outside of forges: a real receiver, real HTTP.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State as Of;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use protocol::api::Page;
use protocol::setup::Level;
use protocol::{Failure, FailureKind, Outcome, Span, Timestamp, TriggerKind};
use serde_json::{Value, json};
use server::config::Config;
use server::notices::{self, Rule};
use server::project::doctor;
use server::store::pipelines::Pipeline;
use server::store::projects::Project;
use server::store::{jobs, pipelines, projects, testing};

use crate::support::{Agent, Times, World, on_both};

const KEY: &str = "a key of its own";
const GUIDE: &str = include_str!("../../../../docs/notifications.md");

/// What came.
#[derive(Clone)]
struct Heard {
    headers: BTreeMap<String, String>,
    body: String,
}

impl Heard {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// `schedule failed #3`
    fn short(&self) -> String {
        let json = self.json();
        let trigger = json["pipeline"]["trigger"].as_str().unwrap();
        let event = json["event"].as_str().unwrap();
        format!("{trigger} {event} #{}", json["pipeline"]["number"])
    }
}

/// Somebody who is told.
#[derive(Clone, Default)]
struct Receiver(Arc<Mutex<Inside>>);

#[derive(Default)]
struct Inside {
    heard: Vec<Heard>,
    /// What is answered instead of 200, the first next.
    answers: VecDeque<(StatusCode, &'static str)>,
}

impl Receiver {
    async fn start(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = axum::Router::new().fallback(hear).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}/services/T0/s3cret")
    }

    /// What it was told since the last call.
    fn told(&self) -> Vec<String> {
        self.take().iter().map(Heard::short).collect()
    }

    fn take(&self) -> Vec<Heard> {
        std::mem::take(&mut self.0.lock().unwrap().heard)
    }

    fn answer(&self, status: u16, words: &'static str) {
        let status = StatusCode::from_u16(status).unwrap();
        self.0.lock().unwrap().answers.push_back((status, words));
    }
}

async fn hear(Of(receiver): Of<Receiver>, headers: HeaderMap, body: Bytes) -> Response {
    let mut inside = receiver.0.lock().unwrap();
    if let Some((status, words)) = inside.answers.pop_front() {
        let headers = [("retry-after", "600")];
        return (status, headers, words).into_response();
    }
    let headers = headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    inside.heard.push(Heard {
        headers: headers.collect(),
        body: String::from_utf8(body.to_vec()).unwrap(),
    });
    "ok".into_response()
}

/// A project, an agent, and somebody who is told.
struct Night {
    world: World,
    project: Project,
    agent: Agent,
    receiver: Receiver,
    made: u64,
    now: Timestamp,
}

impl Night {
    /// With a rule that has these lines more.
    async fn new(world: World, more: &str) -> Self {
        let receiver = Receiver::default();
        let url = receiver.start().await;
        let folder = world.folder.path().to_owned();
        std::fs::write(folder.join("url"), url).unwrap();
        std::fs::write(folder.join("key"), KEY).unwrap();
        let at = |name: &str| format!("file:{}", folder.join(name).display());
        let (url, key) = (at("url"), at("key"));
        let text = format!("name = 'team'\nurl = '{url}'\nsecret = '{key}'\n{more}");
        let rule: Rule = toml::from_str(&text).unwrap();
        let world = world.restart_with(|config| {
            config.notify = vec![rule];
            config.url = Some("https://ci.example.com/".into());
        });
        let world = world.await;
        let mut project = testing::project("digits");
        project.url = folder.join("nothing").display().to_string();
        let mut tx = world.server().store.begin().await.unwrap();
        projects::insert(&mut tx, &project).await.unwrap();
        tx.commit().await.unwrap();
        let agent = world.agent("a").await;
        Self {
            world,
            project,
            agent,
            receiver,
            made: 0,
            now: Timestamp::now(),
        }
    }

    /// Somebody asks, and the one job ends so.
    async fn run(&mut self, kind: TriggerKind, outcome: Outcome) -> Pipeline {
        self.made += 1;
        let mut pipeline = testing::pipeline(&self.project, self.made);
        if let TriggerKind::PullRequest { number } = kind {
            pipeline.trigger.reference = Some(format!("refs/pull/{number}/head"));
        }
        pipeline.trigger.kind = kind;
        pipeline.subject = "Train <!channel> & @here longer".to_owned();
        let mut tx = self.world.server().store.begin().await.unwrap();
        pipelines::insert(&mut tx, &pipeline).await.unwrap();
        let job = testing::job(&pipeline, "train");
        jobs::insert(&mut tx, &job).await.unwrap();
        tx.commit().await.unwrap();
        self.tick().await;
        self.world.server().live.queue_changed();
        self.agent.run(outcome).await;
        pipeline
    }

    /// The server ends and starts again; the agent goes on.
    async fn restart(self, change: impl FnOnce(&mut Config)) -> Self {
        let world = self.world.restart_with(change).await;
        let mut agent = self.agent;
        agent.url = format!("{}/agent/v1", world.url);
        Self {
            world,
            agent,
            ..self
        }
    }

    async fn tick(&self) -> notices::Pass {
        notices::tick(self.world.server(), self.now).await.unwrap()
    }

    /// Passes until there is nothing to send now; gives what was told.
    async fn settle(&self) -> Vec<String> {
        for _ in 0..50 {
            let pass = self.tick().await;
            if pass.taken + pass.not_taken == 0 {
                return self.receiver.told();
            }
        }
        panic!("it never comes to rest");
    }

    async fn doctor(&self) -> (Level, String) {
        let checks = doctor::examine(self.world.server(), &self.project).await;
        let checks = checks.unwrap().into_iter();
        let mut of_rule = checks.filter(|check| check.name == "notify team");
        let check = of_rule.next().unwrap();
        (check.level, check.found)
    }

    async fn get(&self, path: &str) -> String {
        let answer = reqwest::get(format!("{}{path}", self.world.url)).await;
        answer.unwrap().text().await.unwrap()
    }
}

fn schedule() -> TriggerKind {
    TriggerKind::Schedule {
        definitions: vec!["train".to_owned()],
    }
}

fn failed() -> Outcome {
    let message = "cell 5 raised ValueError: <b> & \u{1b}[31mred";
    Outcome::Failed(Failure::new(FailureKind::CellRaised, message))
}

#[tokio::test]
async fn a_schedule_that_fails_and_recovers_is_told_once_each() {
    on_both(Times::default(), |world| async move {
        let mut night = Night::new(world, "private = true").await;
        night.run(schedule(), Outcome::Succeeded).await;
        assert!(night.settle().await.is_empty(), "nothing failed before");
        night.run(schedule(), failed()).await;
        night = night.restart(|_| ()).await;
        assert_eq!(night.settle().await, ["schedule failed #2"]);
        night = night.restart(|_| ()).await;
        assert!(
            night.settle().await.is_empty(),
            "a restart tells nothing twice"
        );

        night.run(TriggerKind::Push, failed()).await;
        let request = TriggerKind::PullRequest { number: 7 };
        night.run(request, failed()).await;
        assert!(night.settle().await.is_empty(), "only schedules are");
        night.run(schedule(), failed()).await;
        assert_eq!(night.settle().await, ["schedule failed #5"]);
        night.run(schedule(), Outcome::Succeeded).await;
        assert_eq!(night.settle().await, ["schedule recovered #6"]);
        night.run(schedule(), Outcome::Succeeded).await;
        assert!(night.settle().await.is_empty());
        let (level, found) = night.doctor().await;
        assert_eq!(level, Level::Ok, "{found}");
        assert!(
            found.contains("127.0.0.1 (signed); the last message was taken"),
            "{found}"
        );
    })
    .await;
}

#[tokio::test]
async fn rules_choose_by_what_ended_and_where() {
    on_both(Times::default(), |world| async move {
        let rule = "private = true\non = ['failed', 'recovered']\nbranches = ['main']\nprojects = ['dig*']";
        let mut night = Night::new(world, rule).await;
        night.run(TriggerKind::Push, failed()).await;
        night.run(TriggerKind::PullRequest { number: 7 }, failed()).await;
        night.run(TriggerKind::Push, Outcome::Succeeded).await;
        night.run(TriggerKind::Push, Outcome::Succeeded).await;
        let told = night.settle().await;
        assert_eq!(told, ["push failed #1", "push recovered #3"]);

        let change = |config: &mut Config| {
            let rule = &mut config.notify[0];
            rule.on = [notices::On::Finished].into();
            rule.branches = Vec::new();
            rule.pull_requests = true;
        };
        night = night.restart(change).await;
                assert!(night.settle().await.is_empty(), "what ended before is over");
        night.run(TriggerKind::PullRequest { number: 7 }, Outcome::Succeeded).await;
        assert_eq!(night.settle().await, ["pull_request recovered #5"]);
    })
    .await;
}

#[tokio::test]
async fn a_receiver_that_is_down_is_told_later_and_in_order() {
    on_both(Times::default(), |world| async move {
        let mut night = Night::new(world, "private = true").await;
        for (status, words) in [(503, "down"), (500, ""), (429, "slow down")] {
            night.receiver.answer(status, words);
        }
        let first = night.run(schedule(), failed()).await;
        night.run(schedule(), Outcome::Succeeded).await;
        assert!(night.settle().await.is_empty());
        let (level, found) = night.doctor().await;
        assert_eq!(level, Level::Warn, "{found}");
        assert!(found.contains("answer 503: down"), "{found}");
        for (waits, calls) in [
            (Span::secs(590), 0),
            (Span::secs(20), 1),
            (Span::secs(610), 1),
        ] {
            night.now = night.now + waits;
            let pass = night.tick().await;
            assert_eq!(pass.taken + pass.not_taken, calls);
            night = night.restart(|_| ()).await;
        }
        let page = night.get(&format!("/pipelines/{}", first.id)).await;
        assert!(
            page.contains("Not told to team: answer 429: slow down"),
            "{page}"
        );
        night.now = night.now + Span::secs(610);
        assert_eq!(
            night.settle().await,
            ["schedule failed #1", "schedule recovered #2"]
        );
    })
    .await;
}

#[tokio::test]
async fn what_a_receiver_refuses_is_given_up_and_shown() {
    on_both(Times::default(), |world| async move {
        let mut night = Night::new(world, "private = true").await;
        night.receiver.answer(404, "no_service\u{1b}[31m");
        let pipeline = night.run(schedule(), failed()).await;
        assert!(night.settle().await.is_empty());
        night.now = night.now + Span::hours(1);
        assert!(night.settle().await.is_empty(), "it is given up");
        let why = "given up: answer 404: no_service";
        let (level, found) = night.doctor().await;
        assert_eq!(level, Level::Fail, "{found}");
        assert!(found.ends_with(why), "{found}");
        let page = night.get(&format!("/pipelines/{}", pipeline.id)).await;
        assert!(page.contains(&format!("Not told to team: {why}")), "{page}");
        let list = night.get("/api/v1/projects").await;
        let list: Page<protocol::api::Project> = serde_json::from_str(&list).unwrap();
        let said = list.items[0].not_shown.as_deref();
        assert_eq!(said, Some(format!("not told to team: {why}").as_str()));
        assert!(!found.contains("s3cret") && !page.contains("s3cret"));

        night.run(schedule(), failed()).await;
        assert_eq!(night.settle().await, ["schedule failed #2"], "others go on");
        // Who is away for good is given up in the end.
        for _ in 0..60 {
            night.receiver.answer(502, "");
        }
        night.run(schedule(), failed()).await;
        let mut calls = 0;
        for _ in 0..100 {
            let pass = night.tick().await;
            calls += pass.not_taken;
            night.now = night.now + Span::secs(1_800);
        }
        assert!((20..40).contains(&calls), "{calls}");
        assert!(night.doctor().await.1.contains("given up: answer 502"));
    })
    .await;
}

#[tokio::test]
async fn nothing_goes_into_a_private_network_that_nobody_named_so() {
    on_both(Times::default(), |world| async move {
        let mut night = Night::new(world, "").await;
        night.run(schedule(), failed()).await;
        assert!(night.settle().await.is_empty());
        let (level, found) = night.doctor().await;
        assert_eq!(level, Level::Fail, "{found}");
        assert!(
            found.contains("private = true") && !found.contains("s3cret"),
            "{found}"
        );
    })
    .await;
}

/// The part of the guide in this language.
fn part_of_guide(language: &str) -> &'static str {
    let (_, rest) = GUIDE.split_once(&format!("\n```{language}\n")).unwrap();
    rest.split_once("\n```").unwrap().0
}

/// What the guide's receiver in Python says to a message.
fn is_genuine(heard: &Heard) -> bool {
    let program = format!(
        "{}\nimport json, sys\nheard = json.load(sys.stdin)\nprint(genuine(heard['headers'], heard['body'].encode(), heard['key'].encode()))",
        part_of_guide("python")
    );
    let mut python = Command::new("python3")
        .args(["-c", &program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let input = json!({"headers": heard.headers, "body": heard.body, "key": KEY});
    let mut stdin = python.stdin.take().unwrap();
    stdin.write_all(input.to_string().as_bytes()).unwrap();
    drop(stdin);
    let output = python.wait_with_output().unwrap();
    match String::from_utf8(output.stdout).unwrap().trim() {
        "True" => true,
        "False" => false,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn the_guides_receiver_knows_a_genuine_message_and_its_fields() {
    on_both(Times::default(), |world| async move {
        let mut night = Night::new(world, "private = true").await;
        let pipeline = night.run(schedule(), failed()).await;
        night.tick().await;
        let heard = night.receiver.take().remove(0);
        assert!(is_genuine(&heard));
        let mut forged = heard.clone();
        forged.body = forged.body.replace("failed", "succeeded");
        assert!(!is_genuine(&forged));
        let mut replayed = heard.clone();
        let name = "x-trainyard-timestamp".to_owned();
        replayed.headers.insert(name, "1700000000".to_owned());
        assert!(!is_genuine(&replayed));

        let json = heard.json();
        let delivery = format!("{}.team", pipeline.id);
        assert_eq!(json["delivery"], delivery);
        assert_eq!(heard.headers["x-trainyard-delivery"], delivery);
        assert_eq!(heard.headers["content-type"], "application/json");
        let page = format!("https://ci.example.com/pipelines/{}", pipeline.id);
        assert_eq!(json["links"]["pipeline"], page);
        assert_eq!(json["jobs"][0]["owner"], "user");
        let text = json["text"].as_str().unwrap();
        let first = format!("🔴 digits: the schedule failed on main (<{page}|#1>)\n");
        assert!(text.starts_with(&first), "{text}");
        assert!(
            text.contains("Train &lt;!channel&gt; &amp; @\u{200b}here longer (Ana)"),
            "{text}"
        );
        assert!(
            text.contains("|train>: cell 5 raised ValueError: &lt;b&gt; &amp; red"),
            "{text}"
        );
        let promised: Value = serde_json::from_str(part_of_guide("json")).unwrap();
        for (name, value) in promised.as_object().unwrap() {
            let there = &json[name];
            if value.is_object() {
                assert_eq!(keys(value), keys(there), "{name}");
            }
            assert!(there.is_string() == value.is_string(), "{name}: {there}");
        }
        assert_eq!(keys(&promised), keys(&json));
        assert_eq!(keys(&promised["jobs"][0]), keys(&json["jobs"][0]));
    })
    .await;
}

fn keys(value: &Value) -> Vec<&String> {
    let mut keys: Vec<_> = value.as_object().unwrap().keys().collect();
    keys.sort();
    keys
}
