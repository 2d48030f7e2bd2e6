//! One GET at an origin: redirects followed hop by hop, a range pinned to one version of the file, and every answer
//! told apart. Status codes and headers of origins are read here and nowhere else.

use bytes::Bytes;
use futures::FutureExt as _;
use futures::StreamExt as _;
use http::HeaderMap;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header;
use url::Url;

use crate::http::Body;
use crate::http::Http;
use crate::http::HttpError;
use crate::http::framing::digits;
use crate::http::framing::is_framed;
use crate::http::framing::told_length;
use crate::model::asset::SourceIdentity;
use crate::origin::OriginError;
use crate::origin::coding::coding;
use crate::origin::coding::is_gzip;
use crate::origin::coding::only_labelled;

/// Redirects followed before giving up: more is a loop.
const HOPS_MAX: u32 = 5;

/// A result URL at an origin, with what it takes to ask for it.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Sends the requests; its guard checks every address.
    pub http: Http,
    /// The link.
    pub url: Url,
    /// Headers that the provider wants with downloads; sent to the link's own host only.
    pub headers: HeaderMap,
}

/// The bytes to ask for: all from `start` on, up to but not including `end` where given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first byte.
    pub start: u64,
    /// The byte after the last.
    pub end: Option<u64>,
}

impl Window {
    /// The whole file.
    pub const ALL: Window = Window {
        start: 0,
        end: None,
    };
}

/// An answer whose body is the bytes asked for.
pub struct Opened {
    /// What the origin says of the file.
    pub identity: SourceIdentity,
    /// Whether the origin serves ranges, where it says so.
    pub has_ranges: Option<bool>,
    /// Whether the end of the body can be told from a broken connection: by a length, or by chunks.
    pub is_framed: bool,
    /// Where this answer ends, when it is a range: an origin may send less than it was asked for.
    pub end: Option<u64>,
    /// The host that answered, behind all redirects.
    pub host: String,
    /// The bytes.
    pub body: Body,
}

impl Origin {
    /// The link's host, for messages.
    pub fn host(&self) -> &str {
        host_of(&self.url)
    }

    /// Opens the file at `window`. With `expected`, only that very version of the file is taken.
    pub async fn open(
        &self,
        window: Window,
        expected: Option<&SourceIdentity>,
    ) -> Result<Opened, OriginError> {
        let mut url = self.url.clone();
        for _ in 0..=HOPS_MAX {
            let sent = self.http.send(self.request(&url, window, expected)).await;
            let host = host_of(&url);
            let response = sent.map_err(|error| OriginError::of_http(host, error))?;
            if is_redirect(response.status()) {
                url = next_hop(&url, response.headers())?;
                // A short body that is there is read, and leaves its connection to the next who asks.
                let _ = response.into_body().take(2).count().now_or_never();
                continue;
            }
            // A range may begin as a gzip by chance.
            let coding = coding(response.headers()).filter(|_| window.start == 0);
            let mut opened = read_answer(host, response, window, expected)?;
            if let Some(coding) = coding {
                opened.body = only_labelled(host, coding, opened.body).await?;
            }
            return Ok(opened);
        }
        Err(redirect(&self.url, "more than five times"))
    }

    fn request(
        &self,
        url: &Url,
        window: Window,
        expected: Option<&SourceIdentity>,
    ) -> Request<Bytes> {
        let mut request = Request::new(Bytes::new());
        // A `Url` is a valid `Uri` as well: both come from the same grammar, and `Url` escapes what is left. One of more than
        // 64 KiB is none, and is then refused.
        *request.uri_mut() = url.as_str().parse().unwrap_or_default();
        let headers = request.headers_mut();
        if url.origin() == self.url.origin() {
            headers.extend(self.headers.clone());
        }
        headers.insert(header::ACCEPT, header::HeaderValue::from_static("*/*"));
        headers.insert(
            header::ACCEPT_ENCODING,
            header::HeaderValue::from_static("identity"),
        );
        if window != Window::ALL {
            let end = window
                .end
                .map(|end| end.saturating_sub(1).to_string())
                .unwrap_or_default();
            let range = format!("bytes={}-{end}", window.start);
            headers.insert(
                header::RANGE,
                range.parse().expect("digits are a header value"),
            );
            let validator = expected.and_then(SourceIdentity::validator);
            if let Some(validator) = validator.and_then(|validator| validator.parse().ok()) {
                headers.insert(header::IF_RANGE, validator);
            }
        }
        request
    }
}

fn host_of(url: &Url) -> &str {
    url.host_str().unwrap_or("the origin")
}

fn next_hop(from: &Url, headers: &HeaderMap) -> Result<Url, OriginError> {
    let location = headers.get(header::LOCATION);
    // Some write the address as people read it, not as it goes over the wire.
    let location = location.and_then(|value| std::str::from_utf8(value.as_bytes()).ok());
    let location = location.ok_or_else(|| redirect(from, "nowhere"))?;
    let to = from
        .join(location)
        .map_err(|_| redirect(from, "to something that is no URL"))?;
    match to.scheme() {
        "https" => Ok(to),
        // Plain http is for origins that are reached that way to begin with; the guard has the last word.
        "http" if from.scheme() == "http" => Ok(to),
        _ => Err(redirect(from, "to something that is not https")),
    }
}

