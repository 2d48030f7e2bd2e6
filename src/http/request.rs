//! Requests that others send to us: how one was let in, and its body, bounded in bytes and in time.

use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use http_body_util::LengthLimitError;
use http_body_util::Limited;

use crate::http::problem::Problem;
use crate::units::ByteSize;

/// The header that bears the daemon's token where `Authorization` belongs to somebody else.
pub const TOKEN_HEADER: &str = "x-reelvault-token";

/// How the server let a request in; it stands among the request's extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// From this machine, where no token is configured or the way is the socket.
    Local,
    /// With the daemon's token in [`TOKEN_HEADER`].
    Token,
    /// With the daemon's token as the password that a browser asked its reader for.
    Password,
    /// With the daemon's token as the bearer, so that `Authorization` is nothing that a provider may see.
    Bearer,
    /// Without a token, to a path that is open or has a proof of its own.
    Open,
}

impl Admission {
    /// Whether whoever asks may do everything.
    pub fn is_trusted(self) -> bool {
        match self {
            Admission::Local | Admission::Token | Admission::Bearer | Admission::Password => true,
            Admission::Open => false,
        }
    }
}

/// Reads a body into memory: at most `max`, and all of it within `time`.
pub async fn collect(body: Body, max: ByteSize, time: Duration) -> Result<Bytes, Problem> {
    let collecting = Limited::new(body, max.as_usize()).collect();
    match tokio::time::timeout(time, collecting).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let what = format!("the body is larger than {max}");
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, what)
                .hint("send less at a time")
                .header(
                    header::CONNECTION,
                    header::HeaderValue::from_static("close"),
                ))
        }
        Ok(Err(_)) => Err(Problem::bad_request("the body broke off")),
        Err(_) => {
            let what = format!("the body was not there within {} s", time.as_secs());
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, what).header(
                header::CONNECTION,
                header::HeaderValue::from_static("close"),
            ))
        }
    }
}
