//! Why a store did not do what it was asked: one error, whose kind says what to do about it.
//!
//! Status codes, error codes and I/O errors are read here and nowhere else in the room.

mod meaning;

use std::error::Error;
use std::fmt;
use std::io;
use std::ops::Deref;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::error::SdkError;
use tokio_rustls::rustls;

use crate::model::object::DestinationName;
use crate::store::BrokenSource;
use crate::store::failure::meaning::in_doubt;
use crate::store::failure::meaning::judge;
use crate::store::failure::meaning::judge_file;

/// A store's own words beyond this are cut: they end in a row and a log field.
const MESSAGE_CHARACTERS_MAX: usize = 300;

/// What the names of actions on files begin with.
const FOLDER_ACTION: &str = "fs:";

/// Why a store did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreError(Box<StoreErrorDetails>);

/// What is known of a [`StoreError`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreErrorDetails {
    /// What to do about it.
    pub kind: StoreErrorKind,
    /// The destination.
    pub destination: DestinationName,
    /// Its bucket, or the file in question.
    pub place: String,
    /// What was asked of it: `s3:PutObject`.
    pub action: &'static str,
    /// The store's code: `AccessDenied`.
    pub code: Option<String>,
    /// The status of its answer; `None` when there was no answer.
    pub status: Option<u16>,
    /// What it says, or what kept it from answering. May be empty.
    pub message: String,
    /// The store's name for the request, for its support.
    pub request_id: Option<String>,
    /// What an operator can do.
    pub hint: Option<String>,
}

/// What to do about a [`StoreError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// Passes by itself: try again later.
    Transient,
    /// Credentials, rights, bucket, quota, disk: nothing will work at this destination until somebody acts.
    Blocked,
    /// The key is taken.
    Exists,
    /// The upload cannot become an object any more: begin a new one.
    Conflict,
    /// There is no such upload. It may have become an object: HEAD tells.
    UploadGone,
    /// The object may have been written or not: HEAD tells.
    Ambiguous,
    /// This object will never be taken.
    Rejected,
    /// The body that was to be sent broke, not the store.
    Source,
}

impl Deref for StoreError {
    type Target = StoreErrorDetails;

    fn deref(&self) -> &StoreErrorDetails {
        &self.0
    }
}

impl StoreError {
    /// An error of this kind at the destination `main`.
    #[cfg(test)]
    pub(crate) fn for_tests(kind: StoreErrorKind, status: Option<u16>) -> Self {
        Self(Box::new(StoreErrorDetails {
            kind,
            destination: "main".parse().expect("a name"),
            place: "films".to_owned(),
            action: "s3:PutObject",
            code: None,
            status,
            message: String::new(),
            request_id: None,
            hint: None,
        }))
    }

    /// The same in words that hold for any object of the destination: without the file or the request that it was of.
    pub fn of_any_object(&self) -> String {
        let mut told = self.0.as_ref().clone();
        told.request_id = None;
        if self.action.starts_with(FOLDER_ACTION) {
            told.place.clear();
        }
        Self(Box::new(told)).to_string()
    }

    /// Whether it is the action that is refused, to this key or to everybody, and neither what it is done to nor the
    /// destination as a whole.
    pub fn is_of_action(&self) -> bool {
        matches!(self.status, Some(405 | 501))
            || matches!(
                self.code.as_deref(),
                Some("AccessDenied" | "MethodNotAllowed" | "NotImplemented")
            )
    }

    /// Whether a refusal may be of this object's key alone: a policy can allow some keys and deny others.
    pub fn may_be_of_key(&self) -> bool {
        self.status == Some(403) && matches!(self.code.as_deref(), None | Some("AccessDenied"))
    }

    /// Whether it may say no more than that nothing stands at the key: whoever may not list gets 403 to that, too.
    pub fn may_be_absence(&self) -> bool {
        self.action == Verb::Find.names().0 && self.status == Some(403) && self.code.is_none()
    }

    /// Whether the store says that too much is asked of it at once.
    pub fn is_busy(&self) -> bool {
        matches!(self.status, Some(429 | 503)) || matches!(self.code.as_deref(), Some("SlowDown"))
    }
}

