//! What goes to the terminal or the pipe: JSON, sizes for people, complaints.

use std::io::{self, Write};

use serde_json::Value as Json;

use crate::{
    cli::{JsonMode, View},
    error::ClientError,
};

/// What a verb leaves behind: text for standard output, and the exit code.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// The whole output, with its line breaks.
    pub(crate) text: String,
    /// The exit code.
    pub(crate) code: u8,
}

impl From<String> for Report {
    fn from(text: String) -> Self {
        Self { text, code: 0 }
    }
}

/// The JSON text if it is asked for, else `None`.
pub(crate) fn json_text(view: View, value: impl FnOnce() -> Json) -> Option<String> {
    match view.json {
        JsonMode::Off => None,
        JsonMode::Short => Some(format!("{}\n", value())),
        JsonMode::Pretty => Some(format!("{:#}\n", value())),
    }
}

/// A number of bytes for people: `12.3 MiB`. Below 1 KiB it is exact.
pub(crate) fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let unit = ((bytes.ilog2() / 10) as usize).min(UNITS.len());
    // Cut, not rounded: 1023.99 MiB must not be shown as 1024.0 MiB.
    let tenths = (u128::from(bytes) * 10) >> (10 * unit);
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit - 1])
}

/// The same without a space, for a cell of a table: `12.3M`.
pub(crate) fn short_size(bytes: u64) -> String {
    human_size(bytes).replace(' ', "").replace("iB", "")
}

/// Writes the output of a verb. That nobody reads it any more (`| head`) is no failure.
pub(crate) fn print(text: &str) -> Result<(), ClientError> {
    print_on(text).map(|_| ())
}

/// Writes a part of an output that goes on; `false`: nobody reads it any more.
pub(crate) fn print_on(text: &str) -> Result<bool, ClientError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(ClientError::Output(error)),
    }
}

/// Writes a complaint to standard error, under the program's name.
pub(crate) fn complain(text: &str) {
    // There is nowhere left to report that standard error is gone.
    let _ = writeln!(io::stderr(), "memchargectl: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_for_people() {
        for (bytes, human, short) in [
            (0, "0 B", "0B"),
            (1023, "1023 B", "1023B"),
            (1024, "1.0 KiB", "1.0K"),
            (12_900_000, "12.3 MiB", "12.3M"),
            ((1 << 30) - 1, "1023.9 MiB", "1023.9M"),
            (2 << 30, "2.0 GiB", "2.0G"),
            (1 << 50, "1024.0 TiB", "1024.0T"),
        ] {
            assert_eq!((human_size(bytes).as_str(), short_size(bytes).as_str()), (human, short));
        }
    }

    #[test]
    fn json_is_made_only_where_it_is_asked_for() {
        let view = |json| View { json, ..View::default() };
        let value = || serde_json::json!({"a": 1});
        assert_eq!(json_text(view(JsonMode::Off), value), None);
        assert_eq!(json_text(view(JsonMode::Short), value).as_deref(), Some("{\"a\":1}\n"));
        assert_eq!(json_text(view(JsonMode::Pretty), value).as_deref(), Some("{\n  \"a\": 1\n}\n"));
    }
}
