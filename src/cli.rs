//! The command line: one file a command.
//!
//! stdout is for results, stderr for talk. Every error is one sentence with the value in question, then a hint.

mod add;
mod check;
mod completions;
mod config;
mod copies;
mod demo;
mod events;
mod exit;
mod fetch;
mod get;
mod import;
mod init;
mod man;
mod manifest;
mod open;
mod run;
mod say;
mod simulate;
mod status;
mod table;
mod task;
mod tasks;
mod url;
mod wait;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::CommandFactory as _;
use clap::Parser;
use clap::Subcommand;

use crate::cli::exit::Complaint;
use crate::cli::exit::Exit;

/// What scripts need to know of [`Exit`].
const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed, 2 usage, 3 done in part, 4 at risk or lost, 5 waited in vain,
6 not found, 10 no daemon, 11 manifest cannot be used, 12 refused by provider or store,
13 a copy is missing or differs, 78 configuration, 130 interrupted";

/// How long the end waits for calls that block, of which nobody awaits an answer any more: one to a disk that hangs has none.
const BLOCKED_AT_MOST: Duration = Duration::from_secs(2);

/// Archives AI video results into S3, R2 or a folder before their links die, and proves it.
#[derive(Debug, Parser)]
#[command(
    name = "reelvault",
    version,
    propagate_version = true,
    disable_help_subcommand = true,
    after_help = EXIT_CODES
)]
struct Arguments {
    /// The configuration; else `$REELVAULT_CONFIG`, ./reelvault.toml, /etc/reelvault/reelvault.toml
    #[arg(short, long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon
    Run(run::Arguments),
    /// Watch a simulated provider's videos being archived: no cloud, no key
    Demo(demo::Arguments),
    /// Write a first configuration and say where the secrets go
    Init(init::Arguments),
    /// Check configuration and surroundings, all at once
    Check(check::Arguments),
    /// Announce tasks
    Add(add::Arguments),
    /// Announce the tasks of a file, as many as there are: CSV, JSON lines, task IDs
    Import(import::Arguments),
    /// Archive a URL that no task stands behind
    Fetch(fetch::Arguments),
    /// List tasks
    Tasks(tasks::Arguments),
    /// Look at one task, try it again, forget it
    #[command(subcommand)]
    Task(task::Command),
    /// Print links to the archived copies of a task
    Url(url::Arguments),
    /// Get an archived copy from its destination, and check it
    Get(get::Arguments),
    /// Say whether something will be lost, and when
    Status(status::Arguments),
    /// See what happened and who was told, tell it again
    #[command(subcommand)]
    Events(events::Command),
    /// Read the manifest, check what it calls archived, make it anew, move it to another engine
    #[command(subcommand)]
    Manifest(manifest::Command),
    /// Show the configuration in force
    #[command(subcommand)]
    Config(config::Command),
    /// Serve a simulated EvoLink API with result files, to try a client against
    Simulate(simulate::Arguments),
    /// Print the script by which a shell completes commands and options
    Completions(completions::Arguments),
    /// Write manual pages
    Man(man::Arguments),
}

/// Parses the command line, runs the command, and says how it ended.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let is_question = !error.use_stderr();
            return match error.print() {
                Ok(()) if is_question => Exit::Done.into(),
                Ok(()) | Err(_) => Exit::Usage.into(),
            };
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return Complaint::failed(format!("no runtime: {error}")).tell(),
    };
    let ended = runtime.block_on(dispatch(arguments));
    runtime.shutdown_timeout(BLOCKED_AT_MOST);
    match ended {
        Ok(exit) => exit.into(),
        Err(complaint) => complaint.tell(),
    }
}

async fn dispatch(arguments: Arguments) -> Result<Exit, Complaint> {
    let config = arguments.config.as_deref();
    match arguments.command {
        Command::Run(it) => run::run(config, &it).await,
        Command::Demo(it) => demo::demo(&it).await,
        Command::Init(it) => init::init(config, &it),
        Command::Check(it) => check::check(config, &it).await,
        Command::Add(it) => add::add(config, it).await,
        Command::Import(it) => import::import(config, it).await,
        Command::Fetch(it) => fetch::fetch(config, it).await,
        Command::Tasks(it) => tasks::tasks(config, &it).await,
        Command::Task(it) => task::task(config, &it).await,
        Command::Url(it) => url::url(config, &it).await,
        Command::Get(it) => get::get(config, &it).await,
        Command::Status(it) => status::status(config, &it).await,
        Command::Events(it) => events::events(config, &it).await,
        Command::Manifest(it) => manifest::manifest(config, &it).await,
        Command::Config(it) => config::config(config, &it),
        Command::Simulate(it) => simulate::simulate(it).await,
        Command::Completions(it) => completions::completions(Arguments::command(), &it),
        Command::Man(it) => man::man(Arguments::command(), &it),
    }
}
