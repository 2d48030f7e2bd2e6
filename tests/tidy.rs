//! Rules of the house that the compiler does not know: floors, first lines, names, and what must not stand in a repo.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot read the tree has failed"
)]

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// The rooms by floor, lowest first. A room imports lower floors only; rooms of one floor are strangers.
const FLOORS: &[&[&str]] = &[
    &["backoff", "chance", "clock", "secret", "units"],
    &["model"],
    &["http", "telemetry"],
    &["manifest", "origin", "provider", "store"],
    &["work"],
    &["archive", "intake", "report", "simulator", "tend", "watch"],
    &["config"],
    &["daemon"],
    &["cli"],
];

/// The ground, which its own rooms may share: time is counted in units, waits are drawn by chance.
const GROUND: usize = 0;

#[test]
fn rooms_import_lower_floors_only() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let Some(room) = room_of(&path) else { continue };
        let floor = floor_of(&room)
            .unwrap_or_else(|| panic!("{room} stands on no floor: add it to FLOORS"));
        for (number, other) in imports(&text) {
            let Some(other_floor) = floor_of(&other) else {
                continue;
            };
            let is_own = other == room || (floor == GROUND && other_floor == GROUND);
            if !is_own && other_floor >= floor {
                wrong.push(format!(
                    "{}:{number}: {room} imports {other}",
                    path.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_room_stands_on_a_floor_and_every_floor_is_real() {
    let rooms: BTreeSet<String> = sources().keys().filter_map(|path| room_of(path)).collect();
    let known: BTreeSet<String> = FLOORS
        .iter()
        .flat_map(|floor| floor.iter().map(|room| (*room).to_owned()))
        .collect();
    assert_eq!(rooms, known);
}

#[test]
fn every_file_says_what_lives_there() {
    let mut wrong = Vec::new();
    for (path, text) in sources_and_tests() {
        let first = text.lines().next().unwrap_or_default();
        let sentence = first.strip_prefix("//! ").unwrap_or_default();
        if !sentence.starts_with(|c: char| c.is_uppercase() || c == '`') || sentence.len() < 20 {
            wrong.push(format!("{}: {first:?}", path.display()));
        }
    }
    assert!(
        wrong.is_empty(),
        "first lines that say nothing:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn files_have_names_of_their_own() {
    const BANNED: &[&str] = &[
        "mod.rs",
        "utils.rs",
        "util.rs",
        "common.rs",
        "types.rs",
        "helpers.rs",
    ];
    for path in sources_and_tests().keys() {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        assert!(!BANNED.contains(&name), "{}", path.display());
    }
}

#[test]
fn nothing_unfinished_lands() {
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X:"),
        concat!("#[", "allow("),
    ];
    let mut wrong = Vec::new();
    for (path, text) in sources_and_tests() {
        for (number, line) in text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                wrong.push(format!(
                    "{}:{}: {}",
                    path.display(),
                    number + 1,
                    line.trim()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_path_of_one_machine() {
    let homes = [
        concat!("/ho", "me/"),
        concat!("/ro", "ot/"),
        concat!("/wo", "rk/"),
    ];
    for (path, text) in sources_and_tests() {
        for home in homes {
            assert!(
                !text.contains(home),
                "{} names a folder of one machine: {home}",
                path.display()
            );
        }
    }
}

/// The rooms that a file names as `crate::room`, with the line, tests of the room itself left out.
fn imports(text: &str) -> Vec<(usize, String)> {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let code = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim_start().starts_with("//"));
    let mut found = Vec::new();
    for (number, line) in code {
        for (at, _) in line.match_indices("crate::") {
            let is_whole = !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
            let room: String = line[at + "crate::".len()..]
                .chars()
                .take_while(|c| is_word(*c))
                .collect();
            if is_whole && !room.is_empty() {
                found.push((number + 1, room));
            }
        }
    }
    found
}

fn floor_of(room: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&room))
}

/// The room that a file under `src` belongs to; the roots belong to none.
fn room_of(path: &Path) -> Option<String> {
    let inside = path.strip_prefix(root().join("src")).ok()?;
    let first = inside.components().next()?.as_os_str().to_str()?;
    let room = first.strip_suffix(".rs").unwrap_or(first);
    (!matches!(room, "lib" | "main")).then(|| room.to_owned())
}

fn sources() -> BTreeMap<PathBuf, String> {
    read_rust(&["src"])
}

fn sources_and_tests() -> BTreeMap<PathBuf, String> {
    read_rust(&["src", "tests", "benches"])
}

fn read_rust(folders: &[&str]) -> BTreeMap<PathBuf, String> {
    let mut files = BTreeMap::new();
    let mut waiting: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                files.insert(path, text);
            }
        }
    }
    assert!(!files.is_empty());
    files
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
