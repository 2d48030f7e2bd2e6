//! Fault scripts as text: `stall=1,503=2,429=3@5s,slow=64KiB/s`.
//!
//! ```text
//! SPEC  = item "," item ...          dealt in this order, each kind of fault to its own kind of request
//! item  = WORD [ "=" TIMES ] [ "@" DETAIL ]
//! TIMES = a number from 1, or "all"; 1 if left out
//! ```
//!
//! `DETAIL` is what the word says it is: a size after which it happens (half of the body if left out), a span, a
//! status, a code, an address, a rate. Two words are no faults but hold for all files: `slow=RATE` is the bytes a second
//! that one connection gets, `at-once=NUMBER@STATUS` how many files are sent at once before others are refused.
//! [`WORDS`] says what each other word means.

use std::fmt;
use std::str::FromStr;

use crate::simulator::script::ApiFault;
use crate::simulator::script::AtOnce;
use crate::simulator::script::CallbackFault;
use crate::simulator::script::Cut;
use crate::simulator::script::Ending;
use crate::simulator::script::Fault;
use crate::simulator::script::FileFault;
use crate::simulator::script::Lie;
use crate::simulator::script::Manner;
use crate::simulator::script::Rule;
use crate::simulator::script::Script;
use crate::units::ByteSize;
use crate::units::Span;

/// One word of a script and what it means.
#[derive(Clone, Copy, Debug)]
pub struct Word {
    /// As it is written.
    pub name: &'static str,
    /// What it does, and what its detail is.
    pub meaning: &'static str,
    make: Make,
}

/// How a word makes its fault from its detail.
#[derive(Clone, Copy, Debug)]
enum Make {
    /// There is no detail.
    Plain(fn() -> Fault),
    /// The detail says where to cut.
    Cut(fn(Cut) -> FileFault),
    /// The detail is the word's own; `None` where it does not fit.
    Detailed(fn(Option<&str>) -> Option<Fault>),
}

