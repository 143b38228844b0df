//! Text for people and JSON for programs: the only file that writes to the standard streams.

use std::error::Error as _;
use std::fmt::{self, Display, Formatter};
use std::io::{self, Write as _};

use serde_json::Value;

use super::CliError;

/// Writes to standard output. A reader that has left (`| head`) is no error; a full disk is.
pub(super) fn print(text: &str) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(CliError::Io { what: "cannot write to standard output", source: error })
        }
        _ => Ok(()),
    }
}

/// Prints a value as indented JSON.
pub(super) fn print_json(value: &Value) -> Result<(), CliError> {
    print(&format!("{value:#}\n"))
}

/// Says on standard error what went wrong, why, and what to do next.
pub(super) fn complain(error: &CliError) {
    warn(&Complaint(error).to_string());
}

/// Writes to standard error; there is nobody to tell when that fails.
pub(super) fn warn(text: &str) {
    drop(io::stderr().lock().write_all(text.as_bytes()));
}

struct Complaint<'a>(&'a CliError);

impl Display for Complaint<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "error: {}", self.0)?;
        let mut cause = self.0.source();
        while let Some(source) = cause {
            writeln!(formatter, "  because: {source}")?;
            cause = source.source();
        }
        match self.0.next() {
            Some(next) => writeln!(formatter, "  next: {next}"),
            None => Ok(()),
        }
    }
}

/// Two columns, the first padded.
#[derive(Debug)]
pub(super) struct Table<'a>(pub(super) &'a [(&'static str, String)]);

impl Display for Table<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let width = self.0.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, value) in self.0 {
            writeln!(formatter, "  {name:width$}  {}", Shown(value))?;
        }
        Ok(())
    }
}

struct Leaf<'a>(&'a Value);

impl Display for Leaf<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::String(text) => write!(formatter, "{}", Shown(text)),
            Value::Null => formatter.write_str("-"),
            Value::Array(_) | Value::Object(_) => formatter.write_str("none"),
            Value::Bool(_) | Value::Number(_) => write!(formatter, "{}", self.0),
        }
    }
}

/// A foreign text, from a signature or an upstream, say: nothing in it may move the cursor or begin a line.
#[derive(Debug)]
pub(super) struct Shown<'a>(pub(super) &'a str);

impl Display for Shown<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        for char in self.0.chars() {
            if char.is_control() {
                write!(formatter, "{}", char.escape_default())?;
            } else {
                write!(formatter, "{char}")?;
            }
        }
        Ok(())
    }
}

/// A field of an object as safe text; empty when it is not there.
pub(super) fn field(value: &Value, name: &str) -> String {
    value.get(name).map(|field| Leaf(field).to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_with_its_causes_and_the_next_step() {
        let error = CliError::Io { what: "cannot start the log", source: io::Error::other("no threads") };
        assert_eq!(Complaint(&error).to_string(), "error: cannot start the log\n  because: no threads\n");
        let error = CliError::Usage { what: "no".to_owned(), next: "do".to_owned() };
        assert_eq!(Complaint(&error).to_string(), "error: no\n  next: do\n");
    }
}
