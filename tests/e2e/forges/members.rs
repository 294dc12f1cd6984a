//! Forks of people who may write to the repository anyway.

use super::{FACES, Yard};
use crate::support::forge::{Face, Level};

const TRUSTING: &str = "trust_member_forks = [\"story\"]\n";
/// The fork's own file: only a trusted commit's is read.
const OWN: &str = "\
jobs:
  own:
    command: python train.py
    on: {pull_request: true}
    deps: [train.py]
";
const HELD: &str = "waits for an approval";

/// A member opens a request from a fork of their own. Gives its number.
async fn opened(yard: &Yard, by: &str, branch: &str) -> u64 {
    let text = format!("print('{branch}')\n");
    let files = [(".trainyard.yml", OWN), ("train.py", text.as_str())];
    yard.forge.open_from_fork(by, branch, &files, "Mine").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_members_own_fork_is_trusted_where_an_administrator_wants_that() {
    for face in FACES {
        let yard = Yard::with(face, TRUSTING).await;
        let push = async |number: u64, text: &str| {
            let files = [("train.py", text)];
            yard.forge.push_to_request(number, &files).await
        };
        yard.forge.set_permission("ada", Level::Write);
        let number = opened(&yard, "ada", "mine").await;
        yard.job(&yard.forge.head(number), "own", "queued").await;
        let next = push(number, "print(2)\n").await;
        yard.job(&next, "own", "queued").await;

        // What was true of one head is asked anew of the next.
        yard.forge.set_permission("ada", Level::Read);
        let next = push(number, "print(3)\n").await;
        yard.shows(&next, "trainyard/train", "pending", HELD).await;

        // Who only reads, and a member who brings what somebody else pushes.
        let number = opened(&yard, "mallory", "theirs").await;
        let head = yard.forge.head(number);
        yard.shows(&head, "trainyard/train", "pending", HELD).await;
        yard.forge.set_permission("ada", Level::Write);
        let files = [("train.py", "print(4)\n")];
        let forge = &yard.forge;
        let number = forge
            .open_from_fork_of("mallory", "ada", "more", &files, "Not mine")
            .await;
        let head = yard.forge.head(number);
        yard.shows(&head, "trainyard/train", "pending", HELD).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_that_a_members_fork_is_held_like_any_other() {
    let yard = Yard::new(Face::Gitlab).await;
    yard.forge.set_permission("ada", Level::Write);
    let number = opened(&yard, "ada", "mine").await;
    let head = yard.forge.head(number);
    yard.shows(&head, "trainyard/train", "pending", HELD).await;
}
