//! Stories of whom the server speaks as at a forge: real git and a forge that speaks HTTP.

mod add;
mod buttons;
mod checks;
mod commands;
mod doctor;
mod hook;

use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use protocol::agent_api::Source;
use protocol::{Span, Timestamp, Trust};
use server::config::Config;
use server::forge::app::{AppConfig, AppId};
use server::forge::{Credential, Forge, ForgeConfig, ForgeError, Place, Repository, Update};
use server::forge::{StatusUpdate, Verdict};
use server::state::Server;
use server::store::projects::{self, Project};
use server::store::{jobs, pipelines, requests, rests, testing};
use server::trigger::Request;
use server::watch;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::forge::{APP_ID, Face, ForgeWorld, MAIN, PRIVATE_KEY, PROJECT};
use crate::support::{Times, on_both};

pub(super) const HOOK_SECRET: &str = "of the App's hook";

/// A forge with a private repository, and a server that watches it.
pub(super) struct Town {
    pub(super) forge: ForgeWorld,
    pub(super) folder: TempDir,
    pub(super) commit: String,
}

impl Town {
    pub(super) async fn new(face: Face) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let forge = ForgeWorld::start(face).await;
        let commit = forge.push(MAIN, &[("README.md", "Hello\n")]).await;
        forge.private(true);
        forge.limits(None);
        Self {
            forge,
            folder: tempfile::tempdir().unwrap(),
            commit,
        }
    }

    /// Writes a secret down; gives the reference to it.
    pub(super) fn secret(&self, name: &str, text: &str) -> Credential {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        Credential::File(path)
    }

    /// A configuration with the App.
    pub(super) fn config(&self) -> Config {
        Config {
            listen: ([127, 0, 0, 1], 0).into(),
            poll_interval: protocol::Span::hours(1),
            github_app: Some(AppConfig {
                id: AppId::Number(APP_ID),
                private_key: self.secret("key", PRIVATE_KEY),
                webhook_secret: Some(self.secret("app-hook", HOOK_SECRET)),
                api: self.forge.api(),
            }),
            ..Config::in_folder(self.folder.path().join("server"))
        }
    }

    pub(super) async fn server(&self) -> Server {
        Server::open(self.config(), CancellationToken::new())
            .await
            .unwrap()
    }

    fn place(&self) -> Place {
        let repository = Repository::try_from("octo/hello".to_owned()).unwrap();
        Place::new(repository, self.forge.api())
    }

    /// A project that speaks as the App.
    pub(super) fn of_app(&self) -> Project {
        let place = Place {
            app: Some(PROJECT),
            ..self.place()
        };
        Project {
            url: self.forge.clone_url(),
            forge: ForgeConfig::Github(place),
            ..testing::project("story")
        }
    }

    /// A project that speaks with a token.
    pub(super) fn with_token(&self, token: &str) -> Project {
        let credential = self.secret("token", token);
        let place = Place {
            token: Some(credential.clone()),
            ..self.place()
        };
        Project {
            url: self.forge.clone_url(),
            credential: Some(credential),
            forge: match self.forge.face() {
                Face::Github => ForgeConfig::Github(place),
                Face::Gitlab => ForgeConfig::Gitlab(place),
                Face::Gitea | Face::Forgejo => ForgeConfig::Gitea(place),
            },
            ..testing::project("story")
        }
    }

    /// How often the App asked for a token.
    fn tokens_asked(&self) -> usize {
        let calls = self.forge.calls();
        let asks = calls
            .iter()
            .filter(|call| call.path.ends_with("/access_tokens"));
        asks.count()
    }

    fn status(&self) -> Update {
        Update::Status(StatusUpdate {
            commit: self.commit.parse().unwrap(),
            context: "trainyard".to_owned(),
            verdict: Verdict::Success,
            description: "1 job".to_owned(),
            url: None,
            branch: Some(MAIN.to_owned()),
        })
    }
}

pub(super) async fn insert(server: &Server, project: &Project) {
    let mut tx = server.store.begin().await.unwrap();
    projects::insert(&mut tx, project).await.unwrap();
    tx.commit().await.unwrap();
}

fn connect(server: &Server, project: &Project) -> Box<dyn Forge> {
    let timeout = Duration::from_secs(10);
    server.forges.connect(&project.forge, timeout).unwrap()
}

