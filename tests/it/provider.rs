//! The provider port against a task API on loopback: every documented answer of EvoLink, every error, every lie.

use mockito::Matcher;
use mockito::Mock;
use mockito::Server;
use mockito::ServerGuard;
use reelvault::clock::Clock;
use reelvault::clock::Timestamp;
use reelvault::http::client;
use reelvault::http::client::ClientConfig;
use reelvault::http::client::Traffic;
use reelvault::http::client::USER_AGENT;
use reelvault::http::guard::Guard;
use reelvault::http::roots::Roots;
use reelvault::model::asset::AssetRole;
use reelvault::model::task::Progress;
use reelvault::model::task::Sighting;
use reelvault::model::task::TaskId;
use reelvault::provider::Config;
use reelvault::provider::Look;
use reelvault::provider::Provider;
use reelvault::provider::ProviderError;
use reelvault::secret::SecretSource;
use reelvault::units::Span;
use serde_json::Value;
use serde_json::json;

const KEY: &str = "canary-key-0123456789";

const ID: &str = "task-unified-1774857405-abc123";

const LINK: &str = "https://cdn.example.com/videos/task-unified-1774857405-abc123.mp4";

/// 2026-03-30T08:00:00Z, some four minutes after the task was made.
const NOW: i64 = 1_774_857_600;

fn config(server: &ServerGuard) -> Config {
    Config {
        api_key: Some(SecretSource::env("KEY")),
        base_url: Some(server.url().parse().unwrap()),
        requests: Some("1000/s".parse().unwrap()),
        allow_private: true,
        ..Config::default()
    }
}

fn connect(name: &str, config: &Config) -> Provider {
    let client = ClientConfig {
        guard: Guard::private(),
        traffic: Traffic::Looks,
        connect_timeout: Span::from_secs(5),
        read_timeout: Span::from_secs(5),
        user_agent: USER_AGENT.to_owned(),
        roots: Roots::load(&[]).unwrap(),
    };
    Provider::connect(
        name.parse().unwrap(),
        config,
        Span::from_secs(86_400),
        client::connect(&client).unwrap(),
        Clock::new(|| Timestamp::from_unix_seconds(NOW)),
        &|name| (name == "KEY").then(|| KEY.to_owned()),
    )
    .unwrap()
}

fn evolink(server: &ServerGuard) -> Provider {
    connect("evolink", &config(server))
}

fn id(text: &str) -> TaskId {
    text.parse().unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(seconds)
}

async fn serve(server: &mut ServerGuard, id: &str, status: usize, body: &str) -> Mock {
    let path = format!("/v1/tasks/{id}");
    let mock = server
        .mock("GET", path.as_str())
        .match_header("authorization", format!("Bearer {KEY}").as_str())
        .match_header("accept", "application/json")
        .match_header("user-agent", USER_AGENT)
        .with_status(status)
        .with_header("content-type", "application/json")
        .with_body(body);
    mock.create_async().await
}

async fn look(status: usize, body: &str) -> Result<Sighting, ProviderError> {
    let mut server = Server::new_async().await;
    let mock = serve(&mut server, ID, status, body).await;
    let look = evolink(&server).look(&id(ID)).await;
    mock.assert_async().await;
    look
}

/// The task object of the documents, with `more` laid over it.
fn task(status: &str, more: &Value) -> Value {
    let mut task = json!({
        "id": ID,
        "object": "video.generation.task",
        "created": 1_774_857_405,
        "model": "seedance-2.0-text-to-video",
        "status": status,
        "progress": 0,
        "type": "video",
        "task_info": {"can_cancel": false},
    });
    for (name, value) in more.as_object().unwrap() {
        task[name] = value.clone();
    }
    task
}

async fn seen(task: &Value) -> Sighting {
    look(200, &task.to_string()).await.unwrap()
}

#[tokio::test]
async fn a_pending_task() {
    let pending = task(
        "pending",
        &json!({
            "task_info": {"can_cancel": true, "estimated_time": 165, "video_duration": 5},
            "usage": {"billing_rule": "per_second", "credits_reserved": 50, "user_group": "default"},
        }),
    );
    let expected = Sighting {
        progress: Progress::Pending,
        status: "pending".to_owned(),
        is_unknown_status: false,
        percent: Some(0),
        model: Some("seedance-2.0-text-to-video".to_owned()),
        kind: Some("video".to_owned()),
        created: Some(at(1_774_857_405)),
        completed: None,
        expires: None,
        estimate: Some(Span::from_secs(165)),
        is_without_files: false,
        results: Vec::new(),
        error: None,
        answer: None,
    };
    assert_eq!(seen(&pending).await, expected);
}

