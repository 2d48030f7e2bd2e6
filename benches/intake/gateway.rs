//! What the gateway adds to a submission: the same call straight to the provider and through the daemon, in turn.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::Result;
use reelvault::chance::Dice;
use reelvault::clock::Clock;
use reelvault::simulator;
use reelvault::units::Span;
use tokio::time::Instant;

use crate::daemon::Daemon;
use crate::daemon::KEY;
use crate::wire::Wire;

/// Submissions of each kind that are measured.
const ROUNDS: usize = 2_000;

/// Submissions of each kind before that: connections, caches, pages of the manifest.
const WARM_UP: usize = 200;

/// Where a folder is in memory, if anywhere: there a commit waits for no disk.
const MEMORY: &str = "/dev/shm";

const SUBMIT: &str = "/v1/videos/generations";

/// A submission as applications send them.
const BODY: &str = r#"{"model":"seedance-2.0-text-to-video","prompt":"Rain on a window at night, neon outside, slow camera","duration":6,"quality":"720p","callback_url":"https://app.example.com/hooks/video?job=4711"}"#;

/// Measures with the manifest on the disk of the temporary folder, and in memory where there is a place for that.
pub(crate) fn measure() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    println!("what the gateway adds to a submission, over {ROUNDS} submissions each, one caller");
    println!(
        "{:<10} {:>12} {:>12} {:>12} {:>12} {:>12}",
        "manifest", "direct p50", "gateway p50", "added p50", "gateway p99", "commit p50"
    );
    let on_disk = tempfile::tempdir()?;
    compare(&runtime, "disk", on_disk.path())?;
    if Path::new(MEMORY).is_dir() {
        let in_memory = tempfile::tempdir_in(MEMORY)?;
        compare(&runtime, "memory", in_memory.path())?;
    }
    Ok(())
}

fn compare(runtime: &tokio::runtime::Runtime, name: &str, folder: &Path) -> Result<()> {
    let config = simulator::Config {
        api_key: Some(KEY.to_owned()),
        // Tasks that run for long, so that little else than submissions is done.
        pending: Span::from_secs(3_600),
        ..simulator::Config::default()
    };
    let provider = runtime.block_on(simulator::start(config, Clock::system(), Dice::new()))?;
    let daemon = Daemon::start(
        folder,
        &provider.base_url(),
        "[poll]\nfirst = \"1h\"\nmax = \"1h\"\n",
    )?;
    let mut direct = Wire::connect(&provider.address().to_string())?;
    let mut gateway = Wire::connect(&daemon.address)?;
    let through = format!("/gateway/sim{SUBMIT}");
    let (mut straight, mut passed, mut added) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..WARM_UP + ROUNDS {
        let (one, other) = (direct.post(SUBMIT, BODY)?, gateway.post(&through, BODY)?);
        if round >= WARM_UP {
            straight.push(one);
            passed.push(other);
            added.push(other.saturating_sub(one));
        }
    }
    let commits = commits(folder)?;
    println!(
        "{name:<10} {:>12} {:>12} {:>12} {:>12} {:>12}",
        told(quantile(straight, 0.5)?),
        told(quantile(passed.clone(), 0.5)?),
        told(quantile(added, 0.5)?),
        told(quantile(passed, 0.99)?),
        told(quantile(commits, 0.5)?),
    );
    drop(daemon);
    runtime.block_on(provider.shutdown());
    Ok(())
}

/// How long the disk takes to make a page durable: the floor under any commit.
fn commits(folder: &Path) -> Result<Vec<Duration>> {
    let mut file = std::fs::File::create(folder.join("floor"))?;
    let page = [7; 4096];
    let mut took = Vec::new();
    for _ in 0..ROUNDS / 4 {
        let begun = Instant::now();
        file.write_all(&page)?;
        file.sync_data()?;
        took.push(begun.elapsed());
    }
    Ok(took)
}

fn quantile(mut values: Vec<Duration>, at: f64) -> Result<Duration> {
    values.sort_unstable();
    let last = u32::try_from(values.len().saturating_sub(1))?;
    let place = (f64::from(last) * at).round();
    let place: usize = format!("{place:.0}").parse()?;
    values.get(place).copied().context("nothing was measured")
}

fn told(span: Duration) -> String {
    format!("{:.3} ms", span.as_secs_f64() * 1000.0)
}
