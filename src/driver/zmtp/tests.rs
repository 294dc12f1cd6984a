use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::*;

const LIMIT: u64 = 256 << 20;

/// What a kernel's socket of this type says first.
fn server_opening(socket_type: &str) -> Vec<u8> {
    let mut bytes = greeting();
    let mut ready = b"\x05READY".to_vec();
    put_property(&mut ready, "Socket-Type", socket_type.as_bytes());
    put_frame(&mut bytes, COMMAND, &ready);
    bytes
}

/// A client, and the other side with the client's opening still unread.
fn pair(kind: Kind) -> (Connection, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut connection = Connection::new(ours, kind, b"me", LIMIT).unwrap();
    connection.flush().unwrap();
    (connection, theirs)
}

/// What comes until it ends or `count` messages are there.
fn receive(connection: &mut Connection, count: usize) -> Result<Vec<Frames>, ZmtpError> {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut messages = Vec::new();
    while messages.len() < count {
        connection.receive(&mut messages)?;
        assert!(Instant::now() < deadline, "{} messages", messages.len());
    }
    Ok(messages)
}

#[test]
fn messages_arrive_however_the_bytes_are_cut() {
    let (mut connection, mut theirs) = pair(Kind::Sub);
    let mut bytes = server_opening("XPUB");
    put_frame(&mut bytes, MORE, b"topic");
    put_frame(&mut bytes, 0, &[7; 70_000]);
    put_frame(&mut bytes, 0, b"");
    let (head, tail) = bytes.split_at(300);
    let mut messages = Vec::new();
    for byte in head {
        theirs.write_all(&[*byte]).unwrap();
        connection.receive(&mut messages).unwrap();
    }
    assert_eq!(connection.decoder.stage, Stage::Open);
    theirs.write_all(tail).unwrap();
    let messages = receive(&mut connection, 2).unwrap();
    assert_eq!(
        messages,
        [vec![b"topic".to_vec(), vec![7; 70_000]], vec![vec![]]]
    );
    drop(theirs);
    assert!(matches!(
        receive(&mut connection, 1),
        Err(ZmtpError::Closed)
    ));
}

#[test]
fn each_step_of_the_opening_waits_for_the_other_side() {
    let cases = [
        (
            Kind::Dealer,
            "ROUTER",
            b"\x08Identity\0\0\0\x02me".as_slice(),
            b"\0\x02hi".as_slice(),
        ),
        (
            Kind::Sub,
            "XPUB",
            b"\x0bSocket-Type\0\0\0\x03SUB",
            b"\0\x01\x01\0\x02hi",
        ),
    ];
    for (kind, peer, ready_end, then) in cases {
        let (mut connection, mut theirs) = pair(kind);
        connection.send(&[b"hi".to_vec()]);
        let said = |connection: &mut Connection, theirs: &mut UnixStream| {
            connection.flush().unwrap();
            theirs
                .set_read_timeout(Some(Duration::from_millis(20)))
                .unwrap();
            let mut bytes = vec![0; 1_000];
            let n = theirs.read(&mut bytes).unwrap_or(0);
            bytes[..n].to_vec()
        };
        assert_eq!(said(&mut connection, &mut theirs), greeting());
        assert_eq!(said(&mut connection, &mut theirs), b"");
        let (first, second) = (greeting(), server_opening(peer).split_off(GREETING));
        theirs.write_all(&first).unwrap();
        connection.receive(&mut Vec::new()).unwrap();
        assert!(said(&mut connection, &mut theirs).ends_with(ready_end));
        theirs.write_all(&second).unwrap();
        connection.receive(&mut Vec::new()).unwrap();
        assert_eq!(said(&mut connection, &mut theirs), then);
    }
}

#[test]
fn a_frame_of_a_terabyte_is_refused_before_a_byte_is_kept() {
    let (mut connection, mut theirs) = pair(Kind::Sub);
    let mut bytes = server_opening("PUB");
    bytes.push(LONG);
    bytes.extend((1_u64 << 40).to_be_bytes());
    theirs.write_all(&bytes).unwrap();
    let error = receive(&mut connection, 1).unwrap_err();
    assert!(
        matches!(error, ZmtpError::TooLarge { announced, limit: LIMIT } if announced == 1 << 40)
    );
    assert!(connection.decoder.frame.is_none());
}

#[test]
fn many_frames_count_together() {
    let mut decoder = Decoder::new(Kind::Sub, 1_000);
    let mut bytes = server_opening("PUB");
    for _ in 0..5 {
        put_frame(&mut bytes, MORE, &[0; 250]);
    }
    let error = decoder
        .feed(&bytes, &mut Vec::new(), &mut Vec::new())
        .unwrap_err();
    assert!(matches!(
        error,
        ZmtpError::TooLarge {
            announced: 1_250,
            ..
        }
    ));

    let mut decoder = Decoder::new(Kind::Sub, 1_000);
    let mut bytes = server_opening("PUB");
    for _ in 0..=MOST_FRAMES {
        put_frame(&mut bytes, MORE, b"");
    }
    let error = decoder
        .feed(&bytes, &mut Vec::new(), &mut Vec::new())
        .unwrap_err();
    assert!(matches!(error, ZmtpError::Garbage(_)), "{error}");
}

