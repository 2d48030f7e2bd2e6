//! `reelvault config show`: what is in force, and where each value came from.

use std::path::Path;

use crate::cli::exit::Complaint;
use crate::cli::exit::Exit;
use crate::cli::open;
use crate::cli::say::say_text;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Print the configuration in force as TOML; secrets appear only as the place that they are read from
    Show {
        /// Say of each value where it came from
        #[arg(long)]
        origin: bool,
    },
}

pub(crate) fn config(config: Option<&Path>, command: &Command) -> Result<Exit, Complaint> {
    let Command::Show { origin } = command;
    say_text!("{}", open::load(config)?.show(*origin))?;
    Ok(Exit::Done)
}