impl Error for StoreError {}

impl fmt::Display for StoreError {
    /// One line: `destination r2 answers 403 AccessDenied to s3:PutObject on acme-video: ...`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "destination {} ", self.destination)?;
        match (self.status, self.code.as_deref()) {
            (Some(status), Some(code)) => write!(f, "answers {status} {code} to ")?,
            (Some(status), None) => write!(f, "answers {status} to ")?,
            (None, _) => f.write_str("fails at ")?,
        }
        f.write_str(self.action)?;
        if !self.place.is_empty() {
            write!(f, " on {}", self.place)?;
        }
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "; {hint}")?;
        }
        if let Some(request_id) = &self.request_id {
            write!(f, " (request {request_id})")?;
        }
        Ok(())
    }
}

/// What was asked of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Find,
    Put,
    Begin,
    PutPart,
    Parts,
    Finish,
    Abort,
    OpenUploads,
    Read,
    List,
    Remove,
}

impl Verb {
    /// The operation's name and the right that it takes.
    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Verb::Find => ("s3:HeadObject", "s3:GetObject and s3:ListBucket"),
            Verb::Put => ("s3:PutObject", "s3:PutObject"),
            Verb::Begin => ("s3:CreateMultipartUpload", "s3:PutObject"),
            Verb::PutPart => ("s3:UploadPart", "s3:PutObject"),
            Verb::Parts => ("s3:ListParts", "s3:ListMultipartUploadParts"),
            Verb::Finish => ("s3:CompleteMultipartUpload", "s3:PutObject"),
            Verb::Abort => ("s3:AbortMultipartUpload", "s3:AbortMultipartUpload"),
            Verb::OpenUploads => ("s3:ListMultipartUploads", "s3:ListBucketMultipartUploads"),
            Verb::Read => ("s3:GetObject", "s3:GetObject"),
            Verb::List => ("s3:ListObjectsV2", "s3:ListBucket"),
            Verb::Remove => ("s3:DeleteObject", "s3:DeleteObject"),
        }
    }

    const fn folder_action(self) -> &'static str {
        match self {
            Verb::Find => "fs:find",
            Verb::Put => "fs:put",
            Verb::Begin => "fs:begin",
            Verb::PutPart => "fs:put_part",
            Verb::Parts => "fs:parts",
            Verb::Finish => "fs:finish",
            Verb::Abort => "fs:abort",
            Verb::OpenUploads => "fs:open_uploads",
            Verb::Read => "fs:read",
            Verb::List => "fs:list",
            Verb::Remove => "fs:remove",
        }
    }

    /// Whether the object may be there although no answer says so.
    const fn writes_object(self) -> bool {
        match self {
            Verb::Put | Verb::Finish => true,
            Verb::Find
            | Verb::Begin
            | Verb::PutPart
            | Verb::Parts
            | Verb::Abort
            | Verb::OpenUploads
            | Verb::Read
            | Verb::List
            | Verb::Remove => false,
        }
    }
}

/// A verb at a place, for the errors that it can end in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call<'a> {
    pub(super) destination: &'a DestinationName,
    /// The bucket, or the file in question.
    pub(super) place: &'a str,
    pub(super) verb: Verb,
}

/// The parts of an answer that say what went wrong.
#[derive(Debug, Default)]
struct Answer {
    status: Option<u16>,
    code: Option<String>,
    message: String,
    request_id: Option<String>,
    region: Option<String>,
}

