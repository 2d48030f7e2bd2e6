//! The errors as people see them, and the layers as they beat each other.

use super::*;

const GOOD: &str = r#"
[provider.evolink]
kind = "evolink"
api_key = { env = "KEY" }
[destination.main.fs]
path = "/srv/video"
"#;

fn set(name: &str, value: &str) -> Vec<(String, String)> {
    vec![(name.to_owned(), value.to_owned())]
}

#[track_caller]
fn check(text: &str, variables: Vec<(String, String)>, expected: &str) {
    let errors = Config::parse(text, "x.toml", variables)
        .unwrap_err()
        .to_string();
    assert_eq!(errors.trim(), expected.trim(), "\n{errors}");
}

#[track_caller]
fn check_good(extra: &str, expected: &str) {
    let text = format!("{GOOD}{extra}");
    check(&text, Vec::new(), expected);
}

#[test]
fn the_environment_beats_the_file_and_the_file_beats_the_defaults() {
    let text = format!("{GOOD}[transfer]\nconcurrent = 3\nparts_ahead = 2\n");
    let variables = set("REELVAULT__TRANSFER__CONCURRENT", "5");
    let loaded = Config::parse(&text, "x.toml", variables).unwrap();
    let transfer = &loaded.config.transfer;
    assert_eq!((transfer.concurrent, transfer.parts_ahead), (5, 2));
    assert!(transfer.verify.sha256);
    let shown = loaded.show(true);
    let line = |key: &str| shown.lines().find(|line| line.starts_with(key)).unwrap();
    assert!(line("transfer.concurrent").ends_with("# REELVAULT__TRANSFER__CONCURRENT"));
    assert!(line("transfer.parts_ahead").ends_with("# x.toml:9:1"));
    assert!(line("transfer.verify.sha256").ends_with("# default"));
    assert!(line("provider.evolink.api_key").contains("{ env = \"KEY\" }"));
}

