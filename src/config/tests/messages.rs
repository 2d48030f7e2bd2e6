//! What each mistake looks like, and that no secret is ever in it.

use crate::config::tests::DISK;
use crate::config::tests::errors;
use crate::config::tests::parse;

#[test]
fn an_unknown_key() {
    let text = format!("{DISK}\n[transfer]\n    concurent = 16   # it's a lot\n");
    let expected = "\
reelvault.toml:5:5: transfer.concurent: unknown key
  |
5 |     concurent = 16
  |     ^^^^^^^^^
  = did you mean `concurrent`?

1 problem";
    assert_eq!(errors(&text, &[]), expected);
}

#[test]
fn an_unknown_key_that_is_like_no_other() {
    let text = format!("{DISK}[poll]\neagerness = \"high\"\n\"poll.max\" = \"5s\"\n\n[sever]\n");
    let expected = "\
reelvault.toml:4:1: poll.eagerness: unknown key
  |
4 | eagerness = \"…\"
  | ^^^^^^^^^
  = known here are `first`, `max`, `jitter`, `give_up`

reelvault.toml:5:1: poll.\"poll.max\": unknown key
  |
5 | \"poll.max\" = \"…\"
  | ^^^^^^^^^^
  = a dot goes from table to table only outside of quotes

reelvault.toml:7:2: sever: unknown key
  |
7 | [sever]
  |  ^^^^^
  = did you mean `server`?

3 problems";
    assert_eq!(errors(&text, &[]), expected);
}

#[test]
fn a_path_in_quotes_is_no_path() {
    let text = format!("\"transfer.concurrent\" = 4\n{DISK}");
    let expected = "\
reelvault.toml:1:1: \"transfer.concurrent\": unknown key
  |
1 | \"transfer.concurrent\" = 4
  | ^^^^^^^^^^^^^^^^^^^^^
  = a dot goes from table to table only outside of quotes

1 problem";
    assert_eq!(errors(&text, &[]), expected);
}

/// Each of these once crashed the program, by its size or by its sign.
#[test]
fn an_index_is_no_key() {
    for index in ["9223372036854775807", "99999999999", "-99999999999"] {
        let told = errors(&format!("\"x[{index}]\" = 1\n{DISK}"), &[]);
        assert!(
            told.contains(&format!("\"x[{index}]\": unknown key")),
            "{told}"
        );
        let variable = format!("REELVAULT__X[{index}]");
        let told = errors(DISK, &[(&variable, "1")]);
        assert!(
            told.starts_with(&format!("{variable}: \"x[{index}]\": unknown key")),
            "{told}"
        );
    }
}

#[test]
fn a_variable_that_names_no_key_is_named() {
    for name in [
        "",
        "TRANSFER__",
        "TRANSFER.CONCURRENT",
        "ROUTE[0]__TO",
        "TRANSFER___CONCURRENT",
    ] {
        let variable = format!("REELVAULT__{name}");
        let told = errors(DISK, &[(&variable, "5")]);
        assert!(told.starts_with(&format!("{variable}: ")), "{told}");
        assert!(told.ends_with("\n1 problem"), "{told}");
    }
}

#[test]
fn a_value_of_the_wrong_kind() {
    let text = format!("{DISK}[transfer]\nconcurrent = [1, 2]\n[poll]\nfirst = 5\n");
    let expected = "\
reelvault.toml:4:14: transfer.concurrent: a list, where a whole number from 0 to 4294967295 is wanted
  |
4 | concurrent = [1, 2]
  |              ^^^^^^

reelvault.toml:6:9: poll.first: a whole number, where a text is wanted
  |
6 | first = 5
  |         ^
  = texts stand in quotes, and quantities with their unit: \"5s\", \"16 MiB\", \"5/s\"

2 problems";
    assert_eq!(errors(&text, &[]), expected);
}

#[test]
fn a_unit_and_a_word_that_do_not_exist() {
    let text = format!("{DISK}[transfer]\npart_size = \"16 MiBs\"\nverify.after = \"haed\"\n");
    let expected = "\
reelvault.toml:4:13: transfer.part_size: \"16 MiBs\" is not a size such as \"16 MiB\", \"5 GB\" or \"4096\"
  |
4 | part_size = \"16 MiBs\"
  |             ^^^^^^^^^

reelvault.toml:5:16: transfer.verify.after: not one of `none`, `head`, `read`
  |
5 | verify.after = \"haed\"
  |                ^^^^^^
  = did you mean \"head\"?

2 problems";
    assert_eq!(errors(&text, &[]), expected);
}

