//! Moves that are broken off: what they leave is used by nobody, and the next try goes on with it as far as it is true.

use std::os::unix::fs::FileExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use super::*;

/// What a move told of its way.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    /// Rows that were there at its beginning.
    found: u64,
    /// Whether they stayed.
    anew: Option<&'static str>,
    copied: u64,
    compared: u64,
    done: u64,
    done_at_end: u64,
}

impl Told {
    fn hear(&mut self, step: Step) {
        match step {
            Step::GoesOn { rows, .. } => {
                self.found = rows;
                self.done = rows;
            }
            Step::Anew { table } => {
                *self = Self {
                    found: self.found,
                    anew: Some(table),
                    ..Self::default()
                }
            }
            Step::Done {
                is_comparing,
                done,
                done_at_end,
                ..
            } => {
                let rows = done - self.done;
                if is_comparing {
                    self.compared += rows;
                } else {
                    self.copied += rows;
                }
                self.done = done;
                self.done_at_end = done_at_end;
            }
        }
    }
}

/// Whether a try that was dropped is still in the way: a thread or the server has not heard of it yet.
fn is_in_the_way(error: &MoveError) -> bool {
    matches!(
        error,
        MoveError::Busy { .. } | MoveError::Manifest(ManifestError::Locked { .. })
    )
}

