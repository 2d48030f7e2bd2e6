//! `reelvault completions SHELL`: a script by which a shell completes our commands and options.

use clap::Command;
use clap_complete::Shell;

use crate::cli::exit::Complaint;
use crate::cli::exit::Exit;
use crate::cli::say::say_text;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// For which shell
    shell: Shell,
}

/// Prints the script that completes `program`.
pub(crate) fn completions(mut program: Command, arguments: &Arguments) -> Result<Exit, Complaint> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut program, "reelvault", &mut script);
    say_text!("{}", String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}
