//! What a description reads out of an answer, and where from: for whoever writes or mends one.

use std::fmt;

use http::StatusCode;
use serde::Serialize;
use serde_json::Value;

use crate::clock::Timestamp;
use crate::model::deadline;
use crate::model::task::Progress;
use crate::model::task::Sighting;
use crate::model::task::TaskId;
use crate::model::task::is_fetchable;
use crate::provider::answer::Amiss;
use crate::provider::answer::FoundLink;
use crate::provider::answer::Reader;
use crate::provider::answer::text;
use crate::provider::description::Description;
use crate::provider::description::status::TimeField;
use crate::provider::error::meaning;
use crate::provider::pointer::Pointer;
use crate::telemetry::redact;
use crate::units::Span;

/// What was read out of one answer.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// What it says: `pending`, `running`, `completed`, `failed`, `cancelled`, or the kind of error.
    pub outcome: String,
    /// What was read, in the order of a record.
    pub read: Vec<Fact>,
    /// The links.
    pub links: Vec<LinkFact>,
    /// The keys of the description whose pointers found nothing.
    pub nothing_at: Vec<Missing>,
    /// What to look at.
    pub notes: Vec<String>,
}

/// One thing that was read.
#[derive(Clone, Debug, Serialize)]
pub struct Fact {
    /// What it is.
    pub what: &'static str,
    /// What was read.
    pub value: String,
    /// The pointer, or how it was worked out.
    pub from: String,
}

/// One link that was found.
#[derive(Clone, Debug, Serialize)]
pub struct LinkFact {
    /// Without what signs it.
    pub url: String,
    /// What it leads to.
    pub role: &'static str,
    /// The pointer, or the key of the description that makes the link.
    pub from: String,
    /// When it must be taken as dead.
    pub deadline: Timestamp,
    /// How that is known.
    pub deadline_from: &'static str,
}

/// A pointer that found nothing.
#[derive(Clone, Debug, Serialize)]
pub struct Missing {
    /// Its key in the description.
    pub key: &'static str,
    /// The pointer.
    pub pointer: String,
}

impl Explanation {
    /// Reads `answer`, which came with `status`, through `description`, as seen at `now`. A task is taken for the one
    /// that was asked about.
    pub fn new(
        description: &Description,
        status: StatusCode,
        answer: &Value,
        default_ttl: Span,
        now: Timestamp,
    ) -> Self {
        let base_url = description.base_url.as_str().trim_end_matches('/');
        let reader = Reader {
            description,
            base_url,
            key: None,
            now,
        };
        let mut told = Self {
            outcome: String::new(),
            read: Vec::new(),
            links: Vec::new(),
            nothing_at: Vec::new(),
            notes: Vec::new(),
        };
        if !status.is_success() || reader.is_error(answer) {
            told.error(&reader, status, answer);
        } else {
            told.task(&reader, answer, default_ttl);
        }
        told
    }

    fn error(&mut self, reader: &Reader<'_>, status: StatusCode, answer: &Value) {
        let words = reader.words(answer);
        let errors = &reader.description.status.error;
        let means = meaning(errors, status, words.code.as_deref(), false);
        means.as_str().clone_into(&mut self.outcome);
        let by = format!("status {}, status.error", status.as_u16());
        self.fact("error code", words.code, || by.clone());
        self.fact("error message", words.message, || by.clone());
        if status.is_success()
            && let Some(pointer) = reader.description.status.ok.pointer()
        {
            self.notes.push(format!(
                "status.ok does not find at {pointer} what a good answer has there"
            ));
        }
        for pointer in errors.code.iter().filter(|it| it.at(answer).is_none()) {
            self.nothing("status.error.code", pointer);
        }
        for pointer in errors.message.iter().filter(|it| it.at(answer).is_none()) {
            self.nothing("status.error.message", pointer);
        }
    }

