//! The floors: the statements of the verbs in a loop, in transactions of the same size, with nothing around them.

use anyhow::Context as _;
use anyhow::Result;
use anyhow::ensure;
use reelvault::clock::Clock;

use crate::crowd;
use crate::ground::Ground;
use crate::ground::Kind;
use crate::statement::Found;
use crate::statement::Prepared;
use crate::statement::Statement;
use crate::statement::Value;
use crate::statement::Values;
use crate::work::BATCH;
use crate::work::CLAIM;
use crate::work::READERS;
use crate::work::ROOM;

/// The sources of one engine's verbs.
struct Sources {
    claims: &'static str,
    objects: &'static str,
    events: &'static str,
    tasks: &'static str,
    reads: &'static str,
}

const SQLITE: Sources = Sources {
    claims: include_str!("../../src/manifest/sqlite/claims.rs"),
    objects: include_str!("../../src/manifest/sqlite/objects.rs"),
    events: include_str!("../../src/manifest/sqlite/events.rs"),
    tasks: include_str!("../../src/manifest/sqlite/tasks.rs"),
    reads: include_str!("../../src/manifest/sqlite/reads.rs"),
};

const POSTGRES: Sources = Sources {
    claims: include_str!("../../src/manifest/postgres/claims.rs"),
    objects: include_str!("../../src/manifest/postgres/objects.rs"),
    events: include_str!("../../src/manifest/postgres/events.rs"),
    tasks: include_str!("../../src/manifest/postgres/tasks.rs"),
    reads: include_str!("../../src/manifest/postgres/reads.rs"),
};

/// These two are put together in the engines' code.
const RENEW_SQLITE: &str = "UPDATE assets SET lease_expires_at = :lease_until
    WHERE id = :id AND lease_token = :token AND lease_expires_at IS NOT NULL";
const RENEW_POSTGRES: &str = "UPDATE assets AS held SET lease_expires_at = :lease_until
    FROM unnest(:ids::bigint[], :tokens::bigint[]) AS ours (id, token)
    WHERE held.id = ours.id AND held.lease_token = ours.token AND held.lease_expires_at IS NOT NULL
    RETURNING held.id, held.lease_token";
const TASK: &str = "SELECT * FROM tasks WHERE TRUE AND task_id = :task_id ORDER BY id LIMIT :most";

/// The statements by what they are for.
struct Texts {
    claim_assets: Vec<Statement>,
    /// Read a claimed asset and what hangs on it; on the server, all that were claimed.
    read_assets: Vec<Statement>,
    renew: Statement,
    name: Vec<Statement>,
    prove: Vec<Statement>,
    claim_tasks: Vec<Statement>,
    observe: Vec<Statement>,
    /// Reads a task; gives its number.
    look_up: Vec<Statement>,
    /// Read what hangs on it.
    look_up_more: Vec<Statement>,
}

fn texts(kind: Kind) -> Result<Texts> {
    let sources = match kind {
        Kind::Sqlite => SQLITE,
        Kind::Postgres => POSTGRES,
    };
    let some = |source: &str, names: &[&str]| -> Result<Vec<Statement>> {
        let statement = |name: &&str| Statement::of(kind, source, name);
        names.iter().map(statement).collect()
    };
    let (read, prove, renew) = match kind {
        Kind::Sqlite => (
            &["READ_OBJECTS", "READ_CLAIMED_ASSET"][..],
            &["ALL_ARCHIVED", "APPEND"][..],
            RENEW_SQLITE,
        ),
        Kind::Postgres => (
            &["READ_PARTS", "READ_OBJECTS", "READ_CLAIMED_ASSETS"][..],
            &["LOCK_TASK", "ALL_ARCHIVED", "APPEND"][..],
            RENEW_POSTGRES,
        ),
    };
    let hold = || some(sources.claims, &["HOLD_ASSET"]);
    let named = some(
        sources.objects,
        &["DESTINATION", "WHO_HAS_KEY", "KEY", "NAME"],
    )?;
    let proven = ["PROVE_OBJECT", "FORGET_PARTS", "KEEP_BODY", "PROVE_ASSET"];
    let proven = some(sources.objects, &proven)?;
    Ok(Texts {
        claim_assets: some(sources.claims, &["CLAIM_ASSETS"])?,
        read_assets: some(sources.claims, read)?,
        renew: Statement::new(kind, renew),
        name: hold()?.into_iter().chain(named).collect(),
        prove: hold()?
            .into_iter()
            .chain(proven)
            .chain(some(sources.events, prove)?)
            .collect(),
        claim_tasks: some(sources.claims, &["CLAIM_TASKS"])?,
        observe: some(sources.tasks, &["OBSERVE"])?,
        look_up: vec![Statement::new(kind, TASK)],
        look_up_more: some(sources.reads, &["OBJECTS", "ASSETS"])?,
    })
}

