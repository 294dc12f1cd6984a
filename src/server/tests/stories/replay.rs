//! Every recorded message of every forge, sent to the server twice, with the commits that it names made to exist.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use hmac::{Hmac, KeyInit as _, Mac as _};
use protocol::ProjectId;
use serde_json::Value;
use server::forge::{Credential, ForgeConfig, Place, Repository};
use server::store::projects::{self, Project};
use server::store::{pipelines, testing};
use server::watch;
use sha2::Sha256;

use crate::commits::git;
use crate::support::{Times, World, on_both};

const SECRET: &str = "hook-s3cret";
const FILE: &str = "jobs: {train: {command: 'true', reuse: false}}\n";
const ZEROS: &str = "0000000000000000000000000000000000000000";

/// A recorded message.
struct Message {
    forge: &'static str,
    stem: String,
    body: String,
    headers: Vec<(String, String)>,
}

/// All of a forge, by name.
fn messages(forge: &'static str) -> Vec<Message> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/forges");
    let entries = fs::read_dir(folder.join(forge)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let ours = |name: &String| {
        let odd = [".schema.", ".response", ".headers."];
        let data = name.ends_with(".json") || name.ends_with(".body.txt");
        data && !odd.iter().any(|part| name.contains(part))
    };
    let mut names: Vec<String> = names.filter(ours).collect();
    names.sort();
    let own = |name: &str, value: String| (name.to_owned(), value);
    let read = |name: String| {
        let path = folder.join(forge).join(&name);
        let stem = name.trim_end_matches(".txt").trim_end_matches(".json");
        let stem = stem.trim_end_matches(".body").to_owned();
        let headers = match forge {
            "gitea" => recorded(&path.with_file_name(format!("{stem}.headers.json"))),
            "gitlab" => vec![
                own("x-gitlab-event", "Some Hook".to_owned()),
                // Another at each try, where the key stays.
                own(
                    "x-gitlab-webhook-uuid",
                    "13792a34-cac6-4fda-95a8-c58e00a3954e".to_owned(),
                ),
                own("x-gitlab-event-uuid", format!("event of {stem}")),
                own("idempotency-key", format!("key of {stem}")),
            ],
            _ => vec![
                own("x-github-event", stem.split('.').next().unwrap().to_owned()),
                own("x-github-delivery", format!("delivery of {stem}")),
            ],
        };
        Message {
            forge,
            body: fs::read_to_string(&path).unwrap(),
            stem,
            headers,
        }
    };
    names.into_iter().map(read).collect()
}

/// The headers that name an event, its id, and how its body is written; the proof is made anew.
fn recorded(path: &Path) -> Vec<(String, String)> {
    let value: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let fields = value["headers"].as_object().unwrap().iter();
    let fields = fields.map(|(name, value)| {
        let value = value.as_str().unwrap().to_owned();
        (name.to_lowercase(), value)
    });
    fields
        .filter(|(name, _)| {
            let ends = ["-event", "-delivery", "content-type"];
            ends.iter().any(|end| name.ends_with(end))
        })
        .collect()
}

/// What a message says of git: refs that it sets, with the commit that it names for each; none: the ref is gone.
fn named(forge: &str, body: &Value) -> Vec<(String, Option<String>)> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let mut refs = Vec::new();
    if let (Some(name), Some(after)) = (text(&body["ref"]), text(&body["after"])) {
        refs.push((name, Some(after).filter(|after| after != ZEROS)));
    }
    let request = &body["pull_request"];
    if let (Some(number), Some(head)) = (request["number"].as_u64(), text(&request["head"]["sha"]))
    {
        refs.push((format!("refs/pull/{number}/head"), Some(head)));
    }
    let request = &body["object_attributes"];
    if forge == "gitlab"
        && let (Some(number), Some(head)) =
            (request["iid"].as_u64(), text(&request["last_commit"]["id"]))
    {
        refs.push((format!("refs/merge-requests/{number}/head"), Some(head)));
    }
    refs
}

