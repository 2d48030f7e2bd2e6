//! What the built-in descriptions read out of sample answers, one row an answer.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use http::StatusCode;
use serde_json::Value;

use crate::clock::Timestamp;
use crate::model::task::Sighting;
use crate::model::task::TaskId;
use crate::provider::answer::Amiss;
use crate::provider::answer::Reader;
use crate::provider::description::Description;
use crate::provider::error::meaning;
use crate::units::Span;

use super::KINDS;

mod rows;

/// 2026-11-24T14:02:00Z
const NOW: i64 = 1_795_528_920;

/// A kind, a sample of it, the HTTP status that it came with, and what is read out of it.
type Row = (&'static str, &'static str, u16, &'static str);

/// A task ID for each kind, as a user writes it.
const IDS: [(&str, &str); 15] = [
    ("ark", "cgt-20261124140000-x7k2p"),
    ("dashscope", "86ecf553-d340-4e21-af6e-a0c6a421c010"),
    ("evolink", "task-unified-1774857405-abc12345"),
    ("fal", "fal-ai/veo3/0f2c6b1e-77aa-4a0e-b9a3-2f5d0c1e9a44"),
    ("kie", "281e5b0f39b9"),
    ("kling", "822934567890123456"),
    ("kling_legacy", "text2video/822934567890123456"),
    ("luma", "d1968551-6113-4b46-b567-09210c2e79b0"),
    ("minimax", "176843862716480"),
    ("minimax_v2", "176843862716480"),
    ("openai", "video_68d7512d07848190b3e45da0ecbebcde"),
    ("replicate", "ufawqhfynnddngldkgtslldrkq"),
    ("runway", "17f20503-6c24-4c16-946b-35dbbce2af2f"),
    (
        "veo",
        "models/veo-3.1-generate-preview/operations/0abc12345",
    ),
    ("wavespeed", "09f2a0b1c2"),
];

#[test]
fn every_sample_is_read_as_the_table_says() {
    let mut wrong = String::new();
    for (kind, case, status, expected) in rows::ROWS {
        let said = read(kind, case, *status);
        if said != *expected {
            writeln!(wrong, "(\"{kind}\", \"{case}\", {status}, r#\"{said}\"#),").unwrap();
        }
    }
    assert!(wrong.is_empty(), "read otherwise:\n{wrong}");
}

#[test]
fn every_sample_is_in_the_table() {
    let listed: BTreeSet<String> = rows::ROWS
        .iter()
        .map(|(kind, case, ..)| format!("{kind}/{case}"))
        .collect();
    let mut found = BTreeSet::new();
    for kind in std::fs::read_dir(samples()).unwrap() {
        let kind = kind.unwrap();
        for case in std::fs::read_dir(kind.path()).unwrap() {
            let name = case.unwrap().file_name().into_string().unwrap();
            let case = name.strip_suffix(".json").unwrap();
            found.insert(format!("{}/{case}", kind.file_name().to_str().unwrap()));
        }
    }
    assert_eq!(found, listed);
}

/// Each kind but a second address of another has samples of all that can come.
#[test]
fn every_kind_has_a_sample_of_every_state_and_of_errors() {
    for (kind, _) in IDS {
        let said: Vec<&str> = rows::ROWS
            .iter()
            .filter(|row| row.0 == kind)
            .map(|row| row.3)
            .collect();
        let begins = |words: &[&str]| {
            let begins = |said: &&str| words.iter().any(|word| said.starts_with(word));
            said.iter().any(begins)
        };
        assert!(begins(&["pending", "running"]), "{kind}");
        assert!(begins(&["completed"]), "{kind}");
        assert!(begins(&["failed"]), "{kind}");
        assert!(begins(&["refused"]), "{kind}");
        assert!(begins(&["limited"]), "{kind}");
        let description = Description::built_in(kind).unwrap();
        for word in description.status.map.keys() {
            let is_said = said.iter().any(|said| said.split(' ').nth(1) == Some(word));
            // Said by providers that tell progress in two words for one thing.
            let is_alias = matches!(
                (kind, word.as_str()),
                ("minimax_v2", "processing") | ("fal", "none")
            );
            assert!(is_said || is_alias, "{kind} has no sample of {word}");
        }
    }
}

#[test]
fn every_built_in_parses_and_has_an_address_and_a_pace() {
    for kind in &KINDS {
        let description = Description::built_in(kind.name).unwrap();
        assert_eq!(description.base_url.scheme(), "https", "{}", kind.name);
        assert!(description.base_url.host_str().is_some());
        assert!(description.limits.requests.is_some(), "{}", kind.name);
        assert!(!description.limits.min_interval.is_empty(), "{}", kind.name);
        assert!(
            description
                .limits
                .min_interval
                .values()
                .all(|it| *it >= Span::from_secs(3)),
            "{}",
            kind.name
        );
    }
    assert!(KINDS.is_sorted_by_key(|kind| kind.name));
}

#[test]
fn a_word_that_no_description_knows_counts_as_running_with_an_alarm() {
    for (kind, id) in IDS {
        let description = Description::built_in(kind).unwrap();
        let reader = reader(&description);
        let mut answer = body(kind, "running");
        let state = description.status.state.to_string();
        let task = description.status.task.as_ref().map(ToString::to_string);
        let place = format!("{}{state}", task.unwrap_or_default());
        match answer.pointer_mut(&place) {
            Some(word) => *word = "a word of tomorrow".into(),
            None => answer["done"] = "a word of tomorrow".into(),
        }
        assert!(!reader.is_error(&answer), "{kind}");
        let id: TaskId = id.parse().unwrap();
        let names = description.id.split(&id).unwrap();
        let sighting = reader.sighting(&answer, &names).unwrap();
        assert_eq!(sighting.progress.as_str(), "running", "{kind}");
        assert!(sighting.is_unknown_status, "{kind}");
    }
}

#[test]
fn the_paths_are_those_of_the_documents() {
    let path = |kind: &str| {
        let description = Description::built_in(kind).unwrap();
        let (_, id) = IDS.iter().find(|(name, _)| *name == kind).unwrap();
        let id: TaskId = id.parse().unwrap();
        let names = description.id.split(&id).unwrap();
        let path = description.status.path.fill(|name| names.at(name)).unwrap();
        format!(
            "{}{path}",
            description.base_url.as_str().trim_end_matches('/')
        )
    };
    for (kind, expected) in [
        (
            "fal",
            "https://queue.fal.run/fal-ai/veo3/requests/0f2c6b1e-77aa-4a0e-b9a3-2f5d0c1e9a44/status",
        ),
        (
            "kling",
            "https://api-singapore.klingai.com/tasks?task_ids=822934567890123456",
        ),
        (
            "kling_legacy",
            "https://api-singapore.klingai.com/v1/videos/text2video/822934567890123456",
        ),
        (
            "minimax",
            "https://api.minimax.io/v1/query/video_generation?task_id=176843862716480",
        ),
        (
            "veo",
            "https://generativelanguage.googleapis.com/v1beta/models/veo-3.1-generate-preview/operations/0abc12345",
        ),
    ] {
        assert_eq!(path(kind), expected);
    }
}

#[test]
fn an_app_of_fal_may_be_in_a_namespace() {
    let description = Description::built_in("fal").unwrap();
    let path = |id: &str| {
        let id: TaskId = id.parse().unwrap();
        let names = description.id.split(&id)?;
        Ok::<_, String>(description.status.path.fill(|name| names.at(name)).unwrap())
    };
    for (id, expected) in [
        ("fal-ai/veo3/r1", "/fal-ai/veo3/requests/r1/status"),
        (
            "workflows/me/trailer/r1",
            "/workflows/me/trailer/requests/r1/status",
        ),
        (
            "comfy/me/upscale/r1",
            "/comfy/me/upscale/requests/r1/status",
        ),
    ] {
        assert_eq!(path(id).as_deref(), Ok(expected));
    }
    for wrong in ["r1", "veo3/r1", "fal-ai/veo3/fast/r1"] {
        assert_eq!(
            path(wrong).unwrap_err(),
            format!(
                "{wrong} is no task ID of this provider, which are such as APP/ID: APP is the first two words of the \
                 model's name, as fal-ai/veo3 of fal-ai/veo3/fast, or workflows/OWNER/NAME or comfy/OWNER/NAME"
            )
        );
    }
    assert!(description.id.example("made-up").is_some());
}

#[test]
fn a_product_of_kling_may_have_two_words() {
    let description = Description::built_in("kling_legacy").unwrap();
    let path = |id: &str| {
        let id: TaskId = id.parse().unwrap();
        let names = description.id.split(&id)?;
        Ok::<_, String>(description.status.path.fill(|name| names.at(name)).unwrap())
    };
    assert_eq!(
        path("avatar/image2video/8229").unwrap(),
        "/v1/videos/avatar/image2video/8229"
    );
    assert_eq!(
        path("8229").unwrap_err(),
        "8229 is no task ID of this provider, which are such as PRODUCT/ID"
    );
}

fn samples() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/provider/builtin/samples")
}

