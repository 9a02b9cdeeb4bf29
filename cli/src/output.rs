//! What the program prints on a terminal.

use std::fmt;
use std::io::{self, Write};

use crate::connection::way_out;

/// Prints one line to standard output. An error of a closed pipe is ignored, because it must not stop the service.
pub(crate) fn print_line(text: fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// Prints one line to standard error. An error of a closed pipe is ignored: there is no place to report it.
pub fn print_error(text: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Standard output. Its errors tell a closed pipe, as in `millrace dead list | head -1`, from a closed connection.
#[derive(Debug, Default)]
pub(crate) struct Output;

/// The reader of standard output has closed it.
#[derive(Debug)]
struct ClosedOutput;

impl fmt::Display for ClosedOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("standard output is closed")
    }
}

impl std::error::Error for ClosedOutput {}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stdout().write(bytes).map_err(of_output)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush().map_err(of_output)
    }
}

fn of_output(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::BrokenPipe => io::Error::new(io::ErrorKind::BrokenPipe, ClosedOutput),
        _ => error,
    }
}

/// Whether a command ended because the reader of its output closed the pipe. This is no failure.
pub fn is_closed_output(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|error| {
        let inner = error.get_ref();
        inner.is_some_and(|inner| inner.is::<ClosedOutput>())
    })
}

/// The message of an error with its causes, and the options that help. A cause that the message already contains is not
/// repeated.
pub fn message(error: &anyhow::Error) -> String {
    let mut message = error.to_string();
    let causes = error.chain().skip(1).map(ToString::to_string);
    for cause in causes.chain(way_out(error).map(str::to_owned)) {
        if !message.contains(&cause) {
            message = format!("{message}: {cause}");
        }
    }
    escaped_lines(&message)
}

/// The text on one line. Control characters are escaped: in the name of a file they could change the state of the
/// terminal.
pub(crate) fn escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut escaped, character| {
        if is_unsafe(character) {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
        escaped
    })
}

/// The lines of a text, each with its control characters escaped.
pub(crate) fn escaped_lines(text: &str) -> String {
    text.split('\n').map(|line| escaped(line.trim_end_matches('\r'))).collect::<Vec<_>>().join("\n")
}

/// Control characters, and the characters that change the direction of a text.
pub(crate) fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn a_message_has_every_cause_once() {
        let missing = || io::Error::new(io::ErrorKind::NotFound, "no such file");
        let error = Err::<(), _>(missing()).context("cannot read a/b").unwrap_err();
        assert_eq!(message(&error), "cannot read a/b: no such file");
        let error = Err::<(), _>(missing()).context("cannot read a/b: no such file").unwrap_err();
        assert_eq!(message(&error), "cannot read a/b: no such file");
        let error = Err::<(), _>(missing()).context("cannot read \u{1b}[2J").unwrap_err();
        assert_eq!(message(&error), "cannot read \\u{1b}[2J: no such file");
    }

    #[test]
    fn only_a_pipe_that_is_standard_output_ends_a_command_without_a_message() {
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(is_closed_output(&anyhow::Error::new(of_output(broken())).context("cannot write a result")));
        assert!(!is_closed_output(&anyhow::Error::new(broken())));
    }

    #[test]
    fn control_characters_and_changes_of_direction_are_escaped() {
        assert_eq!(escaped("a\u{1b}]0;x\u{7}\n\u{9b}31m\u{202e}é"), "a\\u{1b}]0;x\\u{7}\\n\\u{9b}31m\\u{202e}é");
        assert_eq!(escaped_lines("a\r\nb\u{1b}\n"), "a\nb\\u{1b}\n");
    }
}