impl Message {
    /// What it is told apart by, as its forge says.
    fn id(&self) -> &str {
        let name = match self.forge {
            "gitea" => "x-gitea-delivery",
            "gitlab" => "idempotency-key",
            _ => "x-github-delivery",
        };
        let mut headers = self.headers.iter();
        let (_, id) = headers.find(|(known, _)| known == name).unwrap();
        id
    }
}

/// A repository with a first commit, which is planned, and the project that watches it.
struct Yard<'a> {
    world: &'a World,
    path: PathBuf,
    project: Project,
}

impl<'a> Yard<'a> {
    async fn new(world: &'a World, message: &Message, body: Option<&Value>) -> Self {
        let name = format!("{}-{}", message.forge, message.stem.replace('.', "-"));
        let path = world.folder.path().join(&name);
        fs::create_dir_all(&path).unwrap();
        git(&path, &["init", "--quiet", "--initial-branch=trunk"]);
        fs::write(path.join(".trainyard.yml"), FILE).unwrap();
        git(&path, &["add", "--all"]);
        git(&path, &["commit", "--quiet", "--message=Begin"]);
        let secret = world.folder.path().join("secret");
        fs::write(&secret, SECRET).unwrap();
        let path_at_forge = body.and_then(|body| {
            let named = &body["repository"]["full_name"];
            named
                .as_str()
                .or(body["project"]["path_with_namespace"].as_str())
        });
        let repository = path_at_forge.unwrap_or("octo/hello").to_owned();
        let mut place = Place::new(
            Repository::try_from(repository).unwrap(),
            "https://forge.example.com".to_owned(),
        );
        place.webhook_secret = Some(Credential::File(secret));
        let mut project = testing::project(&name);
        project.url = path.to_str().unwrap().to_owned();
        project.forge = match message.forge {
            "gitlab" => ForgeConfig::Gitlab(place),
            "gitea" => ForgeConfig::Gitea(place),
            _ => ForgeConfig::Github(place),
        };
        let mut tx = world.server().store.begin().await.unwrap();
        projects::insert(&mut tx, &project).await.unwrap();
        tx.commit().await.unwrap();
        Self {
            world,
            path,
            project,
        }
    }

    async fn look(&self) {
        let mut db = self.world.server().store.read().await.unwrap();
        let project = projects::find(&mut db, &self.project.id).await.unwrap();
        drop(db);
        watch::look(self.world.server(), &project.unwrap())
            .await
            .unwrap();
    }

    /// How many pipelines there are besides the first commit's.
    async fn pipelines(&self) -> usize {
        let mut db = self.world.server().store.read().await.unwrap();
        let id: &ProjectId = &self.project.id;
        let all = pipelines::recent(&mut db, Some(id), None, 100)
            .await
            .unwrap();
        all.len() - 1
    }

    /// The ids of messages that were kept and not looked after.
    async fn kept(&self) -> Vec<String> {
        let mut db = self.world.server().store.read().await.unwrap();
        let kept = projects::unhandled_deliveries(&mut db, 100).await.unwrap();
        let ours = kept
            .into_iter()
            .filter(|kept| kept.project == self.project.id);
        ours.map(|kept| kept.delivery).collect()
    }

    /// Makes what a message names exist, and gives the body with the ids that git chose.
    fn make(&self, body: &str, refs: &[(String, Option<String>)]) -> String {
        let mut body = body.to_owned();
        for (number, (name, commit)) in refs.iter().enumerate() {
            match commit {
                None => git(&self.path, &["update-ref", "-d", name]),
                Some(commit) => {
                    git(&self.path, &["checkout", "--quiet", "--detach", "trunk"]);
                    fs::write(self.path.join("change"), number.to_string()).unwrap();
                    git(&self.path, &["add", "--all"]);
                    git(&self.path, &["commit", "--quiet", "--message=Change"]);
                    git(&self.path, &["update-ref", name, "HEAD"]);
                    body = body.replace(commit.as_str(), &head(&self.path));
                }
            }
        }
        body
    }

