//! `reelvault init`: writes a commented configuration and says where the secrets go.

use std::io::ErrorKind;
use std::io::Write as _;
use std::path::Path;

use crate::cli::exit::Complaint;
use crate::cli::exit::Exit;
use crate::cli::say::say;
use crate::cli::say::say_text;
use crate::cli::say::talk;

/// What a first configuration holds: the five lines that most people need, and where to read on.
const STARTER: &str = include_str!("../../config/minimal.toml");

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only print it
    #[arg(short = 'n', long)]
    dry_run: bool,
}

pub(crate) fn init(config: Option<&Path>, arguments: &Arguments) -> Result<Exit, Complaint> {
    if arguments.dry_run {
        say_text!("{STARTER}")?;
        return Ok(Exit::Done);
    }
    let path = config.unwrap_or(Path::new("reelvault.toml"));
    // Created anew or not at all: a configuration that somebody wrote is never overwritten.
    let file = std::fs::File::create_new(path);
    let mut file = file.map_err(|error| {
        let path = path.display();
        match error.kind() {
            ErrorKind::AlreadyExists => {
                Complaint::failed(format!("{path} exists already and is not overwritten"))
            }
            _ => Complaint::failed(format!("{path} cannot be written: {error}")),
        }
        .hint("-c FILE names another place, -n only prints")
    })?;
    file.write_all(STARTER.as_bytes())?;
    say!("wrote {}", path.display())?;
    talk!(
        "next:  put the secrets that it names into the environment or, under systemd, into credentials\n       \
         (LoadCredential=NAME:/path in the unit); then `reelvault check` tries everything at once"
    );
    Ok(Exit::Done)
}
