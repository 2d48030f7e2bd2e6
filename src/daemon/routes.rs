//! Everything that the server answers, put together from what the rooms answer.

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::routing::get;

use crate::http::problem::Problem;
use crate::intake::gateway;
use crate::intake::gateway::Gateway;
use crate::intake::hooks;
use crate::intake::hooks::Hooks;

/// What answers beside the stages.
pub(super) struct Rooms {
    pub(super) hooks: Hooks,
    pub(super) gateway: Gateway,
}

/// The routes of one configuration.
pub(super) fn routes(rooms: Rooms) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .merge(hooks::router(rooms.hooks))
        .merge(gateway::router(rooms.gateway))
        .fallback(no_such_page)
        .method_not_allowed_fallback(no_such_method)
}

async fn no_such_page(request: Request) -> Problem {
    Problem::not_found(format!("there is no {}", request.uri().path()))
        .hint("GET /openapi.json tells what there is")
}

async fn no_such_method(request: Request) -> Problem {
    let (method, path) = (request.method(), request.uri().path());
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{path} knows no {method}"),
    )
    .hint("`Allow` names the methods that it knows")
}
