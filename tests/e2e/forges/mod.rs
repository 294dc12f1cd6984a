//! Stories of pull requests, told to the real server by each forge: its hooks lead in, its API shows what came of it.

mod clone;
mod commands;
mod gitea;
mod guides;
mod members;
mod requests;
mod untrusted;

use crate::support::forge::{Face, ForgeWorld, MAIN};
use crate::support::{World, until};

/// What the repository asks for.
const FILE: &str = "\
jobs:
  train:
    command: python train.py
    on: {push: [main], pull_request: true}
    deps: [train.py]
    parameters: {lr: 1}
";

/// A forge and a server that watches its repository, told by hooks only. No agent: jobs wait.
struct Yard {
    forge: ForgeWorld,
    world: World,
}

impl Yard {
    async fn new(face: Face) -> Self {
        Self::with(face, "").await
    }

    /// With more settings of the server.
    async fn with(face: Face, settings: &str) -> Self {
        let forge = ForgeWorld::start(face).await;
        let files = [(".trainyard.yml", FILE), ("train.py", "print(1)\n")];
        let first = forge.push(MAIN, &files).await;
        let world = World::bare(&format!("poll_interval = \"1h\"\n{settings}")).await;
        let secret = |name: &str, text: &str| {
            std::fs::write(world.path(name), text).unwrap();
            format!("file:{}", world.path(name).display())
        };
        let token = secret("token", &forge.owners_token());
        let hook = secret("hook", "of the hook");
        let server = world.api().url.clone();
        let kind = match face {
            Face::Github => "github",
            Face::Gitlab => "gitlab",
            Face::Gitea => "gitea",
            Face::Forgejo => "forgejo",
        };
        let (url, api) = (forge.clone_url(), forge.api());
        let add = ["project", "add", "story", &url, "--server", &server];
        let at = ["--forge", kind, "--repository", "octo/hello", "--api", &api];
        let secrets = ["--credential", &token, "--webhook-secret", &hook];
        world.ok(&[&add[..], &at, &secrets].concat());
        forge.hook(&format!("{server}/hooks/story"), "of the hook");
        world.pipeline(&first).await;
        Self { forge, world }
    }

    /// Waits until the newest job of this name at a commit has this state.
    async fn job(&self, commit: &str, name: &str, state: &str) {
        let what = format!("job {name} at {commit} is {state}");
        until(&what, async || {
            let all = self.world.api().pipelines().await;
            let of_it = all
                .iter()
                .filter(|pipeline| pipeline.commit.as_str() == commit);
            // Newest first.
            for pipeline in of_it {
                let detail = self.world.api().pipeline(&pipeline.id).await;
                if let Some(job) = detail.jobs.into_iter().find(|job| job.name == name) {
                    return (job.state.word() == state).then_some(());
                }
            }
            None
        })
        .await;
    }

    /// Waits until the forge shows this of a commit.
    async fn shows(&self, commit: &str, context: &str, state: &str, words: &str) {
        let what = format!("{context} is {state} with '{words}' at {commit}");
        until(&what, async || {
            let seen = self.forge.seen();
            let key = (commit.to_owned(), context.to_owned());
            let status = seen.statuses.get(&key)?;
            (status.state == state && status.description.contains(words)).then_some(())
        })
        .await;
    }

    /// How many pipelines a commit has.
    async fn pipelines(&self, commit: &str) -> usize {
        let all = self.world.api().pipelines().await;
        let of_it = all
            .iter()
            .filter(|pipeline| pipeline.commit.as_str() == commit);
        of_it.count()
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let face = self.forge.face();
            eprintln!("--- what {face:?} shows\n{:#?}", self.forge.seen());
        }
    }
}

const FACES: [Face; 4] = [Face::Github, Face::Gitlab, Face::Gitea, Face::Forgejo];
