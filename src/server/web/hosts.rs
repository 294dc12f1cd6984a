//! Calls of the public API about agents. What they mean is decided in `fleet::hosts`, and whether jobs fit in `offers`.

use axum::extract::{Path, State};
use axum::{Extension, Json};
use protocol::api::{Done, Drain};
use protocol::fit::{FitAnswer, FitQuestion, MOST_ASKED};

use super::access::Who;
use super::answer::{Answer, Problem};
use super::api::Sent;
use super::site::Site;
use crate::fleet::hosts::{self, HostError};
use crate::offers;

/// `POST /api/v1/agents/fit`
pub(super) async fn fit(
    State(site): State<Site>,
    Sent(question): Sent<FitQuestion>,
) -> Answer<Json<FitAnswer>> {
    if question.jobs.len() > MOST_ASKED {
        let words = format!(
            "{} jobs are asked for; {MOST_ASKED} are the most",
            question.jobs.len()
        );
        return Err(Problem::invalid(words));
    }
    let mut db = site.store.read().await?;
    Ok(Json(offers::asked(&mut db, &question).await?))
}

/// `POST /api/v1/agents/{name}/drain`
pub(super) async fn drain(
    State(site): State<Site>,
    Extension(who): Extension<Who>,
    Path(name): Path<String>,
    Sent(wanted): Sent<Drain>,
) -> Answer<Json<Done>> {
    let left = hosts::drain(&site, &name, wanted.stop_jobs, who.name()).await?;
    let rest = match (left, wanted.stop_jobs) {
        (0, _) => "it has no job".to_owned(),
        (1, true) => "its job gets its grace and goes on elsewhere".to_owned(),
        (n, true) => format!("its {n} jobs get their grace and go on elsewhere"),
        (1, false) => "its job runs to its end".to_owned(),
        (n, false) => format!("its {n} jobs run to their end"),
    };
    Ok(Json(
        format!("agent '{name}' takes nothing new; {rest}").into(),
    ))
}

/// `POST /api/v1/agents/{name}/undrain`
pub(super) async fn undrain(
    State(site): State<Site>,
    Extension(who): Extension<Who>,
    Path(name): Path<String>,
) -> Answer<Json<Done>> {
    hosts::undrain(&site, &name, who.name()).await?;
    Ok(Json(format!("agent '{name}' takes jobs again").into()))
}

/// `POST /api/v1/agents/{name}/revoke`
pub(super) async fn revoke(
    State(site): State<Site>,
    Extension(who): Extension<Who>,
    Path(name): Path<String>,
) -> Answer<Json<Done>> {
    hosts::revoke(&site, &name, who.name()).await?;
    let message = format!(
        "agent '{name}' is not known any more, and its jobs are given to others; a new token would register it again"
    );
    Ok(Json(message.into()))
}

/// `DELETE /api/v1/agents/{name}`
pub(super) async fn remove(
    State(site): State<Site>,
    Extension(who): Extension<Who>,
    Path(name): Path<String>,
) -> Answer<Json<Done>> {
    hosts::remove(&site, &name, who.name()).await?;
    let message =
        format!("agent '{name}' is removed; what it carried out is shown with its name as before");
    Ok(Json(message.into()))
}

impl From<HostError> for Problem {
    fn from(error: HostError) -> Self {
        match error {
            HostError::Store(error) => error.into(),
            missing @ HostError::Missing { .. } => Self::not_found(missing),
            other @ (HostError::Revoked { .. }
            | HostError::Heard { .. }
            | HostError::Busy { .. }) => Self::conflict(other),
        }
    }
}
