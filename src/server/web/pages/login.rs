//! Logging in with an API token, and out again.

use askama::Template;
use axum::Extension;
use axum::Form;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Redirect};
use protocol::{Span, Timestamp};
use serde::Deserialize;

use super::super::access::{Who, safe_next};
use super::super::guard::{form_token_holds, session_cookie};
use super::super::site::Site;
use super::frame::{Frame, Shown, show, show_as};
use crate::secret::{self, Secret};
use crate::store::{self, access as rows};

/// A session lasts this long.
const SESSION: Span = Span::hours(24 * 7);

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    frame: Frame,
    problem: Option<&'static str>,
    next: String,
}

#[derive(Debug, Deserialize)]
pub(in super::super) struct Next {
    #[serde(default)]
    next: String,
}

/// `GET /login`
pub(in super::super) async fn page(State(site): State<Site>, Query(query): Query<Next>) -> Shown {
    let frame = Frame::new("", &site.access, &Who::Nobody);
    show(&LoginPage {
        frame,
        problem: None,
        next: safe_next(&query.next).to_owned(),
    })
}

#[derive(Deserialize)]
pub(in super::super) struct Login {
    token: String,
    #[serde(default)]
    next: String,
}

/// `POST /login`
pub(in super::super) async fn log_in(State(site): State<Site>, Form(login): Form<Login>) -> Shown {
    let mut tx = site.store.begin().await?;
    let token = rows::token_by_hash(&mut tx, &secret::hash(login.token.trim())).await?;
    let Some(token) = token else {
        let frame = Frame::new("", &site.access, &Who::Nobody);
        let next = safe_next(&login.next).to_owned();
        let problem = Some("There is no such token.");
        return show_as(
            StatusCode::UNAUTHORIZED,
            &LoginPage {
                frame,
                problem,
                next,
            },
        );
    };
    let session = Secret::generate("s");
    let now = Timestamp::now();
    rows::add_session(&mut tx, &session.hash(), &token.name, now, now + SESSION).await?;
    store::commit(tx).await?;
    let cookie = session_cookie(session.reveal(), SESSION.0 / 1_000, site.access.tls);
    Ok((
        [(header::SET_COOKIE, cookie)],
        Redirect::to(safe_next(&login.next)),
    )
        .into_response())
}

#[derive(Deserialize)]
pub(in super::super) struct Proof {
    form: String,
}

impl Proof {
    /// Whether the form came from one of this person's own pages.
    pub(super) fn holds(&self, site: &Site, who: &Who) -> bool {
        form_token_holds(site.access.form_secret(who), &self.form)
    }
}

/// `POST /logout`
pub(in super::super) async fn log_out(
    State(site): State<Site>,
    Extension(who): Extension<Who>,
    Form(proof): Form<Proof>,
) -> Shown {
    if let Who::Holder {
        session: Some(session),
        ..
    } = &who
        && proof.holds(&site, &who)
    {
        let mut tx = site.store.begin().await?;
        rows::remove_session(&mut tx, &secret::hash(session)).await?;
        store::commit(tx).await?;
    }
    let cookie = session_cookie("", 0, site.access.tls);
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/login")).into_response())
}
