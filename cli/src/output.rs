//! Standard output.

use std::fmt;
use std::io::{self, Write};

/// Prints one line to standard output. An error of a closed pipe is ignored, because it must not stop the service.
pub(crate) fn print_line(text: fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{text}");
}
