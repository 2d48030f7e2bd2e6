//! Every statement that stands in the source as a constant, so that a test can prepare them all.

use std::fs;
use std::path::Path;

/// How a constant with SQL begins.
const BEGINS: &str = ": &str = \"-- manifest::";

/// The statements of an engine.
pub(in crate::manifest) fn of(engine: &str) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/manifest");
    let mut found = Vec::new();
    for entry in fs::read_dir(folder.join(engine)).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let mut rest = text.as_str();
        while let Some(at) = rest.find(BEGINS) {
            let (_, from) = rest[at..].split_once('"').unwrap();
            let (sql, behind) = from.split_once('"').unwrap();
            found.push(sql.to_owned());
            rest = behind;
        }
    }
    found
}

/// The parameters that a statement names, each once.
pub(in crate::manifest) fn names(sql: &str) -> Vec<String> {
    let mut names = Vec::new();
    let cleared = sql.replace("::", " ");
    for piece in cleared.split(':').skip(1) {
        let is_part = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
        let name: String = piece.chars().take_while(is_part).collect();
        let name = format!(":{name}");
        if name.len() > 1 && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}