/// Every word but `slow` and `at-once`, which are settings.
pub const WORDS: [Word; 49] = [
    cut(
        "stall",
        "file: headers and @SIZE bytes, then silence",
        FileFault::Stall,
    ),
    plain("hang", "file: no headers, silence", || {
        Fault::File(FileFault::Hang)
    }),
    plain("503", "file: 503", || Fault::File(FileFault::Unavailable)),
    cut(
        "truncate",
        "file: closed after @SIZE bytes, before Content-Length",
        FileFault::Truncate,
    ),
    cut(
        "short",
        "file: no length, closed after @SIZE bytes",
        FileFault::Short,
    ),
    cut(
        "short-chunks",
        "file: chunked, ended properly after @SIZE bytes",
        FileFault::ShortChunks,
    ),
    cut(
        "cut-chunks",
        "file: chunked, closed after @SIZE bytes",
        FileFault::CutChunks,
    ),
    cut(
        "crop",
        "file: only the first @SIZE bytes, as if that were all",
        FileFault::Crop,
    ),
    cut(
        "reset",
        "file: connection reset after @SIZE bytes",
        FileFault::Reset,
    ),
    Word {
        name: "trickle",
        meaning: "file: a byte every @SPAN (200ms)",
        make: Make::Detailed(|detail| {
            let span = or_default(detail, Span::from_millis(200))?;
            Some(Fault::File(FileFault::Trickle(span)))
        }),
    },
    plain("html", "file: an HTML page with 200", || {
        Fault::File(FileFault::Html)
    }),
    plain("empty", "file: 200 and no bytes", || {
        Fault::File(FileFault::Empty)
    }),
    plain("no-range", "file: 200 to a request for a range", || {
        Fault::File(FileFault::IgnoreRange)
    }),
    plain(
        "wrong-range",
        "file: 206 with another range than asked",
        || Fault::File(FileFault::WrongRange),
    ),
    cut(
        "change",
        "file: breaks off after @SIZE bytes, then has other bytes and ETag",
        FileFault::Change,
    ),
    Word {
        name: "dead",
        meaning: "file: the link is dead with @STATUS (403); the task has a fresh one",
        make: Make::Detailed(|detail| {
            let status = or_default(detail, 403)?;
            let is_known = matches!(status, 403 | 404 | 410);
            is_known.then_some(Fault::File(FileFault::Dead(status)))
        }),
    },
    plain("gzip", "file: gzipped unasked", || {
        Fault::File(FileFault::Gzip)
    }),
    Word {
        name: "redirect",
        meaning: "file: @NUMBER (1) of redirects before the file",
        make: Make::Detailed(|detail| {
            let hops = or_default(detail, 1)?;
            (1..=100)
                .contains(&hops)
                .then_some(Fault::File(FileFault::Redirect(hops)))
        }),
    },
    Word {
        name: "redirect-to",
        meaning: "file: a redirect to @URL",
        make: Make::Detailed(|detail| {
            Some(Fault::File(FileFault::RedirectTo(detail?.parse().ok()?)))
        }),
    },
    plain("endless", "file: bytes without end", || {
        Fault::File(FileFault::Endless)
    }),
    plain(
        "no-length",
        "file: the whole of it, without a length",
        || Fault::File(FileFault::NoLength),
    ),
    plain("weak-etag", "file: its ETag is a weak one", || {
        Fault::Manner(Manner::WeakEtag)
    }),
    plain("no-etag", "file: Last-Modified, but no ETag", || {
        Fault::Manner(Manner::NoEtag)
    }),
    plain("no-version", "file: neither ETag nor Last-Modified", || {
        Fault::Manner(Manner::NoVersion)
    }),
    plain(
        "no-ranges",
        "file: Accept-Ranges: none, and 200 to a request for a range",
        || Fault::Manner(Manner::NoRanges),
    ),
    plain("no-total", "file: Content-Range without a total", || {
        Fault::Manner(Manner::NoTotal)
    }),
    Word {
        name: "lying-total",
        meaning: "file: the total in Content-Range is @SIZE (1MiB) too long",
        make: Make::Detailed(|detail| {
            let size = or_default(detail, ByteSize::mib(1))?;
            Some(Fault::Manner(Manner::LyingTotal(size)))
        }),
    },
    plain(
        "part-unasked",
        "file: 206 with all of it to a request without a range",
        || Fault::Manner(Manner::PartUnasked),
    ),
    Word {
        name: "paced",
        meaning: "file: at most @RATE (64KiB/s) on one connection",
        make: Make::Detailed(|detail| {
            let rate = rate_of(detail.unwrap_or("64KiB/s"))?;
            Some(Fault::Manner(Manner::Paced(rate)))
        }),
    },
    Word {
        name: "429",
        meaning: "API: 429 with Retry-After of @SPAN (1s)",
        make: Make::Detailed(|detail| {
            let span = or_default(detail, Span::from_secs(1))?;
            Some(Fault::Api(ApiFault::TooMany(Some(span))))
        }),
    },
    plain("429-bare", "API: 429 without Retry-After", || {
        Fault::Api(ApiFault::TooMany(None))
    }),
    plain("500", "API: 500", || Fault::Api(ApiFault::Internal)),
    plain("401", "API: 401", || Fault::Api(ApiFault::Unauthorized)),
    plain("402", "API: 402 quota_exceeded", || {
        Fault::Api(ApiFault::PaymentRequired)
    }),
    plain("403", "API: 403", || Fault::Api(ApiFault::Forbidden)),
    plain(
        "404",
        "API: 404 task_not_found to a read of one task",
        || Fault::Api(ApiFault::NotFound),
    ),
    plain("api-html", "API: an HTML page with 200", || {
        Fault::Api(ApiFault::Html)
    }),
    plain("api-hang", "API: no answer", || Fault::Api(ApiFault::Hang)),
    plain(
        "no-results",
        "answer: completed, but without results",
        || Fault::Lie(Lie::NoResults),
    ),
    plain("unknown-status", "answer: a status nobody knows", || {
        Fault::Lie(Lie::UnknownStatus)
    }),
    plain("back", "answer: processing although completed", || {
        Fault::Lie(Lie::Back)
    }),
    plain("other-id", "answer: another task's ID", || {
        Fault::Lie(Lie::OtherId)
    }),
    plain("wrong-types", "answer: fields of wrong types", || {
        Fault::Lie(Lie::WrongTypes)
    }),
    Word {
        name: "huge",
        meaning: "answer: @SIZE (2MiB) too long",
        make: Make::Detailed(|detail| {
            Some(Fault::Lie(Lie::Huge(or_default(detail, ByteSize::mib(2))?)))
        }),
    },
    Word {
        name: "fail",
        meaning: "task: fails with @CODE (generation_failed_no_content)",
        make: Make::Detailed(|detail| {
            let code = detail.unwrap_or("generation_failed_no_content").to_owned();
            Some(Fault::Ending(Ending::Fails(code)))
        }),
    },
    plain("cancel", "task: is cancelled", || {
        Fault::Ending(Ending::Cancelled)
    }),
    plain(
        "cancel-as-failed",
        "task: fails with request_cancelled",
        || Fault::Ending(Ending::CancelledAsFailed),
    ),
    plain("lost-callback", "callback: never sent", || {
        Fault::Callback(CallbackFault::Lost)
    }),
    plain("twin-callback", "callback: sent twice", || {
        Fault::Callback(CallbackFault::Twin)
    }),
];