/// Waits until nothing of a dropped try is in the way.
pub(super) async fn once_free<T>(
    mut attempt: impl AsyncFnMut() -> Result<T, MoveError>,
) -> Result<T, MoveError> {
    let mut met = None;
    let look = async {
        loop {
            match attempt().await {
                Err(error) if is_in_the_way(&error) => met = Some(error),
                outcome => return outcome,
            }
            // Nobody tells when a thread or a connection that nobody waits for has ended.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let free = tokio::time::timeout(Duration::from_mins(1), look).await;
    free.unwrap_or_else(|_| panic!("a try that was dropped stays in the way: {met:?}"))
}

/// Goes on to the end, and tells what had to be done.
async fn go_on(from: &Config, to: &Config) -> Told {
    let mut told = Told::default();
    let moved = once_free(async || migrate(from, to, |step| told.hear(step)).await).await;
    let rows = moved.unwrap().iter().map(|(_, rows)| rows).sum::<u64>();
    assert_eq!(
        (told.compared, told.done),
        (rows, told.done_at_end),
        "{told:?}"
    );
    let kept = if told.anew.is_some() { 0 } else { told.found };
    assert_eq!(told.copied + kept, rows, "{told:?}");
    told
}

/// Moves until something is told that is enough, and drops it there. Tells whether it was dropped, or had no more to do.
pub(super) async fn break_off(
    from: &Config,
    to: &Config,
    mut is_enough: impl FnMut(Step) -> bool + Send,
) -> bool {
    let dropped = once_free(async || {
        let enough = Notify::new();
        let moving = migrate(from, to, |step| {
            if is_enough(step) {
                enough.notify_one();
            }
        });
        tokio::select! {
            biased;
            () = enough.notified() => Ok(true),
            moved = moving => moved.map(|_| false),
        }
    });
    dropped.await.unwrap()
}

/// Whether nobody can use the manifest since its move was not finished.
pub(super) async fn is_unfinished(config: &Config, from: &Config) -> bool {
    for access in [Access::Daemon, Access::Writer, Access::Reader] {
        let opened = once_free(async || {
            let opened = Manifest::open(config, Clock::system(), access).await;
            Ok(opened?)
        });
        match opened.await {
            Err(MoveError::Manifest(ManifestError::Unfinished { from: source, .. })) => {
                // The last that is done before the copy gets its name is to take the mark away.
                assert!([&name_of(from), "another manifest"].contains(&source.as_str()));
            }
            Err(error) => panic!("{access:?}: {error:?}"),
            Ok(_) => return false,
        }
    }
    true
}

/// Breaks a move off after one page, then after some more, and so on, until it gets to its end.
async fn break_off_everywhere(from: &Config, to: &Config) {
    let (mut tries, mut found) = (1, 0);
    loop {
        let mut steps = 0;
        let is_enough = |step| {
            if let Step::GoesOn { rows, .. } = step {
                assert!(rows >= found, "{rows} rows of {found} are left");
                found = rows;
            }
            assert!(!matches!(step, Step::Anew { .. }), "{step:?}");
            steps += 1;
            steps >= tries
        };
        if !break_off(from, to, is_enough).await || !is_unfinished(to, from).await {
            break;
        }
        tries += 2;
    }
    assert!(tries > 10, "{tries}");
}

/// A file with rows in every table.
pub(super) async fn filled() -> World {
    let world = World::sqlite(false).await;
    fill(&world).await;
    world.manifest.close().await;
    world
}

#[tokio::test]
async fn a_move_that_dies_anywhere_is_used_by_nobody_until_it_has_gone_on_to_its_end() {
    let world = filled().await;
    let before = dump(&world.config);
    let (there, back) = (place(), file_in(&world.folder, "back.db"));
    break_off_everywhere(&world.config, &there.config).await;
    break_off_everywhere(&there.config, &back).await;
    assert_same(&before, &dump(&back));
    for left in ["-wal", "-shm", ".moving", ".moving-wal", ".moving-shm"] {
        assert!(!beside(&back, left).exists(), "{left}");
    }
}

/// Whether a move has come to its events. The tables before are copied by then.
fn has_events(step: Step) -> bool {
    matches!(
        step,
        Step::Done {
            table: "events",
            ..
        }
    )
}

fn beside(config: &Config, ending: &str) -> PathBuf {
    let mut name = Manifest::path(config).unwrap().into_os_string();
    name.push(ending);
    name.into()
}

#[tokio::test]
async fn what_is_copied_is_not_copied_again() {
    let world = filled().await;
    let (there, back) = (place(), file_in(&world.folder, "back.db"));
    assert!(break_off(&world.config, &there.config, has_events).await);
    // Each version of a row has the number of the transaction that wrote it.
    let versions = || {
        there.server.sql(
            &there.database.name,
            "SELECT id, xmin FROM tasks ORDER BY id",
        )
    };
    let written = versions();
    let told = go_on(&world.config, &there.config).await;
    assert!(
        told.found > 0 && told.copied > 0 && told.anew.is_none(),
        "{told:?}"
    );
    assert_eq!(versions(), written);

    assert!(break_off(&there.config, &back, has_events).await);
    let told = go_on(&there.config, &back).await;
    assert!(
        told.found > 0 && told.copied > 0 && told.anew.is_none(),
        "{told:?}"
    );
    assert_same(&dump(&world.config), &dump(&back));
}

#[tokio::test]
async fn a_move_that_dies_while_it_compares_only_compares() {
    let world = filled().await;
    let (there, back) = (place(), file_in(&world.folder, "back.db"));
    let is_enough = |step: Step| {
        matches!(
            step,
            Step::Done {
                table: "objects",
                is_comparing: true,
                ..
            }
        )
    };
    for (from, to) in [(&world.config, &there.config), (&there.config, &back)] {
        assert!(break_off(from, to, is_enough).await);
        let told = go_on(from, to).await;
        assert_eq!(
            (told.copied, told.found, told.anew),
            (0, told.compared, None),
            "{told:?}"
        );
    }
    assert_same(&dump(&world.config), &dump(&back));
}

/// What becomes of a source between two tries, and which table tells; none where the copy is still true.
const CHANGES: [(&str, Option<&str>); 6] = [
    (
        "UPDATE tasks SET looks = looks + 1 WHERE id = (SELECT MIN(id) FROM tasks)",
        Some("tasks"),
    ),
    (
        "DELETE FROM events WHERE id = (SELECT MAX(id) FROM events)",
        Some("events"),
    ),
    (
        "INSERT INTO parts (object, number, length, etag, crc64nvme)
            SELECT (SELECT MIN(id) FROM objects), COUNT(*) + 1, 1, 'e', 'c' FROM parts",
        Some("parts"),
    ),
    ("UPDATE pulse SET at = at + 1", Some("pulse")),
    (
        "INSERT INTO orphans (destination, key, upload_id, due_at)
            SELECT 'late', 'late', CAST(COUNT(*) AS TEXT), 1 FROM orphans",
        None,
    ),
    // Nobody holds anything in a copy, so a lease is no difference.
    (
        "UPDATE tasks SET lease_owner = 'x', lease_expires_at = 1 WHERE id = (SELECT MAX(id) FROM tasks)",
        None,
    ),
];

#[tokio::test]
async fn a_source_that_has_changed_in_between_is_copied_as_it_is() {
    let world = filled().await;
    let source = place();
    move_all(&world.config, &source.config).await;
    let db = rusqlite::Connection::open(Manifest::path(&world.config).unwrap()).unwrap();
    let is_enough = |step: Step| {
        matches!(
            step,
            Step::Done {
                is_comparing: true,
                ..
            }
        )
    };
    for (number, (change, expected)) in CHANGES.into_iter().enumerate() {
        let there = place();
        let [round, back] =
            ["round", "back"].map(|it| file_in(&world.folder, &format!("{it}-{number}.db")));
        assert!(break_off(&world.config, &there.config, is_enough).await);
        db.execute(change, []).unwrap();
        let told = go_on(&world.config, &there.config).await;
        assert_eq!(told.anew, expected, "{change}: {told:?}");
        move_all(&there.config, &round).await;
        assert_same(&dump(&world.config), &dump(&round));

        assert!(break_off(&source.config, &back, is_enough).await);
        // In a thread, since what was dropped is let go by tasks of this one.
        let name = source.database.name.clone();
        let changed = tokio::task::spawn_blocking(move || Server::shared().sql(&name, change));
        changed.await.unwrap();
        let told = go_on(&source.config, &back).await;
        assert_eq!(told.anew, expected, "{change}: {told:?}");
        assert_same(&dump(&world.config), &dump(&back));
        let expected = seen(&world.config).await;
        for copy in [&there.config, &back] {
            assert_eq!(seen(copy).await, expected, "{change}");
        }
    }
}

#[tokio::test]
async fn a_copy_that_was_spoilt_in_between_is_made_anew() {
    let world = filled().await;
    let (there, back) = (place(), file_in(&world.folder, "back.db"));
    let spoil = "UPDATE assets SET attempts = attempts + 1";
    assert!(break_off(&world.config, &there.config, has_events).await);
    there.server.sql(&there.database.name, spoil);
    assert_eq!(
        go_on(&world.config, &there.config).await.anew,
        Some("assets")
    );

    assert!(break_off(&there.config, &back, has_events).await);
    once_free(async || Ok(look(&there.config, &back).await?))
        .await
        .unwrap();
    let unfinished = beside(&back, ".moving");
    let db = rusqlite::Connection::open(&unfinished).unwrap();
    db.execute(spoil, []).unwrap();
    drop(db);
    let file = std::fs::metadata(&unfinished).unwrap().ino();
    assert_eq!(go_on(&there.config, &back).await.anew, Some("assets"));
    // Its name, which says that it is unfinished, never went.
    assert_eq!(
        std::fs::metadata(Manifest::path(&back).unwrap())
            .unwrap()
            .ino(),
        file
    );
    assert_same(&dump(&world.config), &dump(&back));
}

#[tokio::test]
async fn a_copy_whose_mark_cannot_be_read_is_left_as_it_is() {
    let world = World::postgres(false).await;
    fill(&world).await;
    world.manifest.close().await;
    let back = file_in(&world.folder, "back.db");
    assert!(break_off(&world.config, &back, has_events).await);
    once_free(async || End::target(&back, &name_of(&world.config)).await.map(drop))
        .await
        .unwrap();
    // As if the disk gave something else for a moment.
    let file = std::fs::File::options()
        .write(true)
        .open(beside(&back, ".moving"))
        .unwrap();
    file.write_all_at(b"not SQLite", 0).unwrap();
    for is_dry in [true, false] {
        let refused = once_free(async || {
            if is_dry {
                look(&world.config, &back).await
            } else {
                migrate(&world.config, &back, |_| {}).await
            }
        });
        let refused = refused.await;
        let error = refused.expect_err("it is not SQLite").to_string();
        assert!(
            error.ends_with("back.db.moving: file is not a database"),
            "{error}"
        );
    }
    assert!(is_unfinished(&back, &world.config).await);
    file.write_all_at(b"SQLite for", 0).unwrap();
    let told = go_on(&world.config, &back).await;
    assert!(told.found > 0 && told.anew.is_none(), "{told:?}");
}

#[tokio::test]
async fn a_file_whose_making_was_broken_off_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (other, back) = (folder.path().join("other.db"), file_in(&folder, "back.db"));
    let db = rusqlite::Connection::open(&other).unwrap();
    // Without a wait for the disk the journal says from the beginning that there is something to roll back.
    let half = "PRAGMA synchronous = OFF; CREATE TABLE one (id INTEGER);
        BEGIN; CREATE TABLE two (id INTEGER)";
    db.execute_batch(half).unwrap();
    std::fs::copy(&other, beside(&back, ".moving")).unwrap();
    let journal = folder.path().join("other.db-journal");
    std::fs::copy(journal, beside(&back, ".moving-journal")).unwrap();
    let mut target = End::target(&back, "elsewhere").await.unwrap();
    assert_eq!(target.count(&TABLES[0]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_copy_of_another_schema_is_made_anew_or_refused() {
    let world = filled().await;
    let (there, back) = (place(), file_in(&world.folder, "back.db"));
    assert!(break_off(&world.config, &there.config, has_events).await);
    let sql = |sql: &str| there.server.sql(&there.database.name, sql);
    sql("INSERT INTO reelvault_schema (version, at) VALUES (99, 0)");
    let refused = once_free(async || migrate(&world.config, &there.config, |_| {}).await).await;
    let expected = matches!(
        &refused,
        Err(MoveError::Manifest(ManifestError::Newer { found: 99, .. }))
    );
    assert!(expected, "{refused:?}");
    sql("DELETE FROM reelvault_schema WHERE version = 99");
    assert!(go_on(&world.config, &there.config).await.found > 0);

    assert!(break_off(&there.config, &back, has_events).await);
    let version = |version: u32| {
        let db = rusqlite::Connection::open(beside(&back, ".moving")).unwrap();
        db.pragma_update(None, "user_version", version).unwrap();
    };
    once_free(async || End::target(&back, &name_of(&there.config)).await.map(drop))
        .await
        .unwrap();
    version(99);
    let refused = once_free(async || migrate(&there.config, &back, |_| {}).await).await;
    let expected = matches!(
        &refused,
        Err(MoveError::Manifest(ManifestError::Newer { found: 99, .. }))
    );
    assert!(expected, "{refused:?}");
    version(7);
    assert_eq!(go_on(&there.config, &back).await.found, 0);
    assert_same(&dump(&world.config), &dump(&back));
}

#[tokio::test]
async fn a_file_that_died_between_its_mark_and_its_name_is_made_anew() {
    let world = World::postgres(false).await;
    fill(&world).await;
    world.manifest.close().await;
    let back = file_in(&world.folder, "back.db");
    let is_enough = |step: Step| {
        matches!(
            step,
            Step::Done {
                table: "pulse",
                is_comparing: true,
                ..
            }
        )
    };
    assert!(break_off(&world.config, &back, is_enough).await);
    once_free(async || End::target(&back, &name_of(&world.config)).await.map(drop))
        .await
        .unwrap();
    let db = rusqlite::Connection::open(beside(&back, ".moving")).unwrap();
    db.execute("DROP TABLE reelvault_moving", []).unwrap();
    drop(db);
    assert!(is_unfinished(&back, &world.config).await);
    assert_eq!(go_on(&world.config, &back).await.found, 0);
    assert_eq!(seen(&world.config).await, seen(&back).await);
}