impl Call<'_> {
    /// The one place where an error of the SDK becomes ours.
    pub(super) fn failed<E>(&self, error: &SdkError<E>) -> StoreError
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let answer = read_answer(error);
        let kind = if is_caused_by::<BrokenSource>(error) {
            StoreErrorKind::Source
        } else if is_caused_by::<CredentialsError>(error) {
            StoreErrorKind::Blocked
        } else if let Some(status) = answer.status {
            judge(self.verb, status, answer.code.as_deref())
        } else if matches!(error, SdkError::ConstructionFailure(_)) {
            // Nothing was sent: what the configuration says does not make a request.
            StoreErrorKind::Blocked
        } else {
            in_doubt(self.verb)
        };
        let hint = if is_of_certificate(error) {
            let what = "the certificate at its address is not one that this machine trusts: add its authority, or have \
                        SSL_CERT_FILE name a file with all that count";
            Some(what.to_owned())
        } else {
            self.hint(kind, &answer)
        };
        self.error(kind, self.verb.names().0, answer, hint)
    }

    /// No answer within the time that the verb has.
    pub(super) fn timed_out(&self, allowed: crate::units::Span) -> StoreError {
        self.unanswered(in_doubt(self.verb), format!("no answer within {allowed}"))
    }

    /// The store takes no more of the body: what it has is not whole, so nothing was written.
    pub(super) fn stalled(&self, waited: crate::units::Span) -> StoreError {
        let message = format!("it took no byte for {waited}");
        self.unanswered(StoreErrorKind::Transient, message)
    }

    /// The body gives no more.
    pub(super) fn starved(&self, waited: crate::units::Span) -> StoreError {
        let message = format!("the origin gave no byte for {waited}");
        self.unanswered(StoreErrorKind::Source, message)
    }

    /// An answer that makes no sense.
    pub(super) fn senseless(&self, message: &str) -> StoreError {
        self.unanswered(in_doubt(self.verb), message.to_owned())
    }

    /// An error of this kind, without an answer behind it.
    pub(super) fn unanswered(&self, kind: StoreErrorKind, message: String) -> StoreError {
        let answer = Answer {
            message,
            ..Answer::default()
        };
        self.error(kind, self.verb.names().0, answer, None)
    }

    /// The one place where an error of the file system becomes ours.
    pub(super) fn failed_at_file(&self, error: &io::Error) -> StoreError {
        self.refused_at_file(judge_file(self.verb, error.kind()), error.to_string())
    }

    /// The file system has not done it within `allowed`, and may still do it.
    pub(super) fn hung(&self, allowed: crate::units::Span) -> StoreError {
        let message =
            format!("no answer within {allowed}: its disk, or the server behind it, hangs");
        self.refused_at_file(in_doubt(self.verb), message)
    }

    /// An error of this kind at a folder.
    pub(super) fn refused_at_file(
        &self,
        kind: StoreErrorKind,
        message: impl Into<String>,
    ) -> StoreError {
        let answer = Answer {
            message: message.into(),
            ..Answer::default()
        };
        self.error(kind, self.verb.folder_action(), answer, None)
    }

    fn error(
        &self,
        kind: StoreErrorKind,
        action: &'static str,
        answer: Answer,
        hint: Option<String>,
    ) -> StoreError {
        StoreError(Box::new(StoreErrorDetails {
            kind,
            destination: self.destination.clone(),
            place: self.place.to_owned(),
            action,
            code: answer.code,
            status: answer.status,
            message: one_line(&answer.message),
            request_id: answer.request_id,
            hint,
        }))
    }

    /// What an operator can do, where it is known.
    fn hint(&self, kind: StoreErrorKind, answer: &Answer) -> Option<String> {
        if let Some(region) = &answer.region
            && kind == StoreErrorKind::Blocked
            && answer.status != Some(403)
        {
            let key = format!("destination.{}.s3.region", self.destination);
            return Some(format!("the bucket is in {region}: set {key} = {region:?}"));
        }
        let right = self.verb.names().1;
        match (answer.status, answer.code.as_deref()) {
            (_, Some("InvalidAccessKeyId" | "InvalidToken")) => {
                Some("the access key or its secret is wrong".to_owned())
            }
            (_, Some("SignatureDoesNotMatch")) => Some(
                "the access key or its secret is wrong, or a proxy before the store changes the Host or the path"
                    .to_owned(),
            ),
            (_, Some("QuotaExceeded" | "XMinioAdminBucketQuotaExceeded")) => {
                Some("free space there, or raise the quota".to_owned())
            }
            (Some(413), _) => Some(
                "a proxy before the store takes no body of this length: raise its limit (nginx: client_max_body_size), \
                 or lower transfer.part_size"
                    .to_owned(),
            ),
            (_, Some("InvalidObjectState")) => Some(
                "objects of an archive's storage_class cannot be read as they are: choose another, or transfer.verify.after = \"head\""
                    .to_owned(),
            ),
            (_, Some("ExpiredToken")) => Some("the credentials have run out".to_owned()),
            (_, Some("RequestTimeTooSkewed")) => Some("set this machine's clock".to_owned()),
            (_, Some("NoSuchBucket")) => {
                Some("create the bucket, or correct its name in the configuration".to_owned())
            }
            (Some(501), _) if self.verb.writes_object() => {
                Some("if the store does not know If-None-Match, set quirks = \"plain\"".to_owned())
            }
            (Some(400), Some("InvalidArgument" | "InvalidRequest")) if self.verb.writes_object() => {
                Some(
                    "does the store know the storage_class, the encryption and the tags? One that does not know \
                     If-None-Match wants quirks = \"plain\", a bucket with object lock checksum = \"crc64nvme\" or \"crc32\""
                        .to_owned(),
                )
            }
            (Some(400), Some("InvalidRequest")) if self.verb == Verb::PutPart => {
                Some("a bucket with object lock wants checksum = \"crc64nvme\" or \"crc32\"".to_owned())
            }
            // A HEAD's answer has no body that could name the cause: to those who may not list, this is what they get for
            // a key at which nothing stands.
            (Some(401 | 403), None) if self.verb == Verb::Find => Some(format!(
                "the key in use is wrong or lacks {right}, or kms:Decrypt where KMS encrypts the bucket"
            )),
            (Some(401 | 403), None) => Some(format!("the key in use is wrong or lacks {right}")),
            (Some(300..=400), None) if self.verb == Verb::Find => {
                Some("region, endpoint or key are wrong".to_owned())
            }
            (Some(401 | 403), Some("AccessDenied" | "AllAccessDisabled" | "Forbidden")) => {
                Some(format!("the key in use needs {right}"))
            }
            _ => None,
        }
    }
}

