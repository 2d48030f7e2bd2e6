//! Tables of origins that misbehave, and the two ways in which a row may end.

use std::sync::Arc;

use reelvault::manifest::row::TaskRecord;
use reelvault::model::asset::AssetState;
use reelvault::model::task::TaskId;
use reelvault::simulator::script::FileFault;
use reelvault::simulator::script::Manner;
use reelvault::simulator::script::Rule;
use reelvault::simulator::source::FileKind;
use reelvault::simulator::tasks::Submission;
use reelvault::simulator::tasks::TaskKind;
use reelvault::units::ByteSize;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use url::Url;

use crate::faults::Kind;
use crate::faults::SMALL;
use crate::faults::assert_told;
use crate::world::FIRST;
use crate::world::Log;
use crate::world::Plan;
use crate::world::World;

/// One origin that misbehaves: each fault in turn, then the file.
pub(super) struct Row {
    name: &'static str,
    size: ByteSize,
    kind: FileKind,
    faults: Vec<FileFault>,
    manners: Vec<(Manner, u32)>,
    raw: Option<Raw>,
}

/// The bytes of an answer, made of those of the file.
type Raw = Arc<dyn Fn(&[u8]) -> Vec<u8>>;

pub(super) fn row(name: &'static str, size: ByteSize, faults: impl Into<Vec<FileFault>>) -> Row {
    Row {
        name,
        size,
        kind: FileKind::Mp4,
        faults: faults.into(),
        manners: Vec::new(),
        raw: None,
    }
}

/// An origin that answers with these bytes once, and closes.
pub(super) fn raw(
    name: &'static str,
    size: ByteSize,
    answer: impl Fn(&[u8]) -> Vec<u8> + 'static,
) -> Row {
    Row {
        raw: Some(Arc::new(answer)),
        ..row(name, size, [])
    }
}

impl Row {
    /// The same with a file of another kind.
    pub(super) fn of(self, kind: FileKind) -> Self {
        Self { kind, ..self }
    }

    /// The same with a file that is always answered so.
    pub(super) fn with(mut self, manner: Manner) -> Self {
        self.manners.push((manner, u32::MAX));
        self
    }

    /// The same with a file whose first two requests are answered so.
    pub(super) fn passing(mut self, manner: Manner) -> Self {
        self.manners.push((manner, 2));
        self
    }

    /// Submits the task and plants what it meets.
    async fn submit(&self, world: &World, servers: &mut JoinSet<()>) -> TaskId {
        let kind = match self.kind {
            FileKind::Mp4 | FileKind::Webm => TaskKind::Video,
            FileKind::Png | FileKind::Jpg => TaskKind::Image,
            FileKind::Mp3 | FileKind::Wav => TaskKind::Audio,
        };
        let wish = Submission {
            size: Some(self.size),
            kind,
            format: Some(self.kind),
            ..Submission::video(self.name)
        };
        let id = world.simulator.submit(wish).unwrap();
        for (manner, times) in &self.manners {
            let rule = Rule::manner(*manner).times(*times);
            world.simulator.plant(rule.task(&id));
        }
        if let Some(raw) = &self.raw {
            let file = world.simulator.expected(&id, FIRST).unwrap();
            let answer = raw(&file.bytes(0..file.length()));
            let url = serve(servers, answer).await;
            let led_astray = Rule::file(FileFault::RedirectTo(url));
            world.simulator.plant(led_astray.task(&id));
        }
        for fault in &self.faults {
            world.simulator.plant(Rule::file(fault.clone()).task(&id));
        }
        id
    }

    fn struck(&self) -> usize {
        self.faults.len() + usize::from(self.raw.is_some())
    }
}

/// The link of an origin that gives everybody this answer.
pub(super) async fn serve(servers: &mut JoinSet<()>, answer: Vec<u8>) -> Url {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    servers.spawn(answer_all(listener, answer));
    format!("http://{address}/video.mp4").parse().unwrap()
}

/// Answers every request with the same bytes, and closes.
async fn answer_all(listener: TcpListener, answer: Vec<u8>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut request = [0; 4096];
        assert!(stream.read(&mut request).await.is_ok_and(|read| read > 0));
        // Whoever has seen enough may be gone.
        stream.write_all(&answer).await.ok();
        stream.shutdown().await.ok();
    }
}

/// Runs all rows in one world a kind of store, each with a task of its own, until every file is archived whole.
pub(super) async fn check_archived(rows: Vec<Row>) {
    check_archived_with(Kind::plan, rows).await;
}

/// The same in worlds of one's own plan.
pub(super) async fn check_archived_with(plan: fn(Kind, ByteSize) -> Plan, rows: Vec<Row>) {
    let runs = Kind::EACH.map(|kind| check_archived_in(plan(kind, SMALL), &rows));
    futures::future::join_all(runs).await;
}

async fn check_archived_in(plan: Plan, rows: &[Row]) {
    let world = World::new(plan).await;
    let mut servers = JoinSet::new();
    let mut ids = Vec::new();
    for row in rows {
        ids.push(row.submit(&world, &mut servers).await);
    }
    world.announce(&ids).await;
    let records = world.run_to_the_end().await;
    assert_eq!(records.len(), rows.len());
    world.assert_all_archived(&records);
    let struck: usize = rows.iter().map(Row::struck).sum();
    assert_eq!(
        world.simulator.seen().faults,
        u64::try_from(struck).unwrap()
    );
}

/// One asset that cannot be archived.
pub(super) struct Hopeless {
    row: Row,
    state: AssetState,
    /// A part of the asset's error.
    error: &'static str,
}

/// An origin that always meets requests with this fault.
pub(super) fn hopeless(
    name: &'static str,
    size: ByteSize,
    fault: FileFault,
    state: AssetState,
    error: &'static str,
) -> Hopeless {
    Hopeless {
        row: row(name, size, [fault]),
        state,
        error,
    }
}

/// Runs all rows in one world a kind of store, whose links live a second, until each has come to its state for its
/// reason; then there is nothing at the store, and a warning or an error of each in the log.
pub(super) async fn check_hopeless(rows: Vec<Hopeless>) {
    for kind in Kind::EACH {
        let log = Log::default();
        let _listening = log.listen();
        check_hopeless_at(kind, &rows, &log).await;
    }
}

async fn check_hopeless_at(kind: Kind, rows: &[Hopeless], log: &Log) {
    let mut plan = kind.impatient(SMALL);
    "output_ttl = \"1s\"".clone_into(&mut plan.provider);
    plan.extra.push_str("size_max = \"12 MiB\"\n");
    let world = World::new(plan).await;
    let mut ids = Vec::new();
    for Hopeless { row, .. } in rows {
        let wish = Submission {
            size: Some(row.size),
            ..Submission::video(row.name)
        };
        let id = world.simulator.submit(wish).unwrap();
        for fault in &row.faults {
            let rule = Rule::file(fault.clone()).times(u32::MAX);
            world.simulator.plant(rule.task(&id));
        }
        ids.push(id);
    }
    world.announce(&ids).await;
    let is_there = |record: &TaskRecord| {
        let model = record.model.as_deref();
        let row = rows.iter().find(|row| model == Some(row.row.name));
        row.zip(record.assets.first()).is_some_and(|(row, asset)| {
            let error = asset.error.as_deref().unwrap_or_default();
            asset.state == row.state && error.contains(row.error)
        })
    };
    world
        .run_until(|records| records.iter().all(is_there))
        .await;
    for (row, id) in rows.iter().zip(&ids) {
        assert_told(log, row.error);
        assert_told(log, id.as_str());
    }
    world.run_until_clean().await;
    world.assert_nothing_stored();
}
