//! The server's disk fills while contents come.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use protocol::agent_api::{ApiError, OFFSET_HEADER};
use protocol::{ByteSize, Digest};
use reqwest::{Body, Client, Response, StatusCode};
use serde_json::Value;
use server::blobs::Piece;

use crate::disk::SmallDisk;
use crate::mlflow::Mlflow;
use crate::support::{Agent, Times, World, on_both};

const MIB: usize = 1 << 20;

/// A world whose contents lie on a disk of 16 MiB, of which nothing is kept back; none: this user may not mount one.
async fn on_small_disk(world: World, folder: &Path) -> Option<(World, SmallDisk)> {
    let at = folder.join("disk");
    let Some(disk) = SmallDisk::mount(&at, 16) else {
        eprintln!("NOT RUN: only root may mount a disk");
        return None;
    };
    let change = |config: &mut server::config::Config| {
        config.data = at.join("server");
        config.disk_reserve = ByteSize(0);
    };
    Some((world.restart_with(change).await, disk))
}

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n % 251) as u8).collect()
}

/// How many files lie below a folder.
fn files(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    let count = |entry: std::fs::DirEntry| match entry.path() {
        path if path.is_dir() => files(&path),
        _ => 1,
    };
    entries.flatten().map(count).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_brings_waits_for_room_and_goes_on_where_it_was() {
    on_both(Times::default(), |world| async move {
        world.queue_job("train").await;
        let folder = tempfile::tempdir().unwrap();
        let Some((world, disk)) = on_small_disk(world, folder.path()).await else {
            return;
        };
        let agent = world.agent("a").await;
        let order = agent.begin().await;
        let content = content(3 * MIB);
        let (blob, size) = (Digest::of(&content), content.len());
        let url = format!("{}/blobs/{blob}", agent.url);
        let bring = async |from: usize, to: usize| {
            let url = format!("{url}?attempt={}&offset={from}&size={size}", order.attempt);
            let call = agent.http.patch(url).bearer_auth(&agent.secret);
            let piece = content[from..to].to_vec();
            call.body(piece).send().await.unwrap()
        };
        let had = async || {
            let asked = agent.http.head(&url).bearer_auth(&agent.secret);
            let answer = asked.send().await.unwrap();
            let said = answer.headers()[OFFSET_HEADER].to_str().unwrap();
            said.parse::<usize>().unwrap()
        };
        assert_eq!(bring(0, MIB).await.status(), StatusCode::NO_CONTENT);
        disk.fill();
        let refused = bring(MIB, size).await;
        assert_eq!(refused.status(), StatusCode::INSUFFICIENT_STORAGE);
        let said: ApiError = refused.json().await.unwrap();
        assert_eq!(said.code, "disk_full");
        assert!(said.message.contains("make room"), "{}", said.message);
        assert_eq!(had().await, MIB);

        // What others wrote since somebody looked: the disk itself refuses, in the middle of a piece.
        let contents = &world.server().blobs;
        let id = agent_id(&world, &agent).await;
        let append = |from: usize| {
            let piece = Bytes::copy_from_slice(&content[from..]);
            contents.append(&id, &blob, from as u64, size as u64, piece)
        };
        let refused = append(MIB).await.unwrap_err();
        assert!(refused.is_full(), "{refused}");
        assert!(!contents.exists(&blob).await.unwrap());
        let there = had().await;
        assert!((MIB..size).contains(&there), "{there}");
        disk.free();
        assert_eq!(append(there).await.unwrap(), Piece::Complete);
        let kept = contents.read(&blob, size as u64).await.unwrap();
        assert!(kept.is_some_and(|kept| kept == content));
        assert_eq!(files(&folder.path().join("disk/server/parts")), 0);
    })
    .await;
}

/// The id of an agent by its name.
async fn agent_id(world: &World, agent: &Agent) -> protocol::AgentId {
    let mut db = world.server().store.read().await.unwrap();
    let hash = server::secret::hash(&agent.secret);
    let found = server::store::agents::by_secret(&mut db, &hash).await;
    found.unwrap().unwrap().id
}

/// Puts a file whose length is not said before. The disk fills while it comes, where it is given.
async fn put(url: &str, pieces: usize, disk: Option<&Arc<SmallDisk>>) -> Response {
    let disk = disk.cloned();
    let piece = move |n: usize| {
        if let Some(disk) = disk.as_ref().filter(|_| n == pieces - 1) {
            disk.fill();
        }
        Ok::<_, std::io::Error>(content(MIB))
    };
    let body = Body::wrap_stream(futures_util::stream::iter((0..pieces).map(piece)));
    let http = Client::builder().no_proxy().build().unwrap();
    http.put(url).body(body).send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_fills_the_disk_leaves_nothing_and_is_taken_when_there_is_room() {
    on_both(Times::default(), |world| async move {
        let folder = tempfile::tempdir().unwrap();
        let Some((world, disk)) = on_small_disk(world, folder.path()).await else {
            return;
        };
        let disk = Arc::new(disk);
        let mlflow = Mlflow::of(&world);
        let run = mlflow.run().await;
        let root = format!("{}/api/2.0/mlflow-artifacts/artifacts", mlflow.url);
        let list = format!("artifacts/list?run_id={run}");
        let data = folder.path().join("disk/server");
        // One that is kept in memory until it is whole, and one that is written while it comes.
        for (name, pieces) in [("short", 2), ("long", 9)] {
            let url = format!("{root}/0/{run}/artifacts/{name}");
            let refused = put(&url, pieces, Some(&disk)).await;
            assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
            let said: Value = refused.json().await.unwrap();
            let words = said["message"].as_str().unwrap();
            assert!(words.contains("disk is full"), "{said}");
            assert_eq!(files(&data.join("parts")), 0, "{name}");
            assert_eq!(files(&data.join("blobs")), 0, "{name}");
            let (_, listed) = mlflow.get(&list).await;
            assert_eq!(listed.get("files"), None, "{listed}");
            disk.free();
        }
        for (name, pieces) in [("short", 2), ("long", 9)] {
            let url = format!("{root}/0/{run}/artifacts/{name}");
            assert_eq!(put(&url, pieces, None).await.status(), StatusCode::OK);
            let http = Client::builder().no_proxy().build().unwrap();
            let whole = http.get(&url).send().await.unwrap().bytes().await.unwrap();
            assert_eq!(whole.len(), pieces * MIB);
        }
    })
    .await;
}