fn redirect(from: &Url, what: &'static str) -> OriginError {
    OriginError::Redirect {
        host: host_of(from).to_owned(),
        what,
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn read_answer(
    host: &str,
    response: Response<Body>,
    window: Window,
    expected: Option<&SourceIdentity>,
) -> Result<Opened, OriginError> {
    let status = response.status();
    let owned = || host.to_owned();
    match status.as_u16() {
        // The third is what a proxy says that has changed something on the way.
        200 | 206 | 203 => {}
        // The first are what signed links are answered with that have expired: 400 by S3 with a session's key, GCS and
        // Supabase, 401 by others, 402 by accounts that are over their limit; 451 is a file that was taken down.
        400 | 401 | 402 | 451 | 403 | 404 | 410 => {
            return Err(OriginError::Gone {
                host: owned(),
                status: status.as_u16(),
            });
        }
        416 => {
            let what = format!("it no longer reaches byte {}", window.start);
            return Err(OriginError::Changed {
                host: owned(),
                what,
            });
        }
        status => {
            let retry_after = text(response.headers(), &header::RETRY_AFTER);
            return Err(OriginError::Status {
                host: owned(),
                status,
                retry_after,
            });
        }
    }
    let headers = response.headers();
    if let Some(coding) = coding(headers).filter(|coding| !is_gzip(coding)) {
        return Err(OriginError::Encoded {
            host: owned(),
            coding,
        });
    }
    let mut end = None;
    let length = if status == StatusCode::PARTIAL_CONTENT {
        let (start, last, total) =
            content_range(headers).ok_or_else(|| OriginError::NoRange { host: owned() })?;
        if start != window.start || window.end.is_some_and(|end| last >= end) {
            return Err(OriginError::NoRange { host: owned() });
        }
        end = Some(last + 1);
        Some(total)
    } else if window == Window::ALL {
        told_length(headers)
    } else {
        // 200 to a range: either If-Range found another version, or ranges are not served at all.
        let now = identity(headers, told_length(headers));
        return Err(
            match expected.and_then(|expected| difference(expected, &now)) {
                Some(what) => OriginError::Changed {
                    host: owned(),
                    what,
                },
                None => OriginError::NoRange { host: owned() },
            },
        );
    };
    let identity = identity(headers, length);
    if let Some(what) = expected.and_then(|expected| difference(expected, &identity)) {
        return Err(OriginError::Changed {
            host: owned(),
            what,
        });
    }
    if status == StatusCode::PARTIAL_CONTENT
        && expected.is_some_and(|expected| !is_pinned(expected, &identity))
    {
        return Err(OriginError::NoRange { host: owned() });
    }
    let accepts = text(headers, &header::ACCEPT_RANGES);
    let accepts = accepts.map(|unit| unit.eq_ignore_ascii_case("bytes"));
    let has_ranges = if status == StatusCode::PARTIAL_CONTENT {
        Some(true)
    } else {
        accepts
    };
    let is_framed = is_framed(headers) || response.version() >= http::Version::HTTP_2;
    Ok(Opened {
        identity,
        has_ranges,
        is_framed,
        end,
        host: owned(),
        body: response.into_body(),
    })
}

/// Whether a range says that it is of the version that was asked for: a range has to carry the tag that a whole answer
/// would, or at least the date.
fn is_pinned(expected: &SourceIdentity, now: &SourceIdentity) -> bool {
    let has_tag = expected.validator().is_some() && expected.validator() == now.validator();
    let has_date = expected.last_modified.is_some() && expected.last_modified == now.last_modified;
    has_tag || has_date
}

/// What tells `now` apart from `expected`, among the things that both answers said.
fn difference(expected: &SourceIdentity, now: &SourceIdentity) -> Option<String> {
    let differs = |before: &Option<String>, now: &Option<String>| {
        before
            .as_ref()
            .zip(now.as_ref())
            .is_some_and(|(before, now)| before != now)
    };
    if differs(&expected.etag, &now.etag) {
        return Some("its ETag differs".to_owned());
    }
    if expected.etag.is_none() && differs(&expected.last_modified, &now.last_modified) {
        return Some("its Last-Modified differs".to_owned());
    }
    let lengths = expected
        .length
        .zip(now.length)
        .filter(|(before, now)| before != now);
    lengths.map(|(before, now)| format!("its length was {before} and is {now}"))
}

fn identity(headers: &HeaderMap, length: Option<u64>) -> SourceIdentity {
    SourceIdentity {
        etag: text(headers, &header::ETAG),
        last_modified: text(headers, &header::LAST_MODIFIED),
        length,
    }
}

/// First byte, last byte and total of a `Content-Range`; nothing when it is not wholly told or not in order.
fn content_range(headers: &HeaderMap) -> Option<(u64, u64, u64)> {
    let value = text(headers, &header::CONTENT_RANGE)?;
    let (range, total) = value.strip_prefix("bytes ")?.trim().split_once('/')?;
    let (start, last) = range.split_once('-')?;
    let (start, last, total) = (digits(start)?, digits(last)?, digits(total)?);
    (start <= last && last < total).then_some((start, last, total))
}

fn text(headers: &HeaderMap, name: &header::HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

impl OriginError {
    /// A failed exchange in this room's terms: whichever clock runs out first, it is a stall.
    pub(crate) fn of_http(host: &str, error: HttpError) -> Self {
        match &error {
            HttpError::Timeout { .. } => OriginError::Stalled {
                host: host.to_owned(),
            },
            HttpError::Forbidden { .. }
            | HttpError::Connect { .. }
            | HttpError::Broken { .. }
            | HttpError::TooLarge(_) => OriginError::Http(error),
        }
    }
}

#[cfg(test)]
mod tests;
