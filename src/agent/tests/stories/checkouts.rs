//! What a commit brings into its workspace, and what it is kept from.

use std::path::Path;
use std::process::Command;

use protocol::agent_api::Source;
use protocol::{FailureKind, Outcome, Trust};

use crate::support::{World, engine};

/// A repository that names another one of this host as a submodule. Gives its commit.
fn repository(folder: &Path) -> String {
    std::fs::create_dir(folder).unwrap();
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.args(arguments).current_dir(folder).envs([
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ]);
        for role in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{role}_NAME"), "Ada");
            command.env(format!("GIT_{role}_EMAIL"), "ada@example.org");
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "git {arguments:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    git(&["init", "--quiet"]);
    let list = "[submodule \"lib\"]\n\tpath = lib\n\turl = /srv/git/lib\n";
    std::fs::write(folder.join(".gitmodules"), list).unwrap();
    let link = format!("160000,{},lib", "1".repeat(40));
    git(&["update-index", "--add", "--cacheinfo", &link]);
    git(&["add", ".gitmodules"]);
    git(&["commit", "--quiet", "--message", "Begin"]);
    git(&["rev-parse", "HEAD"])
}

#[tokio::test(flavor = "multi_thread")]
async fn an_untrusted_commit_gets_no_submodules() {
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("repository");
    let commit = repository(&path);
    let order = |trust| {
        let mut order = world.command("test -d lib && test -z \"$(ls lib)\"");
        order.trust = trust;
        order.spec.checkout.submodules = true;
        order.source = Source::Git {
            url: path.display().to_string(),
            commit: commit.parse().unwrap(),
            reference: None,
            authorization: None,
        };
        order
    };
    // A trusted one is gone after, as far as that may be.
    let done = world.run(&order(Trust::Trusted)).await;
    assert_eq!(done.failure().kind, FailureKind::CheckoutFailed);
    let message = &done.failure().message;
    assert!(message.contains("submodule 'lib'"), "{message}");
    if engine().await {
        let done = world.run(&order(Trust::Untrusted)).await;
        assert_eq!(done.report.outcome, Outcome::Succeeded);
    }
}