fn numbers(found: &[Found]) -> Value {
    Value::Numbers(found.iter().map(|found| found.id).collect())
}

/// Everything that a claim wants to be told.
fn claiming(most: usize, window_min: usize) -> Result<Values> {
    let now = Clock::system().now().as_unix_millis();
    let number = |count: usize| Ok::<_, anyhow::Error>(Value::Number(i64::try_from(count)?));
    Ok(vec![
        (":now", Value::Number(now)),
        (":lease_until", Value::Number(now + 60_000)),
        (":owner", Value::Text("bare/1".to_owned())),
        (":hold", Value::Number(60_000)),
        (":before", Value::Number(i64::MAX)),
        (":lacks_nothing", Value::Flag(true)),
        (":providers", Value::Texts(Vec::new())),
        (":destinations", Value::Texts(Vec::new())),
        (":most", number(most)?),
        (":window", number((most * 4).max(window_min))?),
    ])
}

/// Everything that the statements about an asset want to be told; its object and its task have its number.
fn of_asset(id: i64) -> Values {
    let now = Clock::system().now().as_unix_millis();
    let text = |text: &str| Value::Text(text.to_owned());
    vec![
        (":now", Value::Number(now)),
        (":lease_until", Value::Number(now + 60_000)),
        (":id", Value::Number(id)),
        (":asset", Value::Number(id)),
        (":object", Value::Number(id)),
        (":task", Value::Number(id)),
        (":token", Value::Number(1)),
        (":destination", text("main")),
        (
            ":key",
            Value::Text(format!("house/2026/11/{}/0.mp4", crowd::name(id))),
        ),
        (":nonce", text("0123456789abcdef0123456789abcdef")),
        (":content_type", text("video/mp4")),
        (":extension", text("mp4")),
        (":named_at", Value::Number(now)),
        (":etag", text("\"4f2e-2\"")),
        (":version_id", Value::Null),
        (":parts", Value::Number(2)),
        (":size", Value::Number(18_312_004)),
        (":crc64nvme", text("00000000000000ff")),
        (":verified", text("checksum")),
        (":duration_ms", Value::Number(5_042)),
        (":width", Value::Number(1280)),
        (":height", Value::Number(720)),
        (":codec", text("avc1.64001F")),
        (
            ":sha256",
            text("781a365c3b8c22d82b2c95f13dd21f81a39a0fc820c75a0d884cc6e6a9357c77"),
        ),
        (":last_modified", Value::Null),
        (":length", Value::Number(18_312_004)),
        (":kind", text("archived")),
        (":asset_index", Value::Null),
        (":reason", Value::Null),
    ]
}

