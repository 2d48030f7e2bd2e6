//! Faults by script: which request is hit, and what happens to it.

use std::fmt;
use std::sync::Mutex;
use std::sync::PoisonError;

use http::Method;
use http::Uri;
use percent_encoding::percent_decode_str;

use crate::units::ByteSize;
use crate::units::Span;

/// What a request asks of the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// Writes an object at once.
    PutObject,
    /// Reads an object, or a range of it.
    GetObject,
    /// Asks about an object.
    HeadObject,
    /// Deletes an object.
    DeleteObject,
    /// Opens a multipart upload.
    CreateMultipartUpload,
    /// Writes a part.
    UploadPart,
    /// Lists the parts of an upload.
    ListParts,
    /// Makes an object of an upload's parts.
    CompleteMultipartUpload,
    /// Ends an upload without an object.
    AbortMultipartUpload,
    /// Lists the open uploads.
    ListMultipartUploads,
    /// Lists the objects.
    ListObjects,
    /// Makes a bucket.
    CreateBucket,
    /// Asks whether there is such a bucket.
    HeadBucket,
    /// Anything else.
    Other,
}

/// What happens to a request that a fault hits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The body is read, nothing is done, and the answer is this error.
    Answer(u16, &'static str),
    /// The connection breaks after so many bytes of the body, and nothing is done.
    Break(u64),
    /// After so many bytes of the body nothing moves any more, until the peer or the bucket goes away.
    Hang(u64),
    /// Nothing is done, and the answer is 200 with an error in its body.
    ErrorIn200,
    /// All is done, and the connection breaks in place of the answer.
    LoseAnswer,
    /// All is done, and the answer is this error nevertheless.
    DoneButAnswer(u16, &'static str),
    /// All is done, later.
    Delay(Span),
    /// After so many bytes of the body the answer is this error, with the rest unread.
    AnswerEarly(u64, u16, &'static str),
    /// The body is read no faster than so many bytes a second; all is done in the end.
    ReadSlowly(ByteSize),
    /// A bit of the body turns on its way in, before the store looks at it.
    Flip,
    /// All is done, and then the store's copy of the object goes bad.
    Damage,
    /// All is done, and the answer has this status and this body.
    DoneButSay(u16, &'static str),
    /// All is done, and in the answer's body each of the first is the second.
    Edit(&'static str, &'static str),
    /// All is done, and the answer, if it is no error, tells this length.
    TellLength(u64),
    /// As `Answer`, with the region that the bucket is said to be in.
    Elsewhere(u16, &'static str, &'static str),
}

impl Effect {
    /// Too many requests, says the store.
    pub const SLOW_DOWN: Effect = Effect::Answer(503, "SlowDown");
    /// The store's own fault.
    pub const INTERNAL_ERROR: Effect = Effect::Answer(500, "InternalError");
    /// The key pair may not do this.
    pub const ACCESS_DENIED: Effect = Effect::Answer(403, "AccessDenied");
    /// The upload was completed, aborted, or never there.
    pub const NO_SUCH_UPLOAD: Effect = Effect::Answer(404, "NoSuchUpload");
    /// The key exists already.
    pub const PRECONDITION_FAILED: Effect = Effect::Answer(412, "PreconditionFailed");
    /// Another conditional write of the key is under way.
    pub const CONFLICT: Effect = Effect::Answer(409, "ConditionalRequestConflict");
}

/// A fault in waiting.
#[derive(Clone, Debug)]
pub struct Fault {
    operation: Operation,
    key: String,
    first: u32,
    times: u32,
    effect: Effect,
}

impl Fault {
    /// Hits the next request for `operation`, once.
    pub fn new(operation: Operation, effect: Effect) -> Self {
        Self {
            operation,
            key: String::new(),
            first: 1,
            times: 1,
            effect,
        }
    }

    /// Hits only requests with `part` in their key.
    #[must_use]
    pub fn on_key(mut self, part: &str) -> Self {
        part.clone_into(&mut self.key);
        self
    }

    /// Lets pass as many requests as come before the one numbered `first`, from 1.
    #[must_use]
    pub fn from(mut self, first: u32) -> Self {
        self.first = first;
        self
    }

    /// Hits so many requests, one after the other.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = times;
        self
    }
}

/// The faults that are planted, oldest first.
#[derive(Debug, Default)]
pub(super) struct Script(Mutex<Vec<Planted>>);

#[derive(Debug)]
struct Planted {
    fault: Fault,
    seen: u32,
}

impl Script {
    /// Adds a fault behind those that wait.
    pub(super) fn plant(&self, fault: Fault) {
        self.with(|planted| planted.push(Planted { fault, seen: 0 }));
    }

    /// Forgets all faults.
    pub(super) fn clear(&self) {
        self.with(Vec::clear);
    }

    /// How many faults have hits left.
    pub(super) fn waiting(&self) -> usize {
        self.with(|planted| planted.len())
    }

    /// What happens to this request: the oldest fault that is ripe hits it, the others only count it.
    pub(super) fn meet(&self, operation: Operation, key: &str) -> Option<Effect> {
        self.with(|planted| {
            let mut effect = None;
            for candidate in planted.iter_mut() {
                let ripe = candidate.count(operation, key);
                if ripe && effect.is_none() {
                    candidate.fault.times = candidate.fault.times.saturating_sub(1);
                    effect = Some(candidate.fault.effect.clone());
                }
            }
            planted.retain(|candidate| candidate.fault.times > 0);
            effect
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Vec<Planted>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Planted {
    /// Counts the request if it is one of those meant, and says whether the fault may hit it.
    fn count(&mut self, operation: Operation, key: &str) -> bool {
        let meant = operation == self.fault.operation && key.contains(&self.fault.key);
        if meant {
            self.seen += 1;
        }
        meant && self.seen >= self.fault.first
    }
}

impl Operation {
    /// What a request asks, and the key that it names, which is empty where it names none.
    pub(super) fn of(method: &Method, uri: &Uri) -> (Self, String) {
        let path = uri.path().trim_start_matches('/');
        let key = path.split_once('/').map_or("", |(_, key)| key);
        let key = percent_decode_str(key).decode_utf8_lossy().into_owned();
        let query = uri.query().unwrap_or("");
        let has = |name: &str| {
            let mut names = query.split('&').map(|pair| pair.split('=').next());
            names.any(|found| found == Some(name))
        };
        let operation = if key.is_empty() {
            Self::of_bucket(method, has("uploads"), has("list-type"))
        } else {
            Self::of_object(method, has("uploads"), has("uploadId"))
        };
        (operation, key)
    }

    fn of_bucket(method: &Method, uploads: bool, list: bool) -> Self {
        match *method {
            Method::GET if uploads => Operation::ListMultipartUploads,
            Method::GET if list => Operation::ListObjects,
            Method::PUT => Operation::CreateBucket,
            Method::HEAD => Operation::HeadBucket,
            _ => Operation::Other,
        }
    }

    fn of_object(method: &Method, uploads: bool, upload_id: bool) -> Self {
        match *method {
            Method::GET if upload_id => Operation::ListParts,
            Method::GET => Operation::GetObject,
            Method::HEAD => Operation::HeadObject,
            Method::PUT if upload_id => Operation::UploadPart,
            Method::PUT => Operation::PutObject,
            Method::POST if uploads => Operation::CreateMultipartUpload,
            Method::POST if upload_id => Operation::CompleteMultipartUpload,
            Method::DELETE if upload_id => Operation::AbortMultipartUpload,
            Method::DELETE => Operation::DeleteObject,
            _ => Operation::Other,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, operation: Operation, key: &str) {
        let (method, uri) = line.split_once(' ').unwrap();
        let found = Operation::of(&method.parse().unwrap(), &uri.parse().unwrap());
        assert_eq!(found, (operation, key.to_owned()), "{line}");
    }

    #[test]
    fn operations_are_told_by_method_path_and_query() {
        use Operation::*;

        check("PUT /b", CreateBucket, "");
        check("HEAD /b/", HeadBucket, "");
        check("GET /b?list-type=2&prefix=a", ListObjects, "");
        check("GET /b?uploads", ListMultipartUploads, "");
        check("GET /b", Other, "");
        check("PUT /b/a/b%20c?x-id=PutObject", PutObject, "a/b c");
        check("PUT /b/k?partNumber=1&uploadId=u", UploadPart, "k");
        check("POST /b/k?uploads", CreateMultipartUpload, "k");
        check("POST /b/k?uploadId=u", CompleteMultipartUpload, "k");
        check("DELETE /b/k?uploadId=u", AbortMultipartUpload, "k");
        check("DELETE /b/k", DeleteObject, "k");
        check("GET /b/k?uploadId=u", ListParts, "k");
        check("GET /b/k?x-id=GetObject", GetObject, "k");
        check("HEAD /b/k", HeadObject, "k");
    }

    #[test]
    fn a_fault_hits_the_numbered_requests_for_its_key_and_then_is_gone() {
        let script = Script::default();
        let fault = Fault::new(Operation::UploadPart, Effect::SLOW_DOWN);
        script.plant(fault.on_key("clip").from(2).times(2));
        let meet = |key| script.meet(Operation::UploadPart, key).is_some();
        assert!(!meet("other"));
        assert!(!meet("a/clip.mp4"));
        assert_eq!(script.meet(Operation::PutObject, "a/clip.mp4"), None);
        assert!(meet("a/clip.mp4"));
        assert_eq!(script.waiting(), 1);
        assert!(meet("clip"));
        assert_eq!(script.waiting(), 0);
        assert!(!meet("clip"));
    }

    #[test]
    fn faults_on_one_operation_hit_one_request_each() {
        let script = Script::default();
        for effect in [Effect::SLOW_DOWN, Effect::LoseAnswer] {
            script.plant(Fault::new(Operation::PutObject, effect));
        }
        let met = [(); 3].map(|()| script.meet(Operation::PutObject, "k"));
        assert_eq!(
            met,
            [Some(Effect::SLOW_DOWN), Some(Effect::LoseAnswer), None]
        );
    }
}
