//! The pages for a new user, followed line by line by a shell: from nothing to the first green check.

use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::support::forge::{Face, ForgeWorld, Level, MAIN, NAME, OWNER};
use crate::support::{PATIENCE, docker, label, until};

/// What the shell says when a line is done, before its exit code.
const DONE: &str = "--- the line ended with";
/// How many lines a page may take.
const LINES: usize = 10;

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_github_leads_to_a_green_check() {
    followed(Face::Github, "github.md", "https://github.com").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_gitlab_leads_to_a_green_check() {
    followed(Face::Gitlab, "gitlab.md", "https://gitlab.com").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_gitea_leads_to_a_green_check() {
    followed(Face::Gitea, "gitea.md", "https://HOST").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_gitea_leads_to_a_green_check_at_forgejo() {
    followed(Face::Forgejo, "gitea.md", "https://HOST").await;
}

/// Does what a page says at a forge with a private repository of one file.
async fn followed(face: Face, page: &str, host: &str) {
    let forge = ForgeWorld::start(face).await;
    forge.private(true);
    forge.push(MAIN, &[("README.md", "Hello\n")]).await;
    let page = page_of(page);
    let filled = page
        .replace(host, forge.url())
        .replace("OWNER", OWNER)
        .replace("REPO", NAME);
    let lines = lines(&filled);
    assert!((1..=LINES).contains(&lines.len()), "{lines:#?}");
    let mut user = User::new(&forge);
    user.types("exec 2>&1", &forge).await;
    let mut said = String::new();
    for line in lines {
        said += &user.types(line, &forge).await;
    }
    is_green(&forge, user.head(&forge).await).await;
    assert_eq!(forge.violations(), [""; 0], "{face:?}");

    // What the page says to click: the form that 'project add' printed.
    let [leads, secret] = match face {
        Face::Github => ["Payload URL", "Secret"],
        Face::Gitlab => ["URL", "Secret token"],
        Face::Gitea | Face::Forgejo => ["Target URL", "Secret"],
    };
    for field in [leads, secret] {
        let named = format!("*{field}*");
        assert!(page.contains(&named), "the page names {named}");
    }
    let address = filled_in(&said, leads).replace("https://YOUR-SERVER", &user.server);
    forge.hook(&address, filled_in(&said, secret));
    let again = "git commit --allow-empty -m Again && git push";
    user.types(again, &forge).await;
    let told = forge.deliveries().pop().expect("the forge told of it");
    assert_eq!(told.answers[0].status, Some(202), "{face:?}");
    is_green(&forge, user.head(&forge).await).await;
    forge.limits(None);
    let doctor = format!("trainyard project doctor {NAME}");
    assert!(page.contains("trainyard project doctor REPO"));
    user.types(&doctor, &forge).await;
}

fn page_of(name: &str) -> String {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    std::fs::read_to_string(docs.join(name)).unwrap()
}

/// The lines of a page's first block.
fn lines(page: &str) -> Vec<&str> {
    let (_, block) = page.split_once("```sh\n").expect("a block");
    let (block, _) = block.split_once("```").expect("its end");
    block.lines().collect()
}

/// What belongs into a field of the form that was printed.
fn filled_in<'a>(printed: &'a str, field: &str) -> &'a str {
    let mut rows = printed
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix(field));
    let value = rows.find(|value| value.starts_with("  "));
    value
        .unwrap_or_else(|| panic!("no field '{field}' in\n{printed}"))
        .trim()
}

/// Waits until the forge shows the job and its pipeline green.
async fn is_green(forge: &ForgeWorld, commit: String) {
    for context in ["trainyard/first", "trainyard"] {
        let what = format!("{context} is green at {commit}");
        until(&what, async || {
            let seen = forge.seen();
            (seen.state(&commit, context) == Some("success")).then_some(())
        })
        .await;
    }
}

/// A token that may what the page says; GitLab lets only a maintainer speak about a protected branch.
fn token(forge: &ForgeWorld) -> String {
    let (level, scopes) = match forge.face() {
        Face::Github => (Level::Write, &["repo"][..]),
        Face::Gitlab => (Level::Admin, &["api"][..]),
        Face::Gitea | Face::Forgejo => {
            let scopes = &["write:repository", "write:issue", "read:user"];
            (Level::Write, &scopes[..])
        }
    };
    forge.set_permission("trainyard", level);
    forge.token("trainyard", scopes)
}

