//! What the gateway asks of a provider: where a call goes, with whose key, and what an answer that passes says.

use http::HeaderMap;
use http::StatusCode;
use serde_json::Value;
use url::Url;

use crate::model::digest::Sha256Digester;
use crate::model::task::Progress;
use crate::model::task::TaskId;
use crate::model::task::is_fetchable;
use crate::provider::Provider;
use crate::provider::answer::Amiss;
use crate::provider::answer::text;
use crate::provider::connect::Account;
use crate::provider::description::field::Auth;
use crate::provider::description::gateway::Gateway;
use crate::provider::description::gateway::task_in;
use crate::provider::error::Meaning;
use crate::provider::error::meaning;
use crate::provider::json;
use crate::provider::pointer::Pointer;
use crate::provider::rewrite;

/// A longer answer is not kept: one about a task takes a few KiB.
const KEPT_BYTES_MAX: usize = 256 * 1024;

/// What an answer about a task says that passes through the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Passing {
    /// How the task stands, with its results where it is completed.
    Task {
        /// What the status means.
        progress: Progress,
        /// The links of the results, in the provider's order.
        results: Vec<Url>,
        /// Whether there is something else in their place, as a text is.
        is_without_files: bool,
    },
    /// The provider knows no such task, and has let the caller in.
    Gone,
    /// Trouble on the other side, which may be over soon.
    Trouble,
    /// Anything else: what it means is between the provider and the caller.
    Other,
}

impl Provider {
    /// What the description says for the gateway, where it says anything.
    pub fn gateway(&self) -> Option<&Gateway> {
        self.description().gateway.as_ref()
    }

    /// Where the API is.
    pub fn base_url(&self) -> Option<Url> {
        self.account().address_without_key("").ok()
    }

    /// The task that a look with this path and query is about; the path is that below the base URL.
    pub fn task_in(&self, path: &str, query: Option<&str>) -> Option<TaskId> {
        let further = self.gateway().into_iter().flat_map(|gateway| &gateway.look);
        let mut looks = [&self.description().status.path].into_iter().chain(further);
        let id = looks.find_map(|look| task_in(look, path, query))?;
        self.check_id(&id).is_ok().then_some(id)
    }

    /// Whether a call shows the very key that is configured, or the API needs none.
    pub fn shows_own_key(&self, headers: &HeaderMap, url: &Url) -> bool {
        let account = self.account();
        match (&account.description.auth, &account.key) {
            (Auth::None, _) => true,
            (_, None) => false,
            (Auth::Query { name }, Some(key)) => url.query_pairs().any(|(own, shown)| {
                own == name.as_str() && is_same(shown.as_bytes(), key.expose().as_bytes())
            }),
            // Tokens that a caller makes of the same key differ from call to call.
            (Auth::Jwt, Some(_)) if account.minted(self.0.caller.clock.now()).is_some() => false,
            (Auth::Bearer | Auth::Header { .. } | Auth::Jwt, Some(_)) => {
                let own = account.auth_header();
                !own.is_empty()
                    && own.iter().all(|(name, value)| {
                        let shown = headers.get(name);
                        shown.is_some_and(|shown| {
                            is_same(
                                &scheme_lowered(shown.as_bytes()),
                                &scheme_lowered(value.as_bytes()),
                            )
                        })
                    })
            }
        }
    }

    /// Puts the configured key, and the further headers, in place of the caller's.
    pub fn put_own_key(&self, headers: &mut HeaderMap, url: &mut Url) {
        let account = self.account();
        headers.remove(http::header::AUTHORIZATION);
        for (name, value) in &account.headers {
            headers.insert(name, value.clone());
        }
        if let Some((name, token)) = account.minted(self.0.caller.clock.now()) {
            headers.insert(name, token);
        }
        if let (Auth::Query { name }, Some(key)) = (&account.description.auth, &account.key) {
            let others = url.query().unwrap_or_default().split('&');
            let is_other =
                |pair: &&str| !pair.is_empty() && pair.split('=').next() != Some(name.as_str());
            let others: Vec<&str> = others.filter(is_other).collect();
            let others = others.join("&");
            url.set_query(
                Some(&others)
                    .filter(|others| !others.is_empty())
                    .map(String::as_str),
            );
            url.query_pairs_mut().append_pair(name, key.expose());
        }
    }

