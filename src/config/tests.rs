//! Tests of the configuration: what its mistakes look like, and that its pages say what the program knows.

use std::path::Path;
use std::path::PathBuf;

use crate::config::Config;
use crate::config::ConfigErrors;
use crate::config::Loaded;

mod messages;
mod pages;
mod ready;

/// A destination, so that a text is complete.
const DISK: &str = "[destination.disk.fs]\npath = \"/srv/video\"\n";

fn parse(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, ConfigErrors> {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Config::parse(text, "reelvault.toml", variables.iter().map(own).collect())
}

#[track_caller]
fn errors(text: &str, variables: &[(&str, &str)]) -> String {
    match parse(text, variables) {
        Ok(loaded) => panic!("nothing is wrong with {:#?}", loaded.config),
        Err(errors) => errors.to_string(),
    }
}

/// A file of the folder `config`.
fn page(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("config")
        .join(name)
}
