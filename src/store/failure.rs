//! Why a store did not do what it was asked: one error, whose kind says what to do about it.
//!
//! Status codes, error codes and I/O errors are read here and nowhere else in the room.

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

/// A store's own words beyond this are cut: they end in a row and a log field.
const MESSAGE_CHARACTERS_MAX: usize = 300;

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
        write!(f, "{} on {}", self.action, self.place)?;
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
        let hint = if is_of_unknown_authority(error) {
            let what = "its certificate is of an authority that is none of this machine's: add that, or have \
                        SSL_CERT_FILE name a file with it";
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
            (_, Some("InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken")) => {
                Some("the access key or its secret is wrong".to_owned())
            }
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
                    "a store that does not know If-None-Match wants quirks = \"plain\", a bucket with object lock \
                     checksum = \"crc32\" or \"crc64nvme\""
                        .to_owned(),
                )
            }
            (Some(400), Some("InvalidRequest")) if self.verb == Verb::PutPart => {
                Some("a bucket with object lock wants checksum = \"crc32\" or \"crc64nvme\"".to_owned())
            }
            // A HEAD's answer has no body that could name the cause: to those who may not list, this is what they get for
            // a key at which nothing stands.
            (Some(401 | 403), None) => Some(format!(
                "the key in use is wrong or lacks {right}; `reelvault check` tells which"
            )),
            (Some(300..=400), None) if self.verb == Verb::Find => {
                Some("region, endpoint or key are wrong; `reelvault check` tells which".to_owned())
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

/// Codes that mean the same whatever was asked, and whatever status they come with.
const CODES: &[(&str, StoreErrorKind)] = &[
    ("AccessDenied", StoreErrorKind::Blocked),
    ("AccountProblem", StoreErrorKind::Blocked),
    ("AllAccessDisabled", StoreErrorKind::Blocked),
    ("AuthorizationHeaderMalformed", StoreErrorKind::Blocked),
    ("ConditionalRequestConflict", StoreErrorKind::Conflict),
    ("EntityTooLarge", StoreErrorKind::Rejected),
    ("EntityTooSmall", StoreErrorKind::Rejected),
    ("ExpiredToken", StoreErrorKind::Blocked),
    (
        "IllegalLocationConstraintException",
        StoreErrorKind::Blocked,
    ),
    ("IncompleteBody", StoreErrorKind::Transient),
    ("InternalError", StoreErrorKind::Transient),
    ("InvalidAccessKeyId", StoreErrorKind::Blocked),
    ("InvalidBucketName", StoreErrorKind::Blocked),
    ("InvalidEncryptionAlgorithmError", StoreErrorKind::Blocked),
    ("InvalidSecurity", StoreErrorKind::Blocked),
    ("InvalidStorageClass", StoreErrorKind::Blocked),
    ("InvalidTag", StoreErrorKind::Blocked),
    ("InvalidToken", StoreErrorKind::Blocked),
    ("KeyTooLongError", StoreErrorKind::Rejected),
    ("NoSuchBucket", StoreErrorKind::Blocked),
    ("NoSuchUpload", StoreErrorKind::UploadGone),
    ("NotSignedUp", StoreErrorKind::Blocked),
    ("OperationAborted", StoreErrorKind::Transient),
    ("PermanentRedirect", StoreErrorKind::Blocked),
    ("PreconditionFailed", StoreErrorKind::Exists),
    ("QuotaExceeded", StoreErrorKind::Blocked),
    ("RequestTimeTooSkewed", StoreErrorKind::Blocked),
    ("RequestTimeout", StoreErrorKind::Transient),
    ("ServiceUnavailable", StoreErrorKind::Transient),
    ("SignatureDoesNotMatch", StoreErrorKind::Blocked),
    ("SlowDown", StoreErrorKind::Transient),
    ("TokenRefreshRequired", StoreErrorKind::Blocked),
    ("TooManyRequests", StoreErrorKind::Transient),
    ("XMinioStorageFull", StoreErrorKind::Blocked),
];

/// Codes that say that what arrived is not what was sent: the same bytes again may do.
const MANGLED: &[&str] = &[
    "BadDigest",
    "InvalidDigest",
    "XAmzContentChecksumMismatch",
    "XAmzContentSHA256Mismatch",
];

/// Codes that say that the parts, though all acknowledged, make no object.
const PARTS_UNFIT: &[&str] = &["InvalidPart", "InvalidPartOrder"];

/// What an answer means.
fn judge(verb: Verb, status: u16, code: Option<&str>) -> StoreErrorKind {
    let code = code.unwrap_or_default();
    let known = CODES.iter().find(|(known, _)| *known == code);
    let kind = match known {
        Some((_, kind)) => *kind,
        None if code.starts_with("KMS.") => StoreErrorKind::Blocked,
        None if MANGLED.contains(&code) && verb != Verb::Finish => StoreErrorKind::Transient,
        None if MANGLED.contains(&code) || PARTS_UNFIT.contains(&code) => StoreErrorKind::Conflict,
        None => judge_status(verb, status),
    };
    match kind {
        // A refusal that came with a status of success, or none at all, is not final.
        StoreErrorKind::Transient | StoreErrorKind::Blocked | StoreErrorKind::Rejected
            if verb.writes_object() && !is_refusal(status) =>
        {
            StoreErrorKind::Ambiguous
        }
        StoreErrorKind::Transient
        | StoreErrorKind::Blocked
        | StoreErrorKind::Exists
        | StoreErrorKind::Conflict
        | StoreErrorKind::UploadGone
        | StoreErrorKind::Ambiguous
        | StoreErrorKind::Rejected
        | StoreErrorKind::Source => kind,
    }
}

/// Whether a status says for certain that nothing was done.
fn is_refusal(status: u16) -> bool {
    matches!(status, 300..=498 | 501 | 507)
        // 408 and 499 are a middleman's: the store behind it may have gone on.
        && status != 408
}

fn judge_status(verb: Verb, status: u16) -> StoreErrorKind {
    match (status, verb) {
        (412, _) => StoreErrorKind::Exists,
        (409, Verb::Put | Verb::Finish) => StoreErrorKind::Conflict,
        (404, Verb::PutPart | Verb::Parts | Verb::Finish | Verb::Abort) => {
            StoreErrorKind::UploadGone
        }
        // Where nothing but a bucket is needed, it is the bucket that is missing. HEAD has no body, hence no code:
        // 400 is an expired token or a wrong region there.
        (300..=399 | 401 | 402 | 403 | 507, _)
        | (404, Verb::Put | Verb::Begin)
        | (400, Verb::Find) => StoreErrorKind::Blocked,
        (501, _) => StoreErrorKind::Rejected,
        (408 | 409 | 429 | 499 | 500..=599 | ..=299, _) => StoreErrorKind::Transient,
        _ => StoreErrorKind::Rejected,
    }
}

/// What no answer means.
fn in_doubt(verb: Verb) -> StoreErrorKind {
    if verb.writes_object() {
        StoreErrorKind::Ambiguous
    } else {
        StoreErrorKind::Transient
    }
}

/// What an error of the file system means.
fn judge_file(verb: Verb, error: io::ErrorKind) -> StoreErrorKind {
    match (error, verb) {
        (io::ErrorKind::AlreadyExists, Verb::Finish) => StoreErrorKind::Exists,
        (io::ErrorKind::NotFound, Verb::PutPart | Verb::Parts | Verb::Finish | Verb::Abort) => {
            StoreErrorKind::UploadGone
        }
        (
            io::ErrorKind::NotADirectory
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::InvalidFilename
            | io::ErrorKind::FileTooLarge,
            _,
        ) => StoreErrorKind::Rejected,
        (
            io::ErrorKind::NotFound
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::Unsupported
            | io::ErrorKind::CrossesDevices,
            _,
        ) => StoreErrorKind::Blocked,
        _ => StoreErrorKind::Transient,
    }
}

fn is_caused_by<Cause: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(<dyn Error>::is::<Cause>)
}