    /// The ID of the task that a submission made, which was answered like this, and what the answer says of it.
    pub fn submitted(&self, status: StatusCode, body: &[u8]) -> Option<(TaskId, Passing)> {
        let description = self.description();
        let told = self.gateway()?.id.clone();
        let pointer = match (told, &description.status.id) {
            (Some(told), _) => told,
            (None, Some(id)) => id.below(description.status.task.as_ref()),
            (None, None) => return None,
        };
        let answer = json::parse(body).ok().filter(|_| status.is_success())?;
        if !description.status.ok.is_in(&answer) {
            return None;
        }
        let id = description.id.join(&text(&pointer, &answer)?)?;
        let passing = self.told(&id, status, Some(&answer));
        Some((id, passing))
    }

    /// What an answer to a look at `id` says. Unlike [`Provider::look`] it changes nothing for our own calls: with
    /// another key a refusal says nothing about ours.
    pub fn passing(&self, id: &TaskId, status: StatusCode, body: &[u8]) -> Passing {
        self.told(id, status, json::parse(body).ok().as_ref())
    }

    fn told(&self, id: &TaskId, status: StatusCode, answer: Option<&Value>) -> Passing {
        let reader = self.0.caller.reader();
        if let Some(answer) = answer
            && status.is_success()
            && !reader.is_error(answer)
        {
            let Ok(names) = self.description().id.split(id) else {
                return Passing::Other;
            };
            return match reader.sighting(answer, &names) {
                Ok(sighting) => Passing::Task {
                    progress: sighting.progress,
                    results: sighting.results.into_iter().map(|link| link.url).collect(),
                    is_without_files: sighting.is_without_files,
                },
                Err(Amiss::Gone(_)) => Passing::Gone,
                Err(Amiss::Senseless(_)) => Passing::Other,
            };
        }
        let code = answer.and_then(|answer| reader.words(answer).code);
        let errors = &self.description().status.error;
        match meaning(errors, status, code.as_deref(), false) {
            Meaning::Gone => Passing::Gone,
            Meaning::Unavailable => Passing::Trouble,
            Meaning::Refused | Meaning::Limited | Meaning::Garbled => Passing::Other,
        }
    }

    /// An answer with other links in the places of its results: `with` gives the new one for a link, or nothing.
    pub fn relink(&self, body: &[u8], with: &mut dyn FnMut(&Url) -> Option<String>) -> Vec<u8> {
        let reader = self.0.caller.reader();
        rewrite::replace_strings(body, &self.result_places(), &mut |said| {
            with(&reader.link(said).filter(is_fetchable)?)
        })
    }

    /// The answer about a completed task as it would have been shortly before: still running, without results.
    pub fn held_back(&self, body: &[u8]) -> Vec<u8> {
        let description = self.description();
        let word_for = |meant| {
            description
                .status
                .map
                .iter()
                .find(|(_, means)| **means == meant)
        };
        let word = word_for(Progress::Running).or_else(|| word_for(Progress::Pending));
        let Some((word, _)) = word else {
            return body.to_vec();
        };
        let task = description.status.task.as_ref();
        let state = description.status.state.below(task);
        // A truth value or a number stays one.
        let is_text = json::parse(body).is_ok_and(|answer| {
            let said = state.at(&answer);
            said.is_none_or(|said| said.is_string())
        });
        let word = if is_text {
            json::written(word)
        } else {
            word.clone().into_bytes()
        };
        let mut held = rewrite::replace_values(body, &state, &word);
        if let Some(percent) = &description.status.percent {
            held = rewrite::replace_values(&held, &percent.below(task), b"99");
        }
        for pointer in self.result_places() {
            held = rewrite::withhold(&held, &pointer);
        }
        held
    }