#[test]
fn what_was_announced_is_not_reserved() {
    let mut decoder = Decoder::new(Kind::Sub, LIMIT);
    let mut bytes = server_opening("PUB");
    bytes.push(LONG);
    bytes.extend((200_u64 << 20).to_be_bytes());
    bytes.extend([1; 100]);
    decoder
        .feed(&bytes, &mut Vec::new(), &mut Vec::new())
        .unwrap();
    let (_, missing, body) = decoder.frame.as_ref().unwrap();
    assert_eq!(*missing, (200 << 20) - 100);
    assert!(body.capacity() < 10_000, "{}", body.capacity());
}

#[test]
fn garbage_is_an_error() {
    let ready = |name: &str| server_opening(name);
    let mut message_first = greeting();
    put_frame(&mut message_first, 0, b"hello");
    let mut curve = ready("PUB");
    curve[12..17].copy_from_slice(b"CURVE");
    let mut flags = ready("PUB");
    flags.extend([0x80, 0]);
    let mut cut_property = greeting();
    put_frame(&mut cut_property, COMMAND, b"\x05READY\xffSocket");
    let mut said_error = ready("PUB");
    put_frame(&mut said_error, COMMAND, b"\x05ERROR\x02no");
    let cases: [Vec<u8>; 7] = [
        b"HTTP/1.1 400 Bad Request\r\n".to_vec(),
        message_first,
        curve,
        flags,
        cut_property,
        said_error,
        ready("ROUTER"),
    ];
    for bytes in cases {
        let (mut connection, mut theirs) = pair(Kind::Sub);
        theirs.write_all(&bytes).unwrap();
        let error = receive(&mut connection, 1).unwrap_err();
        assert!(
            matches!(error, ZmtpError::Garbage(_)),
            "{error} for {bytes:?}"
        );
    }
}

#[test]
fn a_ping_is_answered() {
    let (mut connection, mut theirs) = pair(Kind::Dealer);
    let mut bytes = server_opening("ROUTER");
    put_frame(&mut bytes, COMMAND, b"\x04PING\0\x0actx");
    put_frame(&mut bytes, 0, b"after");
    theirs.write_all(&bytes).unwrap();
    receive(&mut connection, 1).unwrap();
    connection.flush().unwrap();
    let mut said = vec![0; 1_000];
    let n = theirs.read(&mut said).unwrap();
    assert!(said[..n].ends_with(b"\x04\x08\x04PONGctx"));
}

#[test]
fn sending_to_one_who_does_not_read_never_blocks() {
    let (mut connection, mut theirs) = pair(Kind::Dealer);
    theirs.write_all(&server_opening("ROUTER")).unwrap();
    connection.receive(&mut Vec::new()).unwrap();
    connection.send(&[vec![1; 8 << 20]]);
    connection.flush().unwrap();
    assert!(connection.wants_to_write());
    let reader = std::thread::spawn(move || {
        let mut sum = 0;
        let mut buffer = vec![0; 1 << 20];
        while let Ok(n) = theirs.read(&mut buffer)
            && n > 0
        {
            sum += n;
        }
        sum
    });
    let deadline = Instant::now() + Duration::from_secs(10);
    while connection.wants_to_write() {
        connection.flush().unwrap();
        assert!(Instant::now() < deadline);
    }
    drop(connection);
    assert!(reader.join().unwrap() > 8 << 20);
}

#[test]
fn a_peer_that_pings_and_does_not_read_is_left() {
    let (mut connection, mut theirs) = pair(Kind::Sub);
    theirs.write_all(&server_opening("XPUB")).unwrap();
    let mut pings = Vec::new();
    for _ in 0..1_000 {
        put_frame(&mut pings, COMMAND, b"\x04PING\0\x0acontext");
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    let error = loop {
        theirs.write_all(&pings).unwrap();
        if let Err(error) = connection.receive(&mut Vec::new()) {
            break error;
        }
        assert!(Instant::now() < deadline);
    };
    assert!(error.to_string().contains("does not read"), "{error}");

    let (mut connection, mut theirs) = pair(Kind::Sub);
    let mut bytes = server_opening("XPUB");
    put_frame(
        &mut bytes,
        COMMAND,
        &[b"\x04PING\0\x0a".as_slice(), &[7; 17]].concat(),
    );
    theirs.write_all(&bytes).unwrap();
    assert!(matches!(
        receive(&mut connection, 1),
        Err(ZmtpError::Garbage(_))
    ));
}
