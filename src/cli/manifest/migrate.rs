//! `reelvault manifest migrate`: moves the manifest from a file to a server, or back.

use std::io::IsTerminal as _;
use std::path::Path;
use std::path::PathBuf;

use indicatif::ProgressBar;
use indicatif::ProgressStyle;

use crate::cli::exit::Complaint;
use crate::cli::exit::Exit;
use crate::cli::open;
use crate::cli::say::say;
use crate::cli::say::talk;
use crate::cli::table::Table;
use crate::intake::gateway::Deferred;
use crate::manifest;
use crate::manifest::Manifest;
use crate::manifest::ManifestError;
use crate::manifest::moving;
use crate::manifest::moving::MoveError;
use crate::manifest::moving::Step;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The manifest that is moved, and left as it is: `sqlite:/path/to/manifest.db` or `postgres://user@host/database`
    #[arg(long, value_name = "URL")]
    from: String,
    /// Where it goes, on the other engine: nothing is there yet, or what an earlier try has left. The password of a
    /// server is `manifest.password`
    #[arg(long, value_name = "URL")]
    to: String,
    /// Only say what would be moved, and what is in the way
    #[arg(short = 'n', long)]
    dry_run: bool,
}

pub(super) async fn migrate(
    config: Option<&Path>,
    arguments: &Arguments,
) -> Result<Exit, Complaint> {
    let settings = open::load(config)?.config.manifest;
    let from = at(&settings, &arguments.from)?;
    let to = at(&settings, &arguments.to)?;
    check_deferred(&from)?;
    if arguments.dry_run {
        let moved = moving::look(&from, &to).await?;
        tell(&moved)?;
        say!("nothing was moved")?;
        return Ok(Exit::Done);
    }
    let bar = Bar::new();
    let moved = moving::migrate(&from, &to, |step| bar.show(step)).await;
    bar.clear();
    let moved = moved?;
    tell(&moved)?;
    let (from, to) = (moving::name_of(&from), moving::name_of(&to));
    say!("moved from {from} to {to}, and compared row by row")?;
    talk!("now set manifest.url = {to:?} and start the daemons there");
    talk!("{from} is left as it was: start no daemon on it any more, or both archive the same");
    Ok(Exit::Done)
}

/// The settings of `[manifest]` for another URL.
fn at(settings: &manifest::Config, url: &str) -> Result<manifest::Config, Complaint> {
    let config = manifest::Config {
        url: url.to_owned(),
        ..settings.clone()
    };
    if config.url_has_password() {
        let name = moving::name_of(&config);
        let what = format!("the URL of {name} has a password in it, which others can see");
        return Err(Complaint::new(Exit::Usage, what)
            .hint("leave it out and say with manifest.password where it is"));
    }
    if !config.names_server() && Manifest::path(&config).is_none() {
        let what = ManifestError::Url {
            url: moving::name_of(&config),
        };
        let complaint = Complaint::new(Exit::Usage, what.to_string());
        return Err(match config.wrong_parameter() {
            Some((what, instead)) => complaint.hint(format!("{what}: {instead}")),
            None => complaint,
        });
    }
    Ok(config)
}

/// What passed the gateway while a file could not be written stands beside it, and only a daemon takes it in.
fn check_deferred(from: &manifest::Config) -> Result<(), Complaint> {
    let Some(path) = Manifest::path(from) else {
        return Ok(());
    };
    let mut path = path.into_os_string();
    path.push(".deferred");
    let path = PathBuf::from(path);
    let waiting = if path.exists() {
        Deferred::open(&path)?.count()
    } else {
        0
    };
    if waiting == 0 {
        return Ok(());
    }
    let what = format!(
        "{} holds {waiting} tasks that the manifest does not know yet",
        path.display()
    );
    Err(Complaint::new(Exit::Manifest, what)
        .hint("`reelvault run --once` on the manifest that is to be moved takes them in"))
}

fn tell(moved: &moving::Moved) -> Result<(), Complaint> {
    let mut table = Table::new(&["table", "rows"]);
    for (name, rows) in moved {
        table.row(vec![(*name).to_owned(), rows.to_string()]);
    }
    crate::cli::say::say_text!("{}", table.page())
}

/// How far it is, for whoever looks.
struct Bar(Option<ProgressBar>);

impl Bar {
    fn new() -> Self {
        let is_watched = std::io::stderr().is_terminal();
        Self(is_watched.then(|| {
            let style = ProgressStyle::with_template("{msg:20} [{bar:30}] {pos}/{len} rows");
            let style = style.expect("a constant template").progress_chars("=> ");
            ProgressBar::new(0).with_style(style)
        }))
    }

    fn show(&self, step: Step) {
        match step {
            Step::GoesOn { rows, rows_all } => self.say(&format!(
                "going on at {rows} of {rows_all} rows: they are compared first"
            )),
            Step::Anew { table } => self.say(&format!(
                "table {table} is not what the source has by now: all of it is copied anew"
            )),
            Step::Done {
                table,
                is_comparing,
                done,
                done_at_end,
            } => {
                let Some(bar) = &self.0 else { return };
                let does = if is_comparing { "compares" } else { "copies" };
                bar.set_length(done_at_end);
                bar.set_message(format!("{does} {table}"));
                bar.set_position(done);
            }
        }
    }

    fn say(&self, line: &str) {
        match &self.0 {
            Some(bar) => bar.suspend(|| talk!("{line}")),
            None => talk!("{line}"),
        }
    }

    fn clear(&self) {
        self.0.iter().for_each(ProgressBar::finish_and_clear);
    }
}

impl From<MoveError> for Complaint {
    fn from(error: MoveError) -> Self {
        let what = error.to_string();
        match error {
            MoveError::Manifest(ManifestError::Locked { .. }) => Self::new(Exit::Manifest, what)
                .hint("stop it first: a manifest that is worked on cannot be moved"),
            MoveError::Manifest(error) => error.into(),
            MoveError::SameKind { .. } => Self::new(Exit::Usage, what)
                .hint("a file is moved by copying it while no daemon runs, a database with pg_dump"),
            MoveError::Living { .. } => Self::new(Exit::Manifest, what).hint(
                "stop them first: a manifest that is worked on cannot be moved; one that was killed counts for another 15 seconds",
            ),
            MoveError::Occupied { .. } => Self::new(Exit::Manifest, what)
                .hint("a move goes where no manifest is: name another place, or take away what is there; if a move there was killed at its very end, the copy is whole and can be used"),
            MoveError::OfAnother { source_name, .. } => Self::new(Exit::Manifest, what).hint(format!(
                "finish it with --from {source_name:?}, or name another place",
            )),
            MoveError::Busy { .. } => {
                Self::new(Exit::Manifest, what).hint("wait until it is done, and look what is there then; one that was killed counts for a moment, and one whose machine vanished for a minute")
            }
            MoveError::Columns { .. } => Self::new(Exit::Manifest, what),
            MoveError::Differs { .. } => Self::new(Exit::Differs, what)
                .hint("nothing was changed at the source, and no daemon takes the copy: move it again"),
        }
    }
}
