//! The task API as a client sees it, compared with the provider's page.

use serde_json::Value;
use serde_json::json;

use crate::model::task::TaskError;
use crate::model::task::TaskId;
use crate::simulator::Config;
use crate::simulator::Simulator;
use crate::simulator::probe::Came;
use crate::simulator::probe::Hands;
use crate::simulator::probe::call;
use crate::simulator::probe::client;
use crate::simulator::probe::post;
use crate::simulator::probe::send;
use crate::simulator::probe::start;
use crate::simulator::script::ApiFault;
use crate::simulator::script::Call;
use crate::simulator::script::Rule;
use crate::simulator::tasks::Status;
use crate::simulator::tasks::Submission;
use crate::simulator::tasks::TaskKind;
use crate::units::Span;

const PAGE_ID: &str = "task-unified-1774857405-abc123";

/// The page's task on its page's day: it takes 165 seconds, 15 of them in the queue.
async fn page() -> (Simulator, Hands, TaskId) {
    let hands = Hands::new();
    let config = Config {
        public_url: Some("https://cdn.example.com/".parse().unwrap()),
        pending: Span::from_secs(15),
        running: Span::from_secs(150),
        spread: 0.0,
        ..Config::default()
    };
    let simulator = start(config, &hands).await;
    let id = simulator.submit(Submission {
        id: Some(PAGE_ID.parse().unwrap()),
        ..Submission::video("seedance-2.0-text-to-video")
    });
    (simulator, hands, id.unwrap())
}

async fn check_page(simulator: &Simulator, expected: Value) {
    let came = call(simulator, &format!("/v1/tasks/{PAGE_ID}")).await;
    assert_eq!(came.status, 200);
    assert_eq!(came.json(), expected);
}

/// The page's body for `status`, with what differs from state to state.
fn page_body(status: &str, progress: u8, task_info: &Value, more: &Value) -> Value {
    let mut body = json!({
        "id": "task-unified-1774857405-abc123",
        "object": "video.generation.task",
        "created": 1_774_857_405,
        "model": "seedance-2.0-text-to-video",
        "status": status,
        "progress": progress,
        "type": "video",
        "task_info": task_info,
    });
    let fields = more.as_object().unwrap().clone();
    body.as_object_mut().unwrap().extend(fields);
    body
}

#[tokio::test]
async fn each_state_has_the_body_of_the_page() {
    let (simulator, hands, id) = page().await;
    let usage =
        json!({ "billing_rule": "per_second", "credits_reserved": 50, "user_group": "default" });
    let info = json!({ "can_cancel": true, "estimated_time": 165, "video_duration": 5 });
    check_page(
        &simulator,
        page_body("pending", 0, &info, &json!({ "usage": usage })),
    )
    .await;

    let (open, closed) = (
        json!({ "can_cancel": true }),
        json!({ "can_cancel": false }),
    );
    hands.pass(Span::from_secs(15));
    check_page(&simulator, page_body("processing", 1, &open, &json!({}))).await;
    hands.pass(Span::from_secs(75));
    check_page(&simulator, page_body("processing", 50, &open, &json!({}))).await;
    assert!(simulator.push(&id, Status::Processing(65)));
    check_page(&simulator, page_body("processing", 65, &open, &json!({}))).await;

    simulator.push(&id, Status::Completed);
    let results = json!({ "results": [format!("https://cdn.example.com/files/{PAGE_ID}/0.mp4")] });
    check_page(&simulator, page_body("completed", 100, &closed, &results)).await;

    let error = TaskError {
        code: "content_policy_violation".to_owned(),
        message: "blocked".to_owned(),
    };
    simulator.push(&id, Status::Failed(error));
    let error =
        json!({ "code": "content_policy_violation", "message": "blocked", "type": "task_error" });
    check_page(
        &simulator,
        page_body("failed", 0, &closed, &json!({ "error": error })),
    )
    .await;

    simulator.push(&id, Status::Cancelled);
    check_page(&simulator, page_body("cancelled", 0, &closed, &json!({}))).await;
}

#[tokio::test]
async fn a_task_completes_by_the_clock_and_may_tell_its_duration() {
    let hands = Hands::new();
    let config = Config {
        spread: 0.0,
        speed: 10.0,
        tells_duration: true,
        ..Config::default()
    };
    let simulator = start(config, &hands).await;
    let id = simulator.submit(Submission::video("m")).unwrap();
    hands.pass(Span::from_millis(11_999));
    assert_eq!(simulator.status(&id), Some(Status::Processing(98)));
    hands.pass(Span::from_millis(1));
    assert_eq!(simulator.status(&id), Some(Status::Completed));
    let came = call(&simulator, &format!("/v1/tasks/{id}")).await;
    assert_eq!(came.json()["duration"], 12);
}

