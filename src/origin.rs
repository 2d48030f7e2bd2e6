//! The origin port: the bytes behind a result URL, opened, taken up again where they broke, and looked into.
//!
//! ```text
//! open     one GET: redirects hop by hop, a range pinned to one version, every answer told apart
//! coding   what a `Content-Encoding` says of the body
//! reading  the body as a run of frames that re-opens itself at its offset, bounded
//! inspect  what the first bytes are, and whether the boxes of an MP4 add up
//! ```

mod coding;
pub mod inspect;
pub mod open;
pub mod reading;

use crate::http::HttpError;
use crate::units::ByteRate;
use crate::units::ByteSize;

/// Why the origin did not give the bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// The link is dead, as far as the origin goes.
    #[error("{host} answers {status}: the link is dead or not yet there")]
    Gone {
        /// The host in question.
        host: String,
        /// What it said: one of the statuses for a file that is not there, or that one may not have.
        status: u16,
    },
    /// The body is no longer the one that was begun.
    #[error("{host} changed the file under us: {what}")]
    Changed {
        /// The host in question.
        host: String,
        /// What differs.
        what: String,
    },
    /// The middle of the body cannot be had.
    #[error("{host} does not serve ranges")]
    NoRange {
        /// The host in question.
        host: String,
    },
    /// An answer that is neither the body nor a refusal.
    #[error("{host} answers {status}")]
    Status {
        /// The host in question.
        host: String,
        /// The status.
        status: u16,
        /// `Retry-After` as sent: seconds, or a date.
        retry_after: Option<String>,
    },
    /// A redirect that cannot be followed.
    #[error("{host} redirects {what}")]
    Redirect {
        /// The host in question.
        host: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A content coding that we did not ask for: the bytes would not be the file.
    #[error("{host} sends content-encoding {coding:?} unasked")]
    Encoded {
        /// The host in question.
        host: String,
        /// The coding.
        coding: String,
    },
    /// The body ended before its length.
    #[error("{host} sent {got} of {length}")]
    Short {
        /// The host in question.
        host: String,
        /// What came, from the start of the file.
        got: ByteSize,
        /// What was announced.
        length: ByteSize,
    },
    /// Frames come, but hardly.
    #[error("{host} sends less than {rate_min}")]
    Trickle {
        /// The host in question.
        host: String,
        /// What it should at least.
        rate_min: ByteRate,
    },
    /// Nothing came within the stall time-out.
    #[error("{host} stalls: not a byte within transfer.stall_timeout")]
    Stalled {
        /// The host in question.
        host: String,
    },
    /// The exchange itself failed.
    #[error(transparent)]
    Http(#[from] HttpError),
}

impl OriginError {
    /// Whether it may be the range that is refused, and not the file.
    pub fn may_be_of_range(&self) -> bool {
        match self {
            OriginError::Gone { .. } => true,
            OriginError::Status { status, .. } => matches!(status, 405 | 412 | 500 | 501),
            OriginError::Short { .. }
            | OriginError::Trickle { .. }
            | OriginError::Stalled { .. }
            | OriginError::Changed { .. }
            | OriginError::NoRange { .. }
            | OriginError::Redirect { .. }
            | OriginError::Encoded { .. }
            | OriginError::Http(_) => false,
        }
    }

    /// Whether taking the body up again at its offset may help.
    fn is_passing(&self) -> bool {
        match self {
            OriginError::Short { .. }
            | OriginError::Trickle { .. }
            | OriginError::Stalled { .. }
            | OriginError::Status { .. } => true,
            OriginError::Http(error) => match error {
                HttpError::Connect { .. }
                | HttpError::Timeout { .. }
                | HttpError::Broken { .. } => true,
                HttpError::Forbidden { .. } | HttpError::TooLarge(_) => false,
            },
            OriginError::Gone { .. }
            | OriginError::Changed { .. }
            | OriginError::NoRange { .. }
            | OriginError::Redirect { .. }
            | OriginError::Encoded { .. } => false,
        }
    }
}
