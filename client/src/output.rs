//! What goes to the terminal or the pipe: tables, JSON, sizes for people, complaints.

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

/// On which side the cells of a column stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// The JSON text if it is asked for, else `None`.
pub(crate) fn json_text(view: View, value: impl FnOnce() -> Json) -> Option<String> {
    match view.json {
        JsonMode::Off => None,
        JsonMode::Short => Some(format!("{}\n", value())),
        JsonMode::Pretty => Some(format!("{:#}\n", value())),
    }
}

/// A table with two spaces between its columns, and none at the end of a line.
pub(crate) fn table<const N: usize>(head: [(&str, Align); N], rows: &[[String; N]], legend: bool) -> String {
    let titles = head.map(|(title, _)| title.to_owned());
    let shown: Vec<&[String; N]> = legend.then_some(&titles).into_iter().chain(rows).collect();
    let width = |column: usize| shown.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells: Vec<String> = (0..N)
            .map(|i| match head[i].1 {
                Align::Left => format!("{:<width$}", row[i], width = widths[i]),
                Align::Right => format!("{:>width$}", row[i], width = widths[i]),
            })
            .collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    shown.into_iter().map(line).collect()
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

/// The text in lines of at most `width` characters where its words allow it.
pub(crate) fn wrap(text: &str, width: usize) -> String {
    let mut out = String::with_capacity(text.len());
    let mut column = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > width {
            out.push('\n');
            column = 0;
        } else if column > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
    }
    out
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
    fn a_table_is_aligned_and_has_no_trailing_space() {
        let head = [("NAME", Align::Left), ("USED", Align::Right), ("STATE", Align::Left)];
        let rows = [
            ["models".into(), "1.0M".into(), "active".into()],
            ["x".into(), "1023.9M".into(), "failed".into()],
        ];
        assert_eq!(
            table(head, &rows, true),
            "NAME       USED  STATE\nmodels     1.0M  active\nx       1023.9M  failed\n"
        );
        assert_eq!(table(head, &rows, false), "models     1.0M  active\nx       1023.9M  failed\n");
        assert_eq!(table(head, &[], false), "");
    }

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
    fn text_is_wrapped_between_words() {
        assert_eq!(wrap("one two three", 7), "one two\nthree");
        assert_eq!(wrap("one-very-long-word a b", 5), "one-very-long-word\na b");
        assert_eq!(wrap("", 5), "");
    }

    #[test]
    fn json_is_made_only_where_it_is_asked_for() {
        let view = |json| View { json, no_pager: false, no_legend: false, quiet: false };
        let value = || serde_json::json!({"a": 1});
        assert_eq!(json_text(view(JsonMode::Off), value), None);
        assert_eq!(json_text(view(JsonMode::Short), value).as_deref(), Some("{\"a\":1}\n"));
        assert_eq!(json_text(view(JsonMode::Pretty), value).as_deref(), Some("{\n  \"a\": 1\n}\n"));
    }
}
