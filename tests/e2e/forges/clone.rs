//! How a commit comes to where its jobs run: real git, over HTTP, from a forge that wants to know who asks.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mirror::{Deadline, Mirror, MirrorError, Wanted};
use protocol::CommitId;

use crate::support::ear::{Ear, Heard};
use crate::support::forge::{Face, ForgeWorld, LINK, MAIN};

/// A private repository, and a host that may read it.
struct Host {
    forge: ForgeWorld,
    folder: tempfile::TempDir,
    auth: String,
    lfs: bool,
    submodules: bool,
}

impl Host {
    async fn new(face: Face) -> Self {
        let forge = ForgeWorld::start(face).await;
        forge.private(true);
        let user = if face == Face::Gitlab {
            "oauth2"
        } else {
            "x-access-token"
        };
        let pair = STANDARD.encode(format!("{user}:{}", forge.owners_token()));
        Self {
            forge,
            folder: tempfile::tempdir().unwrap(),
            auth: format!("Basic {pair}"),
            lfs: false,
            submodules: false,
        }
    }

    fn mirror(&self) -> Mirror {
        Mirror::open(&self.folder.path().join("mirrors"), &self.forge.clone_url()).unwrap()
    }

    /// Brings a commit into a new folder, as an agent does.
    fn deliver(&self, commit: &str) -> Result<PathBuf, MirrorError> {
        let dest = tempfile::tempdir_in(self.folder.path()).unwrap().keep();
        let commit: CommitId = commit.parse().unwrap();
        let wanted = Wanted {
            commit: &commit,
            reference: None,
            lfs: self.lfs,
            submodules: self.submodules,
        };
        let deadline = Deadline::within(Duration::from_secs(60));
        let auth = Some(self.auth.as_str());
        self.mirror().deliver(&wanted, &dest, auth, &deadline)?;
        Ok(dest)
    }

    /// As in a thread that may wait, beside those of the forge.
    fn delivered(&self, commit: &str) -> PathBuf {
        tokio::task::block_in_place(|| self.deliver(commit)).unwrap()
    }

    fn refused(&self, commit: &str) -> String {
        let refused = tokio::task::block_in_place(|| self.deliver(commit));
        refused.unwrap_err().to_string()
    }
}

