//! The output of the commands. A command continues if the reader of its output is gone, as in
//! `tenantry policies | head -3`: what the command changes must not depend on its reader.

use std::io::{self, Write};

use crate::telemetry;

/// Prints a line to standard output, like `println!`, which panics if the reader is gone.
macro_rules! out {
    ($($text:tt)*) => { $crate::cli::output::write(format!("{}\n", format_args!($($text)*)).as_bytes()) };
}

/// Writes to standard output. If that fails for another reason than a missing reader, says so on
/// standard error.
pub(super) fn write(text: &[u8]) {
    if let Err(error) = io::stdout().write_all(text)
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        telemetry::write_last_line(format!("can't write to standard output: {error}"));
    }
}
