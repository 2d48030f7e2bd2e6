//! What is in force, as TOML that could be a configuration again, if asked with the layer that each line is from.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde_json::Map;
use serde_json::Value;
use url::Position;
use url::Url;

use crate::config::Config;
use crate::config::node::Path;
use crate::config::node::Step;
use crate::config::problem::Origin;
use crate::config::problem::Sources;

/// What stands for a header's value or the user in an address, which may be a token.
const MASK: &str = "***";

/// Writes `config`; with `sources`, each line says where its value is from.
pub(super) fn show(config: &Config, sources: Option<&Sources>) -> String {
    let tree = serde_json::to_value(config).expect("a configuration has only string keys");
    let mut shown = String::new();
    if let Value::Object(root) = &tree {
        let mut shower = Shower {
            sources,
            shown: &mut shown,
        };
        shower.table(root, &Path::default());
    }
    shown
}

struct Shower<'a> {
    sources: Option<&'a Sources>,
    shown: &'a mut String,
}

impl Shower<'_> {
    /// Writes the lines of a table, then the tables in it under headers of their own.
    fn table(&mut self, table: &Map<String, Value>, path: &Path) {
        for (key, value) in table {
            if !is_section(&path.key(key), value) {
                self.line(key, value, &path.key(key));
            }
        }
        for (key, value) in table {
            let path = path.key(key);
            match value {
                Value::Object(below) if is_section(&path, value) => {
                    if below
                        .iter()
                        .any(|(key, value)| !is_section(&path.key(key), value))
                    {
                        self.header(&format!("[{path}]"));
                    }
                    self.table(below, &path);
                }
                Value::Array(elements) if is_section(&path, value) => {
                    for (index, element) in elements.iter().enumerate() {
                        self.header(&format!("[[{path}]]"));
                        if let Value::Object(element) = element {
                            self.table(element, &path.index(index));
                        }
                    }
                }
                Value::Null
                | Value::Bool(_)
                | Value::Number(_)
                | Value::String(_)
                | Value::Array(_)
                | Value::Object(_) => {}
            }
        }
    }

    fn header(&mut self, header: &str) {
        let gap = if self.shown.is_empty() { "" } else { "\n" };
        writeln!(self.shown, "{gap}{header}").expect("a String takes everything");
    }

    fn line(&mut self, key: &str, value: &Value, path: &Path) {
        let value = match value.as_str().filter(|_| key == "url") {
            Some(address) => quoted(&without_path(address)),
            None => inline(value, key == "headers"),
        };
        let origin = self.sources.map(|sources| match sources.origin(path) {
            Origin::Default => "  # default".to_owned(),
            Origin::File { name, line } => format!("  # {name}:{line}"),
            Origin::Variable(name) => format!("  # {name}"),
        });
        let origin = origin.unwrap_or_default();
        writeln!(self.shown, "{key} = {value}{origin}").expect("a String takes everything");
    }
}

/// Whether a table, or a list of tables, has a header of its own rather than a line in its parent.
fn is_section(path: &Path, value: &Value) -> bool {
    let keys: Vec<Option<&str>> = path.0.iter().map(Step::as_key).collect();
    let is_headed = matches!(
        keys.as_slice(),
        [_] | [Some("transfer" | "provider" | "destination"), _] | [Some("destination"), _, _]
    );
    match value {
        Value::Object(_) => is_headed,
        Value::Array(_) => matches!(keys.as_slice(), [Some("route" | "notify")]),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// A value on one line; what is `masked` keeps only its keys.
fn inline(value: &Value, masked: bool) -> String {
    match value {
        Value::Object(table) => {
            let pairs: Vec<String> = table
                .iter()
                .map(|(key, value)| format!("{} = {}", bare(key), inline(value, masked)))
                .collect();
            if pairs.is_empty() {
                "{}".to_owned()
            } else {
                format!("{{ {} }}", pairs.join(", "))
            }
        }
        Value::Array(list) => {
            let values: Vec<String> = list.iter().map(|value| inline(value, masked)).collect();
            format!("[{}]", values.join(", "))
        }
        Value::String(_) if masked => quoted(MASK),
        Value::String(text) => quoted(&without_login(text)),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// An address of somebody who is called, of which only the host is shown: with such, the path is the key.
fn without_path(text: &str) -> Cow<'_, str> {
    let address = Url::parse(text).ok();
    let address = address.filter(|it| matches!(it.scheme(), "http" | "https"));
    address.map_or(text.into(), |it| {
        let place = &it[Position::BeforeHost..Position::AfterPort];
        format!("{}://{place}/{MASK}", it.scheme()).into()
    })
}

/// An address as it stands but for a user and a password, which are somebody's key to it.
fn without_login(text: &str) -> Cow<'_, str> {
    let address = Url::parse(text).ok();
    let address = address.filter(|it| matches!(it.scheme(), "http" | "https"));
    let is_open = |it: &Url| !it.username().is_empty() || it.password().is_some();
    let Some(mut address) = address.filter(is_open) else {
        return text.into();
    };
    let masked = address
        .set_password(None)
        .and_then(|()| address.set_username(MASK));
    masked.expect("an address with a host takes a user");
    address.to_string().into()
}

fn bare(key: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !key.is_empty() && key.chars().all(is_bare) {
        key.to_owned()
    } else {
        quoted(key)
    }
}

/// A basic string of TOML, which is a string of JSON but for one character.
fn quoted(text: &str) -> String {
    Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}
