//! Everything that the server answers, put together from what the rooms answer.

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::routing::get;

use crate::http::problem::Problem;

/// The routes of one configuration.
pub(super) fn routes() -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
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