#[tokio::test]
async fn a_submission_is_answered_with_the_pending_task() {
    let hands = Hands::new();
    let simulator = start(Config::at_once(), &hands).await;
    let wish =
        json!({ "model": "seedance-2.0-text-to-video", "duration": 6, "n": 2, "prompt": "rain" });
    let came = post(&simulator, "/v1/videos/generations", &wish).await;
    let body = came.json();
    assert_eq!(
        (came.status.as_u16(), &body["status"]),
        (200, &json!("pending"))
    );
    assert_eq!(body["task_info"]["video_duration"], 6);
    assert_eq!(body["usage"]["credits_reserved"], 120);
    let id: TaskId = body["id"].as_str().unwrap().parse().unwrap();
    let letters = id
        .as_str()
        .strip_prefix("task-unified-1774857405-")
        .unwrap();
    assert_eq!(letters.len(), 8);
    assert_eq!(simulator.links(&id).len(), 2);

    for (path, object, rule) in [
        (
            "/v1/images/generations",
            "image.generation.task",
            "per_call",
        ),
        (
            "/v1/audios/generations",
            "audio.generation.task",
            "per_call",
        ),
    ] {
        let body = post(&simulator, path, &json!({ "model": "m" }))
            .await
            .json();
        assert_eq!(
            (&body["object"], &body["usage"]["billing_rule"]),
            (&json!(object), &json!(rule))
        );
        assert_eq!(body["task_info"].get("video_duration"), None);
    }
    assert_eq!(simulator.seen().submits, 3);
}

#[tokio::test]
async fn one_idempotency_key_makes_one_task() {
    let simulator = start(Config::at_once(), &Hands::new()).await;
    let url = format!("{}/v1/videos/generations", simulator.base_url());
    let submit = |key: &'static str| {
        let request = client()
            .post(&url)
            .bearer_auth("k")
            .header("idempotency-key", key);
        send(request.json(&json!({ "model": "m" })))
    };
    let first = submit("a").await.unwrap().json();
    assert_eq!(submit("a").await.unwrap().json(), first);
    assert_ne!(submit("b").await.unwrap().json()["id"], first["id"]);
    assert_eq!(simulator.tasks().len(), 2);
}

#[track_caller]
fn check_refusal(came: &Came, status: u16, code: &str, param: Option<&str>) {
    let body = came.json();
    assert_eq!(came.status, status, "{body}");
    assert_eq!(body["error"]["code"], code, "{body}");
    assert_eq!(
        body["error"].get("param").and_then(Value::as_str),
        param,
        "{body}"
    );
    assert!(body["error"]["message"].is_string() && body["error"]["type"].is_string());
}

#[tokio::test]
async fn wrong_calls_are_refused_in_the_provider_s_form() {
    let simulator = start(Config::at_once(), &Hands::new()).await;
    for (field, value) in [
        ("model", json!("")),
        ("n", json!(0)),
        ("n", json!(17)),
        ("duration", json!(61)),
        ("callback_url", json!("ftp://x/")),
        ("callback_url", json!("nowhere")),
        (
            "callback_url",
            json!(format!("http://x/{}", "y".repeat(2048))),
        ),
        ("format", json!("wav")),
    ] {
        let mut wish = json!({ "model": "m" });
        wish[field] = value;
        let came = post(&simulator, "/v1/videos/generations", &wish).await;
        check_refusal(&came, 400, "invalid_parameters", Some(field));
    }
    let came = post(&simulator, "/v1/videos/generations", &json!([1])).await;
    check_refusal(&came, 400, "invalid_parameters", None);
    let long = json!({ "model": "m", "prompt": "x".repeat(2 << 20) });
    let came = post(&simulator, "/v1/videos/generations", &long).await;
    check_refusal(&came, 413, "invalid_parameters", None);
    assert_eq!(simulator.tasks(), Vec::new());

    let came = call(&simulator, "/v1/tasks/nonsense").await;
    check_refusal(&came, 400, "invalid_task_id", Some("task_id"));
    let came = call(&simulator, "/v1/tasks/task-unified-1-abcdefgh").await;
    check_refusal(&came, 404, "task_not_found", None);
    check_refusal(&call(&simulator, "/v2/tasks").await, 404, "not_found", None);
    check_refusal(
        &call(&simulator, "/v1/videos/generations").await,
        405,
        "method_not_allowed",
        None,
    );
}

