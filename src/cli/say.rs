//! Printing that survives a reader who has gone: `reelvault tasks | head -1` is no error, and no panic.

use std::fmt;
use std::io;
use std::io::ErrorKind;
use std::io::Write as _;

use crate::cli::exit::Complaint;

/// Prints a line of results to stdout.
macro_rules! say {
    ($($words:tt)*) => {
        $crate::cli::say::result(format_args!("{}\n", format_args!($($words)*)))
    };
}

/// Prints results to stdout as they are.
macro_rules! say_text {
    ($($words:tt)*) => {
        $crate::cli::say::result(format_args!($($words)*))
    };
}

/// Prints a line of talk to stderr.
macro_rules! talk {
    ($($words:tt)*) => {
        $crate::cli::say::aside(format_args!("{}\n", format_args!($($words)*)))
    };
}

pub(crate) use say;
pub(crate) use say_text;
pub(crate) use talk;

/// Prints to stdout. Where nobody reads any more the command goes on, and its exit code tells how it went; a full disk
/// behind a redirection is an error.
pub(crate) fn result(text: fmt::Arguments<'_>) -> Result<(), Complaint> {
    let mut out = io::stdout().lock();
    match out.write_fmt(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Prints to stderr. There is no better place to complain about a stderr that cannot be written.
pub(crate) fn aside(text: fmt::Arguments<'_>) {
    io::stderr().lock().write_fmt(text).ok();
}