#[tokio::test]
async fn a_processing_task() {
    let sighting = seen(&task("processing", &json!({"progress": 65}))).await;
    assert_eq!(sighting.progress, Progress::Running);
    assert_eq!(sighting.percent, Some(65));
    assert_eq!(sighting.estimate, None);
    assert!(!sighting.is_unknown_status);
}

#[tokio::test]
async fn a_completed_task() {
    let completed = task("completed", &json!({"progress": 100, "results": [LINK]}));
    let sighting = seen(&completed).await;
    assert_eq!(sighting.progress, Progress::Completed);
    assert_eq!(sighting.completed, None);
    let [result] = sighting.results.as_slice() else {
        panic!("{} results", sighting.results.len());
    };
    assert_eq!(result.url.as_str(), LINK);
    assert_eq!(result.role, AssetRole::Video);
    assert_eq!(result.expires, None);
}

#[tokio::test]
async fn completion_is_worked_out_from_the_time_it_took() {
    let more = json!({"results": [LINK], "duration": 125});
    let sighting = seen(&task("completed", &more)).await;
    assert_eq!(sighting.completed, Some(at(1_774_857_530)));
}

#[tokio::test]
async fn a_signed_link_says_when_it_ends() {
    let signed = format!("{LINK}?X-Amz-Date=20260330T075900Z&X-Amz-Expires=3600&X-Amz-Signature=s");
    let sighting = seen(&task("completed", &json!({"results": [signed]}))).await;
    assert_eq!(sighting.results[0].expires, Some(at(1_774_857_540 + 3600)));
}

#[tokio::test]
async fn results_in_every_shape_that_was_seen() {
    let other = "https://cdn.example.com/last_frame.png";
    let sound = "https://cdn.example.com/sound.mp3";
    let shapes = [
        (json!({"results": [LINK, other]}), vec![LINK, other]),
        (json!({"results": LINK}), vec![LINK]),
        (
            json!({"results": [{"url": LINK}, {"url": other}]}),
            vec![LINK, other],
        ),
        (json!({"result_data": [{"url": LINK}]}), vec![LINK]),
        (json!({"result_data": {"url": LINK}}), vec![LINK]),
        (
            json!({"type": "audio", "result_data": [{"audio_url": sound, "image_url": other, "video_url": LINK}]}),
            vec![LINK, sound, other],
        ),
        (
            json!({"type": "audio", "result_data": {"audio_url": sound, "image_url": other}}),
            vec![sound, other],
        ),
        (
            json!({"results": [LINK, LINK], "result_data": [{"url": LINK}]}),
            vec![LINK],
        ),
        (
            json!({"results": ["", "not a link", "ftp://a/b", "file:///etc/passwd", 7, null]}),
            vec!["unfetchable:ftp://a/b", "unfetchable:file:///etc/passwd"],
        ),
        (json!({"results": []}), vec![]),
        (json!({"results": null}), vec![]),
        (json!({}), vec![]),
    ];
    for (more, expected) in shapes {
        let sighting = seen(&task("completed", &more)).await;
        let urls: Vec<&str> = sighting
            .results
            .iter()
            .map(|link| link.url.as_str())
            .collect();
        assert_eq!(urls, expected, "{more}");
        assert_eq!(sighting.progress, Progress::Completed);
        let roles = sighting
            .results
            .iter()
            .map(|link| (link.url.as_str(), link.role));
        for (url, role) in roles {
            let expected = match url {
                url if url == LINK => AssetRole::Video,
                url if url == sound => AssetRole::Audio,
                url if url == other => AssetRole::Image,
                // Of what kind the task is.
                _ => AssetRole::Video,
            };
            assert_eq!(role, expected, "{url}");
        }
    }
}

#[tokio::test]
async fn results_of_an_unfinished_task_are_none() {
    for status in ["pending", "processing", "failed", "cancelled", "odd"] {
        let sighting = seen(&task(status, &json!({"results": [LINK]}))).await;
        assert!(sighting.results.is_empty(), "{status}");
    }
}

