//! The proof: programs that know nothing of us, with nothing changed but the base URL, get links that outlive their own.

use std::fs;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use reelvault::model::asset::AssetIndex;
use reelvault::simulator::script::ApiFault;
use reelvault::simulator::script::Call;
use reelvault::simulator::script::FileFault;
use reelvault::simulator::script::Rule;
use reelvault::units::ByteSize;
use reelvault::units::Span;

use crate::gateway::KEY;
use crate::gateway::with_daemon;
use crate::world::Plan;
use crate::world::World;

/// How long a program may take. The provider's own example sleeps five seconds between its looks.
const PATIENCE: Duration = Duration::from_mins(1);

/// The variable that names the provider's page with its example, where that is at hand.
const PAGE: &str = "REELVAULT_PROVIDER_PAGE";

/// Where the example on the page asks.
const PAGE_BASE_URL: &str = "https://api.evolink.ai";

/// A world whose provider is served again, and whose tasks take a moment.
async fn world() -> World {
    let mut plan = Plan::files_of(ByteSize::mib(1));
    plan.simulator.pending = Span::from_millis(100);
    plan.simulator.running = Span::from_millis(300);
    plan.provider.push_str("gateway = true\n");
    World::new(plan).await
}

/// Runs a program and gives what it printed.
async fn python(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new("python3");
    command
        .arg("-c")
        .arg(program)
        .args(arguments)
        .env("API_KEY", KEY)
        .env("EVOLINK_API_KEY", KEY)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command.spawn();
    let mut child = child.expect("python3 with requests is there: `make setup` installs both");
    // What it prints fits into a pipe, so it ends before anybody reads.
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let ended = tokio::time::timeout(PATIENCE, async {
        while child.try_wait().unwrap().is_none() {
            ticks.tick().await;
        }
    });
    if ended.await.is_err() {
        child.kill().unwrap();
    }
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{complained}");
    said
}

/// Lets the provider forget all tasks, and their links die.
fn forget(world: &World) {
    for task in world.simulator.tasks() {
        let dead = Rule::file(FileFault::Dead(403)).task(&task);
        world.simulator.plant(dead.times(u32::MAX));
        let gone = Rule::api(ApiFault::NotFound).call(Call::Read).task(&task);
        world.simulator.plant(gone.times(u32::MAX));
    }
}

/// Asserts that a link leads to the very bytes of the only task's video, although the provider's own is dead.
async fn assert_lasts(world: &World, link: &str) {
    let task = world.simulator.tasks().remove(0);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let fetch = async |link: &str| client.get(link).send().await.unwrap();
    for dying in world.simulator.links(&task) {
        assert_ne!(dying, link, "the provider's own link");
        assert_eq!(fetch(&dying).await.status(), 403, "{dying}");
    }
    let answer = fetch(link).await;
    assert_eq!(answer.status(), 200, "{link}");
    let bytes = http_body_util::BodyExt::collect(reqwest::Body::from(answer)).await;
    let bytes = bytes.unwrap().to_bytes();
    let expected = world.simulator.expected_sha256(&task, AssetIndex(0));
    assert_eq!(Some(crate::world::sha256(&bytes)), expected);
}

#[tokio::test]
async fn an_application_that_changes_its_base_url_gets_a_link_that_lasts() {
    with_daemon(&world().await, async |world, address| {
        let base_url = format!("http://{address}/gateway/sim");
        let said = python(include_str!("poll.py"), &[&base_url]).await;
        let (id, link) = said.trim().split_once(' ').unwrap();
        forget(world);
        assert_lasts(world, link).await;
        // Whoever asks again is told the same, although the provider no longer knows of it.
        let answer = crate::gateway::look(address, "sim", id).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["results"][0], link);
    })
    .await;
}

/// The program with the space before its lines, which a page that was saved as text has lost: a colon begins a block and a
/// `break` ends one. Nothing else is changed.
fn indented(program: &str) -> String {
    if program.lines().any(|line| line.starts_with(' ')) {
        return program.to_owned();
    }
    let mut depth = 0_usize;
    let mut lines = Vec::new();
    for line in program.lines() {
        lines.push(format!("{}{line}", "    ".repeat(depth)));
        depth += usize::from(line.ends_with(':'));
        depth = depth.saturating_sub(usize::from(line == "break"));
    }
    lines.join("\n")
}

/// The program that stands on the provider's own page, which is not ours to copy.
#[tokio::test]
async fn the_example_of_the_provider_gets_a_link_that_lasts() {
    let Some(page) = std::env::var_os(PAGE) else {
        eprintln!("not checked: {PAGE} names no file with the provider's page");
        return;
    };
    let page = fs::read_to_string(page).unwrap();
    let (_, program) = page.split_once("Complete Python Example\n").unwrap();
    let (program, _) = program.split_once("\nRelated\n").unwrap();
    assert!(program.contains(PAGE_BASE_URL), "{program}");
    let program = indented(program);
    with_daemon(&world().await, async |world, address| {
        let base_url = format!("http://{address}/gateway/sim");
        let said = python(&program.replace(PAGE_BASE_URL, &base_url), &[]).await;
        let link = said
            .lines()
            .find_map(|line| line.strip_prefix("Video URL: "));
        forget(world);
        assert_lasts(world, link.unwrap_or_else(|| panic!("{said}"))).await;
    })
    .await;
}
