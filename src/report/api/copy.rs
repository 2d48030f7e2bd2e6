//! The way to an archived copy: a link to the store that has it, or its bytes where only we can read them.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Path;
use axum::extract::State;
use axum::extract::rejection::PathRejection;
use axum::http::HeaderMap;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::IntoResponse as _;
use axum::response::Response;
use bytes::Bytes;
use futures::TryStreamExt as _;
use serde::Deserialize;

use crate::http::problem::Problem;
use crate::http::request::Admission;
use crate::manifest::row::AssetRecord;
use crate::model::asset::AssetIndex;
use crate::model::asset::AssetState;
use crate::model::key::ObjectKey;
use crate::report::api::Asked;
use crate::report::api::Desk;
use crate::report::api::asked;
use crate::report::api::parse_id;
use crate::report::api::provider_name;
use crate::report::links;
use crate::report::range::Wanted;
use crate::report::range::wanted;
use crate::store::Store;

/// One asset of a task.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct OneAsset {
    provider: Option<String>,
    sig: Option<String>,
}

/// Sends whoever asks to the archived copy, or reads it where only we can.
pub(super) async fn fetch_asset(
    State(desk): State<Arc<Desk>>,
    admission: Option<axum::Extension<Admission>>,
    path: Result<Path<(String, String)>, PathRejection>,
    query: Asked<OneAsset>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Path((id, index)) = path.map_err(|_| Problem::bad_request("the path is no UTF-8"))?;
    let (id, one) = (parse_id(&id)?, asked(query)?);
    let provider = provider_name(one.provider.as_deref())?;
    let index: u32 = index
        .parse()
        .map_err(|_| Problem::bad_request(format!("{index:?} is no number of an asset")))?;
    let task = desk.find(provider.as_ref(), &id).await;
    if !admission.is_some_and(|admission| admission.is_trusted()) {
        // Whoever has no right to ask does not learn either which tasks there are.
        let denied = || {
            Problem::new(StatusCode::FORBIDDEN, "the link's `sig` does not fit")
                .hint("use the link as it was given, or send the daemon's token")
        };
        let task = task.as_ref().map_err(|_| denied())?;
        let index = AssetIndex(index);
        let is_sealed = |sig: &str| desk.views.links.is_sealed(&task.key, index, sig);
        if !one.sig.as_deref().is_some_and(is_sealed) {
            return Err(denied());
        }
    }
    let task = task?;
    let asset = task.assets.iter().find(|asset| asset.index.0 == index);
    let asset = asset.ok_or_else(|| Problem::not_found(format!("{id} has no asset {index}")))?;
    match asset.state {
        AssetState::Archived => {}
        AssetState::Due => {
            let what = format!("asset {index} of {id} is not archived yet");
            return Err(Problem::new(StatusCode::CONFLICT, what)
                .hint("GET /api/v1/tasks/{id}?wait=60s waits for it"));
        }
        AssetState::Lost | AssetState::Refused => {
            let what = format!("asset {index} of {id} is {}", asset.state);
            return Err(Problem::new(StatusCode::GONE, what));
        }
    }
    let found = desk.views.links.bytes(asset).await;
    let found = found.map_err(|error| Problem::unavailable(error.to_string()))?;
    match found {
        Some(links::Bytes::Elsewhere(url)) => Ok((
            StatusCode::FOUND,
            [
                (header::LOCATION, url.as_str()),
                (header::CACHE_CONTROL, "no-store"),
            ],
        )
            .into_response()),
        Some(links::Bytes::Here(store, key)) => read_here(&store, &key, asset, &headers).await,
        None => Err(Problem::not_found(format!(
            "no destination that is configured has asset {index} of {id}"
        ))),
    }
}

/// The file, or the range of it that is asked for.
async fn read_here(
    store: &Store,
    key: &ObjectKey,
    asset: &AssetRecord,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let length = asset.size.unwrap_or_default();
    let tag = asset.sha256.map(|sha256| format!("\"{sha256}\""));
    if let Some(tag) = tag.as_ref().filter(|tag| has_it(headers, tag)) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag.as_str())]).into_response());
    }
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    // Whoever has the beginning of another file wants all of this one.
    let is_same = text(header::IF_RANGE).is_none_or(|other| tag.as_deref() == Some(other));
    let asked = text(header::RANGE).filter(|_| is_same);
    let (status, range) = match wanted(asked, length) {
        Wanted::Whole => (StatusCode::OK, 0..length),
        Wanted::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Wanted::Nothing => {
            let whole = header::HeaderValue::from_str(&format!("bytes */{length}"));
            let problem = Problem::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                format!("the file has {length} bytes"),
            );
            return Err(match whole {
                Ok(whole) => problem.header(header::CONTENT_RANGE, whole),
                Err(_) => problem,
            });
        }
    };
    let frames = store.read_from(key, range.start).await;
    let frames = frames.map_err(|error| Problem::unavailable(error.to_string()))?;
    let left = range.end - range.start;
    // A file that is shorter by now ends before its length is reached, and the connection with it.
    let body = frames.try_filter_map({
        let mut left = left;
        move |frame: Bytes| {
            let take = usize::try_from(left).unwrap_or(usize::MAX).min(frame.len());
            left -= u64::try_from(take).unwrap_or(left);
            let frame = (take > 0).then(|| frame.slice(..take));
            async move { Ok(frame) }
        }
    });
    let mut response = Response::builder()
        .status(status)
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::CONTENT_LENGTH, left)
        .header(
            header::CONTENT_TYPE,
            asset
                .content_type
                .as_deref()
                .unwrap_or("application/octet-stream"),
        )
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        // Whatever it is that somebody made: opened in a browser, it is no page of ours.
        .header(header::CONTENT_SECURITY_POLICY, "sandbox");
    if status == StatusCode::PARTIAL_CONTENT {
        let part = format!("bytes {}-{}/{length}", range.start, range.end - 1);
        response = response.header(header::CONTENT_RANGE, part);
    }
    if let Some(tag) = tag {
        response = response.header(header::ETAG, tag);
    }
    let body = Body::from_stream(body);
    response
        .body(body)
        .map_err(|error| Problem::unavailable(error.to_string()))
}

/// Whether whoever asks says that they have the file with this tag.
fn has_it(headers: &HeaderMap, tag: &str) -> bool {
    let values = headers.get_all(header::IF_NONE_MATCH).iter();
    let mut tags = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim);
    tags.any(|own| own == "*" || own.strip_prefix("W/").unwrap_or(own) == tag)
}