/// The setting for the rate.
const SLOW: &str = "slow";

/// The setting for the files at once.
const AT_ONCE: &str = "at-once";

/// A script that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
    /// A word that does not exist.
    #[error("no fault {word:?} in {item:?}: there are {}", Names)]
    Word {
        /// The word.
        word: String,
        /// Where it stands.
        item: String,
    },
    /// Not a number of times.
    #[error("{times:?} in {item:?} is not a number of times (1, 2, ... or all)")]
    Times {
        /// The text.
        times: String,
        /// Where it stands.
        item: String,
    },
    /// A detail that the word does not take.
    #[error("the detail in {item:?} does not fit {word:?} ({meaning})")]
    Detail {
        /// Where it stands.
        item: String,
        /// The word.
        word: &'static str,
        /// What the word means.
        meaning: &'static str,
    },
    /// Not a rate.
    #[error("{item:?} is not a rate such as \"slow=64KiB/s\"")]
    Rate {
        /// Where it stands.
        item: String,
    },
    /// Not a number of files, or a status that refuses nobody.
    #[error("{item:?} is not a number of files such as \"at-once=4\" or \"at-once=4@503\"")]
    AtOnce {
        /// Where it stands.
        item: String,
    },
}

/// All words, for the message that lists them.
struct Names;

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        WORDS
            .iter()
            .try_for_each(|word| write!(f, "{}, ", word.name))?;
        write!(f, "{SLOW}, {AT_ONCE}")
    }
}

impl FromStr for Script {
    type Err = ScriptError;

    fn from_str(text: &str) -> Result<Self, ScriptError> {
        let mut script = Script::default();
        let items = text.split(',').map(str::trim);
        for item in items.filter(|item| !item.is_empty()) {
            if let Some(rate) = item.strip_prefix(SLOW) {
                script.rate = Some(parse_rate(rate, item)?);
            } else if let Some(bound) = item.strip_prefix(AT_ONCE) {
                script.at_once = Some(parse_at_once(bound, item)?);
            } else {
                script.plant(parse_rule(item)?);
            }
        }
        Ok(script)
    }
}

fn parse_rule(item: &str) -> Result<Rule, ScriptError> {
    let (head, detail) = match item.split_once('@') {
        Some((head, detail)) => (head, Some(detail.trim())),
        None => (item, None),
    };
    let (name, times) = head.split_once('=').unwrap_or((head, "1"));
    let word = WORDS.iter().find(|word| word.name == name.trim());
    let word = word.ok_or_else(|| ScriptError::Word {
        word: name.trim().to_owned(),
        item: item.to_owned(),
    })?;
    let times = parse_times(times.trim()).ok_or_else(|| ScriptError::Times {
        times: times.to_owned(),
        item: item.to_owned(),
    })?;
    let fault = word.make.fault(detail).ok_or_else(|| ScriptError::Detail {
        item: item.to_owned(),
        word: word.name,
        meaning: word.meaning,
    })?;
    Ok(Rule::new(fault).times(times))
}

fn parse_times(text: &str) -> Option<u32> {
    if text == "all" {
        return Some(u32::MAX);
    }
    text.parse().ok().filter(|times| *times > 0)
}

fn parse_rate(text: &str, item: &str) -> Result<ByteSize, ScriptError> {
    let rate = text.trim().strip_prefix('=').and_then(rate_of);
    rate.ok_or_else(|| ScriptError::Rate {
        item: item.to_owned(),
    })
}

fn rate_of(text: &str) -> Option<ByteSize> {
    let size: ByteSize = text.strip_suffix("/s")?.parse().ok()?;
    Some(size).filter(|size| size.as_u64() > 0)
}

fn parse_at_once(text: &str, item: &str) -> Result<AtOnce, ScriptError> {
    let read = || {
        let text = text.trim().strip_prefix('=')?;
        let (most, status) = text.split_once('@').unwrap_or((text, "503"));
        let bound = AtOnce {
            most: most.trim().parse().ok()?,
            status: status.trim().parse().ok()?,
        };
        (bound.most > 0 && matches!(bound.status, 429 | 503)).then_some(bound)
    };
    read().ok_or_else(|| ScriptError::AtOnce {
        item: item.to_owned(),
    })
}

