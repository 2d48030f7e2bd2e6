//! Tables of callbacks: who is believed, and why not. Signatures were made by other programs.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::HeaderValue;
use proptest::prelude::*;

use crate::http::Body;
use crate::http::HttpError;
use crate::http::Transport;
use crate::http::body::full;
use crate::http::standard_webhooks;
use crate::http::standard_webhooks::SigningKey;
use crate::provider::description::Description;

use super::*;

const BODY: &str = r#"{"id":"task-1","status":"completed"}"#;
const SECONDS: i64 = 1_700_000_000;
const KEY: &str = "house-signing-key-of-32-letters!";
const BODY_HEX: &str = "4d8b0f68424b18411f07495eefeae7c9ddc8e023de499a1e60f080db9733643a";
const ID_AND_TIME_BASE64: &str = "E3KaRGg9GK/Eq5A9Ak5GFW6aBXduSIAUQ2W4I5yp0M4=";
const HEX_OF_VERSION_3: &str =
    "v3,6eb017459e2a8ed7507697b95775fed7e35e978c558e59964d0196fedfbf11dd";
const PUBLISHED: &str =
    r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"c2Em80K5xhWXNfIjeOJMJU5lvyq63QVJTcrXDljCJmk"}]}"#;
const PUBLISHED_OTHER: &str =
    r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
const ED25519_HEX: &str = "2bff5a51ee7e8ad2a50b3356eee76837adeb261f5630cd9b1da54684fe834f46\
                           8511636dce60dec47cdb1355c65a4921d735dad75705378f1144ce8283105b0a";

