//! What was had of hosts, asked for by scripts.

use protocol::api::{Usage, UsageBy};
use protocol::{Span, Timestamp};

use super::site::Site;

#[tokio::test]
async fn usage_is_answered_for_a_week_and_by_project_unless_asked_otherwise() {
    let site = Site::start().await;
    let usage: Usage = serde_json::from_str(&site.page("/api/v1/usage").await).unwrap();
    assert_eq!(usage.by, UsageBy::Project);
    assert_eq!(usage.until.since(usage.since), Span::hours(7 * 24));
    assert!(Timestamp::now().since(usage.until) < Span::secs(60));
    let path = "/api/v1/usage?since=36h&by=branch";
    let usage: Usage = serde_json::from_str(&site.page(path).await).unwrap();
    assert_eq!(usage.by, UsageBy::Branch);
    assert_eq!(usage.until.since(usage.since), Span::hours(36));
}

#[tokio::test]
async fn what_cannot_be_asked_is_said_in_words() {
    let site = Site::start().await;
    for (query, words) in [
        ("since=soon", "'soon' is not a duration"),
        ("since=0s", "is not between a moment and 366d00h"),
        ("since=400d", "is not between a moment and 366d00h"),
        ("by=team", "'team' is none of project, person, branch"),
    ] {
        let path = format!("/api/v1/usage?{query}");
        let answer = site.get(&path).send().await.unwrap();
        assert_eq!(answer.status(), 400, "{query}");
        let said = answer.text().await.unwrap();
        assert!(said.contains(words), "{query}: {said}");
    }
}