    fn task(&mut self, reader: &Reader<'_>, answer: &Value, default_ttl: Span) {
        let read = reader.task(answer).and_then(|task| {
            let id = reader.id(&task).unwrap_or_else(|| "ID".to_owned());
            let id = named(reader.description, &id)
                .ok_or_else(|| Amiss::Senseless(format!("{id:?} is no task ID")))?;
            let names = reader.description.id.split(&id).map_err(Amiss::Senseless)?;
            let sighting = reader.sighting_of(&task, &names)?;
            let own = reader.own_link(&names, sighting.kind.as_deref())?;
            Ok((task, sighting, own))
        });
        let (task, sighting, own) = match read {
            Ok(read) => read,
            Err(Amiss::Gone(what)) => {
                "no_such_task".clone_into(&mut self.outcome);
                self.notes.push(what);
                return;
            }
            Err(Amiss::Senseless(what)) => {
                "garbled".clone_into(&mut self.outcome);
                self.notes.push(what);
                self.result(reader, answer, default_ttl);
                return;
            }
        };
        self.outcome = sighting.progress.to_string();
        self.state(reader, &task, &sighting);
        self.times(reader, &task, &sighting);
        if sighting.progress != Progress::Completed {
            return;
        }
        let ttl = reader.description.results.ttl.unwrap_or(default_ttl);
        let known = deadline::Known {
            expires: sighting.expires,
            signature: None,
            completed: sighting.completed,
            created: sighting.created,
            last_unfinished: None,
            learned: reader.now,
            ttl,
        };
        let results = &reader.description.results;
        if let Some(call) = &results.call {
            for (name, pointer) in &call.values {
                match text(pointer, &task) {
                    Some(value) => self.fact("for the next call", Some(value), || {
                        format!("{pointer}, as {{{name}}}")
                    }),
                    None => self.nothing("results.call.values", pointer),
                }
            }
            self.notes.push(format!(
                "the links are told by a further call: GET {}; its answer is read below, if this is it",
                call.path
            ));
        }
        let found = reader
            .links(&task, sighting.kind.as_deref())
            .unwrap_or_default();
        let own = own.map(|link| (link, None));
        self.links(found.into_iter().chain(own), &known);
        if self.links.is_empty() && results.call.is_none() {
            self.notes.push(
                "completed, but without results: such a task is asked about again until it has some"
                    .to_owned(),
            );
        }
        for pointer in results.pointers.iter().filter(|it| it.at(&task).is_none()) {
            self.nothing("results.pointers", pointer);
        }
    }

    /// An answer without a status may be that of the call for the results.
    fn result(&mut self, reader: &Reader<'_>, answer: &Value, default_ttl: Span) {
        let results = &reader.description.results;
        let found = reader.links(answer, None).unwrap_or_default();
        if results.call.is_none() || found.is_empty() {
            return;
        }
        Progress::Completed.as_str().clone_into(&mut self.outcome);
        self.notes = vec!["read as the answer of results.call".to_owned()];
        let known = deadline::Known {
            expires: None,
            signature: None,
            completed: None,
            created: None,
            last_unfinished: None,
            learned: reader.now,
            ttl: results.ttl.unwrap_or(default_ttl),
        };
        self.links(found, &known);
    }

