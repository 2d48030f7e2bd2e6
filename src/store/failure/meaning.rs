//! What the answer of a store, or none, or an error of the file system means: status and code against the verb.

use std::io;

use crate::store::StoreErrorKind;
use crate::store::failure::Verb;

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
    // Of one that cannot be read, which says nothing of others that are written.
    ("InvalidObjectState", StoreErrorKind::Rejected),
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
    ("XMinioAdminBucketQuotaExceeded", StoreErrorKind::Blocked),
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
pub(super) fn judge(verb: Verb, status: u16, code: Option<&str>) -> StoreErrorKind {
    let code = code.unwrap_or_default();
    let known = CODES.iter().find(|(known, _)| *known == code);
    let kind = match known {
        Some((_, kind)) => *kind,
        None if code.starts_with("KMS.") => StoreErrorKind::Blocked,
        None if MANGLED.contains(&code) && verb != Verb::Finish => StoreErrorKind::Transient,
        None if MANGLED.contains(&code) || PARTS_UNFIT.contains(&code) => StoreErrorKind::Conflict,
        None => judge_status(verb, status),
    };
    let is_no = matches!(
        kind,
        StoreErrorKind::Transient | StoreErrorKind::Blocked | StoreErrorKind::Rejected
    );
    if is_no && verb.writes_object() && !is_refusal(status) {
        // A refusal that came with a status of success, or none at all, is not final.
        StoreErrorKind::Ambiguous
    } else {
        kind
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
pub(super) fn in_doubt(verb: Verb) -> StoreErrorKind {
    if verb.writes_object() {
        StoreErrorKind::Ambiguous
    } else {
        StoreErrorKind::Transient
    }
}

/// What an error of the file system means.
pub(super) fn judge_file(verb: Verb, error: io::ErrorKind) -> StoreErrorKind {
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
            (400, "XMinioAdminBucketQuotaExceeded"),
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
        check(Verb::Read, 403, "InvalidObjectState", Rejected);
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
}
