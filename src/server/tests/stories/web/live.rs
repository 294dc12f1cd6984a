//! What happens now, as streams.

use std::time::Duration;

use futures_util::StreamExt as _;
use protocol::Timestamp;
use protocol::job::Move;
use reqwest::RequestBuilder;
use serde_json::json;
use server::live::Change;
use server::store::{events, jobs};

use super::site::Site;

/// No condition takes longer on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Reads a stream until it holds `word`, or to its end.
async fn read_until(call: RequestBuilder, word: Option<&str>) -> String {
    let reading = async {
        let answer = call.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let mut stream = answer.bytes_stream();
        let mut text = String::new();
        while let Some(chunk) = stream.next().await {
            text += std::str::from_utf8(&chunk.unwrap()).unwrap();
            if word.is_some_and(|word| text.contains(word)) {
                break;
            }
        }
        text
    };
    tokio::time::timeout(PATIENCE, reading).await.unwrap()
}

#[tokio::test]
async fn a_story_is_read_in_pieces() {
    let site = Site::start().await;
    let path = format!("/api/v1/jobs/{}/events", site.failed);
    let all = site.page(&path).await;
    assert_eq!(all.lines().count(), 5);
    let rest = site.page(&format!("{path}?from=4")).await;
    assert_eq!(rest.lines().count(), 2);
    assert!(rest.starts_with(all.lines().nth(3).unwrap()));
    assert_eq!(site.page(&format!("{path}?from=6")).await, "");
}

#[tokio::test]
async fn a_stream_goes_on_after_the_last_event_that_was_seen() {
    let site = Site::start().await;
    let path = format!("/api/v1/jobs/{}/events/stream", site.failed);
    let all = read_until(site.get(&path), None).await;
    assert_eq!(
        all.matches("\nid: ").count() + usize::from(all.starts_with("id: ")),
        5,
        "{all}"
    );
    assert!(all.contains("event: end"), "{all}");
    let rest = read_until(site.get(&path).header("last-event-id", "3"), None).await;
    assert!(
        !rest.contains("line 3 ") && rest.contains("line 4 ") && rest.contains("line 5 "),
        "{rest}"
    );
}

#[tokio::test]
async fn a_page_hears_of_the_end() {
    let site = Site::start().await;
    let path = format!("/jobs/{}/live", site.queued);
    let seen = read_until(site.get(&path), Some("event: fragment")).await;
    assert!(seen.contains("verdict"), "{seen}");
    let listening = read_until(site.get(&path), Some("event: end"));
    let ending = async {
        let job = site.job(&site.queued).await;
        let mut tx = site.server().store.begin().await.unwrap();
        let step = Move::Cancel {
            by: "ana".to_owned(),
        };
        jobs::advance(&mut tx, &job, step, None, Timestamp::now())
            .await
            .unwrap();
        tx.commit().await.unwrap();
        site.server().live.tell(Change::Job {
            pipeline: site.pipeline.clone(),
            job: site.queued.clone(),
        });
    };
    let (heard, ()) = tokio::join!(listening, ending);
    assert!(heard.contains("event: end"), "{heard}");
}

#[tokio::test]
async fn samples_of_days_push_no_line_off_the_page() {
    let site = Site::start().await;
    let mut tx = site.server().store.begin().await.unwrap();
    let first = events::next_wanted(&mut tx, &site.attempt).await.unwrap();
    let samples = 25_000;
    let sample = |seq| {
        json!({"seq": seq, "at": 1, "kind": "sample", "cpu_millis": 900, "memory": 1}).to_string()
    };
    let mut lines: Vec<_> = (first..)
        .take(samples)
        .map(|seq| (seq, sample(seq)))
        .collect();
    let last = first + lines.len() as u64;
    let log =
        json!({"seq": last, "at": 2, "kind": "log", "stream": "stdout", "text": "after days"});
    lines.push((last, log.to_string()));
    events::append(&mut tx, &site.attempt, &lines)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let page = site.page(&format!("/jobs/{}", site.failed)).await;
    assert!(page.contains("after days"));
}