const fn plain(name: &'static str, meaning: &'static str, fault: fn() -> Fault) -> Word {
    let make = Make::Plain(fault);
    Word {
        name,
        meaning,
        make,
    }
}

const fn cut(name: &'static str, meaning: &'static str, fault: fn(Cut) -> FileFault) -> Word {
    let make = Make::Cut(fault);
    Word {
        name,
        meaning,
        make,
    }
}

impl Make {
    fn fault(self, detail: Option<&str>) -> Option<Fault> {
        match (self, detail) {
            (Make::Plain(fault), None) => Some(fault()),
            (Make::Plain(_), Some(_)) => None,
            (Make::Cut(fault), None) => Some(Fault::File(fault(None))),
            (Make::Cut(fault), Some(size)) => Some(Fault::File(fault(Some(size.parse().ok()?)))),
            (Make::Detailed(fault), detail) => fault(detail),
        }
    }
}

/// `None` when there is a detail that cannot be read.
fn or_default<T: FromStr>(detail: Option<&str>, default: T) -> Option<T> {
    match detail {
        Some(text) => text.parse().ok(),
        None => Some(default),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(spec: &str, rules: &[Rule]) {
        let mut script = Script::default();
        for rule in rules {
            script.plant(rule.clone());
        }
        assert_eq!(spec.parse(), Ok(script));
    }

    #[track_caller]
    fn check_error(spec: &str, part: &str) {
        let error = spec.parse::<Script>().expect_err(spec).to_string();
        assert!(error.contains(part), "{error}");
    }

    #[test]
    fn words_with_times_and_details() {
        check("", &[]);
        check("stall=1", &[Rule::file(FileFault::Stall(None))]);
        let after = Some(ByteSize::mib(3));
        check("stall@3MiB", &[Rule::file(FileFault::Stall(after))]);
        check(
            " 503=2 , 429=3@5s",
            &[
                Rule::file(FileFault::Unavailable).times(2),
                Rule::api(ApiFault::TooMany(Some(Span::from_secs(5)))).times(3),
            ],
        );
        check("html=all", &[Rule::file(FileFault::Html).times(u32::MAX)]);
        check(
            "paced=all@1MiB/s",
            &[Rule::manner(Manner::Paced(ByteSize::mib(1)))],
        );
        check("dead@410", &[Rule::file(FileFault::Dead(410))]);
        let fails = Ending::Fails("resource_exhausted".to_owned());
        check(
            "fail=1@resource_exhausted",
            &[Rule::new(Fault::Ending(fails))],
        );
        let address = "http://10.0.0.1/x".parse().unwrap();
        check(
            "redirect-to=1@http://10.0.0.1/x",
            &[Rule::file(FileFault::RedirectTo(address))],
        );
    }

    #[test]
    fn slow_is_a_rate_and_no_rule() {
        let script: Script = "slow=64KiB/s".parse().unwrap();
        assert_eq!(script.rate, Some(ByteSize::bytes(64 << 10)));
        assert!(script.is_spent());
    }

    #[test]
    fn at_once_is_a_bound_and_no_rule() {
        let script: Script = "at-once=4@429".parse().unwrap();
        let (most, status) = (4, 429);
        assert_eq!(script.at_once, Some(AtOnce { most, status }));
        assert!(script.is_spent());
        check_error("at-once", "at-once=4@503");
        check_error("at-once=0", "\"at-once=0\"");
        check_error("at-once=4@200", "\"at-once=4@200\"");
    }

    #[test]
    fn errors_name_the_item_and_what_there_is() {
        check_error(
            "stall,flub=2",
            "\"flub\" in \"flub=2\": there are stall, hang,",
        );
        check_error("flub", "slow");
        check_error("stall=none", "\"none\"");
        check_error("stall=0", "number of times");
        check_error("stall@many", "\"stall@many\"");
        check_error("html@1MiB", "an HTML page");
        check_error("dead@500", "\"dead@500\"");
        check_error("redirect-to", "@URL");
        check_error("slow=fast", "64KiB/s");
        check_error("slow=0B/s", "64KiB/s");
        check_error("paced@slowly", "@RATE");
    }

    #[test]
    fn every_word_is_told_once_and_works_alone() {
        for (at, word) in WORDS.iter().enumerate() {
            assert!(
                WORDS
                    .iter()
                    .skip(at + 1)
                    .all(|other| other.name != word.name)
            );
            if word.name != "redirect-to" {
                let script: Script = word.name.parse().unwrap();
                assert!(!script.is_spent(), "{}", word.name);
            }
        }
    }
}