    /// Where the links stand in a whole answer.
    fn result_places(&self) -> Vec<Pointer> {
        let description = self.description();
        let task = description.status.task.as_ref();
        let pointers = description.results.pointers.iter();
        pointers.map(|pointer| pointer.below(task)).collect()
    }

    /// An answer in which `ours`, where it is echoed, stands as the caller's own callback, or as none. Where our address
    /// is a part of what is said, or one of before, its token is left out.
    pub fn without_callback(&self, body: &[u8], ours: Option<&Url>, own: Option<&Url>) -> Vec<u8> {
        if ours.is_none() && self.0.hook.is_none() {
            return body.to_vec();
        }
        rewrite::replace_everywhere(body, &mut |said| {
            if ours.is_some_and(|ours| said == ours.as_str()) {
                return Some(
                    own.map_or_else(|| b"null".to_vec(), |own| json::written(own.as_str())),
                );
            }
            let hidden = self.0.hook.as_ref()?.without_tokens(said)?;
            Some(json::written(&hidden))
        })
    }

    /// An answer about a task that is over, fit to be kept for when the provider has forgotten it: short enough, and
    /// without our key.
    pub(super) fn keepable(&self, body: &[u8]) -> Option<Vec<u8>> {
        if !self.0.keeps_answers || body.len() > KEPT_BYTES_MAX {
            return None;
        }
        let Some(key) = &self.account().key else {
            return Some(body.to_vec());
        };
        let mut without_key = |said: &str| {
            let key = key.expose();
            said.contains(key)
                .then(|| json::written(&said.replace(key, "***")))
        };
        Some(rewrite::replace_everywhere(body, &mut without_key))
    }

    fn account(&self) -> &Account {
        &self.0.caller.account
    }
}

/// Takes the same time whatever differs.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let digest = |bytes: &[u8]| {
        let mut digester = Sha256Digester::new();
        digester.update(bytes);
        digester.value()
    };
    digest(one) == digest(other)
}