    /// Sends it as its forge does; gives the status of the answer.
    async fn send(&self, message: &Message, body: &str) -> u16 {
        let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
        mac.update(body.as_bytes());
        let signature = hex::encode(mac.finalize().into_bytes());
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("{}/hooks/{}", self.world.url, self.project.name);
        let mut headers: BTreeMap<&str, &str> = BTreeMap::from([
            ("content-type", "application/json"),
            ("x-gitlab-token", SECRET),
        ]);
        let given = message.headers.iter();
        headers.extend(given.map(|(name, value)| (name.as_str(), value.as_str())));
        let mut request = http.post(url).header("x-gitea-signature", &signature);
        request = request.header("x-hub-signature-256", format!("sha256={signature}"));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let answer = request.body(body.to_owned()).send().await.unwrap();
        answer.status().as_u16()
    }
}

fn head(path: &Path) -> String {
    let done = Command::new("git")
        .args(["rev-parse", "HEAD"])
        .current_dir(path)
        .output();
    String::from_utf8(done.unwrap().stdout)
        .unwrap()
        .trim()
        .to_owned()
}

/// Status and pipelines of a message, the same after it came a second time.
async fn replayed(world: &World, message: &Message) -> String {
    let body: Option<Value> = serde_json::from_str(&message.body).ok();
    let yard = Yard::new(world, message, body.as_ref()).await;
    let refs = body
        .as_ref()
        .map_or(Vec::new(), |body| named(message.forge, body));
    // The branch that a request goes to, and what is to be gone.
    for branch in ["main", "master"] {
        git(&yard.path, &["branch", branch, "trunk"]);
    }
    for (name, commit) in &refs {
        if commit.is_none() {
            git(&yard.path, &["update-ref", name, "trunk"]);
        }
    }
    yard.look().await;
    let sent = yard.make(&message.body, &refs);
    let status = yard.send(message, &sent).await;
    match status {
        202 => assert_eq!(yard.kept().await, [message.id()], "{}", message.stem),
        _ => assert_eq!(yard.kept().await, [""; 0], "{}", message.stem),
    }
    yard.look().await;
    let first = yard.pipelines().await;
    assert_eq!(yard.send(message, &sent).await, status);
    yard.look().await;
    assert_eq!(yard.pipelines().await, first, "{} again", message.stem);
    format!("{status} {first}")
}

/// The answer and the pipelines of those that are not "taken, and nothing to run" (`202 0`): tags, closed requests,
/// comments that command nothing, and what asks for no work.
const EXPECTED: &str = "\
github pull_request.opened: 202 1
github pull_request.opened.null-body: 202 1
github pull_request.ready_for_review: 202 1
github pull_request.reopened: 202 1
github pull_request.synchronize: 202 1
github push.branch-new-1commit: 202 1
github push.branch-no-username-committer: 202 1
gitlab merge_request: 202 1
gitlab push: 202 1
gitlab service_merge_request: 202 1
gitea pull_request.opened: 202 1
gitea pull_request.opened.fork: 202 1
gitea pull_request.synchronized: 202 1
gitea push.branch.1c: 202 1
gitea push.branch.3c: 202 1
gitea push.branch.5c: 202 1
gitea push.branch.created: 202 1
gitea push.form-encoded: 415 0
";

#[tokio::test]
async fn each_starts_what_it_says_once() {
    on_both(Times::default(), |world| async move {
        let mut seen = String::new();
        for forge in ["github", "gitlab", "gitea"] {
            for message in messages(forge) {
                let came = replayed(&world, &message).await;
                if came != "202 0" {
                    let _ = writeln!(seen, "{forge} {}: {came}", message.stem);
                }
            }
        }
        assert_eq!(seen, EXPECTED);
    })
    .await;
}

/// One of GitHub's, changed.
fn changed(stem: &str, change: impl FnOnce(&mut Value)) -> Message {
    let mut message = messages("github")
        .into_iter()
        .find(|message| message.stem == stem)
        .unwrap();
    let mut body: Value = serde_json::from_str(&message.body).unwrap();
    change(&mut body);
    message.body = body.to_string();
    message
}