/// Everything that a sighting of a running task says, due again at once.
fn of_task(Found { id, token }: Found) -> Values {
    let now = Clock::system().now().as_unix_millis();
    let text = |text: &str| Value::Text(text.to_owned());
    vec![
        (":now", Value::Number(now)),
        (":id", Value::Number(id)),
        (":token", Value::Number(token)),
        (":state", text("watching")),
        (":status", text("processing")),
        (":percent", Value::Number(40)),
        (":estimate_ms", Value::Null),
        (":model", text("seedance-2.0")),
        (":kind", text("video")),
        (":created_at", Value::Number(now)),
        (":completed_at", Value::Null),
        (":is_unfinished", Value::Flag(true)),
        (
            ":deadline_at",
            Value::Number(now + 86_400_000 + id % 100_000),
        ),
        (":deadline_from", text("last_seen")),
        (":next_look_at", Value::Number(now)),
        (":error_code", Value::Null),
        (":error_message", Value::Null),
    ]
}

/// Bare statements on one manifest.
pub(crate) enum Bare {
    Lite(Box<Lite>),
    Server(Box<Served>),
}

impl Bare {
    pub(crate) async fn new(ground: &mut Ground) -> Result<Self> {
        let texts = texts(ground.kind)?;
        Ok(match ground.kind {
            Kind::Sqlite => {
                let dbs = (0..READERS / 2).map(|_| ground.lite());
                let dbs = dbs.collect::<Result<_>>()?;
                Bare::Lite(Box::new(Lite { texts, dbs }))
            }
            Kind::Postgres => {
                let mut lines = Vec::new();
                for _ in 0..READERS {
                    lines.push(Line::new(ground.client().await?, &texts).await?);
                }
                Bare::Server(Box::new(Served { lines }))
            }
        })
    }

    pub(crate) async fn lives(&mut self, count: usize) -> Result<()> {
        match self {
            Bare::Lite(lite) => lite.lives(count),
            Bare::Server(served) => served.lives(count).await,
        }
    }

    pub(crate) async fn looks(&mut self, count: usize) -> Result<()> {
        match self {
            Bare::Lite(lite) => lite.looks(count),
            Bare::Server(served) => served.looks(count).await,
        }
    }

    pub(crate) async fn claims(&mut self, count: usize) -> Result<()> {
        match self {
            Bare::Lite(lite) => lite.claims(count),
            Bare::Server(served) => served.claims(count).await,
        }
    }

    pub(crate) async fn look_ups(&mut self, numbers: &[i64]) -> Result<()> {
        match self {
            Bare::Lite(lite) => lite.look_ups(numbers),
            Bare::Server(served) => served.look_ups(numbers).await,
        }
    }
}

/// A file: one connection writes, as many read as the manifest has readers.
pub(crate) struct Lite {
    texts: Texts,
    dbs: Vec<rusqlite::Connection>,
}

/// Runs the statements in turn and gives what the first gave.
fn run(db: &rusqlite::Connection, statements: &[Statement], values: &Values) -> Result<Vec<Found>> {
    let mut first = None;
    for statement in statements {
        let found = statement.lite(db, values)?;
        first.get_or_insert(found);
    }
    Ok(first.unwrap_or_default())
}

fn within<T>(db: &rusqlite::Connection, work: impl FnOnce() -> Result<T>) -> Result<T> {
    db.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    let done = work()?;
    db.prepare_cached("COMMIT")?.execute([])?;
    Ok(done)
}

impl Lite {
    fn writer(&self) -> Result<&rusqlite::Connection> {
        self.dbs.first().context("there is a connection")
    }

    fn lives(&self, count: usize) -> Result<()> {
        let (db, texts) = (self.writer()?, &self.texts);
        let mut done = 0;
        while done < count {
            let ids = within(db, || {
                let ids = run(db, &texts.claim_assets, &claiming(ROOM, 0)?)?;
                for found in &ids {
                    run(db, &texts.read_assets, &of_asset(found.id))?;
                }
                Ok(ids)
            })?;
            ensure!(!ids.is_empty(), "nothing is due any more");
            let each = |statements: &[Statement]| {
                within(db, || {
                    ids.iter()
                        .try_for_each(|found| run(db, statements, &of_asset(found.id)).map(drop))
                })
            };
            each(std::slice::from_ref(&texts.renew))?;
            each(&texts.name)?;
            each(&texts.prove)?;
            done += ids.len();
        }
        Ok(())
    }