/// `bearer` and `Bearer` are one scheme.
fn scheme_lowered(value: &[u8]) -> Vec<u8> {
    let scheme = value.iter().position(|byte| *byte == b' ').unwrap_or(0);
    let mut lowered = value.to_vec();
    lowered
        .iter_mut()
        .take(scheme)
        .for_each(u8::make_ascii_lowercase);
    lowered
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header;

    use super::*;
    use crate::clock::Clock;
    use crate::clock::Timestamp;
    use crate::http::Http;
    use crate::provider::Config;
    use crate::provider::call::tests::Script;
    use crate::provider::description::Description;
    use crate::provider::description::gateway::CallbackField;
    use crate::secret::SecretSource;
    use crate::units::Span;

    fn connect(config: Config) -> Provider {
        let config = Config {
            api_key: Some(SecretSource::env("KEY")),
            gateway: true,
            ..config
        };
        let env = |name: &str| {
            let named = if name == "KEY" { "sk-canary" } else { name };
            Some(named.to_owned())
        };
        let (http, clock) = (
            Http::new(Script::default()),
            Clock::new(|| Timestamp::EPOCH),
        );
        let name = "evolink".parse().unwrap();
        Provider::connect(name, &config, Span::from_secs(1), http, clock, &env).unwrap()
    }

    /// A provider whose description is `text`; the folder is that of the file.
    fn described(text: &str) -> (tempfile::TempDir, Provider) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("own.toml");
        std::fs::write(&path, text).unwrap();
        let config = Config {
            description: Some(path),
            ..Config::default()
        };
        (folder, connect(config))
    }

    fn evolink() -> Provider {
        connect(Config::default())
    }

    fn id(text: &str) -> TaskId {
        text.parse().unwrap()
    }

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_submission_names_its_task() {
        let check = |provider: &Provider, status: u16, body: &str, expected: Option<&str>| {
            let status = StatusCode::from_u16(status).unwrap();
            let found = provider.submitted(status, body.as_bytes());
            let found = found.map(|(id, _)| id);
            assert_eq!(found, expected.map(id), "{status} {body}");
        };
        let provider = evolink();
        check(
            &provider,
            200,
            r#"{"id":"a","status":"pending"}"#,
            Some("a"),
        );
        check(&provider, 202, r#"{"id":7}"#, Some("7"));
        check(&provider, 200, "\u{feff}{\"id\":\"a\"}", Some("a"));
        for nothing in [
            r#"{"id":null}"#,
            r#"{"id":["a"]}"#,
            r#"{"id":"a/b"}"#,
            r#"{"id":""}"#,
            "{}",
            "x",
            "",
        ] {
            check(&provider, 200, nothing, None);
        }
        check(&provider, 400, r#"{"id":"a"}"#, None);
        let (_folder, own) = described(
            r#"
base_url = "https://api.example.com"
auth = { scheme = "query", name = "key" }
[status]
path = "/query?task={id}"
state = "/state"
map = { waiting = "pending", done = "completed" }
ok = { pointer = "/code", equals = 0 }
[results]
pointers = ["/file"]
[gateway]
submit = ["/create/**"]
id = "/data/task"
"#,
        );
        check(&own, 200, r#"{"code":0,"data":{"task":"a"}}"#, Some("a"));
        check(&own, 200, r#"{"code":1,"data":{"task":"a"}}"#, None);
        assert_eq!(own.task_in("/query", Some("task=a")), Some(id("a")));
    }

    #[test]
    fn an_answer_that_passes_is_read_and_pauses_nothing() {
        let provider = evolink();
        let check = |status: u16, body: &str, expected: Passing| {
            let status = StatusCode::from_u16(status).unwrap();
            let passing = provider.passing(&id("a"), status, body.as_bytes());
            assert_eq!(passing, expected, "{status} {body}");
            assert_eq!(provider.paused_until(), None);
        };
        let task = |progress, results: &[&str]| Passing::Task {
            progress,
            results: results.iter().map(|link| link.parse().unwrap()).collect(),
            is_without_files: false,
        };
        check(
            200,
            r#"{"id":"a","status":"processing"}"#,
            task(Progress::Running, &[]),
        );
        check(
            200,
            r#"{"id":"a","status":"completed","results":["https://c/1"]}"#,
            task(Progress::Completed, &["https://c/1"]),
        );
        check(200, r#"{"id":"b","status":"completed"}"#, Passing::Other);
        check(200, "<html>", Passing::Trouble);
        check(404, r#"{"error":{"code":"task_not_found"}}"#, Passing::Gone);
        check(
            400,
            r#"{"error":{"code":"invalid_task_id"}}"#,
            Passing::Gone,
        );
        for other in [401, 402, 403, 429, 302] {
            check(other, "{}", Passing::Other);
        }
        check(503, "", Passing::Trouble);
    }

    /// For each kind that can be served again: a path that tasks are submitted to, how it is answered, and the callback's
    /// name. The task is that of its samples.
    const SUBMISSIONS: [(&str, &str, &str, &str); 8] = [
        (
            "ark",
            "/api/v3/contents/generations/tasks",
            r#"{"id":"cgt-20261124140000-x7k2p"}"#,
            "callback_url",
        ),
        (
            "dashscope",
            "/api/v1/services/aigc/video-generation/video-synthesis",
            r#"{"output":{"task_id":"86ecf553-d340-4e21-af6e-a0c6a421c010","task_status":"PENDING"},"request_id":"r"}"#,
            "",
        ),
        (
            "evolink",
            "/v1/videos/generations",
            r#"{"id":"task-unified-1774857405-abc12345","status":"pending"}"#,
            "callback_url",
        ),
        (
            "kie",
            "/api/v1/jobs/createTask",
            r#"{"code":200,"msg":"success","data":{"taskId":"281e5b0f39b9"}}"#,
            "callBackUrl",
        ),
        (
            "luma",
            "/dream-machine/v1/generations/video",
            r#"{"id":"d1968551-6113-4b46-b567-09210c2e79b0","state":"queued"}"#,
            "callback_url",
        ),
        (
            "replicate",
            "/v1/models/bytedance/seedance-1-pro/predictions",
            r#"{"id":"ufawqhfynnddngldkgtslldrkq","status":"starting"}"#,
            "webhook",
        ),
        (
            "runway",
            "/v1/image_to_video",
            r#"{"id":"17f20503-6c24-4c16-946b-35dbbce2af2f"}"#,
            "",
        ),
        (
            "wavespeed",
            "/api/v3/bytedance/seedance-v1-pro-t2v-480p",
            r#"{"code":200,"message":"success","data":{"id":"09f2a0b1c2","status":"created"}}"#,
            "?webhook",
        ),
    ];

    fn sample(kind: &str, case: &str) -> Vec<u8> {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let path = format!("src/provider/builtin/samples/{kind}/{case}.json");
        std::fs::read(folder.join(path)).unwrap()
    }

    fn built_in(kind: &str) -> Provider {
        connect(Config {
            kind: Some(kind.to_owned()),
            ..Config::default()
        })
    }

    #[test]
    fn every_built_in_that_is_served_again_is_in_the_table() {
        let is_served = |kind: &&str| Description::built_in(kind).unwrap().gateway.is_some();
        let served: Vec<&str> = Description::kinds().filter(is_served).collect();
        let mut listed: Vec<&str> = SUBMISSIONS.map(|(kind, ..)| kind).to_vec();
        // Ark at another address.
        listed.insert(5, "modelark");
        assert_eq!(served, listed);
    }

    #[test]
    fn every_built_in_knows_its_submissions_and_looks() {
        for (kind, path, answer, callback) in SUBMISSIONS {
            let provider = built_in(kind);
            let gateway = provider.gateway().unwrap();
            assert!(gateway.is_submitted_to(path), "{path}");
            let said = match &gateway.callback {
                Some(CallbackField::Field(name)) => name.clone(),
                Some(CallbackField::Query(name)) => format!("?{name}"),
                None => String::new(),
            };
            assert_eq!(said, callback, "{kind}");
            let id = provider.submitted(StatusCode::OK, answer.as_bytes());
            let (id, _) = id.unwrap_or_else(|| panic!("{kind}: no task in {answer}"));
            for look in [&provider.description().status.path]
                .into_iter()
                .chain(&gateway.look)
            {
                let look = look.fill(|_| Some(id.to_string())).unwrap();
                let (look, query) = look.split_once('?').unwrap_or((&look, ""));
                let found = provider.task_in(look, Some(query));
                assert_eq!(found.as_ref(), Some(&id), "{kind}: {look}");
            }
            assert!(
                !gateway.is_submitted_to("/"),
                "{kind} would take anything for a submission"
            );
        }
    }

    #[test]
    fn an_upload_to_wavespeed_is_no_submission() {
        let provider = built_in("wavespeed");
        let gateway = provider.gateway().unwrap();
        for (path, is_submission) in [
            ("/api/v3/wavespeed-ai/wan-2.2/t2v-720p", true),
            ("/api/v3/media/upload/binary", false),
            ("/api/v3/media/uploads/u1", false),
            ("/api/v3/media/uploads/u1/complete", false),
        ] {
            assert_eq!(gateway.is_submitted_to(path), is_submission, "{path}");
        }
    }

    #[test]
    fn wavespeed_is_asked_at_both_of_its_addresses() {
        let provider = built_in("wavespeed");
        for path in ["/api/v3/predictions/a1", "/api/v3/predictions/a1/result"] {
            assert_eq!(provider.task_in(path, None), Some(id("a1")), "{path}");
        }
        for other in ["/api/v3/predictions", "/api/v3/predictions/a1/results"] {
            assert_eq!(provider.task_in(other, None), None, "{other}");
        }
    }

    /// A caller that polls sees a running task while it is being archived, and then our links in the places of all.
    #[test]
    fn every_built_in_is_answered_for_in_its_own_words() {
        for (kind, _, answer, _) in SUBMISSIONS {
            let provider = built_in(kind);
            let (id, _) = provider
                .submitted(StatusCode::OK, answer.as_bytes())
                .unwrap();
            let read = |body: &[u8]| match provider.passing(&id, StatusCode::OK, body) {
                Passing::Task {
                    progress, results, ..
                } => (progress, results),
                other @ (Passing::Gone | Passing::Trouble | Passing::Other) => {
                    panic!("{kind}: {other:?}")
                }
            };
            let said = sample(kind, "completed");
            let (progress, results) = read(&said);
            assert_eq!(progress, Progress::Completed, "{kind}");
            assert!(!results.is_empty(), "{kind}");
            assert_eq!(
                read(&provider.held_back(&said)),
                (Progress::Running, Vec::new()),
                "{kind}"
            );
            let ours = |url: &Url| {
                let at = results.iter().position(|own| own == url)?;
                Some(format!("https://ours.example.com/{at}"))
            };
            let linked = provider.relink(&said, &mut |url| ours(url));
            let expected: Vec<Url> = results
                .iter()
                .map(|url| ours(url).unwrap().parse().unwrap())
                .collect();
            assert_eq!(read(&linked), (Progress::Completed, expected), "{kind}");
        }
    }

    #[test]
    fn a_status_that_is_a_number_is_held_back_as_a_number() {
        let (_folder, own) = described(
            r#"
base_url = "https://api.example.com"
auth = { scheme = "none" }
[status]
path = "/video/{id}"
task = "/Resp"
id = "/id"
state = "/status"
map = { 1 = "completed", 5 = "running", 7 = "failed" }
[results]
pointers = ["/url"]
[gateway]
submit = ["/video"]
"#,
        );
        let said = br#"{"Resp":{"id":7,"status":1,"url":"https://c/1"}}"#;
        let read = |body: &[u8]| own.passing(&id("7"), StatusCode::OK, body);
        let Passing::Task { progress, .. } = read(said) else {
            panic!("{:?}", read(said))
        };
        assert_eq!(progress, Progress::Completed);
        let held = own.held_back(said);
        assert!(matches!(
            read(&held),
            Passing::Task {
                progress: Progress::Running,
                ..
            }
        ));
        assert_eq!(text(held), r#"{"Resp":{"id":7,"status":5,"url":null}}"#);
    }

    #[test]
    fn the_key_is_known_in_any_spelling_of_its_scheme() {
        let provider = evolink();
        let shows = |value: &str| {
            let headers: HeaderMap =
                [(header::AUTHORIZATION, value.parse::<HeaderValue>().unwrap())]
                    .into_iter()
                    .collect();
            provider.shows_own_key(&headers, &"https://a/".parse().unwrap())
        };
        assert!(shows("Bearer sk-canary") && shows("bearer sk-canary"));
        for other in [
            "Bearer sk-other",
            "sk-canary",
            "Basic sk-canary",
            "Bearer sk-canary ",
            "Bearer  sk-canary",
            "",
        ] {
            assert!(!shows(other), "{other}");
        }
        assert!(!provider.shows_own_key(
            &HeaderMap::new(),
            &"https://a/?key=sk-canary".parse().unwrap()
        ));
    }

    #[test]
    fn our_key_takes_the_place_of_the_callers() {
        let mut headers: HeaderMap = [(
            header::AUTHORIZATION,
            HeaderValue::from_static("Bearer theirs"),
        )]
        .into_iter()
        .collect();
        let mut url: Url = "https://a/x?b=%7e&key=theirs".parse().unwrap();
        evolink().put_own_key(&mut headers, &mut url);
        assert_eq!(headers[header::AUTHORIZATION], "Bearer sk-canary");
        assert_eq!(url.as_str(), "https://a/x?b=%7e&key=theirs");
        let (_folder, own) = described(
            "base_url = \"https://a\"\nauth = { scheme = \"query\", name = \"key\" }\n[status]\npath = \"/t/{id}\"\n\
             state = \"/s\"\nmap = { done = \"completed\" }\n[results]\npointers = [\"/r\"]\n",
        );
        own.put_own_key(&mut headers, &mut url);
        assert_eq!(
            headers.get(header::AUTHORIZATION),
            None,
            "theirs is no header of this API"
        );
        assert_eq!(url.as_str(), "https://a/x?b=%7e&key=sk-canary");
        assert!(own.shows_own_key(&headers, &url));
        assert!(!own.shows_own_key(&headers, &"https://a/x?key=theirs".parse().unwrap()));
        assert!(own.gateway().is_none());
    }

    #[test]
    fn an_answer_changes_only_where_it_must() {
        let provider = evolink();
        let said = r#"{ "id":"a", "status" : "completed","progress":100, "results": ["https://c/1?sig=s"], "result_data":{"video_url":"https://c/1?sig=s"},"usage":{"n":1.50}}"#;
        let linked = provider.relink(said.as_bytes(), &mut |url| {
            (url.path() == "/1").then(|| "https://ours/1".to_owned())
        });
        assert_eq!(
            text(linked),
            said.replace("https://c/1?sig=s", "https://ours/1")
        );
        let held = provider.held_back(said.as_bytes());
        assert_eq!(
            text(held),
            r#"{ "id":"a", "status" : "processing","progress":99, "results": [], "result_data":{"video_url":null},"usage":{"n":1.50}}"#
        );
        let marked = format!("\u{feff}{said}");
        let linked = provider.relink(marked.as_bytes(), &mut |_| Some("x".to_owned()));
        assert_eq!(text(linked), marked.replace("https://c/1?sig=s", "x"));
        let ours: Url = "https://us/hooks/evolink/secret".parse().unwrap();
        let echo = br#"{"callback_url":"https:\/\/us/hooks/evolink/secret","x":[ 1 ]}"#;
        assert_eq!(
            text(provider.without_callback(echo, Some(&ours), None)),
            r#"{"callback_url":null,"x":[ 1 ]}"#
        );
        let own: Url = "https://caller/?a=\"".parse().unwrap();
        assert_eq!(
            text(provider.without_callback(echo, Some(&ours), Some(&own))),
            r#"{"callback_url":"https://caller/?a=%22","x":[ 1 ]}"#
        );
    }

    #[test]
    fn no_token_of_an_address_of_ours_is_shown() {
        let provider = connect(Config {
            webhook: true,
            hook_secret: Some(SecretSource::env("canary-hook-secret")),
            hook_secret_old: Some(SecretSource::env("canary-hook/before")),
            ..Config::default()
        });
        let ours: Url = "https://us/hooks/evolink/canary-hook-secret"
            .parse()
            .unwrap();
        let check = |said: &str, expected: &str| {
            let shown = provider.without_callback(said.as_bytes(), Some(&ours), None);
            assert_eq!(text(shown), expected);
        };
        check(
            r#"{"m":"https:\/\/us/hooks/evolink/canary-hook-secret is refused"}"#,
            r#"{"m":"https://us/hooks/evolink/*** is refused"}"#,
        );
        check(
            r#"{"was":"https://us/hooks/evolink/canary-hook%2Fbefore"}"#,
            r#"{"was":"https://us/hooks/evolink/***"}"#,
        );
    }

    #[test]
    fn what_is_kept_is_short_and_without_our_key() {
        let provider = evolink();
        let kept = provider.keepable(br#"{"id":"a",  "message":"no sk-canary here","n":1.0}"#);
        assert_eq!(
            text(kept.unwrap()),
            r#"{"id":"a",  "message":"no *** here","n":1.0}"#
        );
        let longest = format!("\"{}\"", "x".repeat(KEPT_BYTES_MAX - 2));
        assert!(provider.keepable(longest.as_bytes()).is_some());
        assert!(
            provider
                .keepable(format!("{longest} ").as_bytes())
                .is_none()
        );
        let config = Config {
            api_key: Some(SecretSource::env("KEY")),
            ..Config::default()
        };
        let env = |_: &str| Some("sk-canary".to_owned());
        let (http, clock) = (
            Http::new(Script::default()),
            Clock::new(|| Timestamp::EPOCH),
        );
        let name = "evolink".parse().unwrap();
        let unserved = Provider::connect(name, &config, Span::ZERO, http, clock, &env).unwrap();
        assert!(unserved.keepable(b"{}").is_none(), "nobody will ask for it");
    }
}