#[tokio::test]
async fn a_commit_that_no_longer_exists_starts_nothing_and_breaks_nothing() {
    on_both(Times::default(), |world| async move {
        for message in [
            changed("push.branch-new-1commit", |_| ()),
            changed("pull_request.synchronize", |_| ()),
        ] {
            let body = serde_json::from_str(&message.body).unwrap();
            let yard = Yard::new(&world, &message, Some(&body)).await;
            yard.look().await;
            assert_eq!(yard.send(&message, &message.body).await, 202);
            yard.look().await;
            assert_eq!(yard.pipelines().await, 0, "{}", message.stem);
            assert_eq!(yard.kept().await, [""; 0], "it was looked after");
            let mut db = world.server().store.read().await.unwrap();
            let project = projects::find(&mut db, &yard.project.id).await.unwrap();
            assert_eq!(project.unwrap().problem, None);
            drop(db);
            // The next push is planned as ever.
            git(
                &yard.path,
                &["commit", "--quiet", "--allow-empty", "--message=Go on"],
            );
            yard.look().await;
            assert_eq!(yard.pipelines().await, 1, "{}", message.stem);
        }
    })
    .await;
}

/// Names that a shell would do something with.
fn odd_names() -> Vec<String> {
    let mut names: Vec<String> = [
        "it's",
        "\"quoted\"",
        "$(touch${IFS}pwned)",
        "`touch${IFS}pwned`",
        ";touch${IFS}pwned;",
        "|touch${IFS}pwned",
        "&&touch${IFS}pwned",
        ">pwned",
        "--upload-pack=touch${IFS}pwned",
        "🚂/größer",
        "%2e%2e%2fpwned",
        "<img/src=x>",
    ]
    .map(str::to_owned)
    .to_vec();
    names.push(format!("{}/{}", "x".repeat(127), "y".repeat(127)));
    names
}

/// Whether a file of this name lies anywhere in a folder.
fn lies(folder: &Path, name: &str) -> bool {
    fs::read_dir(folder).unwrap().any(|entry| {
        let entry = entry.unwrap();
        let is_folder = entry.file_type().unwrap().is_dir();
        entry.file_name() == name || is_folder && lies(&entry.path(), name)
    })
}

#[tokio::test]
async fn branches_with_odd_names_are_planned_and_nothing_is_executed() {
    on_both(Times::default(), |world| async move {
        let message = changed("push.branch-new-1commit", |_| ());
        let body = serde_json::from_str(&message.body).unwrap();
        let yard = Yard::new(&world, &message, Some(&body)).await;
        yard.look().await;
        for name in odd_names() {
            let reference = format!("refs/heads/{name}");
            git(&yard.path, &["update-ref", &reference, "HEAD"]);
        }
        yard.look().await;
        assert_eq!(yard.pipelines().await, odd_names().len());
        let mut db = world.server().store.read().await.unwrap();
        let all = pipelines::recent(&mut db, Some(&yard.project.id), None, 100);
        let mut seen: Vec<String> = all
            .await
            .unwrap()
            .iter()
            .filter_map(|pipeline| pipeline.trigger.branch().map(str::to_owned))
            .filter(|branch| branch != "trunk")
            .collect();
        drop(db);
        let mut names = odd_names();
        names.sort();
        seen.sort();
        assert_eq!(seen, names);
        // Names that git knows none of stand in messages all the same.
        for odd in [
            "a b",
            "$(touch pwned)",
            "x\n; touch pwned",
            "`touch pwned`\u{0}",
            "",
        ] {
            let long = format!("{odd}{}", "z".repeat(400));
            for name in [odd, &long] {
                let push = changed("push.branch-new-1commit", |body| {
                    body["ref"] = format!("refs/heads/{name}").into();
                });
                let request = changed("pull_request.opened", |body| {
                    body["pull_request"]["head"]["ref"] = name.into();
                    body["pull_request"]["base"]["ref"] = name.into();
                });
                for mut message in [push, request] {
                    // Each is news.
                    message.headers[1].1 = format!("{} {}", message.stem, name.escape_default());
                    assert_eq!(yard.send(&message, &message.body).await, 202, "{name:?}");
                }
                yard.look().await;
            }
        }
        assert_eq!(yard.pipelines().await, odd_names().len());
        assert!(!lies(world.folder.path(), "pwned"));
        assert!(!Path::new("pwned").exists());
    })
    .await;
}