#[test]
fn the_environment_reaches_names_with_underscores_and_every_type() {
    let variables = [
        ("REELVAULT__PROVIDER__EVOLINK__ALLOW_PRIVATE", "true"),
        ("REELVAULT__POLL__JITTER", "0.5"),
        ("REELVAULT__TRANSFER__VERIFY__SHA256", "false"),
        ("REELVAULT__TRANSFER__MEMORY", "64 MiB"),
        ("REELVAULT_CONFIG", "/not/a/key"),
        ("HOME", "/somewhere"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = Config::parse(GOOD, "x.toml", variables.to_vec())
        .unwrap()
        .config;
    assert!(config.provider.values().all(|it| it.allow_private));
    assert!((config.poll.jitter - 0.5).abs() < f64::EPSILON);
    assert!(!config.transfer.verify.sha256);
    assert_eq!(config.transfer.memory, crate::units::ByteSize::mib(64));
}

#[test]
fn an_unknown_key_is_pointed_at_with_what_was_meant() {
    check_good(
        "[transfer]\n  concurent = 16\n",
        r#"
x.toml:8:3: transfer.concurent: unknown key
  |
8 |   concurent = 16
  |   ^^^^^^^^^
  = did you mean "concurrent"?

1 problem"#,
    );
}

#[test]
fn wrong_types_and_units_name_what_is_wanted() {
    check_good(
        "[transfer]\npart_size = 5\nparts_ahead = \"many\"\nstall_timeout = \"30\"\nmemory = \"1 MiBs\"\n",
        r#"
x.toml:8:13: transfer.part_size: is a whole number, wanted is a string
  |
8 | part_size = 5
  |             ^
  = write it with its unit, such as "16 MiB", "30s" or "5/s"

x.toml:9:15: transfer.parts_ahead: is a string, wanted is a whole number
  |
9 | parts_ahead = "many"
  |               ^^^^^^

x.toml:10:17: transfer.stall_timeout: "30" is not a length of time such as "90s", "24h" or "1h 30m"
   |
10 | stall_timeout = "30"
   |                 ^^^^

x.toml:11:10: transfer.memory: "1 MiBs" is not a size such as "16 MiB", "5 GB" or "4096"
   |
11 | memory = "1 MiBs"
   |          ^^^^^^^^

4 problems"#,
    );
}

#[test]
fn every_place_that_is_no_toml_is_told() {
    let errors = Config::parse("a = \n[b\nc = 1\n", "x.toml", Vec::new())
        .unwrap_err()
        .to_string();
    assert!(errors.contains("x.toml:1:"), "{errors}");
    assert!(errors.contains("x.toml:2:"), "{errors}");
}

#[test]
fn a_secret_that_was_written_down_is_never_printed() {
    for text in [
        "[provider.evolink]\napi_key = \"sk-canary\"\n",
        "[provider.evolink]\napi_key = \"sk-canary\n",
        "[provider.evolink]\napi_key = sk-canary\n",
        "[provider.evolink]\napi_key = { env = \"A\", file = \"/b\" }\n[destination.a.r2]\nsecret_key = \"sk-canary\"\n",
    ] {
        let errors = Config::parse(text, "x.toml", Vec::new())
            .unwrap_err()
            .to_string();
        assert!(!errors.contains("canary"), "{errors}");
    }
    check(
        "[provider.evolink]\napi_key = \"sk-canary\"\n[destination.main.fs]\npath = \"/srv\"\n",
        Vec::new(),
        r#"
x.toml:2:11: provider.evolink.api_key: is a string, wanted is a table
  |
2 | api_key = ...
  |
  = a secret is never written here: name its place as { credential = "NAME" }, { file = "/path" } or { env = "NAME" }

1 problem"#,
    );
}

#[test]
fn a_bad_variable_is_named() {
    check(
        GOOD,
        set("REELVAULT__TRANSFER__CONCURRENT", "lots"),
        "environment variable REELVAULT__TRANSFER__CONCURRENT: transfer.concurrent: is a string, wanted is a whole number\n\n1 problem",
    );
}

#[test]
fn what_no_single_value_is_wrong_about() {
    check_good(
        r#"
[transfer]
memory = "20 MiB"
[poll]
first = "2m"
[destination.both.s3]
bucket = "a_bucket"
[destination.both.fs]
path = "/x"
[[route]]
to = ["mian"]
model = ["a["]
"#,
        r#"
x.toml:9:10: transfer.memory: is 20 MiB, at least 32 MiB is wanted: 1 MiB for each of 16 transfers, and one part
  |
9 | memory = "20 MiB"
  |          ^^^^^^^^

x.toml:11:9: poll.first: is 2 min, longer than poll.max, 1 min
   |
11 | first = "2m"
   |         ^^^^

x.toml:12:14: destination.both: is not of exactly one kind
   |
12 | [destination.both.s3]
   |              ^^^^
  = write [destination.both.s3], [destination.both.r2] or [destination.both.fs]

x.toml:17:7: route[0].to[0]: there is no destination "mian"
   |
17 | to = ["mian"]
   |       ^^^^^^
  = did you mean "main"?

x.toml:18:9: route[0].model: error parsing glob 'a[': unclosed character class; missing ']'
   |
18 | model = ["a["]
   |         ^^^^^^

5 problems"#,
    );
}

#[test]
fn two_providers_must_not_share_keys() {
    let text = format!(
        "key = \"{{task_id}}/{{index}}\"\n{GOOD}[provider.house]\ndescription = \"/x.toml\"\n"
    );
    let errors = Config::parse(&text, "x.toml", Vec::new())
        .unwrap_err()
        .to_string();
    assert!(errors.contains("key: lacks {provider}"), "{errors}");
}

#[test]
fn a_daemon_without_a_provider_is_warned_of() {
    let loaded =
        Config::parse("[destination.a.fs]\npath = \"/x\"\n", "x.toml", Vec::new()).unwrap();
    assert_eq!(loaded.warnings.len(), 1);
    assert!(Config::parse("", "x.toml", Vec::new()).is_err());
}
