//! Rows by the hundred thousand, as a manifest has them: most of them final, some waiting, some due.

use anyhow::Result;
use reelvault::clock::Clock;
use reelvault::units::Span;

use crate::ground::Ground;
use crate::ground::Kind;

/// Over how long what is final was archived.
const HISTORY: Span = Span::from_secs(30 * 86_400);

/// Rows that are written in one transaction.
const CHUNK: i64 = 100_000;

/// Of so many final tasks one failed, and has no asset.
const FAILED: i64 = 40;

/// How many tasks there are of each kind.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Crowd {
    /// Archived, or failed.
    pub(crate) finished: i64,
    /// Watched, and looked at in hours.
    pub(crate) waiting: i64,
    /// Watched, and due.
    pub(crate) due: i64,
    /// Completed, with an asset that is due.
    pub(crate) assets_due: i64,
}

impl Crowd {
    /// Writes the rows, with numbers from 1 on, in this order: finished, waiting, due, assets due. The asset of a task
    /// and its object have the task's number.
    pub(crate) async fn fill(self, ground: &mut Ground) -> Result<()> {
        let now = Clock::system().now().as_unix_millis();
        let history = HISTORY.as_millis_i64();
        let waiting = self.finished + self.waiting;
        let due = waiting + self.due;
        let all = due + self.assets_due;
        for first in (1..=self.finished).step_by(usize::try_from(CHUNK)?) {
            let last = self.finished.min(first + CHUNK - 1);
            // Evenly over the past.
            let at = format!(
                "{now} - {history} + n.i * {}",
                history / self.finished.max(1)
            );
            let finished = finished(first, last, &at);
            let events = events(first, last, &at, self.finished);
            ground
                .sql(&format!("BEGIN; {finished} {events} COMMIT;"))
                .await?;
        }
        let later = format!("{now} + 3600000 + n.i");
        let watched = watched(self.finished + 1, waiting, now, &later);
        ground.sql(&watched).await?;
        let watched = self::watched(
            waiting + 1,
            due,
            now,
            &format!("{now} - 60000 + n.i % 50000"),
        );
        ground.sql(&watched).await?;
        ground.sql(&assets_due(due + 1, all, now)).await?;
        match ground.kind {
            Kind::Sqlite => Ok(()),
            Kind::Postgres => {
                for table in ["tasks", "assets", "objects"] {
                    let next = format!(
                        "setval(pg_get_serial_sequence('{table}', 'id'), {})",
                        all.max(1)
                    );
                    ground.sql(&format!("SELECT {next}")).await?;
                }
                // As the server does by itself some time after so many rows.
                ground.sql("VACUUM ANALYZE").await
            }
        }
    }
}

/// The name of the task with this number.
pub(crate) fn name(number: i64) -> String {
    format!("task-unified-{}-{number}", 1_774_000_000 + number)
}

fn numbers(first: i64, last: i64) -> String {
    format!(
        "WITH RECURSIVE n(i) AS (SELECT CAST({first} AS BIGINT) WHERE {first} <= {last}
            UNION ALL SELECT i + 1 FROM n WHERE i < {last})"
    )
}

const NAME: &str = "'task-unified-' || (1774000000 + n.i) || '-' || n.i";
const TAGS: &str = "'{\"project\":\"p' || (n.i % 50) || '\"}'";
const URL: &str = "'https://files.example.com/results/2026/11/' || n.i || '/output-0.mp4?Expires=1774857405&Signature=' \
     || 'kXJ0Zk9mVHdLZ1p1b0R4c2F5d3V2cXBvbm1sa2ppaGdmZWRjYmEwOTg3NjU0MzIx' || n.i || '&Key-Pair-Id=K2JCJMDEHXQW5F'";