fn body(kind: &str, case: &str) -> Value {
    let path = samples().join(kind).join(format!("{case}.json"));
    let text = std::fs::read_to_string(&path);
    serde_json::from_str(&text.unwrap_or_else(|_| panic!("no {}", path.display()))).unwrap()
}

fn reader(description: &Description) -> Reader<'_> {
    Reader {
        description,
        base_url: description.base_url.as_str().trim_end_matches('/'),
        key: None,
        now: Timestamp::from_unix_seconds(NOW),
    }
}

/// What is read out of a sample, in one line.
fn read(kind: &str, case: &str, status: u16) -> String {
    let description = Description::built_in(kind).unwrap().at_home();
    let reader = reader(&description);
    let answer = body(kind, case);
    let status = StatusCode::from_u16(status).unwrap();
    let words = reader.words(&answer);
    let told = format!(
        "{}: {}",
        words.code.clone().unwrap_or_default(),
        words.message.clone().unwrap_or_default()
    );
    if case.starts_with("result") {
        return read_result(&reader, status, &answer, words.code.as_deref(), &told);
    }
    if !status.is_success() || reader.is_error(&answer) {
        let means = meaning(
            &description.status.error,
            status,
            words.code.as_deref(),
            false,
        );
        return format!("{} {told}", means.as_str());
    }
    if case == "batch" {
        let mut count = 0;
        let batch = description.batch.as_ref().unwrap();
        batch.tasks.each(&answer, |_| count += 1).unwrap();
        return format!("{count} tasks");
    }
    let (_, id) = IDS.iter().find(|(name, _)| *name == kind).unwrap();
    let id: TaskId = id.parse().unwrap();
    let names = description.id.split(&id).unwrap();
    match reader.sighting(&answer, &names) {
        Ok(sighting) => written(&sighting),
        Err(Amiss::Gone(what)) => format!("gone: {what}"),
        Err(Amiss::Senseless(what)) => format!("senseless: {what}"),
    }
}

