//! Calls that the code of an attempt makes, brought by its agent: the same ones, asked by the attempt.

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use protocol::agent_api::CALL_HEADER;
use protocol::spec::Trust;
use tower::ServiceExt as _;

use super::super::agent_api::{self, Caller as Agent};
use super::super::site::Site;
use super::{API, BODY_BYTES, files, nowhere, probes, under};
use crate::fleet::{self, Refused};
use crate::registry::mlflow::{Caller, Code, Fault};
use crate::state::Server;

/// What stands between an attempt's address and the call's own.
const ROOT: &str = "/registry";

/// The agent's route, behind which the calls of `site` are.
pub(in super::super) fn routes(site: Site) -> Router<Server> {
    let calls = calls().with_state(site);
    let relay =
        move |State(server): State<Server>,
              agent: Agent,
              Path((id, _)): Path<(String, String)>,
              request: Request| relay(server, agent, id, request, calls.clone());
    Router::new().route(&format!("/attempts/{{id}}{ROOT}/{{*call}}"), any(relay))
}

/// What the code of a job may call.
fn calls() -> Router<Site> {
    let everywhere = under(API, super::readers()).layer(from_fn(only_trusted));
    let never = under(API, super::writers()).layer(from_fn(not_in_a_job));
    under(API, super::readers_of_runs())
        .merge(under(API, super::writers_of_runs()))
        .merge(everywhere)
        .merge(never)
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .merge(files::in_job())
        .method_not_allowed_fallback(nowhere)
        .fallback(nowhere)
        .merge(probes())
}

async fn relay(
    server: Server,
    Agent(agent): Agent,
    id: String,
    request: Request,
    calls: Router,
) -> Result<Response, Refused> {
    let id = agent_api::attempt(&id)?;
    let number = number(request.headers())?;
    let caller = fleet::in_job::caller(&server, &agent, &id, number).await?;
    if let Some(number) = number
        && let Some(answer) = fleet::in_job::answered(&server, &id, number).await?
    {
        let json = [(header::CONTENT_TYPE, "application/json")];
        return Ok((json, Body::from(answer)).into_response());
    }
    let Ok(answer) = calls.oneshot(inner(request, caller)?).await;
    Ok(answer)
}

fn number(headers: &HeaderMap) -> Result<Option<u64>, Refused> {
    let Some(value) = headers.get(CALL_HEADER) else {
        return Ok(None);
    };
    let number = value.to_str().ok().and_then(|text| text.parse().ok());
    number
        .map(Some)
        .ok_or_else(|| Refused::Invalid(format!("{CALL_HEADER} is a number")))
}

/// The call itself. Its address is as it came: what a router decodes could have meant something else before. Of what the
/// router found in the outer address nothing goes along.
fn inner(request: Request, caller: Caller) -> Result<Request, Refused> {
    let (outer, body) = request.into_parts();
    let whole = outer
        .uri
        .path_and_query()
        .map_or("", |whole| whole.as_str());
    let call = whole.split_once(ROOT).map_or("", |(_, call)| call);
    let mut request = Request::new(body);
    *request.uri_mut() = call
        .parse()
        .map_err(|error| Refused::Invalid(format!("address of the call: {error}")))?;
    *request.method_mut() = outer.method;
    *request.headers_mut() = outer.headers;
    request.extensions_mut().insert(caller);
    Ok(request)
}

/// Code that nobody trusts sees what it wrote itself, and does not search.
async fn only_trusted(request: Request, next: Next) -> Response {
    let caller = request.extensions().get::<Caller>();
    let trust = caller
        .and_then(|caller| caller.job.as_ref())
        .map(|job| job.trust);
    match trust {
        Some(Trust::Trusted) => next.run(request).await,
        Some(Trust::Untrusted) | None => Fault::new(
            Code::Denied,
            "this commit is not trusted: its jobs look at their own runs, and at nothing else of the registry",
        )
        .into_response(),
    }
}

async fn not_in_a_job(_: Request, _: Next) -> Response {
    Fault::new(
        Code::Denied,
        "a job does not do this: it writes to its own run and to runs that it began, and what it registers becomes a \
         version when it has succeeded; people set aliases, stages and descriptions",
    )
    .into_response()
}
