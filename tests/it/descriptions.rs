//! What descriptions can say beyond one call and a list of links, against task APIs on loopback.

use mockito::Matcher;
use mockito::Server;
use mockito::ServerGuard;
use reelvault::clock::Clock;
use reelvault::clock::Timestamp;
use reelvault::http::Http;
use reelvault::http::client::ClientConfig;
use reelvault::http::client::Reqwest;
use reelvault::http::client::Traffic;
use reelvault::http::client::USER_AGENT;
use reelvault::http::guard::Guard;
use reelvault::http::roots::Roots;
use reelvault::model::task::Progress;
use reelvault::model::task::Sighting;
use reelvault::model::task::TaskId;
use reelvault::origin::OriginError;
use reelvault::origin::open::Origin;
use reelvault::origin::open::Window;
use reelvault::provider::Config;
use reelvault::provider::ListError;
use reelvault::provider::Look;
use reelvault::provider::Place;
use reelvault::provider::Provider;
use reelvault::provider::ProviderError;
use reelvault::secret::SecretSource;
use reelvault::units::Span;
use serde_json::Value;
use serde_json::json;

use crate::process::Home;

/// 2026-11-24T14:00:00Z
const NOW: i64 = 1_795_528_800;

fn client(guard: Guard) -> Http {
    let config = ClientConfig {
        guard,
        traffic: Traffic::Looks,
        connect_timeout: Span::from_secs(5),
        read_timeout: Span::from_secs(5),
        user_agent: USER_AGENT.to_owned(),
        roots: Roots::load(&[]).unwrap(),
    };
    Http::new(Reqwest::new(&config).unwrap())
}

/// The built-in provider of this kind, at `server`, with `key`.
fn connect(kind: &str, server: &ServerGuard, key: &'static str) -> Provider {
    let config = Config {
        kind: Some(kind.to_owned()),
        api_key: Some(SecretSource::env("KEY")),
        base_url: Some(server.url().parse().unwrap()),
        requests: Some("1000/s".parse().unwrap()),
        allow_private: true,
        ..Config::default()
    };
    Provider::connect(
        kind.parse().unwrap(),
        &config,
        Span::from_secs(86_400),
        client(Guard::private()),
        Clock::new(|| Timestamp::from_unix_seconds(NOW)),
        &|name| (name == "KEY").then(|| key.to_owned()),
    )
    .unwrap()
}

fn id(text: &str) -> TaskId {
    text.parse().unwrap()
}

async fn serve(server: &mut ServerGuard, path: &str, status: usize, body: &Value) -> mockito::Mock {
    let mock = server
        .mock("GET", path)
        .with_status(status)
        .with_header("content-type", "application/json")
        .with_body(body.to_string());
    mock.create_async().await
}

fn urls(sighting: &Sighting) -> Vec<&str> {
    let urls = sighting.results.iter().map(|link| link.url.as_str());
    urls.collect()
}

