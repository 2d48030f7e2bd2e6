//! What is in force, a key a line, and where each value came from.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::config::Config;
use crate::config::locate::Part;
use crate::config::locate::Source;
use crate::config::node::Route;
use crate::config::route_of;

/// Enough of the layers to say where a value came from.
#[derive(Clone, Debug)]
pub(crate) struct Origins {
    name: String,
    text: String,
    variables: BTreeMap<String, String>,
}

impl Origins {
    pub(crate) fn new(name: &str, text: &str, variables: &[(String, String)]) -> Self {
        let set = |(variable, _): &(String, String)| {
            Some((route_of(variable)?.to_string(), variable.clone()))
        };
        Self {
            name: name.to_owned(),
            text: text.to_owned(),
            variables: variables.iter().filter_map(set).collect(),
        }
    }

    fn of(&self, route: &Route) -> String {
        let source = Source {
            name: &self.name,
            text: &self.text,
        };
        if let Some(variable) = self.variables.get(&route.to_string()) {
            return variable.clone();
        }
        let place = source
            .has(route)
            .then(|| source.find(route, Part::Key))
            .flatten();
        place.map_or_else(|| "default".to_owned(), |place| place.address)
    }
}

/// Writes `config` as TOML with dotted keys.
pub(crate) fn show(config: &Config, origins: Option<&Origins>) -> String {
    // A configuration was read from text, so it has nothing that cannot be written.
    let root = serde_json::to_value(config).unwrap_or_default();
    let mut lines = Vec::new();
    collect(&root, &Route::default(), &mut lines);
    let width = lines
        .iter()
        .map(|(_, line)| line.chars().count())
        .max()
        .unwrap_or(0);
    let line = |(route, line): (Route, String)| match origins {
        Some(origins) => format!("{line:width$}  # {}\n", origins.of(&route)),
        None => format!("{line}\n"),
    };
    lines.into_iter().map(line).collect()
}

fn collect(value: &Value, route: &Route, lines: &mut Vec<(Route, String)>) {
    match value {
        Value::Object(table) if !table.is_empty() && !is_inline(table) => {
            table
                .iter()
                .for_each(|(key, value)| collect(value, &route.key(key), lines));
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            let items = items.iter().enumerate();
            items.for_each(|(index, item)| collect(item, &route.item(index), lines));
        }
        Value::Null
        | Value::Object(_)
        | Value::Array(_)
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_) => {
            if !value.is_null() && value.as_object().is_none_or(|table| !table.is_empty()) {
                lines.push((route.clone(), format!("{route} = {}", inline(value))));
            }
        }
    }
}

/// Whether a table is one value in people's eyes: the place of a secret, an encryption key.
fn is_inline(table: &serde_json::Map<String, Value>) -> bool {
    table.len() == 1
        && table
            .keys()
            .all(|key| matches!(key.as_str(), "credential" | "file" | "env" | "kms"))
}

fn inline(value: &Value) -> String {
    match value {
        Value::Object(table) => {
            let entries: Vec<String> = table
                .iter()
                .map(|(key, it)| format!("{key} = {}", inline(it)))
                .collect();
            format!("{{ {} }}", entries.join(", "))
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(inline).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}