#[test]
fn several_mistakes_of_all_kinds_at_once() {
    let text = "\
[provider.evolink]
api_key = { env = \"KEY\" }
[destination.main.r2]
acount = \"0123456789abcdef0123456789abcdef\"
bucket = \"acme-video\"
[[route]]
name = \"one\"
[[route]]
to = [5, \"mian\", \"main\"]
[deadline]
warn = -1
";
    let expected = "\
reelvault.toml:3:1: destination.main.r2.access_key: missing
  |
3 | [destination.main.r2]
  | ^^^^^^^^^^^^^^^^^^^^^
  = write one of { credential = \"NAME\" }, { file = \"/path\" }, { env = \"NAME\" }

reelvault.toml:3:1: destination.main.r2.secret_key: missing
  |
3 | [destination.main.r2]
  | ^^^^^^^^^^^^^^^^^^^^^
  = write one of { credential = \"NAME\" }, { file = \"/path\" }, { env = \"NAME\" }

reelvault.toml:4:1: destination.main.r2.acount: unknown key
  |
4 | acount = \"…\"
  | ^^^^^^
  = did you mean `account`?

reelvault.toml:6:1: route[0].to: missing
  |
6 | [[route]]
  | ^^^^^^^^^

reelvault.toml:9:7: route[1].to[0]: a whole number, where a text is wanted
  |
9 | to = [5, \"…\", \"…\"]
  |       ^
  = texts stand in quotes, and quantities with their unit: \"5s\", \"16 MiB\", \"5/s\"

reelvault.toml:9:10: route[1].to[1]: no destination is called \"mian\"
  |
9 | to = [5, \"mian\", \"…\"]
  |          ^^^^^^
  = did you mean \"main\"?

reelvault.toml:11:8: deadline.warn: a whole number, where a text is wanted
   |
11 | warn = -1
   |        ^^
   = texts stand in quotes, and quantities with their unit: \"5s\", \"16 MiB\", \"5/s\"

7 problems";
    assert_eq!(errors(text, &[]), expected);
}

#[test]
fn a_text_that_is_no_toml() {
    let expected = "\
reelvault.toml:4:10: unclosed table, expected `]`
  |
4 | [transfer
  |          ^

1 problem";
    assert_eq!(
        errors(&format!("{DISK}\n[transfer\nmemory = 1\n"), &[]),
        expected
    );
    let expected = "\
reelvault.toml:1:14: a number that is too large
  |
1 | poll.first = 99999999999999999999
  |              ^^^^^^^^^^^^^^^^^^^^

1 problem";
    assert_eq!(errors("poll.first = 99999999999999999999", &[]), expected);
}

#[test]
fn a_line_that_nobody_can_read_is_shown_as_far_as_it_has_no_secret() {
    let shown = |text: &str| {
        let told = errors(text, &[]);
        let line = told.lines().find(|line| line.starts_with("1 | "));
        line.unwrap_or_else(|| panic!("{told}")).to_owned()
    };
    assert_eq!(shown("memory = 256 MiB"), "1 | memory = 256 MiB");
    assert_eq!(shown("concurrent 16"), "1 | concurrent 16");
    assert_eq!(shown("bucket = acme"), "1 | bucket = …");
    assert_eq!(shown("sk-canary"), "1 | …");
    assert_eq!(shown("[transfer"), "1 | [transfer");
}

#[test]
fn a_mistake_of_the_environment() {
    let variables = [
        ("REELVAULT__TRANSFER__CONCURRENT", "many"),
        ("REELVAULT__TRANSFER__MEMROY", "5 GiB"),
        ("REELVAULT__TRANSFER__MEMORY", "1 MiB"),
        ("REELVAULT__DESTINATION__R2__R2__BUCKET", "acme-video"),
        ("REELVAULT__LOG__LEVEL", "debug"),
        ("REELVAULT_CONFIG", "no key of the configuration"),
    ];
    let secret = ("REELVAULT__PROVIDER__EVOLINK__API_KEY", "sk-canary");
    let told = errors(DISK, &[&variables[..], &[secret]].concat());
    let has = |expected: &str| assert!(told.contains(expected), "{told}");
    has(
        "REELVAULT__TRANSFER__CONCURRENT: transfer.concurrent: a text, where a whole number from 0 to \
         4294967295 is wanted\n  = its value is \"many\"\n",
    );
    has("REELVAULT__TRANSFER__MEMROY: transfer.memroy: unknown key\n  = did you mean `memory`?\n");
    has("REELVAULT__DESTINATION__R2__R2__BUCKET: destination.r2.r2.account: missing\n");
    has(
        "REELVAULT__PROVIDER__EVOLINK__API_KEY: provider.evolink.api_key: a secret never stands in the \
         configuration itself\n  = write one of",
    );
    assert!(told.ends_with("\n6 problems"), "{told}");
    assert!(!told.contains("canary"), "{told}");
}

#[test]
fn a_variable_moves_a_secret_to_another_place() {
    let text = format!("{DISK}[provider.evolink]\napi_key = {{ env = \"KEY\" }}\n");
    let file = ("REELVAULT__PROVIDER__EVOLINK__API_KEY__FILE", "/k");
    let config = parse(&text, &[file]).unwrap().config;
    let (_, provider) = config
        .provider
        .iter()
        .find(|(name, _)| name.as_str() == "evolink")
        .unwrap();
    let place = provider.api_key.as_ref().unwrap();
    assert_eq!((place.env.as_deref(), place.file.is_some()), (None, true));

    let credential = ("REELVAULT__PROVIDER__EVOLINK__API_KEY__CREDENTIAL", "k");
    let told = errors(&text, &[file, credential]);
    assert!(told.contains("more than one place of the secret"), "{told}");
}

#[test]
fn a_secret_in_plain_sight() {
    let text = format!("{DISK}[provider.evolink]\napi_key = \"sk-canary\" # sk-canary\n");
    let expected = "\
reelvault.toml:4:11: provider.evolink.api_key: a secret never stands in the configuration itself
  |
4 | api_key = …
  |           ^
  = write one of { credential = \"NAME\" }, { file = \"/path\" }, { env = \"NAME\" }

1 problem";
    assert_eq!(errors(&text, &[]), expected);
}

/// Each text has one secret in it, and a mistake beside or at it.
#[test]
fn no_error_has_a_secret_in_it() {
    let provider = "[provider.evolink]\n";
    let r2 = "[destination.a.r2]\naccount = \"x\"\nbucket = \"b\"\n";
    let texts = [
        format!("{provider}api_key = \"sk-canary\""),
        format!("{provider}api_key = sk-canary"),
        format!("{provider}api_key = \"sk-canary"),
        format!("{provider}api_key = 'sk-canary\n"),
        format!("{provider}api_key = \"\"\"\nsk-canary\n\"x"),
        format!("{provider}api_key = \"\"\"\nsk-canary\\q\n\"\"\""),
        format!("{provider}api_key = [\"sk-canary\"]"),
        format!("{provider}api_key = {{ value = \"sk-canary\" }}"),
        format!("{provider}api_key = {{ value = \"sk-canary\", value = 1 }}"),
        format!("{provider}apikey = \"sk-canary\""),
        format!("{provider}token = \"sk-canary\""),
        format!("{provider}base_url = \"https://user:sk-canary@host\""),
        format!("{provider}base_url = \"//user:sk-canary@host\""),
        format!("{provider}base_url = \"https://host/?key=sk-canary\""),
        format!("{provider}headers = {{ Authorization = \"Bearer sk-canary\", x = 5 }}"),
        format!("{provider}headers = \"sk-canary\""),
        "provider.evolink = { requests = \"5/day\", api_key = \"sk-canary\" }".to_owned(),
        "provider.evolink = { headers = { k = 'sk-canary' }, requests = 'often' }".to_owned(),
        format!("{r2}access_key = \"sk-canary\"\nsecret_key = \"sk-canary\""),
        format!("{r2}secret_key = \"sk-canary\"\nsecret_key = \"sk-canary\""),
        "[destination.a.s3]\nbucket = \"b\"\nendpoint = \"http://u:sk-canary@h\"".to_owned(),
        "requests = 5 # sk-canary\n[x".to_owned(),
        // Levels that were skipped.
        "provider.evolink = \"sk-canary\"".to_owned(),
        "[destination.a]\nr2 = \"sk-canary\"".to_owned(),
        "destination = [\"sk-canary\"]".to_owned(),
        // Keys that were taken for others.
        "[manifest]\nurl = \"postgres://user:sk-canary@host/db\"".to_owned(),
        "[destination.a.s3]\nbucket = \"abc\"\ncredentials = \"sk-canary\"".to_owned(),
        "[destination.a.s3]\nbucket = \"abc\"\ncredentials = { id = \"sk-canary\" }".to_owned(),
        "[destination.a.s3]\nbucket = \"abc\"\ncredentials = { static = \"sk-canary\" }".to_owned(),
        format!("{provider}api_key = {{ env = \"sk-canary\" }}"),
        format!("{provider}api_key = {{ credential = \"sk/canary\" }}"),
        format!("{provider}api_key = {{ env = [\"sk-canary\"] }}"),
        // Lines that nobody can read.
        format!("{provider}api_key =\nsk-canary"),
        format!("{provider}api_key = [\nsk-canary\n]"),
        format!("{provider}bearer = sk-canary"),
        "[provider]\nevolink = sk-canary".to_owned(),
        "memory = 5, api_key = sk-canary".to_owned(),
    ];
    for text in texts {
        let told = errors(&text, &[]);
        assert!(!told.contains("canary"), "{told}");
    }
    for key in [
        "API_KEY",
        "HEADERS",
        "HEADERS__A__B",
        "BASE_URL",
        "API_KEY__VALUE",
        "TOKEN",
    ] {
        let variable = format!("REELVAULT__PROVIDER__EVOLINK__{key}");
        let told = errors(DISK, &[(&variable, "//sk-canary")]);
        assert!(!told.contains("canary"), "{told}");
    }
    for name in [
        "PROVIDER__EVOLINK",
        "MANIFEST__URL",
        "DESTINATION__A__R2",
        "PROVIDER__EVOLINK__API_KEY__ENV",
    ] {
        let variable = format!("REELVAULT__{name}");
        let told = errors(DISK, &[(&variable, "//sk-canary")]);
        assert!(!told.contains("canary"), "{told}");
    }
}

/// Checks that `text` beside a destination gives one problem that begins with `expected`.
#[track_caller]
fn check(text: &str, expected: &str) {
    let told = errors(&format!("{text}\n{DISK}"), &[]);
    let problem = told
        .split_once(": ")
        .map(|(_, rest)| rest)
        .unwrap_or_default();
    assert!(problem.starts_with(expected), "{told}");
    assert!(told.ends_with("\n1 problem"), "{told}");
}

#[test]
fn numbers_that_do_not_fit() {
    check(
        "transfer.concurrent = 0",
        "transfer.concurrent: 0, so nothing",
    );
    check(
        "transfer.concurrent = -1",
        "transfer.concurrent: -1 is not a whole number from 0",
    );
    check(
        "transfer.parts_ahead = 0",
        "transfer.parts_ahead: 0, so no part",
    );
    check(
        "transfer.part_size = \"4 MiB\"",
        "transfer.part_size: 4 MiB is not a length",
    );
    check(
        "transfer.part_size = \"6 GiB\"\ntransfer.memory = \"9 GiB\"",
        "transfer.part_size: 6 GiB is not",
    );
    check(
        "transfer.bandwidth = \"0 B/s\"",
        "transfer.bandwidth: \"0 B/s\" is not bytes a second",
    );
    check(
        "transfer.memory = \"33 MiB\"",
        "transfer.memory: 33 MiB is not enough",
    );
    check(
        "transfer.stall_timeout = \"999ms\"",
        "transfer.stall_timeout: 999 ms is too short",
    );
    check("poll.jitter = 1.1", "poll.jitter: 1.1 is not a fraction");
    check("poll.jitter = nan", "poll.jitter: NaN is not a fraction");
    check(
        "poll.first = \"2m\"",
        "poll.first: 2 min is more than poll.max, which is 1 min",
    );
    check(
        "manifest.lease = \"9s\"",
        "manifest.lease: 9 s is too short",
    );
    check(
        "manifest.url = \"postgres://db\"",
        "manifest.url: not the URL of a manifest",
    );
    check(
        "manifest.url = \"postgres://me@db/x?sslmode=allow\"",
        "manifest.url: no sslmode is \"allow\"",
    );
    check(
        "manifest.url = \"postgres://me@db/x?sslrootcert=a.pem\"",
        "manifest.url: parameter sslrootcert is not taken as it stands",
    );
    check(
        "manifest.url = \"postgres://me:secret@db/reelvault\"",
        "manifest.url: a password stands in the configuration",
    );
    check(
        "manifest.connections = 1",
        "manifest.connections: 1 connections",
    );
    check(
        "manifest.url = \"sqlite:\"",
        "manifest.url: not the URL of a manifest",
    );
    check(
        "log.level = \"a=b=c\"",
        "log.level: \"a=b=c\" is not a level",
    );
    for (level, bad) in [
        ("", ""),
        ("loud", "loud"),
        ("info,", ""),
        ("info,reelvault::archive", "reelvault::archive"),
    ] {
        let text = format!("log.level = {level:?}");
        check(&text, &format!("log.level: {bad:?} is not a level"));
    }
    for (level, meant) in [("warning", "warn"), ("WARNING", "warn"), ("inof", "info")] {
        let told = errors(&format!("log.level = {level:?}\n{DISK}"), &[]);
        assert!(told.contains(&format!("did you mean `{meant}`?")), "{told}");
    }
    for level in [
        "WARN",
        "off",
        "warn,reelvault::archive=debug",
        "[task]=debug",
    ] {
        assert!(parse(&format!("log.level = {level:?}\n{DISK}"), &[]).is_ok());
    }
    let bounds = "[transfer]\nconcurrent = 1\nparts_ahead = 1\npart_size = \"5 MiB\"\n\
                  memory = \"6.5 MiB\"\nstall_timeout = \"1s\"\n[poll]\nfirst = \"60s\"\njitter = 1\n\
                  [manifest]\nlease = \"10s\"\n";
    assert!(parse(&format!("{bounds}{DISK}"), &[]).is_ok());
}

#[test]
fn providers_that_nobody_can_ask() {
    let key = "api_key = { env = \"K\" }\n";
    check(
        "[provider.house]",
        "provider.house: neither `kind` nor `description`",
    );
    check(
        "[provider.a]\nkind = \"evolinc\"",
        "provider.a.kind: \"evolinc\" is not built in",
    );
    check(
        "[provider.a]\nkind = \"evolink\"\ndescription = \"/x\"",
        "provider.a.description: given beside `kind`",
    );
    check(
        "[provider.Bad]",
        "provider.Bad: \"Bad\" is not a provider name",
    );
    check(
        "[provider.evolink]\napi_key = {}",
        "provider.evolink.api_key: no place",
    );
    check(
        "[provider.evolink]\napi_key = { env = \"K\", file = \"/k\" }",
        "provider.evolink.api_key: more than one place",
    );
    check(
        "[provider.fetch]\nkind = \"evolink\"",
        "provider.fetch.kind: `fetch` stands for bare",
    );
    check(
        &format!(
            "key = \"{{task_id}}/{{index}}\"\n[provider.evolink]\n{key}[provider.b]\ndescription = \"/b\""
        ),
        "key: two providers could share a key",
    );
    check(
        &format!(
            "[provider.evolink]\n{key}[provider.b]\ndescription = \"/b\"\n\
             [[route]]\nto = [\"disk\"]\nkey = \"{{task_id}}/{{index}}\""
        ),
        "route[0].key: two providers could share a key",
    );
    let fine = format!(
        "[provider.evolink]\n{key}[provider.fetch]\nallow_private = true\nheaders = {{ a = \"b\" }}\n{DISK}"
    );
    assert_eq!(parse(&fine, &[]).unwrap().warnings, Vec::<String>::new());
    check(
        "[provider.evolink]\nbase_url = \"http://10.0.0.1:8080\"",
        "provider.evolink.base_url: plain http",
    );
    for (key, warned) in [
        (
            "discover_since = \"2026-01-31\"",
            "evolink.discover_since is without effect",
        ),
        (
            "kind = \"fal\"\ndiscover = true",
            "evolink.discover is without effect",
        ),
    ] {
        let text = format!("[provider.evolink]\n{key}\n{DISK}");
        let warnings = parse(&text, &[]).unwrap().warnings;
        assert!(warnings[0].contains(warned), "{warnings:?}");
    }
    assert_eq!(parse(DISK, &[]).unwrap().warnings.len(), 1);
}

#[test]
fn destinations_that_are_none() {
    let expected = "reelvault.toml: destination: none, so there is nowhere to archive to\n";
    assert!(errors("", &[]).starts_with(expected), "{}", errors("", &[]));
    check("[destination.a]", "destination.a: no kind of store");
    check(
        "[destination.a.fs]\npath = \"/a\"\n[destination.a.s3]\nbucket = \"abc\"",
        "destination.a: several kinds of store: s3, fs",
    );
    check(
        "[destination.a.fs]\npath = \"a\"",
        "destination.a.fs.path: \"a\" is relative",
    );
    check(
        "[destination.a.fs]\npath = \"/a\"\nmode = \"rw\"",
        "destination.a.fs.mode: \"rw\" is not the permissions",
    );
    let s3 = "[destination.a.s3]\nbucket = \"acme\"\n";
    let secret = "{ env = \"K\" }";
    check(
        &format!("{s3}credentials = \"static\"\naccess_key = {secret}"),
        "destination.a.s3.secret_key: missing, while `credentials` is \"static\"",
    );
    check(
        &format!("{s3}access_key = {secret}"),
        "destination.a.s3.access_key: without effect, while",
    );
    check(
        &format!("{s3}endpoint = \"ftp://a\""),
        "destination.a.s3.endpoint: neither an http",
    );
    check(
        &format!("{s3}endpoint = \"a\""),
        "destination.a.s3.endpoint: not an address",
    );
    let keys = format!("access_key = {secret}\nsecret_key = {secret}\n");
    let account = "0123456789abcdef0123456789abcdef";
    check(
        &format!("[destination.a.r2]\naccount = \"{account}0\"\nbucket = \"acme\"\n{keys}"),
        "destination.a.r2.account: not the ID of an account",
    );
    for bucket in [
        "ab",
        "Acme",
        "a_b",
        "-acme",
        "acme.",
        "a/b",
        "s3://acme",
        &"a".repeat(64),
    ] {
        check(
            &format!("[destination.a.s3]\nbucket = \"{bucket}\""),
            &format!("destination.a.s3.bucket: \"{bucket}\" is not the name of a bucket"),
        );
    }
    let elsewhere = "[destination.a.s3]\nbucket = \"Acme_1\"\nendpoint = \"http://127.0.0.1:9000\"";
    assert!(parse(elsewhere, &[]).is_ok());
}

#[test]
fn two_destinations_are_two_places() {
    let same = |a: &str, b: &str| {
        let table = |text: &str, name: &str| text.replace("NAME", &format!("destination.{name}"));
        parse(&format!("{}\n{}\n", table(a, "a"), table(b, "b")), &[])
            .err()
            .map(|told| told.to_string())
    };
    let told = same(
        "[NAME.fs]\npath = \"/srv/video\"",
        "[NAME.fs]\npath = \"/srv//video/\"",
    );
    let expected = "\
reelvault.toml:3:1: destination.b.fs: the same place as [destination.a]
  |
3 | [destination.b.fs]
  | ^^^^^^^^^^^^^^^^^^
  = give them different buckets, prefixes or folders, or keep one of them

1 problem";
    assert_eq!(told.as_deref(), Some(expected));
    let s3 = "[NAME.s3]\nbucket = \"abc\"\n";
    assert!(same(s3, &format!("{s3}prefix = \"\"")).is_some());
    assert_eq!(same(s3, &format!("{s3}prefix = \"b/\"")), None);
    assert_eq!(
        same(s3, &format!("{s3}endpoint = \"http://localhost:9000\"")),
        None
    );
    let r2 = |account: &str| {
        format!(
            "[NAME.r2]\naccount = \"{account}\"\nbucket = \"abc\"\n\
             access_key = {{ env = \"A\" }}\nsecret_key = {{ env = \"B\" }}"
        )
    };
    let (one, two) = (
        "0123456789abcdef0123456789abcdef",
        "1123456789abcdef0123456789abcdef",
    );
    assert!(same(&r2(one), &r2(&one.to_uppercase())).is_some());
    assert_eq!(same(&r2(one), &r2(two)), None);
}

#[test]
fn tables_with_too_few_or_too_many_brackets() {
    let told = errors(&format!("{DISK}[route]\nto = [\"disk\"]\n"), &[]);
    assert!(
        told.contains("= each route begins with a line of its own: [[route]], with"),
        "{told}"
    );
    for section in ["provider", "destination"] {
        let told = errors(&format!("[[{section}]]\nkind = \"evolink\"\n"), &[]);
        let note = format!("= each has a table with its name: [{section}.NAME]");
        assert!(told.contains(&note), "{told}");
    }
}

#[test]
fn what_would_be_over_before_it_began() {
    for (key, value) in [
        ("transfer.connect_timeout", "0s"),
        ("transfer.size_max", "0"),
        ("deadline.default", "0s"),
        ("poll.first", "0s"),
        ("poll.give_up", "0h"),
    ] {
        check(&format!("{key} = \"{value}\""), &format!("{key}: no"));
    }
}

#[test]
fn routes_that_lead_nowhere() {
    let route = |rest: &str| format!("[[route]]\nto = [\"disk\"]\n{rest}\n");
    check("[[route]]\nto = []", "route[0].to: empty");
    check(
        "[[route]]\nto = [\"dsik\"]",
        "route[0].to[0]: no destination is called \"dsik\"",
    );
    check(
        &route("provider = [\"evolink\"]"),
        "route[0].provider[0]: no provider is called",
    );
    check(
        &route("model = [\"ok\", \"a[\"]"),
        "route[0].model[1]: \"a[\" is not a pattern",
    );
    check(
        "[[route]]\nto = [\"disk\", \"disk\"]",
        "route[0].to[1]: \"disk\" is in the list already",
    );
    check(
        &route("model = []"),
        "route[0].model: empty, so no task matches",
    );
    check(
        &route("provider = []"),
        "route[0].provider: empty, so no task matches",
    );
    let huge = "?".repeat(250_000);
    check(
        &route(&format!("model = [\"{huge}\"]")),
        "route[0].model: patterns that cannot",
    );
    check(
        &route("key = \"{index}\""),
        "route[0].key: key template \"{index}\" must hold {task_id}",
    );
    check(
        &[route("name = \"a\""), route("name = \"a\"")].concat(),
        "route[1].name: another route is called \"a\" too",
    );
    let fine = [
        route("provider = [\"fetch\"]"),
        route("model = [\"seedance-*\"]"),
    ]
    .concat();
    assert!(parse(&format!("{fine}{DISK}"), &[]).is_ok());
}

#[test]
fn what_is_in_force_is_shown_with_its_layer() {
    let text = format!(
        "{DISK}[provider.evolink]\napi_key = {{ file = \"/k\" }}\nheaders = {{ X-a = \"token\" }}\n\
         [heartbeat]\nurl = \"https://token:token@hc.test:8443/token?token\"\n\
         [[notify]]\nurl = \"https://hooks.test/token\"\nwhen = [\"lost\"]\nsecret = {{ env = \"KEY\" }}\n"
    );
    let loaded = parse(&text, &[("REELVAULT__TRANSFER__CONCURRENT", "5")]).unwrap();
    let shown = loaded.show(true);
    let lines = [
        "\n[provider.evolink]\n",
        "\nconcurrent = 5  # REELVAULT__TRANSFER__CONCURRENT\n",
        "\npath = \"/srv/video\"  # reelvault.toml:2\n",
        "\napi_key = { file = \"/k\" }  # reelvault.toml:4\n",
        "\nheaders = { X-a = \"***\" }  # reelvault.toml:5\n",
        "\nurl = \"https://hc.test:8443/***\"  # reelvault.toml:7\n",
        "\nurl = \"https://hooks.test/***\"  # reelvault.toml:9\n",
        "\nmemory = \"256 MiB\"  # default\n",
        "\n[transfer.verify]\nafter = \"head\"  # default\n",
    ];
    for line in lines {
        assert!(shown.contains(line), "{line} is not in\n{shown}");
    }
    assert!(!loaded.show(false).contains('#'));
    assert!(!shown.contains("token"));
}

#[test]
fn a_spool_in_which_something_else_lies() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path().canonicalize().unwrap();
    std::fs::create_dir(home.join("state")).unwrap();
    std::os::unix::fs::symlink("state", home.join("link")).unwrap();
    let text = |spool: &str| {
        let home = home.display();
        format!(
            "[server]\nsocket = \"{home}/run/socket\"\n[manifest]\nurl = \"sqlite:{home}/state/m.db\"\n\
             [destination.disk.fs]\npath = \"{home}/video\"\n[spool]\npath = \"{home}/{spool}\"\n"
        )
    };
    for (spool, what) in [
        ("state", "the manifest"),
        ("link/", "the manifest"),
        ("state/x/..", "the manifest"),
        ("run", "the socket"),
        ("", "the manifest"),
        ("video", "destination disk"),
        ("video/spool", "destination disk"),
    ] {
        let told = errors(&text(spool), &[]);
        let expected = format!("is not a folder apart from {what}");
        assert!(told.contains(&expected), "{spool}: {told}");
    }
    for spool in ["spool", "state/spool", "videos"] {
        assert!(parse(&text(spool), &[]).is_ok(), "{spool}");
    }
}

#[test]
fn endpoints_that_cannot_be_told() {
    let text = format!(
        "{DISK}[[notify]]\nwhen = [\"archived\", \"arrived\"]\nurl = \"http://app.example.com/hooks?key=canary\"\n\
         secret = \"whsec_canary\"\n\
         [[notify]]\nname = \"App\"\nwhen = []\nurl = \"mailto:canary@example.com\"\nsecret = {{ env = \"KEY\" }}\n\
         [callback]\nsecret_old = {{ env = \"KEY\" }}\n\
         [heartbeat]\nurl = \"http://hc.example.com/canary\"\nevery = \"10ms\"\n\
         [spool]\npath = \"spool\"\n"
    );
    let told = errors(&text, &[]);
    assert!(!told.contains("canary"), "{told}");
    for what in [
        "notify[0].when[1]: \"arrived\" is not a kind of event",
        "notify[0].secret: a secret never stands in the configuration itself",
        "notify[1].name: \"App\" is not an endpoint's name",
        "notify[1].when: empty, so it would hear of nothing",
        "notify[1].url: neither an http nor an https address",
        "callback.secret_old: given without `secret`",
        "heartbeat.url: plain http, which anybody on the way can read",
        "heartbeat.every: 10 ms is too short",
        "spool.path: spool is not an absolute path",
    ] {
        assert!(told.contains(what), "{what}\n{told}");
    }

    let two = "[[notify]]\nwhen = [\"lost\"]\nurl = \"https://a.test/1\"\nsecret = { env = \"KEY\" }\n\
               [[notify]]\nwhen = [\"lost\"]\nurl = \"https://a.test/2\"\nsecret = { env = \"KEY\" }\n";
    let told = errors(&format!("{DISK}{two}"), &[]);
    assert!(
        told.contains("notify[1].url: another endpoint is called \"a_test\" too"),
        "{told}"
    );
    assert!(told.contains("= give each a `name` of its own"), "{told}");
    let named = two.replacen("when", "name = \"callback:x\"\nwhen", 1);
    let told = errors(&format!("{DISK}{named}"), &[]);
    assert!(told.contains("notify[0].name: not a name"), "{told}");
}

#[test]
fn what_is_nearly_right_is_told_what_is_missing() {
    let told = errors(&format!("server.listen = \"localhost:7437\"\n{DISK}"), &[]);
    assert!(
        told.contains("an address and a port, such as \"127.0.0.1:7437\""),
        "{told}"
    );
    check(
        "[links]\npresigned = \"30d\"",
        "links.presigned: 30 d is no lifetime of a signed link",
    );
}