fn is_of_unknown_authority(error: &(dyn Error + 'static)) -> bool {
    // An I/O error is no link of the chain to what it holds.
    let held = causes(error).filter_map(|cause| cause.downcast_ref::<io::Error>()?.get_ref());
    let mut of_tls = held.filter_map(|held| held.downcast_ref::<rustls::Error>());
    of_tls.any(|error| {
        let unknown = rustls::CertificateError::UnknownIssuer;
        *error == rustls::Error::InvalidCertificate(unknown)
    })
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

    use StoreErrorKind::*;

    #[track_caller]
    fn check(verb: Verb, status: u16, code: &str, kind: StoreErrorKind) {
        let code = (!code.is_empty()).then_some(code);
        assert_eq!(
            judge(verb, status, code),
            kind,
            "{verb:?} {status} {code:?}"
        );
    }

    #[test]
    fn what_passes_by_itself_is_in_doubt_where_an_object_may_have_been_written() {
        for (status, code) in [
            (500, "InternalError"),
            (502, ""),
            (503, "SlowDown"),
            (503, "ServiceUnavailable"),
            (504, ""),
            (499, ""),
            (408, ""),
            (200, "InternalError"),
            (200, ""),
        ] {
            check(Verb::PutPart, status, code, Transient);
            check(Verb::Begin, status, code, Transient);
            check(Verb::Find, status, code, Transient);
            check(Verb::Put, status, code, Ambiguous);
            check(Verb::Finish, status, code, Ambiguous);
        }
        // A final 4xx leaves no doubt.
        check(Verb::Put, 429, "TooManyRequests", Transient);
        check(Verb::Put, 400, "RequestTimeout", Transient);
        check(Verb::PutPart, 400, "RequestTimeout", Transient);
        check(Verb::PutPart, 400, "IncompleteBody", Transient);
        // A refusal inside a success is none.
        check(Verb::Finish, 200, "AccessDenied", Ambiguous);
    }

    #[test]
    fn what_somebody_must_act_on_blocks() {
        for (status, code) in [
            (403, "AccessDenied"),
            (403, ""),
            (401, ""),
            (403, "InvalidAccessKeyId"),
            (403, "SignatureDoesNotMatch"),
            (403, "RequestTimeTooSkewed"),
            (400, "ExpiredToken"),
            (404, "NoSuchBucket"),
            (301, "PermanentRedirect"),
            (400, "AuthorizationHeaderMalformed"),
            (400, "KMS.NotFoundException"),
            (400, "InvalidStorageClass"),
            (507, "XMinioStorageFull"),
            (507, ""),
            (402, ""),
            (403, "QuotaExceeded"),
        ] {
            for verb in [
                Verb::Put,
                Verb::Finish,
                Verb::PutPart,
                Verb::Begin,
                Verb::Read,
            ] {
                check(verb, status, code, Blocked);
            }
        }
        check(Verb::Find, 400, "", Blocked);
        check(Verb::Find, 301, "", Blocked);
        check(Verb::Begin, 404, "", Blocked);
    }

    #[test]
    fn conditions_conflicts_and_lost_uploads() {
        check(Verb::Put, 412, "PreconditionFailed", Exists);
        check(Verb::Finish, 412, "", Exists);
        check(Verb::Finish, 200, "PreconditionFailed", Exists);
        check(Verb::Finish, 409, "ConditionalRequestConflict", Conflict);
        check(Verb::Put, 409, "", Conflict);
        check(Verb::Finish, 409, "OperationAborted", Transient);
        check(Verb::Finish, 400, "InvalidPart", Conflict);
        check(Verb::Finish, 400, "BadDigest", Conflict);
        check(Verb::PutPart, 400, "BadDigest", Transient);
        check(Verb::Put, 400, "XAmzContentSHA256Mismatch", Transient);
        for verb in [Verb::PutPart, Verb::Parts, Verb::Finish, Verb::Abort] {
            check(verb, 404, "NoSuchUpload", UploadGone);
            check(verb, 404, "NotFound", UploadGone);
        }
    }

    #[test]
    fn what_never_works_is_rejected() {
        check(Verb::Put, 400, "KeyTooLongError", Rejected);
        check(Verb::Put, 400, "EntityTooLarge", Rejected);
        check(Verb::Finish, 400, "EntityTooSmall", Rejected);
        check(Verb::Put, 501, "NotImplemented", Rejected);
        check(Verb::Finish, 501, "", Rejected);
        check(Verb::Put, 405, "MethodNotAllowed", Rejected);
        check(Verb::PutPart, 400, "InvalidArgument", Rejected);
        check(Verb::Read, 404, "NoSuchKey", Rejected);
    }

    #[test]
    fn files() {
        let check = |verb, error, kind| assert_eq!(judge_file(verb, error), kind, "{error:?}");
        check(Verb::Finish, io::ErrorKind::AlreadyExists, Exists);
        check(Verb::PutPart, io::ErrorKind::NotFound, UploadGone);
        check(Verb::Begin, io::ErrorKind::NotFound, Blocked);
        check(Verb::PutPart, io::ErrorKind::StorageFull, Blocked);
        check(Verb::Begin, io::ErrorKind::PermissionDenied, Blocked);
        check(Verb::Begin, io::ErrorKind::NotADirectory, Rejected);
        check(Verb::PutPart, io::ErrorKind::Interrupted, Transient);
    }

    #[test]
    fn foreign_text_is_one_bounded_line() {
        assert_eq!(one_line(" a\r\nb\u{1b}[0m "), "a  b [0m");
        assert_eq!(one_line(&"x".repeat(9_999)).len(), MESSAGE_CHARACTERS_MAX);
    }
}
