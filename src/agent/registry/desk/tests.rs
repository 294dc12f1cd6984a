//! What the journal of calls keeps, whatever happens.

use super::*;

fn call(request: &str, name: &str) -> Call {
    Call {
        request: request.into(),
        method: "POST".into(),
        address: format!("/api/2.0/mlflow/runs/{name}"),
        content_type: Some("application/json".into()),
        body: format!("{{\"of\": \"{request}\"}}"),
        file: None,
    }
}

fn made(id: &str) -> Answer {
    Answer {
        status: 200,
        body: format!("{{\"run\": \"{id}\"}}"),
    }
}

/// An attempt's folder, and an agent that starts again and again.
struct Host(tempfile::TempDir);

impl Host {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn start(&self) -> Desk {
        Desk::open(self.0.path().to_owned(), MOST_WAITING, ByteSize(0)).unwrap()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The lines of a file, its last line end included.
    fn lines(&self, name: &str) -> Vec<Vec<u8>> {
        let bytes = fs::read(self.file(name)).unwrap();
        let lines = bytes.split_inclusive(|byte| *byte == b'\n');
        lines.map(<[u8]>::to_vec).collect()
    }

    fn write(&self, name: &str, lines: &[Vec<u8>]) {
        fs::write(self.file(name), lines.concat()).unwrap();
    }
}

/// Takes a call that has to be taken.
fn take(desk: &Desk, request: &str) -> u64 {
    desk.take(call(request, "create"), None).unwrap()
}

/// Delivers all that waits: its requests. Their numbers rise from this one on.
fn deliver_after(desk: &Desk, mut before: u64) -> Vec<String> {
    let mut order = Vec::new();
    while let Some(entry) = desk.next().unwrap() {
        assert!(entry.number > before, "{order:?}");
        before = entry.number;
        order.push(entry.call.request.clone());
        let answer = made(&entry.call.request);
        desk.deliver(&entry, answer).unwrap();
    }
    order
}

fn deliver_all(desk: &Desk) -> Vec<String> {
    deliver_after(desk, 0)
}

#[tokio::test]
async fn what_was_taken_leaves_in_order_and_once_over_every_restart() {
    let host = Host::new();
    let desk = host.start();
    let a = desk.take(call("a", "log-metric"), None).unwrap();
    let b = take(&desk, "b");
    assert!(b > a);
    let desk = host.start();
    assert_eq!(take(&desk, "b"), b, "the same request");
    let c = desk.take(call("c", "log-batch"), None).unwrap();
    assert!(c > b);
    let first = desk.next().unwrap().unwrap();
    assert_eq!((first.number, &first.call), (a, &call("a", "log-metric")));
    desk.deliver(&first, made("a")).unwrap();
    let desk = host.start();
    let second = desk.next().unwrap().unwrap();
    assert_eq!(second.number, b);
    desk.deliver(&second, made("b")).unwrap();
    let desk = host.start();
    assert_eq!(
        desk.answered(b).await,
        Some(made("b")),
        "kept for who asks again"
    );
    assert_eq!(deliver_all(&desk), ["c"]);
    assert_eq!(desk.answered(c).await, None, "nobody waits for it");
    let desk = host.start();
    assert_eq!(desk.next().unwrap(), None);
    desk.flushed().await;
    assert!(take(&desk, "d") > c);
    assert_eq!(desk.damaged(), 0);
}

#[test]
fn a_line_that_was_torn_by_a_crash_is_cut() {
    let host = Host::new();
    take(&host.start(), "a");
    let mut lines = host.lines(CALLS);
    lines.push(b"{\"number\":2,\"requ".to_vec());
    host.write(CALLS, &lines);
    let desk = host.start();
    assert_eq!(desk.damaged(), 0, "nobody was told that it is kept");
    take(&desk, "b");
    assert_eq!(deliver_all(&host.start()), ["a", "b"]);
}

#[test]
fn a_damaged_line_costs_its_call_alone() {
    let host = Host::new();
    let desk = host.start();
    for request in ["a", "b", "c", "d"] {
        take(&desk, request);
    }
    let first = desk.next().unwrap().unwrap();
    desk.deliver(&first, made("a")).unwrap();
    let whole = host.lines(CALLS);
    for damage in [
        &b"\0\0\0\0\0\n"[..],
        b"{\"number\":\n",
        b"\xff\xfe\n",
        b"\n",
    ] {
        let mut lines = whole.clone();
        lines[1] = damage.to_vec();
        host.write(CALLS, &lines);
        let desk = host.start();
        assert_eq!(desk.damaged(), 1);
        let desk = host.start();
        assert_eq!(desk.damaged(), 0, "it is told once");
        let next = desk.next().unwrap().unwrap();
        assert_eq!(next.call.request, "c");
    }
    assert_eq!(deliver_after(&host.start(), first.number), ["c", "d"]);
}

#[tokio::test]
async fn what_became_of_calls_may_be_damaged_and_each_is_brought_all_the_same() {
    let host = Host::new();
    let desk = host.start();
    let numbers: Vec<u64> = ["a", "b", "c"].map(|request| take(&desk, request)).into();
    for _ in 0..2 {
        let entry = desk.next().unwrap().unwrap();
        desk.deliver(&entry, made(&entry.call.request)).unwrap();
    }
    let mut lines = host.lines(DONE);
    lines[0] = b"not what it was\n".to_vec();
    host.write(DONE, &lines);
    let desk = host.start();
    assert_eq!(desk.damaged(), 1);
    assert_eq!(desk.answered(numbers[0]).await, None);
    assert_eq!(desk.answered(numbers[1]).await, Some(made("b")));
    assert_eq!(deliver_all(&desk), ["c"]);
    // Without any of it the server is told again, under the numbers that it knows.
    let host = Host::new();
    let desk = host.start();
    let numbers = ["a", "b"].map(|request| take(&desk, request));
    deliver_all(&desk);
    fs::write(host.file(DONE), "x\n").unwrap();
    let desk = host.start();
    assert_eq!(desk.next().unwrap().unwrap().number, numbers[0]);
    assert_eq!(deliver_all(&desk), ["a", "b"]);
}

#[test]
fn a_file_that_cannot_be_read_is_set_aside_and_numbers_go_on() {
    for name in [CALLS, DONE, KEPT] {
        let host = Host::new();
        let desk = host.start();
        take(&desk, "a");
        let before = take(&desk, "b");
        drop(desk);
        let _ = fs::remove_file(host.file(name));
        fs::create_dir(host.file(name)).unwrap();
        let desk = host.start();
        assert_eq!(desk.damaged(), 1, "{name}");
        take(&desk, "c");
        let left = deliver_all(&desk);
        match name {
            CALLS => assert_eq!(left, ["c"]),
            _ => assert_eq!(left, ["a", "b", "c"]),
        }
        // The server takes a number that it knows for a call that it has.
        assert!(take(&desk, "d") > before, "{name}");
        assert_eq!(host.start().damaged(), 0, "{name}");
    }
    let host = Host::new();
    take(&host.start(), "a");
    fs::write(host.file(KEPT), "{\"last\": ").unwrap();
    let desk = host.start();
    assert_eq!((desk.damaged(), deliver_all(&desk)), (1, vec!["a".into()]));
}

#[tokio::test]
async fn a_call_that_cannot_be_read_any_more_holds_up_no_other() {
    let host = Host::new();
    let desk = host.start();
    let lost = take(&desk, "a");
    take(&desk, "b");
    let mut lines = host.lines(CALLS);
    lines[0] = vec![b' '; lines[0].len()];
    host.write(CALLS, &lines);
    assert!(desk.next().is_err());
    desk.give_up(Answer::error(400, "INVALID_STATE", "lost"))
        .unwrap();
    let answer = desk.answered(lost).await.unwrap();
    assert!(answer.body.contains("lost"));
    assert_eq!(deliver_all(&desk), ["b"]);
    desk.give_up(Answer::error(400, "INVALID_STATE", "lost"))
        .unwrap();
    assert_eq!(desk.next().unwrap(), None);
}

#[test]
fn a_long_journal_is_begun_anew_when_all_of_it_is_delivered() {
    let host = Host::new();
    let desk = host.start();
    let mut large = call("a", "create");
    large.body = "x".repeat(LONG as usize + 1);
    let a = desk.take(large.clone(), None).unwrap();
    assert_eq!(deliver_all(&desk).len(), 1);
    assert_eq!(fs::metadata(host.file(CALLS)).unwrap().len(), 0);
    let desk = host.start();
    assert_eq!(
        desk.take(large, None).unwrap(),
        a,
        "it is known all the same"
    );
    assert!(take(&desk, "b") > a);
    assert_eq!(deliver_all(&host.start()), ["b"]);
}

#[test]
fn what_waits_is_bounded_and_what_is_delivered_does_not_count() {
    let host = Host::new();
    let most = 4_000;
    let desk = Desk::open(host.0.path().to_owned(), most, ByteSize(0)).unwrap();
    let long = |request: String| {
        let mut call = call(&request, "log-batch");
        call.body = "x".repeat(1_000);
        call
    };
    let mut taken = 0;
    let refused = loop {
        match desk.take(long(format!("wait-{taken}")), None) {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((taken, refused.kind()), (3, io::ErrorKind::StorageFull));
    assert!(desk.complain() && !desk.complain(), "it is told once");
    let mut put = long("a file".into());
    put.file = Some((Digest::of("content"), protocol::ByteSize(7)));
    let content = NamedTempFile::new_in(desk.files()).unwrap();
    assert!(desk.take(put, Some(content)).is_err());
    assert_eq!(fs::read_dir(desk.files()).unwrap().count(), 0);
    // The server is back and one always waits: the journal does not grow.
    for round in 0..50 {
        let entry = desk.next().unwrap().unwrap();
        desk.deliver(&entry, made("x")).unwrap();
        desk.take(long(format!("more-{round}")), None).unwrap();
        let length = fs::metadata(host.file(CALLS)).unwrap().len();
        assert!(length <= 2 * most, "{length}");
    }
    let desk = Desk::open(host.0.path().to_owned(), most, ByteSize(0)).unwrap();
    assert_eq!(desk.damaged(), 0);
    assert_eq!(deliver_all(&desk), ["more-47", "more-48", "more-49"]);
    assert_eq!(
        desk.take(long("more-49".into()), None).unwrap(),
        *desk.taken.borrow()
    );
}

#[test]
fn a_file_leaves_room_on_the_disk() {
    let host = Host::new();
    let open = |floor| Desk::open(host.0.path().to_owned(), MOST_WAITING, floor).unwrap();
    let free = free(host.0.path()).unwrap().0;
    let three_quarters = free / 4 * 3;
    assert!(open(ByteSize(0)).begin_file(three_quarters).is_ok());
    let desk = open(ByteSize(free / 2));
    let refused = desk.begin_file(three_quarters).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
    // Others have filled the disk.
    assert!(open(ByteSize(u64::MAX)).begin_file(1).is_ok());
}

#[test]
fn a_content_goes_when_no_call_wants_it_any_more() {
    let host = Host::new();
    let desk = host.start();
    let digest = Digest::of("content");
    let place = desk.files().join(digest.as_str());
    for request in ["a", "b"] {
        let mut put = call(request, "x");
        put.file = Some((digest.clone(), protocol::ByteSize(7)));
        let mut content = NamedTempFile::new_in(desk.files()).unwrap();
        content.write_all(b"content").unwrap();
        desk.take(put, Some(content)).unwrap();
    }
    let first = desk.next().unwrap().unwrap();
    desk.deliver(&first, made("a")).unwrap();
    assert!(place.exists());
    // An agent that was killed left what came, and what it had delivered.
    let left = ["tmp-half", Digest::of("delivered").as_str()].map(|name| desk.files().join(name));
    for path in &left {
        fs::write(path, "left").unwrap();
    }
    let desk = host.start();
    assert!(place.exists() && !left.iter().any(|path| path.exists()));
    deliver_all(&desk);
    assert!(!place.exists());
}