/// Whether a text stands anywhere in the server's folder.
fn stands(folder: &Path, text: &str) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return stands(&path, text);
        }
        let bytes = std::fs::read(&path).unwrap();
        bytes
            .windows(text.len())
            .any(|window| window == text.as_bytes())
    })
}

#[tokio::test]
async fn the_app_clones_and_speaks_with_a_token_each() {
    let town = Town::new(Face::Github).await;
    town.forge.install_app().await;
    let server = town.server().await;
    let project = town.of_app();
    insert(&server, &project).await;
    watch::look(&server, &project).await.unwrap();
    assert_eq!(town.tokens_asked(), 1);

    let github = connect(&server, &project);
    assert!(github.listens());
    let shown = (0..8).map(|_| github.pull_request(7));
    for answer in join_all(shown).await {
        assert_eq!(answer.unwrap(), None);
    }
    assert_eq!(town.tokens_asked(), 2, "one asks for all that wait");
    github.show(&town.status(), None).await.unwrap();
    assert_eq!(
        town.forge.seen().state(&town.commit, "trainyard"),
        Some("success")
    );

    let ask = server.forges.authorization(&project.forge, None);
    let header = ask.await.unwrap().unwrap();
    assert_eq!(town.tokens_asked(), 2);
    let token = clone_token(&header);
    let said = format!("{:?} {:?}", server.forges, github);
    assert!(!said.contains(&token[..40]) && !said.contains("PRIVATE"));
    assert!(!stands(&server.config.data, &token[..40]));
    assert_eq!(town.forge.violations(), Vec::<String>::new());
}

/// The token in git's header.
fn clone_token(header: &str) -> String {
    use base64::Engine as _;
    let pair = base64::engine::general_purpose::STANDARD
        .decode(header.strip_prefix("Basic ").unwrap())
        .unwrap();
    let pair = String::from_utf8(pair).unwrap();
    pair.strip_prefix("x-access-token:").unwrap().to_owned()
}

#[tokio::test]
async fn what_an_agent_gets_reads_code_and_no_more() {
    let town = Town::new(Face::Github).await;
    town.forge.install_app().await;
    let server = town.server().await;
    let project = town.of_app();
    let ask = server.forges.authorization(&project.forge, None);
    let token = clone_token(&ask.await.unwrap().unwrap());
    let agents = town.with_token(&token);
    let refused = connect(&server, &agents).show(&town.status(), None).await;
    let refused = refused.unwrap_err();
    assert!(
        matches!(refused, ForgeError::Unauthorized { status: 403, .. }),
        "{refused}"
    );
    assert!(town.forge.seen().statuses.is_empty());
}

