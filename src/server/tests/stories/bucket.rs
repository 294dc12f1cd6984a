//! Contents in a bucket, at a real S3 server: `rclone serve s3` over a folder. `scripts/test` fetches it and names it in
//! `TRAINYARD_TEST_RCLONE`; `skip` there passes the story over.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use protocol::{AgentId, Digest};
use server::blobs::{Blobs, Found, Listed, Piece, S3};

const BUCKET: &str = "models";

/// A bucket's service.
pub(crate) struct Server {
    process: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    /// None: the story is passed over.
    pub(crate) fn start() -> Option<Self> {
        let program = std::env::var("TRAINYARD_TEST_RCLONE")
            .expect("TRAINYARD_TEST_RCLONE names rclone (scripts/test sets it), or is 'skip'");
        if program == "skip" {
            eprintln!("NOT RUN: contents in a bucket");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("data").join(BUCKET)).unwrap();
        // Its cache and its configuration stay in the story's folder.
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let process = Command::new(program)
            .args(["serve", "s3", "--auth-key", "story,secret", "--addr"])
            .arg(format!("127.0.0.1:{port}"))
            .arg(folder.path().join("data"))
            .env("HOME", folder.path())
            .env("RCLONE_CONFIG", folder.path().join("rclone.conf"))
            .env("RCLONE_CACHE_DIR", folder.path().join("cache"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "rclone does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(Self {
            process,
            port,
            folder,
        })
    }

    /// The setting of a server that uses it, with this secret of the key.
    pub(crate) fn setting(&self, secret: &str) -> S3 {
        let file = |name: &str, text: &str| {
            let path = self.folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            format!("file:{}", path.display()).parse().unwrap()
        };
        S3 {
            bucket: BUCKET.into(),
            prefix: "team/a".into(),
            endpoint: Some(format!("http://127.0.0.1:{}", self.port)),
            region: Some("us-east-1".into()),
            access_key: Some(file("key", "story\n")),
            secret_key: Some(file(secret, secret)),
        }
    }

    /// Where a content lies at the server.
    fn place(&self, digest: &Digest) -> std::path::PathBuf {
        let name = digest.as_str();
        let at = Path::new("team/a/sha256").join(&name[..2]).join(name);
        self.folder.path().join("data").join(BUCKET).join(at)
    }
}

#[tokio::test]
async fn contents_lie_in_a_bucket_in_pieces_and_are_checked_there() {
    let Some(server) = Server::start() else {
        return;
    };
    let data = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(data.path(), Some(&server.setting("secret"))).unwrap();
    let agent = AgentId::generate();

    // Longer than a piece of the bucket, and no multiple of one.
    let long: Vec<u8> = (0..21_000_001_u32).map(|n| (n % 251) as u8).collect();
    let digest = Digest::of(&long);
    let (half, size) = (9_000_000, long.len() as u64);
    let append = |offset: usize, bytes: &[u8]| {
        let bytes = Bytes::copy_from_slice(bytes);
        blobs.append(&agent, &digest, offset as u64, size, bytes)
    };
    assert_eq!(
        append(0, &long[..half]).await.unwrap(),
        Piece::Partial(half as u64)
    );
    assert!(!blobs.exists(&digest).await.unwrap());
    assert_eq!(append(half, &long[half..]).await.unwrap(), Piece::Complete);
    assert_eq!(std::fs::read(server.place(&digest)).unwrap(), long);
    let left = std::fs::read_dir(data.path().join("parts").join(agent.as_str())).unwrap();
    assert_eq!(left.count(), 0, "the part is gone");

    let read: Vec<Vec<u8>> = blobs
        .get(&digest)
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    assert_eq!(read.concat(), long);
    for range in [
        0..21_000_001,
        5..17,
        8_000_000..20_000_000,
        21_000_000..21_000_001,
    ] {
        let part = blobs.get_part(&digest, range.clone()).await.unwrap();
        let part: Vec<Vec<u8>> = part.try_collect().await.unwrap();
        let at = |offset: u64| usize::try_from(offset).unwrap();
        assert!(
            part.concat() == long[at(range.start)..at(range.end)],
            "{range:?}"
        );
    }

    let pieces = futures_util::stream::iter([Ok(Bytes::from("hello ")), Ok(Bytes::from("world"))]);
    let (short, length) = blobs.take(pieces, 100).await.unwrap();
    assert_eq!((&short, length), (&Digest::of("hello world"), 11));
    let mut listed: Vec<Listed> = blobs.list().try_collect().await.unwrap();
    listed.sort_by_key(|listed| listed.size);
    let listed: Vec<_> = listed
        .iter()
        .map(|listed| (&listed.digest, listed.size))
        .collect();
    assert_eq!(listed, [(&short, 11), (&digest, size)]);

    assert_eq!(blobs.check(&short, 11, true).await.unwrap(), Found::Right);
    std::fs::write(server.place(&short), "hello_world").unwrap();
    assert_eq!(blobs.check(&short, 11, true).await.unwrap(), Found::Wrong);
    blobs.remove(&short).await.unwrap();
    assert_eq!(blobs.check(&short, 11, true).await.unwrap(), Found::Nothing);
}

#[tokio::test]
async fn a_bucket_that_refuses_the_key_is_no_empty_one() {
    let Some(server) = Server::start() else {
        return;
    };
    let data = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(data.path(), Some(&server.setting("wrong"))).unwrap();
    let digest = Digest::of("hello");
    let refused = blobs.exists(&digest).await.unwrap_err().to_string();
    assert!(!refused.contains("wrong\""), "{refused}");
    assert!(blobs.check(&digest, 5, false).await.is_err());
    let agent = AgentId::generate();
    let append = blobs.append(&agent, &digest, 0, 5, Bytes::from("hello"));
    assert!(append.await.is_err());
}