fn text(folder: &Path, path: &str) -> String {
    std::fs::read_to_string(folder.join(path)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_gets_the_files_of_its_commit_and_no_history() {
    for face in [Face::Github, Face::Gitlab, Face::Gitea] {
        let host = Host::new(face).await;
        let old = "old ".repeat(100_000);
        let first = host.forge.push(MAIN, &[("data", &old), ("a", "1")]).await;
        let last = host.forge.push(MAIN, &[("data", "new"), ("a", "2")]).await;
        let files = host.delivered(&last);
        assert_eq!(
            (text(&files, "data").as_str(), text(&files, "a").as_str()),
            ("new", "2")
        );
        assert!(!host.mirror().has(&first.parse().unwrap()), "{face:?}");
        // What it is behind comes when a job wants it.
        assert_eq!(text(&host.delivered(&first), "data"), old);

        let nobody = Host {
            auth: "Basic bm9ib2R5OndyaXR0ZW4=".to_owned(),
            folder: tempfile::tempdir().unwrap(),
            ..host
        };
        let refused = nobody.refused(&last);
        assert!(!refused.contains("bm9ib2R5"), "{refused}");
        assert!(refused.contains("fetching from"), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelines_of_one_repository_share_its_mirror() {
    let host = Host::new(Face::Gitea).await;
    let mut commits = Vec::new();
    for n in 0..4 {
        let name = format!("only-{n}");
        let files = [("n", format!("{n}")), (&name, "x".repeat(10_000))];
        let files: Vec<(&str, &str)> = files.iter().map(|(p, t)| (*p, t.as_str())).collect();
        commits.push(host.forge.push(MAIN, &files).await);
    }
    tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            let all = (0..12).map(|n| {
                let (host, commit) = (&host, &commits[n % 4]);
                (n % 4, scope.spawn(|| host.deliver(commit)))
            });
            for (n, files) in all.collect::<Vec<_>>() {
                let files = files.join().unwrap().unwrap();
                assert_eq!(text(&files, "n"), n.to_string());
                assert!(files.join(format!("only-{n}")).exists());
            }
        });
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_leads_elsewhere_takes_no_credential_there() {
    let host = Host::new(Face::Gitlab).await;
    let commit = host.forge.push(MAIN, &[("a", "1")]).await;
    // Within GitLab, which has two names for a repository.
    let short = host.forge.clone_url();
    let short = short.strip_suffix(".git").unwrap();
    let deadline = Deadline::within(Duration::from_secs(60));
    let list = |url: &str| {
        let auth = Some(host.auth.as_str());
        tokio::task::block_in_place(|| mirror::remote_refs(url, auth, &deadline))
    };
    let listed = list(short).unwrap();
    assert_eq!(listed.get("refs/heads/main").unwrap().as_str(), commit);

    // To another host: git itself would take the header along with its second request.
    let stranger = Ear::open().await;
    let at = stranger.url.replace("/hook", "");
    let leads = leading_to(&at).await;
    let told = |heard: &Heard| !heard.header("authorization").is_empty();
    // Whether it is content with that, knows no repository, or wants to know who asks.
    for answer in [
        StatusCode::OK,
        StatusCode::NOT_FOUND,
        StatusCode::UNAUTHORIZED,
    ] {
        stranger.answer(answer);
        let found = list(&format!("{leads}/octo/hello.git"));
        assert_eq!(found.is_ok(), answer == StatusCode::OK, "{found:?}");
        let asked = stranger.take();
        assert!(!asked.is_empty());
        assert!(!asked.iter().any(told), "{answer}: {asked:?}");
    }
}

/// A server that leads everybody to another one.
async fn leading_to(other: &str) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let other = other.to_owned();
    let service = axum::Router::new().fallback(move |uri: axum::http::Uri| async move {
        axum::response::Redirect::permanent(&format!("{other}{uri}"))
    });
    tokio::spawn(async move { axum::serve(listener, service).await });
    url
}

/// Whether git finds `git-lfs`; says so where it does not.
fn has_lfs(story: &str) -> bool {
    let found = Command::new("git").args(["lfs", "version"]).output();
    let found = found.is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("NOT RUN: {story}: there is no git-lfs here");
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn files_in_git_lfs_come_with_their_content_where_it_is_asked_for() {
    let mut host = Host::new(Face::Github).await;
    let stranger = Ear::open().await;
    let (old, new) = (host.forge.keep_in_lfs("old"), host.forge.keep_in_lfs("new"));
    let elsewhere = format!("[lfs]\n\turl = {}\n\tfetchexclude = *\n", stranger.url);
    let files = [("data/a.bin", old.as_str()), (".lfsconfig", &elsewhere)];
    let first = host.forge.push(MAIN, &files).await;
    let files = [
        ("data/a.bin", new.as_str()),
        ("same", &new),
        ("b.txt", "plain"),
    ];
    let last = host.forge.push(MAIN, &files).await;
    assert_eq!(text(&host.delivered(&last), "data/a.bin"), new);

    host.lfs = true;
    if !has_lfs("files in Git LFS come with their content") {
        let refused = host.refused(&last);
        assert!(
            refused.contains("'data/a.bin' is kept in Git LFS"),
            "{refused}"
        );
        assert!(refused.contains("no git-lfs"), "{refused}");
        return;
    }
    let found = host.delivered(&last);
    assert_eq!(
        (
            text(&found, "data/a.bin").as_str(),
            text(&found, "same").as_str()
        ),
        ("new", "new")
    );
    assert_eq!(text(&found, "b.txt"), "plain");
    assert_eq!(
        host.forge.fetched_from_lfs(),
        1,
        "what the commit does not have stays"
    );
    assert_eq!(text(&host.delivered(&last), "same"), "new");
    assert_eq!(host.forge.fetched_from_lfs(), 0, "the mirror has it");
    assert_eq!(text(&host.delivered(&first), "data/a.bin"), "old");
    assert!(stranger.take().is_empty(), "a commit names no server");

    let lost = host.forge.keep_in_lfs("never pushed");
    let commit = host.forge.push(MAIN, &[("data/c.bin", &lost)]).await;
    host.forge.empty_lfs();
    let refused = host.refused(&commit);
    assert!(
        refused.starts_with("'data/c.bin' is kept in Git LFS"),
        "{refused}"
    );
    assert!(!refused.contains(&host.auth), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn submodules_come_where_they_are_asked_for_and_the_credential_stays_at_home() {
    let mut host = Host::new(Face::Gitea).await;
    host.forge.push(MAIN, &[("README.md", "top")]).await;
    let open = ForgeWorld::start(Face::Github).await;
    let other = open.push(MAIN, &[("other.py", "o = 1")]).await;
    let (theirs, inner) = (open.clone_url(), format!("{LINK}{other}"));
    // A fork stands for another repository of the same server.
    let list = format!("[submodule \"o\"]\n\tpath = deep/o\n\turl = {theirs}\n");
    let files = [
        ("lib.py", "x = 1"),
        (".gitmodules", &list),
        ("deep/o", &inner),
    ];
    let number = host.forge.open_from_fork("ada", "lib", &files, "Lib").await;
    let (lib, list) = (
        format!("{LINK}{}", host.forge.head(number)),
        "[submodule \"lib\"]\n\tpath = libs/lib\n\turl = ../../ada/hello.git\n",
    );
    let files = [(".gitmodules", list), ("libs/lib", &lib)];
    let commit = host.forge.push(MAIN, &files).await;

    let without = host.delivered(&commit).join("libs/lib");
    assert_eq!(std::fs::read_dir(without).unwrap().count(), 0);
    host.submodules = true;
    let found = host.delivered(&commit);
    assert_eq!(text(&found, "libs/lib/lib.py"), "x = 1");
    assert_eq!(text(&found, "libs/lib/deep/o/other.py"), "o = 1");
    assert_eq!(text(&found, "README.md"), "top");

    // Who is asked for a submodule elsewhere is not told who asks.
    let stranger = Ear::open().await;
    let elsewhere = stranger.url.replace("/hook", "/x.git");
    let list = format!("[submodule \"lib\"]\n\tpath = libs/lib\n\turl = {elsewhere}\n");
    let commit = host.forge.push(MAIN, &[(".gitmodules", &list)]).await;
    let refused = host.refused(&commit);
    assert!(
        refused.starts_with("the submodule 'libs/lib' cannot be fetched"),
        "{refused}"
    );
    let asked = stranger.take();
    assert!(!asked.is_empty());
    assert!(
        asked
            .iter()
            .all(|heard| heard.header("authorization").is_empty())
    );

    let of_this_host = "[submodule \"lib\"]\n\tpath = libs/lib\n\turl = /srv/git/secret\n";
    let commit = host
        .forge
        .push(MAIN, &[(".gitmodules", of_this_host)])
        .await;
    let refused = host.refused(&commit);
    assert!(
        refused.contains("repositories of this host are not fetched"),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn submodules_that_never_end_are_given_up() {
    let mut host = Host::new(Face::Gitea).await;
    host.submodules = true;
    // Each commit has the one before as a submodule, of its own repository.
    let list = "[submodule \"me\"]\n\tpath = me\n\turl = ../hello.git\n";
    let mut commit = host.forge.push(MAIN, &[("a", "1")]).await;
    for _ in 0..7 {
        let me = format!("{LINK}{commit}");
        commit = host
            .forge
            .push(MAIN, &[(".gitmodules", list), ("me", &me)])
            .await;
    }
    let refused = host.refused(&commit);
    assert!(refused.contains("deeper than 5"), "{refused}");
}