#[tokio::test]
async fn a_failed_task_with_and_without_its_error() {
    let bare = seen(&task("failed", &json!({}))).await;
    assert_eq!((bare.progress, bare.error), (Progress::Failed, None));

    let codes = [
        "content_policy_violation",
        "invalid_parameters",
        "image_processing_error",
        "image_dimension_mismatch",
        "generation_failed_no_content",
        "service_error",
        "generation_timeout",
        "resource_exhausted",
        "quota_exceeded",
        "service_unavailable",
        "resource_not_found",
        "unknown_error",
    ];
    for code in codes {
        let error = json!({"error": {"code": code, "message": "it\nbroke", "type": "task_error"}});
        let sighting = seen(&task("failed", &error)).await;
        assert_eq!(sighting.progress, Progress::Failed, "{code}");
        let error = sighting.error.unwrap();
        assert_eq!(
            (error.code.as_str(), error.message.as_str()),
            (code, "it\\nbroke")
        );
    }
}

#[tokio::test]
async fn a_cancelled_task_in_both_spellings() {
    let plain = seen(&task("cancelled", &json!({}))).await;
    assert_eq!((plain.progress, plain.error), (Progress::Cancelled, None));

    let error = json!({"error": {"code": "request_cancelled", "message": "by the caller"}});
    let failed = seen(&task("failed", &error)).await;
    assert_eq!(failed.progress, Progress::Cancelled);
    assert_eq!(failed.status, "failed");
    assert_eq!(failed.error.unwrap().code, "request_cancelled");
}

#[tokio::test]
async fn an_unknown_status_counts_as_running() {
    let sighting = seen(&task("archiving\u{7}", &json!({}))).await;
    assert_eq!(sighting.progress, Progress::Running);
    assert!(sighting.is_unknown_status);
    assert_eq!(sighting.status, "archiving\\u{7}");
}

#[tokio::test]
async fn unused_fields_may_be_anything_and_used_ones_are_none_where_they_make_no_sense() {
    let more = json!({
        "progress": "65%", "created": "yesterday", "model": [], "type": 1.5, "object": null,
        "task_info": "none", "usage": [[[]]], "brand_new": {"x": 1}, "duration": {},
        "results": {"0": 7},
    });
    let sighting = seen(&task("completed", &more)).await;
    assert_eq!(sighting.percent, None);
    assert_eq!(sighting.created, None);
    assert_eq!(sighting.model, None);
    assert_eq!(sighting.kind, Some("1.5".to_owned()));
    assert_eq!(sighting.completed, None);
    assert!(sighting.results.is_empty());
}

fn error_body(code: &str) -> String {
    let error =
        json!({"code": code, "message": format!("because of {code}"), "type": "t", "param": "p"});
    json!({ "error": error }).to_string()
}

#[tokio::test]
async fn no_such_task() {
    for (status, body) in [
        (404, error_body("task_not_found")),
        (404, String::new()),
        (404, "<html>".to_owned()),
        (410, String::new()),
        (400, error_body("invalid_task_id")),
        (200, error_body("task_not_found")),
    ] {
        let error = look(status, &body).await.unwrap_err();
        assert!(matches!(error, ProviderError::NoSuchTask(_)), "{error}");
        assert!(
            error
                .to_string()
                .starts_with(&format!("provider evolink answered {status}"))
        );
        assert_eq!(error.hint(), None);
    }
}

