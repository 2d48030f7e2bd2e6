//! The daemon: wires the rooms together, starts the stages, and stops them cleanly.

mod fleet;
mod gateway;
pub mod health;
mod metrics;
pub mod openapi;
pub mod routes;
pub mod server;
pub mod supervisor;
pub mod systemd;
pub mod wiring;

/// An error with its causes on one line. A cause that the error has in its own words already is not said twice.
pub fn sentence(error: &anyhow::Error) -> String {
    let mut said: Vec<String> = Vec::new();
    for cause in error.chain().map(ToString::to_string) {
        if said.iter().any(|text| text.contains(&cause)) {
            continue;
        }
        // "provider.x: provider.x.api_key: ..." says where twice.
        if said
            .last()
            .is_some_and(|text| cause.starts_with(text.as_str()))
        {
            said.pop();
        }
        said.push(cause);
    }
    said.join(": ")
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn nothing_is_said_twice() {
        let check = |error: anyhow::Error, expected: &str| assert_eq!(sentence(&error), expected);
        let missing = || anyhow!("variable KEY is not set");
        check(missing(), "variable KEY is not set");
        check(
            missing().context("no key"),
            "no key: variable KEY is not set",
        );
        let told = missing().context("provider.x.api_key: variable KEY is not set");
        check(
            told.context("provider.x"),
            "provider.x.api_key: variable KEY is not set",
        );
    }
}