#[tokio::test]
async fn every_route_of_the_api_wants_the_key() {
    let config = Config {
        api_key: Some("right".to_owned()),
        ..Config::at_once()
    };
    let simulator = start(config, &Hands::new()).await;
    for path in [
        "/v1/tasks/task-unified-1-abcdefgh",
        "/v1/tasks",
        "/v1/credits",
    ] {
        let url = format!("{}{path}", simulator.base_url());
        for request in [client().get(&url), client().get(&url).bearer_auth("wrong")] {
            check_refusal(&send(request).await.unwrap(), 401, "invalid_api_key", None);
        }
        let came = send(client().get(&url).bearer_auth("right")).await.unwrap();
        assert_ne!(came.status, 401);
    }
    for path in ["/v1/tasks/batch", "/v1/audios/generations"] {
        check_refusal(
            &post(&simulator, path, &json!({})).await,
            401,
            "invalid_api_key",
            None,
        );
    }
}

#[tokio::test]
async fn the_list_is_filtered_paged_and_newest_first() {
    let hands = Hands::new();
    let simulator = start(Config::default(), &hands).await;
    let submit = |kind, model: &str| {
        let submission = Submission {
            kind,
            ..Submission::video(model)
        };
        simulator.submit(submission).unwrap()
    };
    let ids = [
        submit(TaskKind::Video, "a"),
        submit(TaskKind::Image, "a"),
        submit(TaskKind::Video, "b"),
        submit(TaskKind::Video, "b"),
    ];
    simulator.push(&ids[0], Status::Completed);
    simulator.push(&ids[3], Status::Processing(5));
    let check = async |query: &str, expected: &[usize], total: usize| {
        let body = call(&simulator, &format!("/v1/tasks{query}")).await.json();
        let got: Vec<&Value> = body["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| &row["id"])
            .collect();
        let expected: Vec<Value> = expected.iter().map(|at| json!(ids[*at])).collect();
        assert_eq!(got, expected.iter().collect::<Vec<_>>(), "{query}");
        assert_eq!(body["total"], total, "{query}");
        body
    };
    check("", &[3, 2, 1, 0], 4).await;
    check("?type=image", &[1], 1).await;
    check("?model=b", &[3, 2], 2).await;
    check("?status=processing", &[3, 2, 1], 3).await;
    check("?status=pending&type=video", &[2], 1).await;
    check("?page=2&page_size=3", &[0], 4).await;
    check("?page=9", &[], 4).await;
    let body = check("?status=completed", &[0], 1).await;
    let row = json!({
        "id": ids[0],
        "object": "video.generation.task",
        "created": 1_774_857_405,
        "model": "a",
        "status": "completed",
        "progress": 100,
        "type": "video",
        "has_results": true,
    });
    assert_eq!(body["data"][0], row);
    let came = call(&simulator, "/v1/tasks?page_size=51").await;
    check_refusal(&came, 400, "invalid_parameters", Some("page_size"));
    let came = call(&simulator, "/v1/tasks?page=first").await;
    check_refusal(&came, 400, "invalid_parameters", None);
}

#[tokio::test]
async fn a_batch_leaves_out_what_it_does_not_know() {
    let simulator = start(Config::at_once(), &Hands::new()).await;
    let ids = [1, 2].map(|_| simulator.submit(Submission::video("m")).unwrap());
    let wish = json!({ "task_ids": [ids[1], "task-unified-1-unknown1", "odd", ids[0]] });
    let body = post(&simulator, "/v1/tasks/batch", &wish).await.json();
    let rows = body["data"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(
        (&rows[0]["id"], &rows[1]["id"]),
        (&json!(ids[1]), &json!(ids[0]))
    );
    assert_eq!(
        rows[0],
        call(&simulator, &format!("/v1/tasks/{}", ids[1]))
            .await
            .json()
    );
    let many = json!({ "task_ids": vec!["task-unified-1-unknown1"; 51] });
    let came = post(&simulator, "/v1/tasks/batch", &many).await;
    check_refusal(&came, 400, "invalid_parameters", Some("task_ids"));
}

#[tokio::test]
async fn list_and_batch_can_be_absent() {
    let config = Config {
        has_list: false,
        has_batch: false,
        ..Config::at_once()
    };
    let simulator = start(config, &Hands::new()).await;
    assert_eq!(call(&simulator, "/v1/tasks").await.status, 404);
    assert!(
        [404, 405].contains(
            &post(&simulator, "/v1/tasks/batch", &json!({}))
                .await
                .status
                .as_u16()
        )
    );
}

#[tokio::test]
async fn credits_are_spent_by_submissions() {
    let simulator = start(Config::at_once(), &Hands::new()).await;
    simulator.submit(Submission::video("m")).unwrap();
    let body = call(&simulator, "/v1/credits").await.json();
    assert_eq!(body["data"]["token"]["used_credits"], 50);
    assert_eq!(body["data"]["user"]["remaining_credits"], 999_999_950);
    assert_eq!(body["success"], true);
}

#[tokio::test]
async fn faults_of_the_api() {
    let config = Config {
        script: "429@1500ms,429-bare,500,401,402,403,404,api-html"
            .parse()
            .unwrap(),
        ..Config::at_once()
    };
    let simulator = start(config, &Hands::new()).await;
    let path = format!(
        "/v1/tasks/{}",
        simulator.submit(Submission::video("m")).unwrap()
    );
    let came = call(&simulator, &path).await;
    check_refusal(&came, 429, "rate_limit_exceeded", None);
    assert_eq!(came.header("retry-after"), Some("2"));
    let came = call(&simulator, &path).await;
    check_refusal(&came, 429, "rate_limit_exceeded", None);
    assert_eq!(came.header("retry-after"), None);
    for (status, code) in [
        (500, "internal_error"),
        (401, "invalid_api_key"),
        (402, "quota_exceeded"),
        (403, "permission_denied"),
        (404, "task_not_found"),
    ] {
        check_refusal(&call(&simulator, &path).await, status, code, None);
    }
    let came = call(&simulator, &path).await;
    assert_eq!(
        (came.status.as_u16(), came.header("content-type")),
        (200, Some("text/html; charset=utf-8"))
    );
    assert_eq!(call(&simulator, &path).await.json()["status"], "completed");
    assert_eq!(simulator.seen().faults, 8);

    simulator.plant(Rule::api(ApiFault::Hang).call(Call::Credits));
    let url = format!("{}/v1/credits", simulator.base_url());
    let request = client()
        .get(url)
        .bearer_auth("k")
        .timeout(std::time::Duration::from_millis(50));
    assert!(send(request).await.is_err_and(|error| error.is_timeout()));
}

#[tokio::test]
async fn lies_about_tasks() {
    let words = "no-results,unknown-status,back,other-id,wrong-types,huge";
    let config = Config {
        script: words.parse().unwrap(),
        ..Config::at_once()
    };
    let simulator = start(config, &Hands::new()).await;
    let path = format!(
        "/v1/tasks/{}",
        simulator.submit(Submission::video("m")).unwrap()
    );
    let next = async || call(&simulator, &path).await;
    let told = next().await.json();
    assert_eq!(
        (&told["status"], told.get("results")),
        (&json!("completed"), None)
    );
    assert_eq!(next().await.json()["status"], "post_processing");
    let told = next().await.json();
    assert_eq!(
        (&told["status"], told.get("results")),
        (&json!("processing"), None)
    );
    let own_id = path.strip_prefix("/v1/tasks/").unwrap();
    assert_ne!(next().await.json()["id"], own_id);
    assert!(next().await.json()["progress"].is_array());
    assert!(next().await.body.len() > 2 << 20);
    let told = next().await.json();
    assert_eq!(
        (&told["id"], &told["status"]),
        (&json!(own_id), &json!("completed"))
    );
}

#[tokio::test]
async fn endings_are_dealt_in_the_order_of_submission() {
    let config = Config {
        script: "fail@resource_exhausted,cancel,cancel-as-failed"
            .parse()
            .unwrap(),
        ..Config::at_once()
    };
    let simulator = start(config, &Hands::new()).await;
    let mut told = Vec::new();
    for _ in 0..4 {
        let id = simulator.submit(Submission::video("m")).unwrap();
        let body = call(&simulator, &format!("/v1/tasks/{id}")).await.json();
        told.push(json!([body["status"], body["error"]["code"]]));
    }
    let expected = json!([
        ["failed", "resource_exhausted"],
        ["cancelled", null],
        ["failed", "request_cancelled"],
        ["completed", null],
    ]);
    assert_eq!(json!(told), expected);
}
