//! `reelvault man DIR`: a manual page for each command, for packages.

use std::fs;
use std::path::PathBuf;

use clap::Command;
use clap_mangen::Man;

use crate::cli::exit::Complaint;
use crate::cli::exit::Exit;
use crate::cli::say::say;

/// What stands below each page.
const SOURCE: &str = concat!("reelvault ", env!("CARGO_PKG_VERSION"));

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The folder to write the pages to; those that are there already are written anew
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Only print what would be written
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// Writes the pages of `program` and of all its commands, and prints their paths.
pub(crate) fn man(mut program: Command, arguments: &Arguments) -> Result<Exit, Complaint> {
    program.build();
    write(&program, arguments)?;
    Ok(Exit::Done)
}

fn write(command: &Command, arguments: &Arguments) -> Result<(), Complaint> {
    let page = Man::new(command.clone()).source(SOURCE);
    let path = arguments.folder.join(page.get_filename());
    if !arguments.dry_run {
        let mut text = Vec::new();
        page.render(&mut text)?;
        fs::write(&path, text).map_err(|error| {
            Complaint::failed(format!("{} cannot be written: {error}", path.display()))
                .hint("DIR is a folder that is there, such as /usr/local/share/man/man1")
        })?;
    }
    say!("{}", path.display())?;
    command
        .get_subcommands()
        .try_for_each(|command| write(command, arguments))
}