    fn claim(&self, most: usize) -> Result<Vec<Found>> {
        let db = self.writer()?;
        let mut values = claiming(most, 0)?;
        values.push((":except", Value::Texts(Vec::new())));
        let ids = within(db, || run(db, &self.texts.claim_tasks, &values))?;
        ensure!(!ids.is_empty(), "nothing is due any more");
        Ok(ids)
    }

    fn looks(&self, count: usize) -> Result<()> {
        let db = self.writer()?;
        let mut done = 0;
        while done < count {
            let claimed = self.claim(BATCH)?;
            within(db, || {
                let mut each = claimed.iter();
                each.try_for_each(|task| run(db, &self.texts.observe, &of_task(*task)).map(drop))
            })?;
            done += claimed.len();
        }
        Ok(())
    }

    fn claims(&self, count: usize) -> Result<()> {
        let mut done = 0;
        while done < count {
            done += self.claim(CLAIM)?.len();
        }
        Ok(())
    }

    fn look_ups(&mut self, numbers: &[i64]) -> Result<()> {
        let share = numbers.len().div_ceil(self.dbs.len());
        let texts = &self.texts;
        std::thread::scope(|scope| {
            let threads = self.dbs.iter_mut().zip(numbers.chunks(share));
            let threads: Vec<_> = threads
                .map(|(db, numbers)| {
                    scope.spawn(move || {
                        numbers
                            .iter()
                            .try_for_each(|number| look_up(db, texts, *number))
                    })
                })
                .collect();
            for thread in threads {
                let ended = thread.join().ok().context("a reader panicked")?;
                ended?;
            }
            Ok(())
        })
    }
}

fn look_up(db: &rusqlite::Connection, texts: &Texts, number: i64) -> Result<()> {
    db.prepare_cached("BEGIN")?.execute([])?;
    let values = vec![
        (":task_id", Value::Text(crowd::name(number))),
        (":most", Value::Number(2)),
    ];
    let found = run(db, &texts.look_up, &values)?;
    ensure!(found.len() == 1, "task {number} is unknown");
    run(db, &texts.look_up_more, &vec![(":tasks", numbers(&found))])?;
    db.prepare_cached("COMMIT")?.execute([])?;
    Ok(())
}

/// A server, over as many connections as the manifest has.
pub(crate) struct Served {
    lines: Vec<Line>,
}

/// A connection with its prepared statements.
struct Line {
    client: tokio_postgres::Client,
    claim_assets: Vec<Prepared>,
    read_assets: Vec<Prepared>,
    renew: Vec<Prepared>,
    name: Vec<Prepared>,
    prove: Vec<Prepared>,
    claim_tasks: Vec<Prepared>,
    observe: Vec<Prepared>,
    look_up: Vec<Prepared>,
    look_up_more: Vec<Prepared>,
}

async fn prepared(
    client: &tokio_postgres::Client,
    statements: &[Statement],
) -> Result<Vec<Prepared>> {
    let mut all = Vec::new();
    for statement in statements {
        all.push(statement.prepared(client).await?);
    }
    Ok(all)
}

impl Line {
    async fn new(client: tokio_postgres::Client, texts: &Texts) -> Result<Self> {
        Ok(Self {
            claim_assets: prepared(&client, &texts.claim_assets).await?,
            read_assets: prepared(&client, &texts.read_assets).await?,
            renew: prepared(&client, std::slice::from_ref(&texts.renew)).await?,
            name: prepared(&client, &texts.name).await?,
            prove: prepared(&client, &texts.prove).await?,
            claim_tasks: prepared(&client, &texts.claim_tasks).await?,
            observe: prepared(&client, &texts.observe).await?,
            look_up: prepared(&client, &texts.look_up).await?,
            look_up_more: prepared(&client, &texts.look_up_more).await?,
            client,
        })
    }

