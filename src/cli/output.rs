//! The output of the commands. A command continues if the program that reads its output has
//! stopped, as in `tenantry policies | head -3`. So the changes of a command do not depend on the
//! reader.

use std::io::{self, Write};

use crate::telemetry;

/// Prints a line to standard output. Unlike `println!`, it does not panic if the reader has
/// stopped.
macro_rules! out {
    ($($text:tt)*) => { $crate::cli::output::write(format!("{}\n", format_args!($($text)*)).as_bytes()) };
}

/// Writes to standard output. Reports a failure on standard error, except when the reader has
/// stopped.
pub(super) fn write(text: &[u8]) {
    if let Err(error) = io::stdout().write_all(text)
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        telemetry::write_last_line(format!("can't write to standard output: {error}"));
    }
}
