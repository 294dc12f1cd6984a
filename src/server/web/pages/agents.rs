//! The page of the agents: who is there, what they have, what they do.

use askama::Template;
use axum::Extension;
use axum::extract::State;
use protocol::Timestamp;
use protocol::api::Agent;
use protocol::hardware::Gpu;

use super::super::access::Who;
use super::super::site::Site;
use super::super::views;
use super::frame::{Frame, Shown, show};
use super::words::ago;

struct Row {
    name: String,
    state: String,
    closed: Option<String>,
    host: String,
    gpus: Vec<String>,
    labels: String,
    jobs: Vec<String>,
    seen: String,
}

#[derive(Template)]
#[template(path = "agents.html")]
struct AgentsPage {
    frame: Frame,
    rows: Vec<Row>,
}

/// `GET /agents`
pub(in super::super) async fn page(
    State(site): State<Site>,
    Extension(who): Extension<Who>,
) -> Shown {
    let mut db = site.store.read().await?;
    let now = Timestamp::now();
    let page = views::agents(&mut db, &site, now).await?;
    show(&AgentsPage {
        frame: Frame::new("agents", &site.access, &who),
        rows: page.items.iter().map(|agent| row(agent, now)).collect(),
    })
}

fn row(agent: &Agent, now: Timestamp) -> Row {
    let inventory = agent.inventory.as_ref();
    let host = inventory.map_or_else(String::new, |host| {
        format!("{} CPUs, {}", host.cpu_millis / 1_000, host.memory)
    });
    Row {
        name: agent.name.clone(),
        state: agent.state.clone(),
        closed: agent.closed.clone(),
        host,
        gpus: inventory
            .map(|host| host.gpus.iter().map(|it| gpu(it, now)).collect())
            .unwrap_or_default(),
        labels: inventory
            .map(|host| host.labels.join(", "))
            .unwrap_or_default(),
        jobs: agent.jobs.iter().map(ToString::to_string).collect(),
        seen: ago(agent.last_seen, now),
    }
}

fn gpu(gpu: &Gpu, now: Timestamp) -> String {
    let hindrance = gpu
        .health
        .hindrance(now)
        .map_or_else(String::new, |why| format!(" · {why}"));
    format!("{} {}{hindrance}", gpu.model, gpu.memory)
}