    fn links<'r>(
        &mut self,
        found: impl IntoIterator<Item = FoundLink<'r>>,
        known: &deadline::Known,
    ) {
        for (link, pointer) in found {
            if !is_fetchable(&link.url) {
                self.notes.push(
                    "an unfetchable link is no http or https address of at most 16 KiB: its asset is refused"
                        .to_owned(),
                );
            }
            let dies = deadline::deadline(&deadline::Known {
                signature: link.expires,
                ..*known
            });
            self.links.push(LinkFact {
                url: redact::scrub(link.url.as_str()),
                role: link.role.as_str(),
                from: pointer.map_or_else(|| "results.path".to_owned(), ToString::to_string),
                deadline: dies.at,
                deadline_from: dies.from.as_str(),
            });
        }
    }

    fn state(&mut self, reader: &Reader<'_>, task: &Value, sighting: &Sighting) {
        let status = &reader.description.status;
        self.read.push(Fact {
            what: "status",
            value: format!("{} ({})", sighting.status, sighting.progress),
            from: status.state.to_string(),
        });
        if sighting.is_unknown_status {
            self.notes.push(format!(
                "status.map does not have {:?}: such a task counts as running, with a warning",
                sighting.status
            ));
        }
        let words = [
            ("task ID", "status.id", &status.id, reader.id(task)),
            (
                "model",
                "status.model",
                &status.model,
                sighting.model.clone(),
            ),
            ("kind", "status.kind", &status.kind, sighting.kind.clone()),
            (
                "percent",
                "status.percent",
                &status.percent,
                sighting.percent.map(|percent| percent.to_string()),
            ),
            (
                "time left",
                "status.estimate",
                &status.estimate,
                sighting.estimate.map(|left| left.to_string()),
            ),
        ];
        for (what, key, pointer, value) in words {
            match (pointer, value) {
                (Some(pointer), Some(value)) => {
                    self.fact(what, Some(value), || pointer.to_string());
                }
                (Some(pointer), None) => self.nothing(key, pointer),
                (None, _) => {}
            }
        }
        if let Some(error) = &sighting.error {
            let from = if status.failed.is_some() {
                "status.failed"
            } else {
                "status.error"
            };
            let some = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
            self.fact("error code", some(&error.code), || from.to_owned());
            self.fact("error message", some(&error.message), || from.to_owned());
        }
    }

    fn times(&mut self, reader: &Reader<'_>, task: &Value, sighting: &Sighting) {
        let times = &reader.description.status.times;
        let told = |field: &Option<TimeField>| {
            let field = field.as_ref()?;
            field.pointer.at(task).map(|_| field.pointer.to_string())
        };
        let took = || {
            let took = told(&times.took)?;
            Some(format!("{} + {took}", told(&times.created)?))
        };
        let completed_from = told(&times.completed).or_else(took);
        let rows = [
            ("created", sighting.created, told(&times.created)),
            ("completed", sighting.completed, completed_from),
            ("links expire", sighting.expires, told(&times.expires)),
        ];
        for (what, at, from) in rows {
            let at = at.map(|at| at.to_string());
            self.fact(what, at, || from.unwrap_or_default());
        }
        let keys = [
            ("status.times.created", &times.created),
            ("status.times.took", &times.took),
            ("status.times.completed", &times.completed),
            ("status.times.expires", &times.expires),
        ];
        for (key, field) in keys {
            if let Some(field) = field.as_ref().filter(|it| it.pointer.at(task).is_none()) {
                self.nothing(key, &field.pointer);
            }
        }
    }

    fn fact(&mut self, what: &'static str, value: Option<String>, from: impl FnOnce() -> String) {
        if let Some(value) = value {
            let from = from();
            self.read.push(Fact { what, value, from });
        }
    }

    fn nothing(&mut self, key: &'static str, pointer: &Pointer) {
        let pointer = pointer.to_string();
        self.nothing_at.push(Missing { key, pointer });
    }
}

/// The task ID of which `id` is what the answer says: the keys before it are made up.
fn named(description: &Description, id: &str) -> Option<TaskId> {
    let ids = &description.id;
    if ids.params.is_empty() && ids.pattern.is_none() {
        return id.parse().ok();
    }
    // As many steps before it as the pattern wants.
    let whole = id.parse().ok().filter(|id| ids.split(id).is_ok());
    let padded = |steps: usize| {
        let id: TaskId = format!("{}{id}", "any/".repeat(steps)).parse().ok()?;
        ids.split(&id).is_ok().then_some(id)
    };
    whole.or_else(|| (1..=8).find_map(padded))
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.outcome)?;
        let facts = self.read.iter().map(|fact| fact.what.len());
        let width = facts.max().unwrap_or_default();
        for Fact { what, value, from } in &self.read {
            writeln!(f, "  {what:width$}  {value}  [{from}]")?;
        }
        for link in &self.links {
            writeln!(f, "  {} link  {}  [{}]", link.role, link.url, link.from)?;
            writeln!(f, "    dies {}  [{}]", link.deadline, link.deadline_from)?;
        }
        for Missing { key, pointer } in &self.nothing_at {
            writeln!(f, "  nothing at {pointer}  [{key}]")?;
        }
        self.notes
            .iter()
            .try_for_each(|note| writeln!(f, "  note: {note}"))
    }
}