fn finished(first: i64, last: i64, at: &str) -> String {
    let numbers = numbers(first, last);
    format!(
        "INSERT INTO tasks (id, provider, task_id, state, tags, model, kind, learned_at, learned_via, created_at,
            completed_at, last_unfinished_at, deadline_at, deadline_from, status, percent, looks,
            task_error_code, task_error_message, lease_token)
        {numbers} SELECT n.i, 'house', {NAME}, CASE WHEN n.i % {FAILED} = 0 THEN 'failed' ELSE 'completed' END,
            {TAGS}, 'seedance-2.0', 'video', {at}, 'api', {at}, {at} + 95000, {at} + 90000, {at} + 86400000, 'preset',
            'completed', 100, 12, CASE WHEN n.i % {FAILED} = 0 THEN 'content_policy' END,
            CASE WHEN n.i % {FAILED} = 0 THEN 'refused' END, 13 FROM n;
        INSERT INTO assets (id, task, asset_index, role, state, url, deadline_at, deadline_from, source_etag,
            source_length, size, content_type, duration_ms, width, height, codec, sha256, crc64nvme, archived_at,
            lease_token)
        {numbers} SELECT n.i, n.i, 0, 'video', 'archived', {URL}, {at} + 86400000, 'preset', '\"5f2c' || n.i || '\"',
            18312004, 18312004, 'video/mp4', 5042, 1280, 720, 'avc1.64001F',
            '781a365c3b8c22d82b2c95f13dd21f81a39a0fc820c75a0d884cc6e6a9357c77', '00000000000000ff', {at} + 99000, 1
            FROM n WHERE n.i % {FAILED} <> 0;
        INSERT INTO objects (id, asset, position, destination, state, key_template, key, nonce, content_type,
            extension, named_at, etag, parts, size, crc64nvme, verified, archived_at)
        {numbers} SELECT n.i, n.i, 0, 'main', 'archived', '{{provider}}/{{created:%Y/%m/%d}}/{{task_id}}/{{index}}.{{ext}}',
            'house/2026/11/' || {NAME} || '/0.mp4', '0123456789abcdef0123456789abcdef', 'video/mp4', 'mp4', {at} + 97000,
            '\"4f2e' || n.i || '-2\"', 2, 18312004, '00000000000000ff', 'checksum', {at} + 99000
            FROM n WHERE n.i % {FAILED} <> 0;"
    )
}

/// What was told in the last seven days, which nobody has forgotten yet.
fn events(first: i64, last: i64, at: &str, finished: i64) -> String {
    let kept = finished - finished * 7 / 30;
    let numbers = numbers(first.max(kept), last);
    ["learned", "ready", "archived"]
        .map(|kind| {
            format!(
                "INSERT INTO events (kind, task, at, is_fanned) {numbers} SELECT '{kind}', n.i, {at}, 1 FROM n;"
            )
        })
        .concat()
}

fn watched(first: i64, last: i64, now: i64, next_look_at: &str) -> String {
    let numbers = numbers(first, last);
    format!(
        "INSERT INTO tasks (id, provider, task_id, state, tags, model, kind, learned_at, learned_via, created_at,
            last_unfinished_at, deadline_at, deadline_from, next_look_at, status, percent, looks)
        {numbers} SELECT n.i, 'house', {NAME}, 'watching', {TAGS}, 'seedance-2.0', 'video', {now} - 60000, 'api',
            {now} - 60000, {now} - 10000, {now} + 86400000 + n.i % 100000, 'last_seen', {next_look_at},
            'processing', 40, 5 FROM n;"
    )
}

fn assets_due(first: i64, last: i64, now: i64) -> String {
    let numbers = numbers(first, last);
    format!(
        "INSERT INTO tasks (id, provider, task_id, state, tags, model, kind, learned_at, learned_via, created_at,
            completed_at, deadline_at, deadline_from, status, percent, looks)
        {numbers} SELECT n.i, 'house', {NAME}, 'completed', {TAGS}, 'seedance-2.0', 'video', {now} - 95000, 'api',
            {now} - 95000, {now} - 1000, {now} + 86400000, 'preset', 'completed', 100, 12 FROM n;
        INSERT INTO assets (id, task, asset_index, role, state, url, deadline_at, deadline_from, due_at)
        {numbers} SELECT n.i, n.i, 0, 'video', 'due', {URL}, {now} + 86400000 + n.i % 100000, 'preset', {now} - 1000
            FROM n;
        INSERT INTO objects (id, asset, position, destination, state, key_template)
        {numbers} SELECT n.i, n.i, 0, 'main', 'due', '{{provider}}/{{created:%Y/%m/%d}}/{{task_id}}/{{index}}.{{ext}}'
            FROM n;"
    )
}