fn read_answer<E: ProvideErrorMetadata + Error + 'static>(error: &SdkError<E>) -> Answer {
    let Some(response) = error.raw_response() else {
        return Answer {
            message: innermost(error),
            ..Answer::default()
        };
    };
    let header = |name| response.headers().get(name).map(str::to_owned);
    let said = error.as_service_error().map(ProvideErrorMetadata::meta);
    Answer {
        status: Some(status_of(response)),
        code: said.and_then(|said| said.code()).map(one_line),
        message: match said {
            Some(said) => match said.message() {
                // A status of success, and no error in the body either: it is the answer that makes no sense.
                None if response.status().is_success() => {
                    format!("unreadable answer: {}", innermost(error))
                }
                message => message.unwrap_or_default().to_owned(),
            },
            None => format!("unreadable answer: {}", innermost(error)),
        },
        request_id: header("x-amz-request-id").or_else(|| header("cf-ray")),
        region: header("x-amz-bucket-region"),
    }
}

fn status_of(response: &HttpResponse) -> u16 {
    response.status().as_u16()
}

fn is_caused_by<Cause: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(<dyn Error>::is::<Cause>)
}

fn is_of_certificate(error: &(dyn Error + 'static)) -> bool {
    // An I/O error is no link of the chain to what it holds.
    let held = causes(error).filter_map(|cause| cause.downcast_ref::<io::Error>()?.get_ref());
    let mut of_tls = held.filter_map(|held| held.downcast_ref::<rustls::Error>());
    of_tls.any(|error| matches!(error, rustls::Error::InvalidCertificate(_)))
}

fn innermost(error: &(dyn Error + 'static)) -> String {
    causes(error)
        .last()
        .map(ToString::to_string)
        .unwrap_or_default()
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// Foreign text on one line, bounded.
fn one_line(text: &str) -> String {
    let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let cut: String = printable.take(MESSAGE_CHARACTERS_MAX).collect();
    cut.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_one_bounded_line() {
        assert_eq!(one_line(" a\r\nb\u{1b}[0m "), "a  b [0m");
        assert_eq!(one_line(&"x".repeat(9_999)).len(), MESSAGE_CHARACTERS_MAX);
    }
}