/// Somebody who may push, at a shell in a home of their own.
struct User {
    home: tempfile::TempDir,
    /// Where `trainyard up` will listen.
    server: String,
    shell: Child,
    keys: ChildStdin,
    screen: Lines<BufReader<ChildStdout>>,
}

impl User {
    fn new(forge: &ForgeWorld) -> Self {
        let home = tempfile::tempdir().unwrap();
        sign_in(home.path(), forge);
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = port.local_addr().unwrap().to_string();
        let server = format!("http://{listen}");
        let programs = Path::new(env!("CARGO_BIN_EXE_trainyard")).parent().unwrap();
        let others = std::env::var("PATH").unwrap();
        let mut shell = Command::new("bash")
            .current_dir(home.path())
            .env("HOME", home.path())
            .env("PATH", format!("{}:{others}", programs.display()))
            .env("TRAINYARD_LISTEN", &listen)
            .env("TRAINYARD_SERVER", &server)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env_remove("GIT_CONFIG_GLOBAL")
            .env_remove("TRAINYARD_DATA")
            .env_remove("TRAINYARD_TOKEN")
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_DATA_HOME")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        Self {
            home,
            server,
            keys: shell.stdin.take().unwrap(),
            screen: BufReader::new(shell.stdout.take().unwrap()).lines(),
            shell,
        }
    }

    /// Types a line that must succeed. Gives what it prints.
    async fn types(&mut self, line: &str, forge: &ForgeWorld) -> String {
        let mut keys = format!("{line}\n");
        if line.starts_with("read ") {
            keys += &format!("{}\n", token(forge));
        }
        keys += &format!("echo \"{DONE} $?\"\n");
        self.keys.write_all(keys.as_bytes()).await.unwrap();
        let mut printed = String::new();
        let code = loop {
            let next = tokio::time::timeout(PATIENCE, self.screen.next_line()).await;
            let next = next.unwrap_or_else(|_| panic!("'{line}' ends in time:\n{printed}"));
            let text = next.unwrap().expect("the shell lives");
            if let Some(code) = text.strip_prefix(DONE) {
                break code.trim().to_owned();
            }
            printed += &format!("{text}\n");
        };
        assert_eq!(code, "0", "'{line}' printed\n{printed}");
        if line.ends_with('&') {
            self.is_up().await;
        }
        printed
    }

    /// The commit that was pushed last.
    async fn head(&mut self, forge: &ForgeWorld) -> String {
        self.types("git rev-parse HEAD", forge)
            .await
            .trim()
            .to_owned()
    }

    /// Looks into the log, as the page says.
    async fn is_up(&self) {
        let log = self.home.path().join("trainyard.log");
        until("the log says that it is up", async || {
            let log = std::fs::read_to_string(&log).ok()?;
            log.contains("Trainyard is up").then_some(())
        })
        .await;
    }
}

/// What lets git push: a name, and a token that git keeps.
fn sign_in(home: &Path, forge: &ForgeWorld) {
    let user = match forge.face() {
        Face::Gitlab => "oauth2",
        Face::Github | Face::Gitea | Face::Forgejo => "x-access-token",
    };
    let config = "[user]\nname = Ada\nemail = ada@example.org\n[credential]\nhelper = store\n";
    std::fs::write(home.join(".gitconfig"), config).unwrap();
    let token = forge.owners_token();
    let kept = forge.url().replacen("//", &format!("//{user}:{token}@"), 1);
    std::fs::write(home.join(".git-credentials"), kept + "\n").unwrap();
}

impl Drop for User {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.home.path().join("trainyard.log"));
            eprintln!("--- the log of trainyard up\n{}", log.unwrap_or_default());
        }
        if let Some(group) = self.shell.id() {
            let group = format!("-{group}");
            let _ = std::process::Command::new("kill")
                .args(["-s", "KILL", "--", &group])
                .status();
        }
        let data = self.home.path().join(".local/share/trainyard/agent");
        docker::remove(&docker::labelled(&label(&data)));
    }
}