/// What a provider's site answers, in order.
#[derive(Clone, Default)]
struct Site(Arc<Mutex<VecDeque<(u16, &'static str)>>>);

impl Site {
    fn left(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

impl Transport for Site {
    fn send(
        &self,
        _: http::Request<Bytes>,
    ) -> BoxFuture<'static, Result<http::Response<Body>, HttpError>> {
        let answer = self.0.lock().unwrap().pop_front();
        Box::pin(async move {
            let (status, body) = answer.ok_or(HttpError::Timeout {
                host: "keys".to_owned(),
            })?;
            let answer = http::Response::builder().status(status);
            Ok(answer.body(full(body)).unwrap())
        })
    }
}

/// A description with this `[webhook]`.
fn webhook(text: &str) -> Result<Webhook, String> {
    let text = format!(
        "base_url = \"https://api.example.com\"\nauth = {{ scheme = \"none\" }}\n[status]\npath = \"/t/{{id}}\"\n\
         state = \"/s\"\nmap = {{ done = \"completed\" }}\n[results]\npointers = [\"/u\"]\n[webhook]\n{text}\n"
    );
    let description = Description::parse(&text).map_err(|error| error.to_string())?;
    Ok(description.webhook.unwrap())
}

fn env(name: &str) -> Option<String> {
    match name {
        "TOKEN" => Some("token-of-32-letters-0123456789ab".to_owned()),
        "TOKEN_OLD" => Some("token-of-32-letters-before-today".to_owned()),
        "SHORT" => Some("guessable".to_owned()),
        "KEY" => Some(KEY.to_owned()),
        "PREFIXED" => Some(format!("whsec_{KEY}")),
        "OTHER_KEY" => Some("another-key-of-thirty-two-letter".to_owned()),
        "STANDARD" => Some("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned()),
        _ => None,
    }
}

fn source(name: &str) -> SecretSource {
    SecretSource::env(name)
}

fn config(key: Option<SecretSource>) -> Config {
    Config {
        webhook: true,
        hook_secret: Some(source("TOKEN")),
        hook_secret_old: Some(source("TOKEN_OLD")),
        hook_key: key,
        ..Config::default()
    }
}

fn hook_over(text: &str, config: &Config, site: &Site) -> Result<Option<Hook>, ConnectError> {
    read(&webhook(text).unwrap(), config, site)
}

fn read(webhook: &Webhook, config: &Config, site: &Site) -> Result<Option<Hook>, ConnectError> {
    let name = "house".parse().unwrap();
    Hook::read(&name, config, Some(webhook), &Http::new(site.clone()), &env)
}

fn hook(text: &str, key: Option<&str>) -> Hook {
    let config = config(key.map(source));
    hook_over(text, &config, &Site::default()).unwrap().unwrap()
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &str)| {
        let name = HeaderName::from_static(name);
        (name, HeaderValue::from_str(value).unwrap())
    };
    pairs.iter().map(pair).collect()
}

fn now() -> Timestamp {
    Timestamp::from_unix_seconds(SECONDS)
}

fn task() -> HookSaid {
    HookSaid {
        id: Some("task-1".parse().unwrap()),
        echo: None,
    }
}

#[track_caller]
fn assert_forged(judged: Result<HookSaid, HookError>, why: &str) {
    match judged {
        Err(HookError::Forged(what)) => assert!(what.contains(why), "{what}"),
        other => panic!("{other:?} instead of {why}"),
    }
}

#[tokio::test]
async fn of_a_body_only_the_task_is_taken() {
    let hook = hook("id = \"/id\"", None);
    let judge = async |body: &str| hook.judge(&HeaderMap::new(), body.as_bytes(), now()).await;
    assert_eq!(judge(BODY).await, Ok(task()));
    assert_eq!(judge(&format!("\u{feff}{BODY}")).await, Ok(task()));
    assert_eq!(
        judge(r#"{"id":17,"results":["http://10.0.0.1/"]}"#)
            .await
            .unwrap()
            .id,
        Some("17".parse().unwrap())
    );
    for body in [
        "",
        "null",
        "{",
        "[]",
        "{}",
        r#"{"id":null}"#,
        r#"{"id":["a"]}"#,
        r#"{"id":""}"#,
        r#"{"id":"../a"}"#,
        r#"{"id":"a//b"}"#,
        "\u{feff}{}",
        "<html>",
    ] {
        let judged = judge(body).await;
        assert!(
            matches!(judged, Err(HookError::Garbled(_))),
            "{body}: {judged:?}"
        );
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(judge(&deep).await.is_err());
}

#[tokio::test]
async fn a_challenge_is_sent_back() {
    let hook = hook("id = \"/task_id\"\necho = \"/challenge\"", None);
    let judge = async |body: &str| hook.judge(&HeaderMap::new(), body.as_bytes(), now()).await;
    let said = judge(r#"{"challenge":"abc"}"#).await.unwrap();
    assert_eq!(said.id, None);
    assert_eq!(said.echo, Some(serde_json::json!({ "challenge": "abc" })));
    let said = judge(r#"{"task_id":"t"}"#).await.unwrap();
    assert_eq!((said.id, said.echo), (Some("t".parse().unwrap()), None));
    assert!(judge("{}").await.is_err());
}

#[tokio::test]
async fn a_callback_about_something_else_is_taken_and_names_no_task() {
    let text = "id = \"/data/id\"\nonly = { pointer = \"/type\", values = [\"video.completed\"] }";
    let hook = hook(text, None);
    let judge = async |body: &str| {
        let said = hook.judge(&HeaderMap::new(), body.as_bytes(), now()).await;
        said.map(|said| said.id.map(|id| id.to_string()))
    };
    let of = |kind: &str| format!(r#"{{"type":{kind},"data":{{"id":"a"}}}}"#);
    assert_eq!(
        judge(&of("\"video.completed\"")).await,
        Ok(Some("a".to_owned()))
    );
    assert_eq!(judge(&of("null")).await, Ok(Some("a".to_owned())));
    for other in [
        "\"response.completed\"",
        "\"video.completed.x\"",
        "\"\"",
        "7",
    ] {
        assert_eq!(judge(&of(other)).await, Ok(None), "{other}");
    }
    assert_eq!(
        judge(r#"{"type":"batch.completed","data":{}}"#).await,
        Ok(None)
    );
}

#[test]
fn either_token_opens_while_one_is_changed() {
    let hook = hook("id = \"/id\"", None);
    assert!(hook.is_token("token-of-32-letters-0123456789ab"));
    assert!(hook.is_token("token-of-32-letters-before-today"));
    for wrong in [
        "",
        "token-of-32-letters-0123456789a",
        "token-of-32-letters-0123456789abc",
    ] {
        assert!(!hook.is_token(wrong), "{wrong}");
    }
    assert_eq!(
        hook.path(&"house".parse().unwrap()).unwrap(),
        "/hooks/house/token-of-32-letters-0123456789ab"
    );
    assert!(!format!("{hook:?}").contains("letters"));
}

#[tokio::test]
async fn a_body_signed_by_hmac() {
    let text = "id = \"/id\"\nverify = { scheme = \"hmac\", header = \"x-signature\", prefix = \"sha256=\" }";
    let hook = hook(text, Some("KEY"));
    let good = format!("sha256={BODY_HEX}");
    let judge = async |signature: &str, body: &str| {
        let headers = headers(&[("x-signature", signature)]);
        hook.judge(&headers, body.as_bytes(), now()).await
    };
    assert_eq!(judge(&good, BODY).await, Ok(task()));
    assert_eq!(
        judge(&good.to_uppercase().replace("SHA", "sha"), BODY).await,
        Ok(task())
    );
    assert_forged(
        judge(&good, r#"{"id":"task-2"}"#).await,
        "no signature fits",
    );
    for wrong in [
        "",
        "sha256=",
        BODY_HEX,
        "sha256=zz",
        "sha256=4d8b0",
        &good[..70],
    ] {
        assert_forged(judge(wrong, BODY).await, "no signature fits");
    }
    let unsigned = hook.judge(&HeaderMap::new(), BODY.as_bytes(), now()).await;
    assert_forged(unsigned, "x-signature is missing");
    // A signature over nonsense says that it is nonsense.
    assert_forged(judge(&good, "").await, "no signature fits");
}

#[tokio::test]
async fn what_kie_and_wavespeed_sign() {
    let kie = "id = \"/id\"\nverify = { scheme = \"hmac\", header = \"x-webhook-signature\", template = \
               \"{id}.{header.x-webhook-timestamp}\", timestamp = \"x-webhook-timestamp\", encoding = \"base64\" }";
    let wavespeed = "id = \"/id\"\nverify = { scheme = \"hmac\", header = \"webhook-signature\", template = \
                     \"{header.webhook-id}.{header.webhook-timestamp}.{body}\", timestamp = \"webhook-timestamp\", \
                     prefix = \"v3,\", key_prefix = \"whsec_\" }";
    let seconds = SECONDS.to_string();
    let kie_headers = headers(&[
        ("x-webhook-timestamp", &seconds),
        ("x-webhook-signature", ID_AND_TIME_BASE64),
    ]);
    let several = format!("v1,AAAA {HEX_OF_VERSION_3}");
    let wavespeed_headers = headers(&[
        ("webhook-id", "msg_1"),
        ("webhook-timestamp", &seconds),
        ("webhook-signature", &several),
    ]);
    for (text, headers) in [(kie, kie_headers), (wavespeed, wavespeed_headers)] {
        let good = hook(text, Some("KEY"));
        assert_eq!(
            good.judge(&headers, BODY.as_bytes(), now()).await,
            Ok(task())
        );
        let other = hook(text, Some("OTHER_KEY"));
        let judged = other.judge(&headers, BODY.as_bytes(), now()).await;
        assert_forged(judged, "no signature fits");
        // A recording is good for five minutes.
        for (offset, is_good) in [(300, true), (-300, true), (301, false), (-301, false)] {
            let now = Timestamp::from_unix_seconds(SECONDS + offset);
            let judged = good.judge(&headers, BODY.as_bytes(), now).await;
            assert_eq!(judged.is_ok(), is_good, "{offset}: {judged:?}");
        }
    }
}

#[tokio::test]
async fn a_key_is_taken_with_and_without_what_its_provider_puts_before_it() {
    let built_in = Description::built_in("wavespeed").unwrap();
    let seconds = SECONDS.to_string();
    let headers = headers(&[
        ("webhook-id", "msg_1"),
        ("webhook-timestamp", &seconds),
        ("webhook-signature", HEX_OF_VERSION_3),
    ]);
    for key in ["KEY", "PREFIXED"] {
        let config = config(Some(source(key)));
        let hook = read(
            built_in.webhook.as_ref().unwrap(),
            &config,
            &Site::default(),
        );
        let hook = hook.unwrap().unwrap();
        let judged = hook.judge(&headers, BODY.as_bytes(), now()).await;
        assert_eq!(judged, Ok(task()), "{key}");
    }
}

/// A callback of each built-in kind that has any, with the key that it is signed with, and what it is about.
const CALLBACKS: [(&str, Option<&str>, &str, &str); 9] = [
    (
        "ark",
        None,
        r#"{"id":"cgt-1","status":"succeeded"}"#,
        "cgt-1",
    ),
    (
        "evolink",
        None,
        r#"{"id":"task-unified-1","status":"completed"}"#,
        "task-unified-1",
    ),
    (
        "kie",
        Some("KEY"),
        r#"{"code":200,"data":{"taskId":"task-1","state":"success"}}"#,
        "task-1",
    ),
    (
        "luma",
        None,
        r#"{"id":"d1968551","state":"completed"}"#,
        "d1968551",
    ),
    (
        "minimax",
        None,
        r#"{"task_id":"1768","status":"success"}"#,
        "1768",
    ),
    (
        "modelark",
        None,
        r#"{"id":"cgt-1","status":"running"}"#,
        "cgt-1",
    ),
    (
        "openai",
        Some("STANDARD"),
        r#"{"id":"evt_1","type":"video.completed","data":{"id":"video_1"}}"#,
        "video_1",
    ),
    (
        "replicate",
        Some("STANDARD"),
        r#"{"id":"ufawqhf","status":"succeeded"}"#,
        "ufawqhf",
    ),
    ("wavespeed", Some("KEY"), BODY, "task-1"),
];

fn built_in(kind: &str, key: Option<&str>) -> Hook {
    let webhook = Description::built_in(kind).unwrap().webhook.unwrap();
    let read = read(&webhook, &config(key.map(source)), &Site::default());
    read.unwrap().unwrap()
}

#[tokio::test]
async fn every_built_in_takes_its_own_callbacks_and_no_unsigned_ones() {
    let has_any = |kind: &&str| Description::built_in(kind).unwrap().webhook.is_some();
    let known: Vec<&str> = Description::kinds().filter(has_any).collect();
    assert_eq!(known, CALLBACKS.map(|(kind, ..)| kind));
    let seconds = SECONDS.to_string();
    for (kind, key, body, id) in CALLBACKS {
        let hook = built_in(kind, key);
        let signed = match kind {
            "kie" => headers(&[
                ("x-webhook-timestamp", &seconds),
                ("x-webhook-signature", ID_AND_TIME_BASE64),
            ]),
            "wavespeed" => headers(&[
                ("webhook-id", "msg_1"),
                ("webhook-timestamp", &seconds),
                ("webhook-signature", HEX_OF_VERSION_3),
            ]),
            "openai" | "replicate" => {
                let key = env("STANDARD").unwrap();
                let key = SigningKey::read(&Secret::new(&key)).unwrap();
                standard_webhooks::sign(&[key], "msg_1", now(), body.as_bytes())
            }
            _ => HeaderMap::new(),
        };
        let said = hook.judge(&signed, body.as_bytes(), now()).await;
        assert_eq!(said.unwrap().id, Some(id.parse().unwrap()), "{kind}");
        if key.is_some() {
            let judged = hook.judge(&HeaderMap::new(), body.as_bytes(), now()).await;
            assert!(matches!(judged, Err(HookError::Forged(_))), "{kind}");
        }
    }
    let (tried, nothing) = (built_in("minimax", None), HeaderMap::new());
    let said = tried
        .judge(&nothing, br#"{"challenge":"abc"}"#, now())
        .await;
    let echo = serde_json::json!({ "challenge": "abc" });
    assert_eq!(said.unwrap().echo, Some(echo));
}

#[tokio::test]
async fn while_a_key_is_changed_either_fits() {
    let text = "id = \"/id\"\nverify = { scheme = \"hmac\", header = \"x-signature\" }";
    let config = Config {
        hook_key_old: Some(source("KEY")),
        ..config(Some(source("OTHER_KEY")))
    };
    let hook = hook_over(text, &config, &Site::default()).unwrap().unwrap();
    let headers = headers(&[("x-signature", BODY_HEX)]);
    assert_eq!(
        hook.judge(&headers, BODY.as_bytes(), now()).await,
        Ok(task())
    );
}

#[tokio::test]
async fn standard_webhooks_are_judged_by_their_own_rules() {
    let hook = hook(
        "id = \"/id\"\nverify = { scheme = \"standard\" }",
        Some("STANDARD"),
    );
    let key = SigningKey::read(&Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")).unwrap();
    let signed = standard_webhooks::sign(&[key], "msg_1", now(), BODY.as_bytes());
    assert_eq!(
        hook.judge(&signed, BODY.as_bytes(), now()).await,
        Ok(task())
    );
    assert_forged(hook.judge(&signed, b"{}", now()).await, "no signature fits");
    let late = Timestamp::from_unix_seconds(SECONDS + 301);
    assert_forged(hook.judge(&signed, BODY.as_bytes(), late).await, "from now");
}

const FAL: &str = r#"id = "/id"
verify = { scheme = "ed25519_jwks", jwks = "https://keys.example.com/jwks.json", header = "x-fal-webhook-signature", timestamp = "x-fal-webhook-timestamp", template = "{header.x-fal-webhook-request-id}\n{header.x-fal-webhook-user-id}\n{header.x-fal-webhook-timestamp}\n{body_sha256}" }"#;

fn fal_headers(signature: &str) -> HeaderMap {
    headers(&[
        ("x-fal-webhook-request-id", "req-1"),
        ("x-fal-webhook-user-id", "user-1"),
        ("x-fal-webhook-timestamp", &SECONDS.to_string()),
        ("x-fal-webhook-signature", signature),
    ])
}

#[tokio::test(start_paused = true)]
async fn published_keys_are_kept_and_looked_for_anew_when_none_fits() {
    let site = Site::default();
    let say = |answers: &[(u16, &'static str)]| site.0.lock().unwrap().extend(answers);
    let hook = hook_over(FAL, &config(None), &site).unwrap().unwrap();
    let good = fal_headers(ED25519_HEX);
    let forged = fal_headers(&ED25519_HEX.replace("2bff", "2bfe"));
    let judge = async |headers: &HeaderMap| hook.judge(headers, BODY.as_bytes(), now()).await;
    let pass = |seconds| tokio::time::advance(std::time::Duration::from_secs(seconds));

    // Nothing published yet: nobody is believed, and the provider is to come again.
    say(&[(503, "")]);
    assert!(matches!(judge(&good).await, Err(HookError::NoKeys(_))));
    say(&[(200, "<html>")]);
    assert!(matches!(judge(&good).await, Err(HookError::NoKeys(_))));
    assert_eq!(site.left(), 1, "asked again within a minute");
    pass(61).await;
    assert!(matches!(judge(&good).await, Err(HookError::NoKeys(_))));
    pass(61).await;
    say(&[(200, PUBLISHED_OTHER)]);
    assert_forged(judge(&good).await, "no signature fits");
    // The provider changed its key; a flood of forgeries makes us look once a minute.
    say(&[(200, PUBLISHED), (200, PUBLISHED)]);
    assert_forged(judge(&good).await, "no signature fits");
    pass(61).await;
    assert_eq!(judge(&good).await, Ok(task()));
    for _ in 0..100 {
        assert_forged(judge(&forged).await, "no signature fits");
        assert_eq!(judge(&good).await, Ok(task()));
    }
    assert_eq!(site.left(), 1, "one look for one change");
    // The keys are good for a day, whether or not the site answers.
    pass(23 * 3600).await;
    assert_eq!(judge(&good).await, Ok(task()));
    assert_eq!(site.left(), 1);
    pass(2 * 3600).await;
    assert_eq!(judge(&good).await, Ok(task()));
    assert_eq!(site.left(), 0);
}

#[test]
fn what_is_configured_wrong_names_its_key() {
    let site = Site::default();
    let check = |text: &str, config: Config, message: &str| {
        let error = hook_over(text, &config, &site)
            .map(|_| ())
            .unwrap_err()
            .to_string();
        assert!(error.starts_with(message), "{error}");
        assert!(!error.contains("guessable"), "{error}");
    };
    let plain = "id = \"/id\"";
    let standard = "id = \"/id\"\nverify = { scheme = \"standard\" }";
    let none = Config {
        hook_secret: None,
        ..config(None)
    };
    check(plain, none, "provider.house.hook_secret: missing");
    let short = Config {
        hook_secret: Some(source("SHORT")),
        ..config(None)
    };
    check(plain, short, "provider.house.hook_secret: shorter than 16");
    let unset = Config {
        hook_secret_old: Some(source("NO")),
        ..config(None)
    };
    check(
        plain,
        unset,
        "provider.house.hook_secret_old: environment variable NO",
    );
    check(standard, config(None), "provider.house.hook_key: missing");
    check(
        standard,
        config(Some(source("SHORT"))),
        "provider.house.hook_key: ",
    );
    check(
        plain,
        config(Some(source("KEY"))),
        "provider.house.hook_key: the provider signs with no key",
    );
    let name = "house".parse().unwrap();
    let undescribed = Hook::read(&name, &config(None), None, &Http::new(site.clone()), &env);
    assert!(
        undescribed
            .unwrap_err()
            .to_string()
            .contains("no [webhook]")
    );
    let off = Config {
        webhook: false,
        ..config(None)
    };
    assert!(hook_over(plain, &off, &site).unwrap().is_none());
}

#[test]
fn a_description_of_a_proof_that_is_none() {
    let check = |verify: &str, message: &str| {
        let error = webhook(&format!("id = \"/id\"\nverify = {{ {verify} }}")).unwrap_err();
        assert!(error.contains(message), "{error}");
    };
    check("scheme = \"rot13\"", "unknown variant `rot13`");
    check("scheme = \"standard\", key = \"hex\"", "nothing to set");
    check(
        "scheme = \"standard\", key_prefix = \"a\"",
        "nothing to set",
    );
    check("scheme = \"url_token\", header = \"a\"", "nothing to set");
    check("scheme = \"hmac\"", "`header` is missing");
    check(
        "scheme = \"hmac\", header = \"a b\"",
        "\"a b\" is no header's name",
    );
    check(
        "scheme = \"hmac\", header = \"a\", template = \"x\"",
        "signs nothing",
    );
    check(
        "scheme = \"hmac\", header = \"a\", template = \"{bdy}\"",
        "{bdy} is none of",
    );
    check(
        "scheme = \"hmac\", header = \"a\", template = \"{body\"",
        "does not end",
    );
    check(
        "scheme = \"hmac\", header = \"a\", encoding = \"text\"",
        "\"hex\" or \"base64\"",
    );
    check(
        "scheme = \"hmac\", header = \"a\", jwks = \"https://x\"",
        "`jwks` goes with",
    );
    check(
        "scheme = \"ed25519_jwks\", header = \"a\"",
        "`jwks` is missing",
    );
    check(
        "scheme = \"hmac\", header = \"a\", wat = 1",
        "unknown field `wat`",
    );
}

proptest! {
    #[test]
    fn no_callback_can_panic_us(body: Vec<u8>, signature in "[ -~]{0,100}") {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let text = "id = \"/id\"\nverify = { scheme = \"hmac\", header = \"x-signature\" }";
        let hook = hook(text, Some("KEY"));
        let headers = headers(&[("x-signature", &signature)]);
        prop_assert!(runtime.block_on(hook.judge(&headers, &body, now())).is_err());
    }

    #[test]
    fn hexadecimal_is_read_as_written(bytes: Vec<u8>) {
        let written = bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        prop_assert_eq!(unhex(&written), Some(bytes));
    }
}
