//! Everything that the server answers, put together from what the rooms answer.

use axum::Json;
use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::routing::get;

use crate::daemon::health;
use crate::daemon::health::Health;
use crate::daemon::metrics;
use crate::daemon::metrics::Scrape;
use crate::daemon::openapi;
use crate::http::problem::Problem;
use crate::intake;
use crate::intake::api::Doors;
use crate::intake::gateway;
use crate::intake::gateway::Gateway;
use crate::intake::hooks;
use crate::intake::hooks::Hooks;
use crate::report;
use crate::report::api::Views;
use crate::report::events::Events;
use crate::report::page::Page;

/// What answers beside the stages.
pub(super) struct Rooms {
    pub(super) health: Health,
    pub(super) scrape: Scrape,
    pub(super) hooks: Hooks,
    pub(super) gateway: Gateway,
    pub(super) doors: Doors,
    pub(super) views: Views,
    pub(super) events: Events,
    pub(super) page: Page,
}

/// The routes of one configuration.
pub(super) fn routes(rooms: Rooms) -> Router {
    Router::new()
        .merge(health::router(rooms.health))
        .merge(metrics::router(rooms.scrape))
        .merge(hooks::router(rooms.hooks))
        .merge(gateway::router(rooms.gateway))
        .merge(intake::api::router(rooms.doors))
        .merge(report::api::router(rooms.views))
        .merge(report::events::router(rooms.events))
        .merge(report::page::router(rooms.page))
        .route("/openapi.json", get(async || Json(openapi::document())))
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
