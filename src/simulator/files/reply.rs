//! One answer with a file or a part of it: its headers, and how its body goes.

use std::ops::Range;
use std::sync::Arc;

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::StatusCode;
use axum::http::Version;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;

use crate::simulator::body::End;
use crate::simulator::body::Pace;
use crate::simulator::body::Sending;
use crate::simulator::body::gzipped;
use crate::simulator::line::Line;
use crate::simulator::range::Wanted;
use crate::simulator::range::wanted;
use crate::simulator::script::Cut;
use crate::simulator::script::Manner;
use crate::simulator::traffic::Serving;
use crate::simulator::world::World;
use crate::simulator::world::files::OpenedFile;
use crate::units::ByteSize;

/// A file that a link led to.
pub(super) struct File {
    opened: OpenedFile,
    /// How long it claims to be.
    length: u64,
    modified: String,
    pace: Pace,
    manners: Vec<Manner>,
    serving: Serving,
}

/// How a receiver learns where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// `Content-Length`.
    Known,
    /// Chunks, the last one empty.
    Chunks,
    /// The connection is closed, as in HTTP/1.0.
    UntilClosed,
}

/// An answer that is about to be sent.
pub(super) struct Reply {
    file: File,
    /// What is sent by right; `None` is an answer without a body.
    range: Option<Range<u64>>,
    is_part: bool,
    /// Where sending ends.
    stop: u64,
    end: End,
    length: Length,
}

impl File {
    pub(super) fn new(
        mut opened: OpenedFile,
        rate: Option<ByteSize>,
        manners: Vec<Manner>,
        serving: Serving,
    ) -> Self {
        let format = "%a, %d %b %Y %H:%M:%S GMT";
        if manners.contains(&Manner::WeakEtag) {
            opened.etag.insert_str(0, "W/");
        }
        let own_rate = manners.iter().find_map(|manner| match manner {
            Manner::Paced(rate) => Some(*rate),
            Manner::WeakEtag
            | Manner::NoEtag
            | Manner::NoVersion
            | Manner::NoRanges
            | Manner::NoTotal
            | Manner::LyingTotal(_)
            | Manner::PartUnasked => None,
        });
        Self {
            length: opened.source.length(),
            modified: opened.modified.strftime(format).unwrap_or_default(),
            pace: own_rate.or(rate).map_or(Pace::Free, Pace::Rate),
            opened,
            manners,
            serving,
        }
    }

    fn has(&self, manner: Manner) -> bool {
        self.manners.contains(&manner)
    }

    /// The total as a `Content-Range` tells it.
    fn total(&self) -> String {
        if self.has(Manner::NoTotal) {
            return "*".to_owned();
        }
        let lies = self.manners.iter().map(|manner| match manner {
            Manner::LyingTotal(more) => more.as_u64(),
            Manner::WeakEtag
            | Manner::NoEtag
            | Manner::NoVersion
            | Manner::NoRanges
            | Manner::NoTotal
            | Manner::PartUnasked
            | Manner::Paced(_) => 0,
        });
        self.length.saturating_add(lies.sum()).to_string()
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// The same file, as if it ended early.
    pub(super) fn cropped(self, cut: Cut) -> Self {
        let length = cut
            .map_or(self.length / 2, ByteSize::as_u64)
            .min(self.length);
        Self { length, ..self }
    }

    /// The answer that a request with these headers deserves.
    pub(super) fn reply(self, headers: &HeaderMap) -> Reply {
        let whole = 0..self.length;
        if self.has(Manner::NoRanges) {
            return self.with(whole, false);
        }
        match wanted(headers, self.length, &self.opened.etag, &self.modified) {
            Wanted::Whole => {
                let is_part = self.has(Manner::PartUnasked) && !headers.contains_key(header::RANGE);
                self.with(whole, is_part)
            }
            Wanted::Part(range) => self.with(range, true),
            Wanted::Unsatisfiable => Reply {
                range: None,
                ..self.with(0..0, true)
            },
        }
    }

    /// An answer with these bytes, as a part or as the whole.
    pub(super) fn with(self, range: Range<u64>, is_part: bool) -> Reply {
        Reply {
            stop: range.end,
            range: Some(range),
            is_part,
            end: End::Over,
            length: Length::Known,
            file: self,
        }
    }

    /// The whole file, gzipped.
    pub(super) fn gzipped(self) -> Response {
        let headers = [
            (header::CONTENT_TYPE, self.opened.kind.content_type()),
            (header::CONTENT_ENCODING, "gzip"),
        ];
        (headers, gzipped(self.opened.source)).into_response()
    }
}

impl Reply {
    pub(super) fn length(self, length: Length) -> Self {
        Self { length, ..self }
    }

