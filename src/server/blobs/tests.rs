//! Contents as files.

use bytes::Bytes;

use super::*;

fn open() -> (tempfile::TempDir, Blobs, AgentId) {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(folder.path(), None).unwrap();
    (folder, blobs, AgentId::generate())
}

#[tokio::test]
async fn a_content_comes_in_pieces_and_goes_on_where_it_stopped() {
    let (_folder, blobs, agent) = open();
    let digest = Digest::of("hello world");
    let append =
        |offset, bytes: &'static str| blobs.append(&agent, &digest, offset, 11, Bytes::from(bytes));
    assert_eq!(append(0, "hello").await.unwrap(), Piece::Partial(5));
    assert_eq!(append(0, "hello").await.unwrap(), Piece::WrongOffset(5));
    assert_eq!(append(9, "ld").await.unwrap(), Piece::WrongOffset(5));
    assert_eq!(blobs.offset(&agent, &digest).await, 5);
    assert_eq!(append(5, " world").await.unwrap(), Piece::Complete);
    let read = blobs.read(&digest, 100).await.unwrap();
    assert_eq!(read.as_deref(), Some("hello world".as_bytes()));
    assert_eq!(blobs.read(&digest, 10).await.unwrap(), None);
}

#[tokio::test]
async fn a_wrong_content_is_thrown_away() {
    let (_folder, blobs, agent) = open();
    let digest = Digest::of("right");
    for pieces in [vec!["wrong"], vec!["wr", "ong"]] {
        let mut offset = 0;
        let mut last = Piece::Complete;
        for piece in pieces {
            last = blobs
                .append(&agent, &digest, offset, 5, Bytes::from(piece))
                .await
                .unwrap();
            offset += piece.len() as u64;
        }
        assert_eq!(last, Piece::WrongHash);
        assert_eq!(blobs.offset(&agent, &digest).await, 0);
        assert!(blobs.get(&digest).await.is_err());
    }
}

#[tokio::test]
async fn a_content_is_taken_as_a_stream_and_given_in_parts() {
    let (folder, blobs, _) = open();
    let pieces = |list: &'static [&'static str]| {
        futures_util::stream::iter(list.iter().map(|piece| Ok(Bytes::from(*piece))))
    };
    for _ in 0..2 {
        let taken = blobs.take(pieces(&["hello", " ", "world"]), 11).await;
        assert_eq!(taken.unwrap(), (Digest::of("hello world"), 11));
    }
    let part = blobs.get_part(&Digest::of("hello world"), 4..7).await;
    let part: Vec<Vec<u8>> = part.unwrap().try_collect().await.unwrap();
    assert_eq!(part.concat(), b"o w");
    assert_eq!(
        blobs.take(pieces(&[]), 11).await.unwrap(),
        (Digest::of(""), 0)
    );
    let part = blobs.get_part(&Digest::of(""), 0..0).await.unwrap();
    assert_eq!(part.count().await, 0);

    let long = blobs.take(pieces(&["hello", "worlds!"]), 11).await;
    assert!(matches!(long, Err(BlobError::TooLarge)));
    let gone = std::io::Error::other("the client went away");
    let broken = futures_util::stream::iter([Ok(Bytes::from("he")), Err(gone)]);
    let broken = blobs.take(broken, 11).await;
    assert!(matches!(broken, Err(BlobError::Broken(_))));
    // A long one is written before it ends.
    let long = Bytes::from(vec![7; READ_BYTES + 1]);
    let gone = std::io::Error::other("the client went away");
    let broken = futures_util::stream::iter([Ok(long.clone()), Err(gone)]);
    let broken = blobs.take(broken, 1 << 30).await;
    assert!(matches!(broken, Err(BlobError::Broken(_))));
    let left = std::fs::read_dir(folder.path().join("parts/unnamed")).unwrap();
    assert_eq!(left.count(), 0, "nothing is left of what broke off");
    let whole = futures_util::stream::iter([Ok(long.clone()), Ok(long.clone())]);
    let (digest, size) = blobs.take(whole, 1 << 30).await.unwrap();
    assert_eq!(
        (digest.clone(), size),
        (
            Digest::of([&long[..], &long].concat()),
            2 * long.len() as u64
        )
    );
    assert_eq!(
        blobs.check(&digest, size, true).await.unwrap(),
        Found::Right
    );
}