#[tokio::test]
async fn an_order_carries_what_its_agent_needs_to_clone() {
    on_both(Times::default(), |world| async move {
        let town = Town::new(Face::Github).await;
        town.forge.install_app().await;
        let app = town.config().github_app;
        let world = world.restart_with(|config| config.github_app = app).await;
        let project = town.of_app();
        let pipeline = testing::pipeline(&project, 1);
        let mut tx = world.server().store.begin().await.unwrap();
        projects::insert(&mut tx, &project).await.unwrap();
        pipelines::insert(&mut tx, &pipeline).await.unwrap();
        jobs::insert(&mut tx, &testing::job(&pipeline, "train"))
            .await
            .unwrap();
        tx.commit().await.unwrap();
        world.server().live.queue_changed();
        let order = world.agent("a").await.order().await;
        let Source::Git { authorization, .. } = order.source else {
            panic!("{:?}", order.source)
        };
        assert!(clone_token(&authorization.unwrap()).starts_with("ghs_"));
        assert_eq!(town.tokens_asked(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_token_that_was_revoked_is_not_offered_twice() {
    let town = Town::new(Face::Github).await;
    town.forge.install_app().await;
    let server = town.server().await;
    let github = connect(&server, &town.of_app());
    github.pull_request(7).await.unwrap();
    town.forge.uninstall_app().await;
    town.forge.install_app().await;
    let refused = github.pull_request(7).await.unwrap_err();
    assert!(
        matches!(refused, ForgeError::Unauthorized { status: 401, .. }),
        "{refused}"
    );
    github.pull_request(7).await.unwrap();
}

#[tokio::test]
async fn why_the_app_cannot_speak_is_said_with_what_to_do() {
    let town = Town::new(Face::Github).await;
    town.forge.install_app().await;
    let server = town.server().await;
    let project = town.of_app();
    insert(&server, &project).await;
    let look = async || {
        let error = watch::look(&server, &project).await.unwrap_err();
        error.to_string()
    };
    town.forge.suspend_app(true).await;
    let said = look().await;
    let page = format!("{}/settings/installations/815", town.forge.url());
    assert!(said.contains("suspended") && said.contains(&page), "{said}");
    town.forge.suspend_app(false).await;
    watch::look(&server, &project).await.unwrap();

    town.secret("key", "no key");
    server.forges.forget(&project.forge);
    let said = look().await;
    assert!(said.contains("no private key in PEM form"), "{said}");
    assert!(!said.contains("no key\n"), "{said}");

    let stranger = Place {
        api: "https://api.github.com".to_owned(),
        app: Some(1),
        ..town.place()
    };
    let stranger = ForgeConfig::Github(stranger);
    let error = server.forges.authorization(&stranger, None).await;
    let said = error.unwrap_err().to_string();
    assert!(said.contains("[github_app]"), "{said}");
}

#[tokio::test]
async fn a_repository_that_took_the_name_of_another_gets_no_token() {
    let town = Town::new(Face::Github).await;
    town.forge.install_app().await;
    let server = town.server().await;
    let of = |number: u64| {
        ForgeConfig::Github(Place {
            app: Some(number),
            ..town.place()
        })
    };
    let (ours, gone) = (of(PROJECT), of(PROJECT + 1));
    assert!(server.forges.authorization(&ours, None).await.is_ok());
    let refused = server.forges.authorization(&gone, None).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("not accessible"), "{refused}");
}

#[tokio::test]
async fn who_is_told_to_wait_does_not_ask_for_a_token_before() {
    let town = Town::new(Face::Github).await;
    town.forge.install_app().await;
    let server = town.server().await;
    let project = town.of_app();
    let refusal = crate::forge::Refusal::After(600);
    town.forge.limit_for(1, refusal);
    for _ in 0..3 {
        let ask = server.forges.authorization(&project.forge, None);
        let error = ask.await.unwrap_err();
        assert!(matches!(error, ForgeError::RateLimited { wait, .. } if wait > Span::secs(590)));
    }
    assert_eq!(town.forge.calls().len(), 1);
    assert_eq!(town.forge.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn a_forge_that_rests_is_not_asked_whose_a_fork_is() {
    let town = Town::new(Face::Github).await;
    let mut config = town.config();
    config.trust_member_forks = vec!["story".to_owned()];
    let server = Server::open(config, CancellationToken::new())
        .await
        .unwrap();
    let project = town.with_token(&town.forge.owners_token());
    insert(&server, &project).await;
    watch::look(&server, &project).await.unwrap();
    let file = [(".trainyard.yml", "jobs: {a: {command: echo}}")];
    let forge = &town.forge;
    let number = forge.open_from_fork("eve", "patch", &file, "Better").await;
    let head = town.forge.head(number).parse().unwrap();
    let mut tx = server.store.begin().await.unwrap();
    let request = Request {
        number,
        head,
        head_branch: "patch".to_owned(),
        base_branch: MAIN.to_owned(),
        title: "Better".to_owned(),
        author: Some("eve".to_owned()),
        fork: true,
        open: true,
        updated_at: None,
    };
    let now = Timestamp::now();
    requests::put(&mut tx, &project.id, &request, now)
        .await
        .unwrap();
    let caller = project.forge.caller().unwrap();
    rests::set(&mut tx, &caller, now + Span::hours(1), now)
        .await
        .unwrap();
    let known = projects::find(&mut tx, &project.id).await.unwrap();
    tx.commit().await.unwrap();
    let made = watch::look(&server, &known.unwrap()).await.unwrap();
    assert_eq!(made[0].trigger.trust, Trust::Untrusted);
    assert!(town.forge.calls().is_empty(), "{:?}", town.forge.calls());
}

#[tokio::test]
async fn each_forge_clones_with_a_token_as_it_likes_it() {
    for face in [Face::Github, Face::Gitlab, Face::Gitea, Face::Forgejo] {
        let town = Town::new(face).await;
        let server = town.server().await;
        let token = town.forge.owners_token();
        let project = town.with_token(&token);
        insert(&server, &project).await;
        watch::look(&server, &project).await.unwrap();
        town.forge.revoke(&token);
        let error = watch::look(&server, &project)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("listing"), "{face:?}: {error}");
        assert!(!error.contains(&token));
        assert!(!stands(&server.config.data, &token));
    }
}
