//! The simulator's CDN: the route of result files, and what each fault of the script makes of an answer.

mod reply;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::extract::Extension;
use axum::extract::Path;
use axum::extract::Query;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::Method;
use axum::http::StatusCode;
use axum::http::Uri;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;
use serde::Deserialize;

use crate::model::asset::AssetIndex;
use crate::model::task::TaskId;
use crate::simulator::body::End;
use crate::simulator::body::Pace;
use crate::simulator::files::reply::File;
use crate::simulator::files::reply::Length;
use crate::simulator::files::reply::gone;
use crate::simulator::files::reply::redirected;
use crate::simulator::line::Line;
use crate::simulator::provider::html;
use crate::simulator::script::FileFault;
use crate::simulator::traffic::Serving;
use crate::simulator::world::World;
use crate::simulator::world::files::Opened;

/// User agents that the real CDN turns away: the default ones of a language's library.
const UNWANTED_AGENTS: [&str; 2] = ["python-urllib", "python-requests"];

/// What stands behind the `?` of a link.
#[derive(Debug, Default, Deserialize)]
pub(super) struct LinkQuery {
    /// Which of the file's links it is.
    #[serde(default)]
    link: u32,
    /// How many redirects are still to come; a request with it meets no fault.
    hops: Option<u32>,
}

/// A request for a file.
struct Asked {
    world: Arc<World>,
    line: Arc<Line>,
    task: TaskId,
    index: AssetIndex,
    /// Which of the file's links it came by.
    number: u32,
    uri: Uri,
    headers: HeaderMap,
}

/// `GET` and `HEAD /files/{task_id}/{index}.{format}`.
pub(super) async fn serve(
    State(world): State<Arc<World>>,
    Extension(line): Extension<Arc<Line>>,
    Path((task, name)): Path<(String, String)>,
    Query(query): Query<LinkQuery>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let is_head = method == Method::HEAD;
    let has_range = headers.contains_key(header::RANGE);
    world.count(|seen| {
        seen.file_heads += u64::from(is_head);
        seen.file_gets += u64::from(!is_head);
        seen.file_ranges += u64::from(has_range);
    });
    if is_unwanted(&headers) {
        return (StatusCode::FORBIDDEN, "error code: 1010").into_response();
    }
    let Some((task, index, format)) = parse(&task, &name) else {
        return gone(404);
    };
    let number = query.link;
    let file = match world.open(&task, index, format, number) {
        Opened::Gone(status) => return gone(status),
        Opened::File(opened) => *opened,
    };
    let serving = (!is_head).then(|| {
        world
            .traffic
            .begin(&task, index, has_range, world.at_once())
    });
    let serving = match serving.unwrap_or_else(|| Ok(Serving::unseen())) {
        Ok(serving) => serving,
        Err(status) => return gone(status),
    };
    let manners = world.manners(&task, index);
    let file = File::new(file, world.rate(), manners, serving);
    if let Some(hops) = query.hops.filter(|hops| *hops > 0) {
        return redirect(&uri, number, hops - 1);
    }
    let is_open_to_faults = !is_head && query.hops.is_none();
    let struck = is_open_to_faults.then(|| world.strike_file(&task, index, has_range));
    let asked = Asked {
        world,
        line,
        task,
        index,
        number,
        uri,
        headers,
    };
    match struck.flatten() {
        Some(fault) => asked.meet(fault, file).await,
        None => asked.answer(file),
    }
}

impl Asked {
    fn answer(&self, file: File) -> Response {
        file.reply(&self.headers).send(&self.world, &self.line)
    }

    async fn meet(self, fault: FileFault, file: File) -> Response {
        let whole = 0..file.length();
        let reply = |file: File| file.reply(&self.headers);
        let reply = match fault {
            FileFault::Hang => std::future::pending().await,
            FileFault::Unavailable => return gone(503),
            FileFault::Html => return html(),
            FileFault::Redirect(hops) => {
                return redirect(&self.uri, self.number, hops.saturating_sub(1));
            }
            FileFault::RedirectTo(url) => return redirected(url.as_str()),
            FileFault::Gzip => return file.gzipped(),
            FileFault::Dead(status) => {
                self.world.kill_link(&self.task, self.index, status);
                return gone(status);
            }
            FileFault::Change(cut) => {
                self.world.change_file(&self.task, self.index);
                reply(file).cut(cut, End::Close)
            }
            FileFault::Stall(cut) => reply(file).cut(cut, End::Silence),
            FileFault::Truncate(cut) => reply(file).cut(cut, End::Close),
            FileFault::Reset(cut) => reply(file).cut(cut, End::Reset),
            FileFault::Short(cut) => reply(file).length(Length::UntilClosed).cut(cut, End::Over),
            FileFault::ShortChunks(cut) => reply(file).length(Length::Chunks).cut(cut, End::Over),
            FileFault::CutChunks(cut) => reply(file).length(Length::Chunks).cut(cut, End::Close),
            FileFault::NoLength => reply(file).length(Length::UntilClosed),
            FileFault::Crop(cut) => reply(file.cropped(cut)),
            FileFault::Trickle(span) => reply(file).pace(Pace::Trickle(span)),
            FileFault::IgnoreRange => file.with(whole, false),
            FileFault::WrongRange => reply(file).later_by_one(),
            FileFault::Endless => file.with(0..u64::MAX, false).length(Length::Chunks),
            FileFault::Empty => file.with(0..0, false),
        };
        reply.send(&self.world, &self.line)
    }
}

/// A redirect to the same file, with so many more to come.
fn redirect(uri: &Uri, number: u32, hops: u32) -> Response {
    redirected(&format!("{}?link={number}&hops={hops}", uri.path()))
}

fn is_unwanted(headers: &HeaderMap) -> bool {
    let agent = headers
        .get(header::USER_AGENT)
        .and_then(|agent| agent.to_str().ok());
    let agent = agent.unwrap_or_default().to_ascii_lowercase();
    UNWANTED_AGENTS
        .iter()
        .any(|unwanted| agent.starts_with(unwanted))
}

/// The task, the place among its files, and the format's extension.
fn parse<'a>(task: &str, name: &'a str) -> Option<(TaskId, AssetIndex, &'a str)> {
    let (index, format) = name.split_once('.')?;
    Some((task.parse().ok()?, AssetIndex(index.parse().ok()?), format))
}