/// The answer of the call for the results.
fn read_result(
    reader: &Reader<'_>,
    status: StatusCode,
    answer: &Value,
    code: Option<&str>,
    told: &str,
) -> String {
    let call = reader.description.results.call.as_ref().unwrap();
    let is_failed = code.is_some_and(|code| call.failed.iter().any(|known| known == code));
    if call.failed_http.contains(&status.as_u16()) || is_failed {
        return format!("failed {told}");
    }
    if !status.is_success() || reader.is_error(answer) {
        let means = meaning(&reader.description.status.error, status, code, false);
        return format!("{} {told}", means.as_str());
    }
    let links = reader.links(answer, None).unwrap();
    let links = links.iter().map(|(link, from)| {
        let from = from.map(ToString::to_string).unwrap_or_default();
        format!("{} {} [{from}]", link.role, link.url)
    });
    links.collect::<Vec<_>>().join(", ")
}

fn written(sighting: &Sighting) -> String {
    let mut line = format!("{} {}", sighting.progress, sighting.status);
    let at = |at: Option<Timestamp>| at.map(|at| at.to_string());
    let parts = [
        ("model", sighting.model.clone()),
        ("kind", sighting.kind.clone()),
        ("percent", sighting.percent.map(|it| it.to_string())),
        ("created", at(sighting.created)),
        ("completed", at(sighting.completed)),
        ("expires", at(sighting.expires)),
        ("left", sighting.estimate.map(|it| it.to_string())),
    ];
    for (name, value) in parts {
        if let Some(value) = value {
            write!(line, " {name}={value}").unwrap();
        }
    }
    if sighting.is_unknown_status {
        line.push_str(" (unknown)");
    }
    if let Some(error) = &sighting.error {
        write!(line, " error={}: {}", error.code, error.message).unwrap();
    }
    if sighting.is_without_files {
        line.push_str(" -> no file");
    }
    for link in &sighting.results {
        write!(line, " -> {} {}", link.role, link.url).unwrap();
        if let Some(expires) = link.expires {
            write!(line, " until {expires}").unwrap();
        }
    }
    line
}
