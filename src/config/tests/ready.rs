//! What is told before a daemon starts: each secret that cannot be had, with its place.

use crate::config::tests::DISK;
use crate::config::tests::parse;

fn environment(name: &str) -> Option<String> {
    match name {
        "SHORT" => Some("hook".to_owned()),
        "SET" => Some("sk-canary-sk-canary".to_owned()),
        _ => None,
    }
}

#[test]
fn every_secret_that_cannot_be_had_is_told_with_its_place() {
    let text = format!(
        "[provider.evolink]\nwebhook = true\napi_key = {{ env = \"NONE\" }}\nhook_secret = {{ env = \"SHORT\" }}\n\
         [provider.kie]\n{DISK}"
    );
    let variables = [("REELVAULT__SERVER__TOKEN__FILE", "/nowhere/token")];
    let loaded = parse(&text, &variables).unwrap();
    let told = loaded.ready(&environment).unwrap_err().to_string();
    let expected = "\
reelvault.toml:3:19: provider.evolink.api_key.env: environment variable NONE is not set
  |
3 | api_key = { env = \"NONE\" }
  |                   ^^^^^^

reelvault.toml:4:23: provider.evolink.hook_secret.env: shorter than 16 characters
  |
4 | hook_secret = { env = \"SHORT\" }
  |                       ^^^^^^^
  = better are 32 random bytes as text

reelvault.toml:5:1: provider.kie.api_key: missing, while the API wants a key
  |
5 | [provider.kie]
  | ^^^^^^^^^^^^^^
  = write one of { credential = \"NAME\" }, { file = \"/path\" }, { env = \"NAME\" }

REELVAULT__SERVER__TOKEN__FILE: server.token.file: secret file /nowhere/token: No such file or directory (os error 2)
  = its value is \"/nowhere/token\"

4 problems";
    assert_eq!(told, expected);
    let sections = loaded.unready(&environment).into_iter();
    let sections: Vec<String> = sections.map(|it| it.section).collect();
    assert_eq!(
        sections,
        [
            "provider.kie",
            "server.token",
            "provider.evolink",
            "provider.evolink"
        ]
    );
}

#[test]
fn what_nobody_reads_need_not_be_there() {
    let text = format!(
        "[provider.evolink]\napi_key = {{ env = \"SET\" }}\nhook_secret = {{ env = \"NONE\" }}\n\
         [manifest]\npassword = {{ env = \"NONE\" }}\n{DISK}"
    );
    let loaded = parse(&text, &[]).unwrap();
    assert!(loaded.ready(&environment).is_ok());
    assert!(loaded.unready(&environment).is_empty());
}
