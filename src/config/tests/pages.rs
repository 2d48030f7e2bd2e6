//! The folder `config`: its samples work, and no page of it lacks or invents a key.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde::Deserialize as _;

use crate::config::Config;
use crate::config::locate::SECRETS;
use crate::config::node::Node;
use crate::config::node::Path;
use crate::config::node::Step;
use crate::config::read::Cause;
use crate::config::tests::page;
use crate::provider::description::Description;
use crate::secret::SecretSource;

/// Tables by their path with `NAME` for every name, each with its keys.
type Tables = BTreeMap<String, BTreeSet<String>>;

#[test]
fn every_sample_is_read_without_a_warning_and_shown_as_it_is() {
    let samples = [
        "minimal",
        "s3",
        "r2",
        "two-copies",
        "folder",
        "own-provider",
        "fleet",
    ];
    for name in samples {
        let loaded = Config::load(&page(&format!("{name}.toml")), Vec::new());
        let loaded = loaded.unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(loaded.warnings, Vec::<String>::new(), "{name}");
        let shown = loaded.show(false);
        let again = Config::parse(&shown, name, Vec::new()).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(again.show(false), shown, "{name}");
    }
    let files = fs::read_dir(page(""))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let is_sample = |path: &PathBuf| {
        path.extension().is_some_and(|it| it == "toml") && !path.ends_with("default.toml")
    };
    let found: Vec<PathBuf> = files.filter(is_sample).collect();
    assert_eq!(found.len(), samples.len(), "{found:?}");
}

#[test]
fn every_sample_of_a_description_is_one() {
    let mut count = 0;
    for file in fs::read_dir(page("providers")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|it| it != "toml") {
            continue;
        }
        let text = fs::read_to_string(path).unwrap();
        Description::parse(&text).unwrap_or_else(|error| panic!("{error}"));
        count += 1;
    }
    assert_eq!(count, 1);
}

#[test]
fn the_sample_in_the_reference_is_the_minimal_one() {
    let settings = |text: &str| -> Vec<String> {
        let lines = text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty());
        lines.map(str::to_owned).collect()
    };
    let reference = fs::read_to_string(page("README.md")).unwrap();
    let sample = reference
        .split("```toml")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    let minimal = fs::read_to_string(page("minimal.toml")).unwrap();
    assert_eq!(settings(sample.unwrap()), settings(&minimal));
}

#[test]
fn the_defaults_page_has_exactly_the_keys_that_the_rooms_know() {
    let written = defaults_page();
    let mut tree = tree_of(&written);
    let mut known = Tables::new();
    for path in tables(&tree) {
        let probe = path.key("no_such_key");
        tree.replace(&probe, Some(Node::Bool(true)));
        if let Err(Cause::UnknownField { expected, .. }) = Config::deserialize(tree.clone()) {
            let keys = expected.iter().map(|key| (*key).to_owned());
            known.entry(general(&path)).or_default().extend(keys);
        }
        tree.replace(&probe, None);
    }
    // Places of secrets are told once, at the head of the page.
    known.retain(|_, keys| !keys.contains("credential"));
    let mut page = keys_of(&tree);
    page.retain(|path, _| known.contains_key(path));
    assert_eq!(page, known);
    let sections = [
        "",
        "transfer.verify",
        "provider.NAME",
        "destination.NAME.s3",
        "route",
    ];
    assert!(
        sections.iter().all(|section| known.contains_key(*section)),
        "{:?}",
        known.keys()
    );
}

#[test]
fn the_defaults_page_and_the_reference_show_every_place_of_a_secret() {
    let source = serde_json::to_value(SecretSource {
        credential: Some(String::new()),
        file: Some("".into()),
        env: Some(String::new()),
    });
    for place in source.unwrap().as_object().unwrap().keys() {
        for name in ["default.toml", "README.md"] {
            let text = fs::read_to_string(page(name)).unwrap();
            assert!(
                text.contains(&format!("{{ {place} = ")),
                "{name} lacks {place}"
            );
        }
    }
}