#[tokio::test]
async fn the_app_stands_before_the_id_and_the_result_is_a_call_of_its_own() {
    let mut server = Server::new_async().await;
    let (app, task) = ("/fal-ai/veo3/requests/r-1", id("fal-ai/veo3/r-1"));
    let status = server
        .mock("GET", format!("{app}/status").as_str())
        .match_header("authorization", "Key k-1")
        .with_body(r#"{"status":"COMPLETED","request_id":"r-1"}"#)
        .expect(3)
        .create_async()
        .await;
    let provider = connect("fal", &server, "k-1");

    let video = json!({"video": {"url": "https://v3.fal.media/files/o.mp4"}, "seed": 1});
    let result = serve(&mut server, app, 200, &video).await;
    let seen = provider.look(&task).await.unwrap();
    assert_eq!(seen.progress, Progress::Completed);
    assert_eq!(urls(&seen), ["https://v3.fal.media/files/o.mp4"]);
    result.remove_async().await;

    let refused = json!({"detail": [{"msg": "flagged", "type": "content_policy_violation"}]});
    let result = serve(&mut server, app, 422, &refused).await;
    let seen = provider.look(&task).await.unwrap();
    assert_eq!(seen.progress, Progress::Failed);
    assert_eq!(seen.error.unwrap().code, "content_policy_violation");
    result.remove_async().await;

    let result = serve(&mut server, app, 503, &json!({"detail": "busy"})).await;
    let error = provider.look(&task).await.unwrap_err();
    assert!(matches!(error, ProviderError::Unavailable(_)), "{error}");
    result.assert_async().await;
    status.assert_async().await;

    // Nothing is asked about an ID of another form.
    for wrong in ["r-1", "fal-ai/veo3/fast/r-1"] {
        let error = provider.look(&id(wrong)).await.unwrap_err();
        assert!(matches!(error, ProviderError::NoSuchTask(_)), "{error}");
        assert!(error.to_string().contains("APP/ID"), "{error}");
    }
}

#[tokio::test]
async fn a_file_that_a_task_names_is_asked_for() {
    let mut server = Server::new_async().await;
    let good = json!({"status_code": 0, "status_msg": "success"});
    let done = json!({"task_id": "7", "status": "Success", "file_id": "9", "base_resp": good});
    let query = "/v1/query/video_generation?task_id=7";
    let status = serve(&mut server, query, 200, &done).await;
    let link = "https://cdn.minimax.io/out.mp4";
    let file = json!({"file": {"file_id": 9, "download_url": link}, "base_resp": good});
    let file = serve(&mut server, "/v1/files/retrieve?file_id=9", 200, &file).await;
    let provider = connect("minimax", &server, "k-1");
    let seen = provider.look(&id("7")).await.unwrap();
    assert_eq!(urls(&seen), [link]);
    file.assert_async().await;
    status.remove_async().await;

    // A task that names none, or a step in the path, is asked no further.
    for file_id in [json!(""), json!(".."), Value::Null] {
        let done =
            json!({"task_id": "7", "status": "Success", "file_id": file_id, "base_resp": good});
        let status = serve(&mut server, query, 200, &done).await;
        let error = provider.look(&id("7")).await.unwrap_err();
        assert!(matches!(error, ProviderError::Garbled(_)), "{error}");
        status.remove_async().await;
    }
}

#[tokio::test]
async fn ids_can_be_asked_for_together_in_a_query() {
    let mut server = Server::new_async().await;
    let row = |id: &str, status: &str| json!({"id": id, "status": status});
    let rows = json!({"code": 0, "data": [row("1", "processing"), row("2", "submitted")]});
    let batch = serve(&mut server, "/tasks?task_ids=1,2,3", 200, &rows).await;
    let provider = connect("kling", &server, "k-1");
    let ids = ["1", "2", "3"].map(id);
    let seen = provider.look_many(&ids.each_ref()).await;
    let said = |(id, look): (&TaskId, &Option<Look>)| match look {
        Some(Ok(sighting)) => format!("{id} {}", sighting.progress),
        Some(Err(error)) => format!("{id} {}", error.as_str()),
        None => format!("{id} is not told of"),
    };
    let said: Vec<String> = ids.iter().zip(&seen).map(said).collect();
    assert_eq!(said, ["1 running", "2 pending", "3 is not told of"]);
    batch.assert_async().await;
}

#[tokio::test]
async fn a_key_of_two_parts_is_never_sent_but_signs() {
    let mut server = Server::new_async().await;
    let task = json!({"code": 0, "data": {"task_id": "8", "task_status": "submitted"}});
    let token = "Bearer [A-Za-z0-9_-]+\\.[A-Za-z0-9_-]+\\.[A-Za-z0-9_-]+";
    let signed = server
        .mock("GET", "/v1/videos/text2video/8")
        .match_header("authorization", Matcher::Regex(format!("^{token}$")))
        .with_body(task.to_string())
        .create_async()
        .await;
    let provider = connect("kling_legacy", &server, "access:secret");
    provider.look(&id("text2video/8")).await.unwrap();
    signed.assert_async().await;
    signed.remove_async().await;

    let plain = server
        .mock("GET", "/v1/videos/text2video/8")
        .match_header("authorization", "Bearer plain-key")
        .with_body(task.to_string())
        .create_async()
        .await;
    let provider = connect("kling_legacy", &server, "plain-key");
    provider.look(&id("text2video/8")).await.unwrap();
    plain.assert_async().await;
}

#[tokio::test]
async fn the_key_goes_to_the_api_for_its_bytes_and_nowhere_else() {
    let mut server = Server::new_async().await;
    let mut elsewhere = Server::new_async().await;
    let done = json!({"id": "v-1", "status": "completed", "progress": 100});
    let _status = serve(&mut server, "/v1/videos/v-1", 200, &done).await;
    let provider = connect("openai", &server, "k-canary");
    let seen = provider.look(&id("v-1")).await.unwrap();
    let content = format!("{}/v1/videos/v-1/content", server.url());
    assert_eq!(urls(&seen), [content.as_str()]);
    assert_eq!(provider.hosts(), ["127.0.0.1"]);

    let origin = Origin {
        http: client(Guard::private().with_hosts(provider.hosts()).unwrap()),
        url: content.parse().unwrap(),
        headers: provider.download_headers(),
    };
    let bytes = server
        .mock("GET", "/v1/videos/v-1/content")
        .match_header("authorization", "Bearer k-canary")
        .with_body("video")
        .create_async()
        .await;
    origin.open(Window::ALL, None).await.unwrap();
    bytes.assert_async().await;
    bytes.remove_async().await;

    // Another port is another origin: it is followed, and the key stays behind.
    let other_port = elsewhere
        .mock("GET", "/cdn/v-1.mp4")
        .match_header("authorization", Matcher::Missing)
        .with_body("video")
        .create_async()
        .await;
    let to = format!("{}/cdn/v-1.mp4", elsewhere.url());
    let redirect = |to: String| {
        let redirect = |server: &mut ServerGuard| {
            let mock = server.mock("GET", "/v1/videos/v-1/content");
            mock.with_status(302).with_header("location", &to)
        };
        redirect(&mut server)
    };
    let mut redirect = redirect;
    let first = redirect(to).create_async().await;
    origin.open(Window::ALL, None).await.unwrap();
    other_port.assert_async().await;
    first.remove_async().await;

    // Another host is not even asked.
    let to = elsewhere.url().replace("127.0.0.1", "localhost");
    let _second = redirect(format!("{to}/cdn/v-1.mp4")).create_async().await;
    let error = origin.open(Window::ALL, None).await.err().unwrap();
    assert!(matches!(error, OriginError::Http(_)), "{error}");
    assert!(error.to_string().contains("localhost"), "{error}");
}

/// A list of three rows on two pages, in each way of paging that is built in.
#[tokio::test]
async fn lists_are_paged_in_each_way() {
    let row = |id: &str| json!({"id": id, "created_at": NOW - 60});
    for (kind, name, first, next, told, place) in [
        (
            "ark",
            "items",
            "page_size=100&page_num=1",
            "page_size=100&page_num=2",
            json!({}),
            "2",
        ),
        (
            "luma",
            "generations",
            "limit=100&offset=0",
            "limit=100&offset=2",
            json!({}),
            "2",
        ),
        (
            "openai",
            "data",
            "limit=100",
            "limit=100&after=b",
            json!({}),
            "b",
        ),
        (
            "replicate",
            "results",
            "page_size=100",
            "cursor=x%3D&more",
            json!({"next": "@/v1/predictions?cursor=x%3D&more"}),
            "/v1/predictions?cursor=x%3D&more",
        ),
        (
            "replicate",
            "results",
            "page_size=100",
            "cursor=y%3D",
            json!({"next": "/v1/predictions?cursor=y%3D"}),
            "/v1/predictions?cursor=y%3D",
        ),
    ] {
        let mut server = Server::new_async().await;
        let path = match kind {
            "ark" => "/api/v3/contents/generations/tasks",
            "luma" => "/dream-machine/v1/generations",
            "openai" => "/v1/videos",
            _ => "/v1/predictions",
        };
        let mut page = told.clone();
        page[name] = json!([row("a"), row("b")]);
        let page: Value = serde_json::from_str(
            &page
                .to_string()
                .replace("@/", &format!("{}/", server.url())),
        )
        .unwrap();
        let one = serve(&mut server, &format!("{path}?{first}"), 200, &page).await;
        let last = json!({name: [row("c"), {"id": 7}, {"none": 1}], "next": null});
        let two = serve(&mut server, &format!("{path}?{next}"), 200, &last).await;
        let provider = connect(kind, &server, "k-1");
        let page = provider.list(None).await.unwrap();
        let ids = |tasks: &[(TaskId, Option<Timestamp>)]| {
            let ids = tasks.iter().map(|(id, _)| id.to_string());
            ids.collect::<Vec<_>>()
        };
        assert_eq!(ids(&page.tasks), ["a", "b"], "{kind}");
        assert_eq!(page.next, Some(Place(place.to_owned())), "{kind}");
        let rest = provider.list(page.next.as_ref()).await.unwrap();
        assert_eq!(
            (ids(&rest.tasks), rest.unread),
            (vec!["c".to_owned(), "7".to_owned()], 1)
        );
        one.assert_async().await;
        two.assert_async().await;
    }
}

#[tokio::test]
async fn no_page_leads_away_from_the_api() {
    let mut server = Server::new_async().await;
    for next in [
        "https://evil.example.com/v1/predictions",
        "//evil.example.com",
        "",
        "7",
    ] {
        let page = json!({"results": [{"id": "a"}], "next": next});
        let list = serve(&mut server, "/v1/predictions?page_size=100", 200, &page).await;
        let provider = connect("replicate", &server, "k-1");
        assert_eq!(provider.list(None).await.unwrap().next, None, "{next}");
        list.remove_async().await;
    }
    for status in [404, 405, 501] {
        let list = serve(
            &mut server,
            "/v1/predictions?page_size=100",
            status,
            &json!({}),
        )
        .await;
        let provider = connect("replicate", &server, "k-1");
        assert_eq!(provider.list(None).await, Err(ListError::NoList));
        // A page that the one before it named is no end of the list.
        let place = Place("/v1/predictions?page_size=100".to_owned());
        let cut = provider.list(Some(&place)).await;
        assert!(
            matches!(cut, Err(ListError::Provider(_))),
            "{status}: {cut:?}"
        );
        list.remove_async().await;
    }
}

const HOUSE: &str = r#"
base_url = "https://api.house.example"
auth     = { scheme = "none" }
[status]
path    = "/jobs/{id}"
id      = "/id"
state   = "/state"
map     = { done = "completed", failed = "failed" }
percent = "/percent"
[status.error]
code      = "/code"
gone_http = [404]
[status.times]
created = { pointer = "/made", unit = "s" }
took    = { pointer = "/took", unit = "s" }
[results]
pointers = ["/files/*/url", "/extra"]
ttl      = "6h"
"#;

#[tokio::test]
async fn a_result_that_nobody_can_fetch_is_refused_in_sight() {
    let mut server = Server::new_async().await;
    let home = Home::new([].into());
    std::fs::write(home.path().join("house.toml"), HOUSE).unwrap();
    let kept = home.path().join("kept");
    std::fs::create_dir(&kept).unwrap();
    home.configure(&format!(
        "[log]\nformat = \"text\"\n[manifest]\nurl = \"sqlite:{}/manifest.db\"\n\
         [transfer]\nverify.type_check = false\n\
         [provider.house]\ndescription = {:?}\nbase_url = {:?}\nallow_private = true\n\
         [destination.disk.fs]\npath = {kept:?}\nfree_min = \"0 B\"\n",
        home.path().display(),
        home.path().join("house.toml"),
        server.url(),
    ));
    let file = server.mock("GET", "/files/j-1.mp4").with_body("film");
    let file = file.expect_at_least(1).create_async().await;
    let picture = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAUA";
    for (id, files) in [
        ("j-1", json!([{"url": "/files/j-1.mp4"}, {"url": picture}])),
        ("j-2", json!([{"url": picture}])),
    ] {
        let done = json!({"id": id, "state": "done", "percent": 100, "files": files});
        serve(&mut server, &format!("/jobs/{id}"), 200, &done).await;
        home.done(&["add", id, "--provider=house"]).await;
    }
    let run = home.run(&["run", "--once"]).await;
    file.assert_async().await;
    let told = "a result is an http or https address of at most 16 KiB, not \"data:image/png;base64,iVBORw0KGgoAAAANSU\"";
    let refused = format!("refused: this cannot be archived failure={told}");
    assert_eq!(run.stderr.matches(&refused).count(), 2, "{}", run.stderr);
    for (id, files) in [("j-1", 2), ("j-2", 1)] {
        let record = home.done(&["manifest", "get", id]).await;
        let record: Value = serde_json::from_str(&record).unwrap();
        assert_eq!(record["state"], "refused");
        let assets = record["assets"].as_array().unwrap();
        assert_eq!(assets.len(), files);
        let error = assets[files - 1]["error"].as_str().unwrap();
        assert!(error.starts_with(told), "{error}");
        assert!(files == 1 || assets[0]["state"] == "archived", "{record}");
        assert!(home.run(&["task", "show", id]).await.stdout.contains(told));
    }
    let done = json!({"id": "j-1", "state": "done", "extra": "ftp://a/j-1.mp4?sig=secret"});
    let line = ["check", "provider", "house", "--explain", "-"];
    let explained = home.run_with(&line, &done.to_string()).await.stdout;
    let link = "  video link  unfetchable:ftp://a/j-1.mp4  [/extra]\n";
    assert!(explained.contains(link), "{explained}");
    let note = "  note: an unfetchable link is no http or https address of at most 16 KiB";
    assert!(explained.contains(note), "{explained}");
}

#[tokio::test]
async fn explain_shows_what_a_description_reads_and_where_from() {
    let home = Home::new([].into());
    std::fs::write(home.path().join("house.toml"), HOUSE).unwrap();
    let config = format!(
        "[provider.house]\ndescription = {:?}\n[destination.disk.fs]\npath = {:?}\n",
        home.path().join("house.toml"),
        home.path(),
    );
    home.configure(&config);
    let explain = async |arguments: &[&str], body: Value| {
        let line = [
            "check",
            "provider",
            "house",
            "-c",
            "reelvault.toml",
            "--explain",
            "-",
        ];
        let line: Vec<&str> = line.into_iter().chain(arguments.iter().copied()).collect();
        let outcome = home.run_with(&line, &body.to_string()).await;
        assert_eq!(outcome.code, 0, "{outcome:?}");
        outcome.stdout
    };
    let done = json!({
        "id": "j-1", "state": "done", "made": 1_795_000_000, "took": 40,
        "files": [{"url": "https://cdn.example.com/j-1.mp4?sig=secret"}],
    });
    insta::assert_snapshot!(explain(&[], done).await, @r#"
    completed
      status     done (completed)  [/state]
      task ID    j-1  [/id]
      created    2026-11-18T11:06:40Z  [/made]
      completed  2026-11-18T11:07:20Z  [/made + /took]
      video link  https://cdn.example.com/j-1.mp4?…  [/files/*/url]
        dies 2026-11-18T17:07:20Z  [preset]
      nothing at /percent  [status.percent]
      nothing at /extra  [results.pointers]
    "#);
    insta::assert_snapshot!(explain(&[], json!({"id": "j-1", "state": "resting"})).await, @r#"
    running
      status   resting (running)  [/state]
      task ID  j-1  [/id]
      nothing at /percent  [status.percent]
      nothing at /made  [status.times.created]
      nothing at /took  [status.times.took]
      note: status.map does not have "resting": such a task counts as running, with a warning
    "#);
    insta::assert_snapshot!(
        explain(&["--status", "404"], json!({"code": "no_job"})).await,
        @r#"
    no_such_task
      error code  no_job  [status 404, status.error]
    "#
    );
    insta::assert_snapshot!(explain(&[], json!({"id": "j-1"})).await, @r#"
    garbled
      note: there is nothing at /state, no status
    "#);
    let document = explain(
        &["--json"],
        json!({"id": "j-1", "state": "failed", "code": "bad"}),
    )
    .await;
    let document: Value = serde_json::from_str(&document).unwrap();
    assert_eq!(document["outcome"], "failed");
    assert_eq!(
        document["read"][2],
        json!({"what": "error code", "value": "bad", "from": "status.error"})
    );
    assert_eq!(
        document["nothing_at"][0],
        json!({"key": "status.percent", "pointer": "/percent"})
    );

    // Built-in kinds need no configuration; what is wrong with the question is said.
    let body = home.path().join("body.json");
    std::fs::write(&body, "\u{feff}{\"status\":\"COMPLETED\"}").unwrap();
    let path = body.to_str().unwrap();
    let elsewhere = Home::new([].into());
    let fal = elsewhere
        .done(&["check", "provider", "fal", "--explain", path])
        .await;
    assert!(fal.contains("GET /{app}/requests/{id}"), "{fal}");
    for (arguments, what) in [
        (["fal", path, "99"], "99 is no HTTP status"),
        (["none", path, "200"], "hint:"),
        (["fal", "/nonexistent/body.json", "200"], "cannot read"),
    ] {
        let [name, path, status] = arguments;
        let line = [
            "check",
            "provider",
            name,
            "--explain",
            path,
            "--status",
            status,
        ];
        let outcome = home.run(&line).await;
        assert_ne!(outcome.code, 0);
        assert!(outcome.stderr.contains(what), "{}", outcome.stderr);
    }
}

#[test]
fn the_sample_in_the_page_of_descriptions_is_a_description() {
    let page = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/config/providers/README.md"
    ));
    let page = page.unwrap();
    let samples = page
        .split("```toml")
        .skip(1)
        .filter_map(|rest| rest.split("```").next());
    let sample = samples
        .filter(|text| text.contains("base_url"))
        .collect::<Vec<_>>();
    assert_eq!(sample.len(), 1);
    reelvault::provider::description::Description::parse(sample[0]).unwrap();
    for kind in reelvault::provider::description::Description::kinds() {
        assert!(
            page.contains(&format!("| `{kind}` |")),
            "{kind} is not in the table"
        );
    }
}