    /// Runs the statements in turn and gives what the first gave.
    async fn run(&self, statements: &[Prepared], values: &Values) -> Result<Vec<Found>> {
        let mut first = None;
        for statement in statements {
            let found = statement.run(&self.client, values).await?;
            first.get_or_insert(found);
        }
        Ok(first.unwrap_or_default())
    }

    async fn begin(&self) -> Result<()> {
        Ok(self.client.batch_execute("BEGIN").await?)
    }

    async fn commit(&self) -> Result<()> {
        Ok(self.client.batch_execute("COMMIT").await?)
    }

    async fn archive(&self, id: i64) -> Result<()> {
        for statements in [&self.name, &self.prove] {
            self.begin().await?;
            self.run(statements, &of_asset(id)).await?;
            self.commit().await?;
        }
        Ok(())
    }

    async fn claim(&self, most: usize) -> Result<Vec<Found>> {
        self.begin().await?;
        let mut values = claiming(most, 256)?;
        values.push((":except", Value::Texts(Vec::new())));
        let ids = self.run(&self.claim_tasks, &values).await?;
        self.commit().await?;
        ensure!(!ids.is_empty(), "nothing is due any more");
        Ok(ids)
    }

    async fn look_up(&self, number: i64) -> Result<()> {
        self.client
            .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .await?;
        let values = vec![
            (":task_id", Value::Text(crowd::name(number))),
            (":most", Value::Number(2)),
        ];
        let found = self.run(&self.look_up, &values).await?;
        ensure!(found.len() == 1, "task {number} is unknown");
        let values = vec![(":tasks", numbers(&found))];
        self.run(&self.look_up_more, &values).await?;
        self.commit().await
    }
}

impl Served {
    fn first(&self) -> Result<&Line> {
        self.lines.first().context("there is a connection")
    }

    async fn lives(&self, count: usize) -> Result<()> {
        let line = self.first()?;
        let mut done = 0;
        while done < count {
            line.begin().await?;
            let ids = line.run(&line.claim_assets, &claiming(ROOM, 0)?).await?;
            ensure!(!ids.is_empty(), "nothing is due any more");
            let of_all = vec![
                (":assets", numbers(&ids)),
                (":ids", numbers(&ids)),
                (":tokens", Value::Numbers(vec![1; ids.len()])),
            ];
            line.run(&line.read_assets, &of_all).await?;
            line.commit().await?;
            line.begin().await?;
            line.run(&line.renew, &of_all).await?;
            line.commit().await?;
            let share = ids.len().div_ceil(self.lines.len());
            let shares = self.lines.iter().zip(ids.chunks(share));
            let archived = shares.map(async |(line, ids)| {
                for found in ids {
                    line.archive(found.id).await?;
                }
                anyhow::Ok(())
            });
            futures::future::try_join_all(archived).await?;
            done += ids.len();
        }
        Ok(())
    }

    async fn looks(&self, count: usize) -> Result<()> {
        let line = self.first()?;
        let mut done = 0;
        while done < count {
            let claimed = line.claim(BATCH).await?;
            line.begin().await?;
            for task in &claimed {
                line.run(&line.observe, &of_task(*task)).await?;
            }
            line.commit().await?;
            done += claimed.len();
        }
        Ok(())
    }

    async fn claims(&self, count: usize) -> Result<()> {
        let line = self.first()?;
        let mut done = 0;
        while done < count {
            done += line.claim(CLAIM).await?.len();
        }
        Ok(())
    }

    async fn look_ups(&self, numbers: &[i64]) -> Result<()> {
        let share = numbers.len().div_ceil(self.lines.len());
        let shares = self.lines.iter().zip(numbers.chunks(share));
        let looked = shares.map(async |(line, numbers)| {
            for number in numbers {
                line.look_up(*number).await?;
            }
            anyhow::Ok(())
        });
        futures::future::try_join_all(looked).await?;
        Ok(())
    }
}