#[test]
fn every_key_stands_in_the_reference_with_its_default() {
    let reference = fs::read_to_string(page("README.md")).unwrap();
    let tree = tree_of(&defaults_page());
    let defaults = super::super::defaults();
    let (mut rows, mut with_default) = (0, 0);
    let sections: Vec<Path> = tables(&tree).into_iter().filter(is_section).collect();
    let is_heading = |name: &str| {
        let mut sections = sections.iter().map(general);
        matches!(name, "provider" | "destination") || sections.any(|section| section == name)
    };
    for path in &sections {
        for key in tree.keys_at(path) {
            let name = general(&path.key(key));
            if is_heading(&name) {
                continue;
            }
            let row = reference
                .lines()
                .find(|line| line.starts_with(&format!("| `{name}` |")));
            let row = row.unwrap_or_else(|| panic!("README.md lacks {name}"));
            rows += 1;
            let default = match defaults.get(&path.key(key)) {
                Some(Node::String(text)) => format!("| `{text:?}` |"),
                Some(Node::Int(number)) => format!("| `{number}` |"),
                Some(Node::Float(number)) => format!("| `{number}` |"),
                Some(Node::Bool(is)) => format!("| `{is}` |"),
                Some(Node::List(_) | Node::Table(_) | Node::Blank) | None => continue,
            };
            with_default += 1;
            assert!(
                row.contains(&default),
                "README.md has another default: {row}"
            );
        }
    }
    assert!(rows > 60 && with_default > 20, "{rows} {with_default}");
}

#[test]
fn the_reference_invents_no_key() {
    let reference = fs::read_to_string(page("README.md")).unwrap();
    let tree = tree_of(&defaults_page());
    let mut known = BTreeSet::new();
    for (table, keys) in keys_of(&tree) {
        let dot = if table.is_empty() { "" } else { "." };
        known.extend(keys.iter().map(|key| format!("{table}{dot}{key}")));
    }
    let keys = reference.split("## Keys").nth(1).unwrap().lines();
    let named = keys.filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    for name in named {
        assert!(known.contains(name), "{name} is no key");
    }
}

/// The page of defaults with the keys that stand in it as comments.
fn defaults_page() -> String {
    let page = fs::read_to_string(page("default.toml")).unwrap();
    let is_setting = |line: &&str| {
        let word = line.split([' ', '=']).next().unwrap_or_default();
        let is_key = !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        line.starts_with('[') || (line.contains(" = ") && is_key)
    };
    let settings = page
        .lines()
        .filter_map(|line| match line.strip_prefix("# ") {
            Some(comment) => Some(comment).filter(is_setting),
            None => Some(line),
        });
    settings.fold(String::new(), |page, line| page + line + "\n")
}

fn tree_of(text: &str) -> Node {
    Node::read(text).unwrap()
}

/// The paths of all tables.
fn tables(tree: &Node) -> Vec<Path> {
    let mut found = Vec::new();
    let mut waiting = vec![Path::default()];
    while let Some(path) = waiting.pop() {
        match tree.get(&path).unwrap() {
            Node::Table(table) => {
                waiting.extend(table.keys().map(|key| path.key(key)));
                found.push(path);
            }
            Node::List(list) => waiting.extend(list.iter().map(|(index, _)| path.index(*index))),
            Node::Bool(_) | Node::Int(_) | Node::Float(_) | Node::String(_) | Node::Blank => {}
        }
    }
    found
}

fn keys_of(tree: &Node) -> Tables {
    let mut keys = Tables::new();
    for path in tables(tree) {
        let at = tree.keys_at(&path);
        keys.entry(general(&path))
            .or_default()
            .extend(at.into_iter().map(str::to_owned));
    }
    keys
}

/// Whether the table has a header of its own, and so keys of its own in the reference.
fn is_section(path: &Path) -> bool {
    let keys: Vec<&str> = path.0.iter().filter_map(Step::as_key).collect();
    match keys.first() {
        Some(&"provider") => keys.len() == 2,
        Some(&"destination") => keys.len() == 2 || keys.len() == 3,
        Some(&"route") => keys.len() == 1,
        // Places of secrets are told once.
        _ => keys.last().is_none_or(|key| !SECRETS.contains(key)),
    }
}

/// The path with `NAME` for a name and without indices.
fn general(path: &Path) -> String {
    let keys = path.0.iter().filter_map(Step::as_key).enumerate();
    let first = path
        .0
        .first()
        .and_then(Step::as_key)
        .unwrap_or_default()
        .to_owned();
    let is_named = matches!(first.as_str(), "provider" | "destination");
    let general = keys.map(|(at, key)| if at == 1 && is_named { "NAME" } else { key });
    general.collect::<Vec<_>>().join(".")
}