#[tokio::test]
async fn trouble_with_the_account_is_no_fault_of_the_task() {
    let expected = [
        (401, "invalid_api_key", "check provider.evolink.api_key"),
        (
            402,
            "quota_exceeded",
            "top up the account of provider.evolink",
        ),
        (
            403,
            "permission_denied",
            "the key in provider.evolink.api_key may not",
        ),
    ];
    for (status, code, hint) in expected {
        let error = look(status, &error_body(code)).await.unwrap_err();
        let ProviderError::Refused { until, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!(*until, at(NOW + 60));
        assert_eq!(
            error.to_string(),
            format!("provider evolink answered {status} {code}: because of {code}")
        );
        assert!(
            error.hint().unwrap().starts_with(hint),
            "{:?}",
            error.hint()
        );
    }
}

#[tokio::test]
async fn a_refused_account_is_left_alone() {
    let mut server = Server::new_async().await;
    let mock = serve(&mut server, ID, 402, "no JSON").await.expect(1);
    let provider = evolink(&server);
    assert_eq!(provider.paused_until(), None);
    let first = provider.look(&id(ID)).await.unwrap_err();
    assert_eq!(first.to_string(), "provider evolink answered 402");
    let second = provider.clone().look(&id("other")).await.unwrap_err();
    assert!(matches!(second, ProviderError::Refused { .. }));
    let until = provider.paused_until().unwrap();
    assert!(until > at(NOW + 50) && until <= at(NOW + 60), "{until}");
    mock.assert_async().await;
}

#[tokio::test]
async fn a_limit_pauses_the_provider_for_as_long_as_it_asks() {
    let cases = [
        (429, Some("7"), 7),
        (429, Some("Mon, 30 Mar 2026 08:00:42 GMT"), 42),
        (429, Some("86400"), 300),
        (429, Some("nonsense"), 5),
        (429, None, 5),
        (503, Some("20"), 20),
    ];
    for (status, after, seconds) in cases {
        let mut server = Server::new_async().await;
        let path = format!("/v1/tasks/{ID}");
        let mut mock = server
            .mock("GET", path.as_str())
            .with_status(status)
            .with_body(error_body("rate_limit_exceeded"))
            .expect(1);
        if let Some(after) = after {
            mock = mock.with_header("retry-after", after);
        }
        let mock = mock.create_async().await;
        let provider = evolink(&server);
        let error = provider.look(&id(ID)).await.unwrap_err();
        let ProviderError::Limited { until, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!(*until, at(NOW + seconds), "{status} {after:?}");
        assert!(
            error
                .hint()
                .unwrap()
                .starts_with("lower provider.evolink.requests")
        );
        let again = provider.look(&id(ID)).await.unwrap_err();
        assert!(matches!(again, ProviderError::Limited { .. }));
        assert!(provider.paused_until().unwrap() <= at(NOW + seconds));
        mock.assert_async().await;
    }
}

#[tokio::test]
async fn trouble_on_the_other_side_pauses_nothing() {
    let page = "<html>bad gateway</html>".to_owned();
    let huge = "x".repeat(2 << 20);
    for (status, body) in [
        (500, error_body("internal_error")),
        (502, page),
        (503, String::new()),
        (504, huge),
    ] {
        let mut server = Server::new_async().await;
        let mock = serve(&mut server, ID, status, &body).await.expect(2);
        let provider = evolink(&server);
        for _ in 0..2 {
            let error = provider.look(&id(ID)).await.unwrap_err();
            assert!(matches!(error, ProviderError::Unavailable(_)), "{error}");
            assert!(
                error
                    .to_string()
                    .starts_with(&format!("provider evolink answered {status}"))
            );
        }
        assert_eq!(provider.paused_until(), None);
        mock.assert_async().await;
    }
}

#[tokio::test]
async fn nobody_listens() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let server = Server::new_async().await;
    let config = Config {
        base_url: Some(format!("http://{address}").parse().unwrap()),
        ..config(&server)
    };
    let error = connect("evolink", &config).look(&id(ID)).await.unwrap_err();
    assert!(matches!(error, ProviderError::Unavailable(_)), "{error}");
    let start = "provider evolink: no connection to 127.0.0.1";
    assert!(error.to_string().starts_with(start), "{error}");
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_no_answer() {
    let mut server = Server::new_async().await;
    let path = format!("/v1/tasks/{ID}");
    let mock = server.mock("GET", path.as_str()).with_chunked_body(|w| {
        w.write_all(b"{\"id\":")?;
        Err(std::io::Error::other("cut"))
    });
    let _mock = mock.create_async().await;
    let error = evolink(&server).look(&id(ID)).await.unwrap_err();
    assert!(matches!(error, ProviderError::Unavailable(_)), "{error}");
}

#[tokio::test]
async fn a_byte_order_mark_before_an_answer_is_passed_over() {
    let answer = task("completed", &json!({"results": [LINK]}));
    let sighting = look(200, &format!("\u{feff}{answer}")).await.unwrap();
    assert_eq!(sighting.progress, Progress::Completed);
}

#[tokio::test]
async fn an_answer_that_leads_elsewhere_says_where() {
    for (location, said) in [
        (
            "https://login.example.com/sso?ticket=canary#x",
            "login.example.com/sso",
        ),
        ("/maintenance?ticket=canary", "127.0.0.1/maintenance"),
    ] {
        let mut server = Server::new_async().await;
        let path = format!("/v1/tasks/{ID}");
        let mock = server.mock("GET", path.as_str()).with_status(302);
        let mock = mock.with_header("location", location).create_async().await;
        let error = evolink(&server).look(&id(ID)).await.unwrap_err();
        let told = format!(
            "provider evolink answered 302: it leads to {said}, and no call follows it there"
        );
        assert_eq!(error.to_string(), told);
        mock.assert_async().await;
    }
}

#[tokio::test]
async fn lies_are_refused() {
    let whole = task("completed", &json!({"results": [LINK]})).to_string();
    let lies = [
        (
            "<html>Welcome</html>".to_owned(),
            "no JSON: expected value at line 1 column 1; its type: application/json",
        ),
        (
            whole[..whole.len() - 9].to_owned(),
            "no JSON: it ends too early",
        ),
        (String::new(), "no JSON: it is empty"),
        ("[".repeat(5000), "no JSON: recursion limit exceeded"),
        (
            format!("{}{}", whole, " ".repeat((1 << 20) - whole.len() + 1)),
            "larger than 1 MiB",
        ),
        ("null".to_owned(), "no task ID at /id"),
        ("[]".to_owned(), "no task ID at /id"),
        ("{}".to_owned(), "no task ID at /id"),
        (
            task("completed", &json!({"id": "task-unified-1-other"})).to_string(),
            "about task \"task-unified-1-other\", not task-unified-1774857405-abc123",
        ),
        (
            task("completed", &json!({"id": null})).to_string(),
            "no task ID",
        ),
        (
            task("x", &json!({"status": 7})).to_string(),
            "a number at /status",
        ),
        (
            task("x", &json!({"status": null})).to_string(),
            "null at /status",
        ),
        (
            task("x", &json!({"status": ["completed"]})).to_string(),
            "an array at /status",
        ),
        (json!({"id": ID}).to_string(), "nothing at /status"),
    ];
    for (body, why) in lies {
        let error = look(200, &body).await.unwrap_err();
        assert!(matches!(error, ProviderError::Garbled(_)), "{error}");
        assert!(error.to_string().contains(why), "{error}");
        assert!(error.hint().unwrap().contains("provider.evolink.base_url"));
    }
    for status in [204, 301, 400, 405] {
        let error = look(status, "").await.unwrap_err();
        assert!(
            matches!(error, ProviderError::Garbled(_)),
            "{status}: {error}"
        );
    }
}

#[tokio::test]
async fn an_answer_of_just_the_largest_size_is_taken() {
    let whole = task("pending", &json!({})).to_string();
    let padded = format!("{whole}{}", " ".repeat((1 << 20) - whole.len()));
    assert!(look(200, &padded).await.is_ok());
}

#[tokio::test]
async fn no_error_shows_the_key_or_a_signature() {
    let words = format!("key {KEY} may not read https://a.example/b?X-Amz-Signature=canary");
    let body = json!({"error": {"code": KEY, "message": words}}).to_string();
    for status in [400, 401, 429, 500] {
        let error = look(status, &body).await.unwrap_err();
        let told = format!("{error} {error:?} {:?}", error.hint());
        assert!(!told.contains("canary"), "{told}");
    }
    let sighting = seen(&task("failed", &serde_json::from_str(&body).unwrap())).await;
    assert!(!format!("{sighting:?}").contains("canary"));
    let server = Server::new_async().await;
    assert!(!format!("{:?}", evolink(&server)).contains("canary"));
}

/// A batch answer for whoever asks for exactly `ids`.
async fn serve_batch(server: &mut ServerGuard, ids: &[&str], status: usize, body: &str) -> Mock {
    server
        .mock("POST", "/v1/tasks/batch")
        .match_header("authorization", format!("Bearer {KEY}").as_str())
        .match_header("content-type", "application/json")
        .match_body(Matcher::Json(json!({ "task_ids": ids })))
        .with_status(status)
        .with_body(body)
        .create_async()
        .await
}

fn named(id: &str, status: &str) -> Value {
    task(status, &json!({"id": id, "results": [LINK]}))
}

/// What `look_many` told, and then looks at those that it told nothing of, in short.
async fn told(provider: &Provider, ids: &[&str]) -> Vec<(String, String)> {
    let names = ids.iter().map(|&name| name.to_owned());
    let ids: Vec<TaskId> = ids.iter().map(|text| id(text)).collect();
    // Spawned, to prove that it can be.
    let provider = provider.clone();
    let mut set = tokio::task::JoinSet::new();
    set.spawn(async move {
        let ids: Vec<&TaskId> = ids.iter().collect();
        let looks = provider.look_many(&ids).await;
        let untold = ids.iter().zip(&looks).filter(|(_, look)| look.is_none());
        let untold: Vec<&TaskId> = untold.map(|(id, _)| *id).collect();
        let mut singly = provider.look_each(&untold).await.into_iter();
        let look = |look: Option<Look>| look.or_else(|| singly.next()).unwrap();
        looks.into_iter().map(look).collect::<Vec<Look>>()
    });
    let looks = set.join_next().await.unwrap().unwrap();
    let short = |look: Look| match look {
        Ok(sighting) => sighting.status,
        Err(error) => error.as_str().to_owned(),
    };
    names.zip(looks.into_iter().map(short)).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(id, status): &(&str, &str)| ((*id).to_owned(), (*status).to_owned());
    expected.iter().map(owned).collect()
}

#[tokio::test]
async fn a_batch_is_one_call() {
    let mut server = Server::new_async().await;
    let data = [
        named("c", "failed"),
        named("a", "pending"),
        named("b", "completed"),
    ];
    let body = json!({ "data": data }).to_string();
    let batch = serve_batch(&mut server, &["a", "b", "c"], 200, &body)
        .await
        .expect(1);
    let looks = told(&evolink(&server), &["a", "b", "c"]).await;
    assert_eq!(
        looks,
        pairs(&[("a", "pending"), ("b", "completed"), ("c", "failed")])
    );
    batch.assert_async().await;
}

#[tokio::test]
async fn what_a_batch_leaves_out_or_garbles_is_asked_for_by_itself() {
    let mut server = Server::new_async().await;
    let data = json!([
        named("a", "pending"), named("stranger", "pending"), {"id": "c", "status": 7}, null, 3,
        named("a", "failed"),
    ]);
    let body = json!({ "data": data }).to_string();
    let batch = serve_batch(&mut server, &["a", "b", "c", "d"], 200, &body)
        .await
        .expect(1);
    let gone = serve(&mut server, "b", 404, &error_body("task_not_found"))
        .await
        .expect(1);
    let there = serve(&mut server, "c", 200, &named("c", "completed").to_string())
        .await
        .expect(1);
    let broken = serve(&mut server, "d", 500, "").await.expect(1);
    let looks = told(&evolink(&server), &["a", "b", "c", "d"]).await;
    let expected = [
        ("a", "pending"),
        ("b", "no_such_task"),
        ("c", "completed"),
        ("d", "unavailable"),
    ];
    assert_eq!(looks, pairs(&expected));
    for mock in [batch, gone, there, broken] {
        mock.assert_async().await;
    }
}

#[tokio::test]
async fn without_a_batch_call_tasks_are_asked_for_one_by_one_from_then_on() {
    for status in [404, 405, 501] {
        let mut server = Server::new_async().await;
        let batch = serve_batch(&mut server, &["a", "b"], status, "")
            .await
            .expect(1);
        let a = serve(&mut server, "a", 200, &named("a", "pending").to_string())
            .await
            .expect(2);
        let b = serve(&mut server, "b", 200, &named("b", "failed").to_string())
            .await
            .expect(2);
        let provider = evolink(&server);
        for _ in 0..2 {
            let looks = told(&provider, &["a", "b"]).await;
            assert_eq!(looks, pairs(&[("a", "pending"), ("b", "failed")]));
        }
        for mock in [batch, a, b] {
            mock.assert_async().await;
        }
    }
}

#[tokio::test]
async fn a_batch_that_fails_hides_no_task() {
    let other = json!({"tasks": []}).to_string();
    for (status, body) in [
        (200, "<html>"),
        (200, other.as_str()),
        (400, "{}"),
        (401, "{}"),
        (403, "{}"),
        (500, ""),
    ] {
        let mut server = Server::new_async().await;
        let batch = serve_batch(&mut server, &["a", "b"], status, body)
            .await
            .expect(2);
        let a = serve(&mut server, "a", 200, &named("a", "pending").to_string())
            .await
            .expect(2);
        let b = serve(&mut server, "b", 200, &named("b", "failed").to_string())
            .await
            .expect(2);
        let provider = evolink(&server);
        for _ in 0..2 {
            let looks = told(&provider, &["a", "b"]).await;
            assert_eq!(
                looks,
                pairs(&[("a", "pending"), ("b", "failed")]),
                "{status} {body}"
            );
            assert_eq!(provider.paused_until(), None);
        }
        for mock in [batch, a, b] {
            mock.assert_async().await;
        }
    }
}

#[tokio::test]
async fn what_goes_for_all_tasks_is_asked_once() {
    for (status, expected) in [
        (401, "refused"),
        (402, "refused"),
        (429, "limited"),
        (500, "unavailable"),
    ] {
        let mut server = Server::new_async().await;
        let batch = serve_batch(&mut server, &["a", "b", "c"], status, "")
            .await
            .expect(1);
        let singles = usize::from(status != 429);
        let path = Matcher::Regex("^/v1/tasks/[abc]$".to_owned());
        let single = server.mock("GET", path).with_status(status).expect(singles);
        let single = single.create_async().await;
        let looks = told(&evolink(&server), &["a", "b", "c"]).await;
        assert_eq!(
            looks,
            pairs(&[("a", expected), ("b", expected), ("c", expected)])
        );
        batch.assert_async().await;
        single.assert_async().await;
    }
}

#[tokio::test]
async fn many_tasks_are_cut_into_batches() {
    let mut server = Server::new_async().await;
    let names: Vec<String> = (0..101).map(|number| format!("t{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut mocks = Vec::new();
    for some in names.chunks(50).filter(|some| some.len() > 1) {
        let data: Vec<Value> = some.iter().map(|name| named(name, "pending")).collect();
        let body = json!({ "data": data }).to_string();
        mocks.push(serve_batch(&mut server, some, 200, &body).await.expect(1));
    }
    // A batch of one would only be a dearer look.
    mocks.push(
        serve(
            &mut server,
            "t100",
            200,
            &named("t100", "failed").to_string(),
        )
        .await
        .expect(1),
    );
    let looks = told(&evolink(&server), &names).await;
    assert_eq!(looks.len(), 101);
    assert!(looks.iter().zip(&names).all(|((id, _), name)| id == name));
    assert_eq!(looks[100].1, "failed");
    for mock in mocks {
        mock.assert_async().await;
    }
}

#[tokio::test]
async fn nothing_to_ask_is_no_call_and_the_same_task_twice_is_told_twice() {
    let mut server = Server::new_async().await;
    let any = server
        .mock("GET", Matcher::Any)
        .expect(0)
        .create_async()
        .await;
    let provider = evolink(&server);
    assert!(told(&provider, &[]).await.is_empty());
    any.assert_async().await;
    any.remove_async().await;
    let body = json!({"data": [named("a", "pending")]}).to_string();
    let _batch = serve_batch(&mut server, &["a", "a"], 200, &body).await;
    assert_eq!(
        told(&provider, &["a", "a"]).await,
        pairs(&[("a", "pending"), ("a", "pending")])
    );
}

#[tokio::test]
async fn the_key_is_checked_at_the_free_call() {
    let mut server = Server::new_async().await;
    let credits = server
        .mock("GET", "/v1/credits")
        .match_header("authorization", format!("Bearer {KEY}").as_str())
        .with_body(r#"{"data":{"credits":12}}"#)
        .create_async()
        .await;
    let told = evolink(&server).check_key().await.unwrap();
    assert_eq!(told, "the key is accepted: /v1/credits answered");
    credits.assert_async().await;
    credits.remove_async().await;

    let _refused = server
        .mock("GET", "/v1/credits")
        .with_status(401)
        .with_body(error_body("invalid_api_key"))
        .create_async()
        .await;
    let error = evolink(&server).check_key().await.unwrap_err();
    assert!(matches!(error, ProviderError::Refused { .. }), "{error}");
}

#[tokio::test]
async fn without_a_free_call_the_key_is_checked_with_a_made_up_task() {
    let answers = [
        (404, "task_not_found", Ok(())),
        (400, "invalid_task_id", Ok(())),
        (401, "invalid_api_key", Err("refused")),
        (500, "internal_error", Err("unavailable")),
    ];
    for (status, code, expected) in answers {
        let mut server = Server::new_async().await;
        let _no_credits = server
            .mock("GET", "/v1/credits")
            .with_status(404)
            .create_async()
            .await;
        let made_up = serve(
            &mut server,
            "reelvault-key-check",
            status,
            &error_body(code),
        )
        .await;
        let checked = evolink(&server).check_key().await;
        assert_eq!(
            checked.map(|_| ()).map_err(|error| error.as_str()),
            expected
        );
        made_up.assert_async().await;
    }
}

#[tokio::test]
async fn a_provider_says_what_it_was_described_as() {
    let server = Server::new_async().await;
    let provider = evolink(&server);
    assert_eq!(provider.name().as_str(), "evolink");
    assert_eq!(provider.ttl(), Span::from_secs(86_400));
    assert!(provider.refreshes());
    assert!(provider.hosts().is_empty());
    assert!(provider.allow_private());
    assert!(provider.download_headers().is_empty());
    let interval = |kind| provider.min_interval(kind).as_duration().as_secs();
    assert_eq!(
        [
            Some("video"),
            Some("image"),
            Some("audio"),
            Some("text"),
            None
        ]
        .map(interval),
        [8, 3, 6, 8, 8]
    );
    let short = Config {
        output_ttl: Some(Span::from_secs(3600)),
        ..config(&server)
    };
    assert_eq!(connect("evolink", &short).ttl(), Span::from_secs(3600));
}

/// An API of another shape: an envelope, the key in a header, the ID in the query, results in a string, no batch.
const HOUSE: &str = r#"
base_url = "https://api.example.com/base"
auth = { scheme = "header", name = "X-Key", prefix = "Key" }
[status]
path = "/jobs?taskId={id}"
state = "/data/state"
map = { waiting = "pending", generating = "running", success = "completed", fail = "failed" }
ok = { pointer = "/code", equals = 200 }
error = { code = "/code", message = "/msg", gone = ["422"], refused = ["1001"], limited = ["1002"] }
times = { completed = { pointer = "/data/completeTime", unit = "ms" }, expires = { pointer = "/data/dies", unit = "rfc3339" } }
[results]
pointers = ["/data/resultJson/#/resultUrls/*"]
hosts = ["*.example.com"]
download_auth = "same"
ttl = "336h"
"#;

#[tokio::test]
async fn a_description_of_ones_own_goes_the_same_way() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("house.toml");
    std::fs::write(&path, HOUSE).unwrap();
    let mut server = Server::new_async().await;
    let house = Config {
        description: Some(path),
        headers: [("X-Team".to_owned(), "render".to_owned())].into(),
        ..config(&server)
    };
    let provider = connect("house", &house);
    assert_eq!(provider.ttl(), Span::from_secs(336 * 3600));
    assert_eq!(provider.hosts(), ["*.example.com"]);
    assert_eq!(
        provider.download_headers()["x-key"],
        format!("Key {KEY}").as_str()
    );
    assert_eq!(provider.download_headers().len(), 1);

    let urls = r#"{"resultUrls":["https://cdn.example.com/a.mp4","https://elsewhere.net/in.png"]}"#;
    let dies = "2026-03-30T09:00:00Z";
    let answers = [
        (
            json!({"code": 200, "data": {"state": "success", "resultJson": urls, "completeTime": 1_774_857_500_000_i64, "dies": dies}}),
            Ok("success"),
        ),
        (
            json!({"code": 200, "data": {"state": "waiting"}}),
            Ok("waiting"),
        ),
        (
            json!({"code": 422, "msg": "record not found"}),
            Err("no_such_task"),
        ),
        (json!({"code": 501, "msg": "later"}), Err("unavailable")),
        (json!({"code": 1002, "msg": "slow down"}), Err("limited")),
    ];
    for (body, expected) in answers {
        let mock = server
            .mock("GET", "/jobs?taskId=a%2Bb")
            .match_header("x-key", format!("Key {KEY}").as_str())
            .match_header("x-team", "render")
            .with_body(body.to_string())
            .create_async()
            .await;
        let look = provider.look(&id("a+b")).await;
        if let Ok(Sighting {
            results,
            completed,
            expires,
            ..
        }) = &look
            && expected == Ok("success")
        {
            assert_eq!(results.len(), 1);
            assert_eq!(*completed, Some(at(1_774_857_500)));
            assert_eq!(*expires, Timestamp::parse(dies));
        }
        let look = look.as_ref().map(|sighting| sighting.status.as_str());
        assert_eq!(look.map_err(ProviderError::as_str), expected);
        mock.assert_async().await;
        mock.remove_async().await;
    }
}