    pub(super) fn pace(mut self, pace: Pace) -> Self {
        self.file.pace = pace;
        self
    }

    /// Sending ends after `cut` bytes, half of them all where it is not given.
    pub(super) fn cut(self, cut: Cut, end: End) -> Self {
        let Range { start, end: right } = self.range.clone().unwrap_or_default();
        let cut = cut.map_or((right - start) / 2, ByteSize::as_u64);
        let stop = start.saturating_add(cut).min(right);
        Self { stop, end, ..self }
    }

    /// Another range than was asked for.
    pub(super) fn later_by_one(mut self) -> Self {
        let last = self.file.length;
        if let Some(range) = &mut self.range {
            *range = (range.start + 1).min(last)..(range.end + 1).min(last);
            self.stop = range.end;
        }
        self
    }

    pub(super) fn send(self, world: &Arc<World>, line: &Arc<Line>) -> Response {
        let total = self.file.total();
        let Some(range) = self.range else {
            let range = format!("bytes */{total}");
            return (
                StatusCode::RANGE_NOT_SATISFIABLE,
                [(header::CONTENT_RANGE, range)],
            )
                .into_response();
        };
        let file = self.file;
        let has_version = !file.has(Manner::NoVersion);
        let has_etag = has_version && !file.has(Manner::NoEtag);
        let units = if file.has(Manner::NoRanges) {
            "none"
        } else {
            "bytes"
        };
        let opened = file.opened;
        let mut answer = Response::builder()
            .header(header::CONTENT_TYPE, opened.kind.content_type())
            .header(header::ACCEPT_RANGES, units);
        if has_etag {
            answer = answer.header(header::ETAG, opened.etag);
        }
        if has_version {
            answer = answer.header(header::LAST_MODIFIED, file.modified);
        }
        if self.is_part {
            let last = range.end.saturating_sub(1);
            answer = answer.status(StatusCode::PARTIAL_CONTENT).header(
                header::CONTENT_RANGE,
                format!("bytes {}-{last}/{total}", range.start),
            );
        }
        answer = match self.length {
            Length::Known => answer.header(header::CONTENT_LENGTH, range.end - range.start),
            Length::Chunks => answer,
            Length::UntilClosed => answer
                .version(Version::HTTP_10)
                .header(header::CONNECTION, "close"),
        };
        let sending = Sending {
            source: opened.source,
            range: range.start..self.stop,
            pace: file.pace,
            end: self.end,
            serving: file.serving,
        };
        let body = sending.body(Arc::clone(world), Arc::clone(line));
        answer.body(body).expect("these headers are visible ASCII")
    }
}

/// An answer instead of a file.
pub(super) fn gone(status: u16) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::NOT_FOUND);
    let headers = [(header::CONTENT_TYPE, "application/xml")];
    (
        status,
        headers,
        "<Error><Code>AccessDenied</Code></Error>\n",
    )
        .into_response()
}

/// A redirect to `location`.
pub(super) fn redirected(location: &str) -> Response {
    (
        StatusCode::FOUND,
        [(header::LOCATION, location)],
        Body::empty(),
    )
        .into_response()
}