#[tokio::test]
async fn a_part_is_cut_out_of_a_whole_that_comes_in_pieces() {
    for (range, expected) in [
        (0..11, "hello world"),
        (0..1, "h"),
        (4..5, "o"),
        (3..8, "lo wo"),
        (5..6, " "),
        (10..11, "d"),
        (6..99, "world"),
    ] {
        let pieces = ["hel", "lo", " ", "", "world"].map(|piece| Ok(Vec::from(piece)));
        let whole = futures_util::stream::iter(pieces).boxed();
        let part: Vec<Vec<u8>> = within(whole, range.clone()).try_collect().await.unwrap();
        assert_eq!(part.concat(), expected.as_bytes(), "{range:?}");
    }
}

#[tokio::test]
async fn one_agent_cannot_spoil_the_part_of_another() {
    let (_folder, blobs, agent) = open();
    let digest = Digest::of("hello");
    blobs
        .append(&agent, &digest, 0, 5, Bytes::from("he"))
        .await
        .unwrap();
    let other = AgentId::generate();
    assert_eq!(
        blobs
            .append(&other, &digest, 0, 5, Bytes::from("xx"))
            .await
            .unwrap(),
        Piece::Partial(2)
    );
    assert_eq!(
        blobs
            .append(&agent, &digest, 2, 5, Bytes::from("llo"))
            .await
            .unwrap(),
        Piece::Complete
    );
}

#[tokio::test]
async fn a_part_that_nobody_completes_is_forgotten() {
    let (_folder, blobs, agent) = open();
    let digest = Digest::of("hello");
    blobs
        .append(&agent, &digest, 0, 5, Bytes::from("he"))
        .await
        .unwrap();
    let week = Duration::from_secs(7 * 24 * 3600);
    assert_eq!(blobs.forget_parts(week).await.unwrap(), 0);
    assert_eq!(blobs.offset(&agent, &digest).await, 2);
    assert_eq!(blobs.forget_parts(Duration::ZERO).await.unwrap(), 1);
    assert_eq!(blobs.offset(&agent, &digest).await, 0);
}

#[tokio::test]
async fn a_part_goes_on_after_a_restart_and_what_lies_there_is_checked() {
    let (folder, blobs, agent) = open();
    let text = "hello world";
    let digest = Digest::of(text);
    let first = blobs.append(&agent, &digest, 0, 11, Bytes::from("hello"));
    assert_eq!(first.await.unwrap(), Piece::Partial(5));
    let blobs = Blobs::open(folder.path(), None).unwrap();
    let rest = blobs.append(&agent, &digest, 5, 11, Bytes::from(" world"));
    assert_eq!(rest.await.unwrap(), Piece::Complete);

    let check = |whole| blobs.check(&digest, 11, whole);
    assert_eq!(check(true).await.unwrap(), Found::Right);
    let listed: Vec<Listed> = blobs.list().try_collect().await.unwrap();
    assert_eq!((&listed[0].digest, listed[0].size), (&digest, 11));
    let name = digest.as_str();
    let file = folder
        .path()
        .join("blobs/sha256")
        .join(&name[..2])
        .join(name);
    std::fs::write(&file, "hello_world").unwrap();
    assert_eq!(check(false).await.unwrap(), Found::Right);
    assert_eq!(check(true).await.unwrap(), Found::Wrong);
    std::fs::write(&file, "hello").unwrap();
    assert_eq!(check(false).await.unwrap(), Found::Wrong);
    blobs.remove(&digest).await.unwrap();
    assert_eq!(check(false).await.unwrap(), Found::Nothing);
}
