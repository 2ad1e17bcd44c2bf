//! Tables: aligned, and on a terminal no wider than it is.

use std::array;

use anstyle::Style;

use crate::{
    cli::View,
    layout::{cut_end, cut_middle, width},
    style::paint,
};

/// Between two columns.
const GAP: &str = "  ";

/// What a column that may be shortened keeps as long as another one can give more.
const LEAST: usize = 8;

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    title: &'static str,
    right: bool,
    cut: Cut,
    style: fn(&str) -> Style,
}

/// How the cells of a column are shortened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// At the end, and only where shortening the others is not enough.
    Last,
    /// At the end.
    End,
    /// In the middle.
    Middle,
}

impl Column {
    /// Short words, at the left.
    pub(crate) const fn word(title: &'static str) -> Self {
        Self { title, right: false, cut: Cut::Last, style: |_| Style::new() }
    }

    /// Numbers, at the right.
    pub(crate) const fn number(title: &'static str) -> Self {
        Self { right: true, ..Self::word(title) }
    }

    /// Text that may be long.
    pub(crate) const fn text(title: &'static str) -> Self {
        Self { cut: Cut::End, ..Self::word(title) }
    }

    /// Paths that may be long.
    pub(crate) const fn path(title: &'static str) -> Self {
        Self { cut: Cut::Middle, ..Self::word(title) }
    }

    /// The same column in the colours that its cells have.
    pub(crate) const fn painted(self, style: fn(&str) -> Style) -> Self {
        Self { style, ..self }
    }

    /// How narrow this column may be made for the sake of others; a title is not cut before that.
    fn least(&self) -> usize {
        LEAST.max(width(self.title))
    }

    /// The cell in so many columns, padded, and painted without the padding.
    fn cell(&self, text: &str, columns: usize, colour: bool) -> String {
        let shown = match self.cut {
            Cut::Middle => cut_middle(text, columns),
            Cut::Last | Cut::End => cut_end(text, columns),
        };
        let padding = " ".repeat(columns.saturating_sub(width(&shown)));
        let painted = paint(&shown, (self.style)(text), colour);
        if self.right { format!("{padding}{painted}") } else { format!("{painted}{padding}") }
    }
}

/// A table with two spaces between its columns, and none at the end of a line.
pub(crate) fn table<const N: usize>(columns: [Column; N], rows: &[[String; N]], view: View) -> String {
    let titles = columns.map(|column| column.title.to_owned());
    let head = (!view.no_legend).then_some(&titles);
    let longest = |i: usize| head.into_iter().chain(rows).map(|row| width(&row[i])).max().unwrap_or(0);
    let widths = fit(array::from_fn(longest), &columns, view.width());
    let line = |row: &[String; N], colour: bool| {
        let cells: [String; N] = array::from_fn(|i| columns[i].cell(&row[i], widths[i], colour));
        format!("{}\n", cells.join(GAP).trim_end())
    };
    let head = head.map(|titles| line(titles, false));
    head.into_iter().chain(rows.iter().map(|row| line(row, view.screen.colour))).collect()
}

/// The widths, made smaller until a line fits: always the widest column that may be, first of those that are made for
/// it. Where even one character for each column is too much, nothing helps.
fn fit<const N: usize>(mut widths: [usize; N], columns: &[Column; N], limit: Option<usize>) -> [usize; N] {
    let Some(limit) = limit else { return widths };
    let gaps = GAP.len() * N.saturating_sub(1);
    let least: [[usize; N]; 2] = [
        array::from_fn(|i| if columns[i].cut == Cut::Last { usize::MAX } else { columns[i].least() }),
        [1; N],
    ];
    for least in least {
        while widths.iter().sum::<usize>() + gaps > limit {
            let widest = (0..N).filter(|i| widths[*i] > least[*i]).max_by_key(|i| widths[*i]);
            let Some(widest) = widest else { break };
            widths[widest] -= 1;
        }
    }
    widths
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        style::state_style,
        terminal::{Screen, Size},
    };

    const COLUMNS: [Column; 3] =
        [Column::path("NAME"), Column::number("USED"), Column::word("STATE").painted(state_style)];

    fn rows() -> [[String; 3]; 2] {
        [["models".into(), "1.0M".into(), "active".into()], ["x".into(), "1023.9M".into(), "failed".into()]]
    }

    fn screen(columns: usize, colour: bool) -> View {
        let size = Some(Size { columns, lines: 24 });
        View { screen: Screen { colour, size, paged: false }, ..View::default() }
    }

    #[test]
    fn a_table_is_aligned_and_has_no_trailing_space() {
        assert_eq!(
            table(COLUMNS, &rows(), View::default()),
            "NAME       USED  STATE\nmodels     1.0M  active\nx       1023.9M  failed\n"
        );
        let bare = View { no_legend: true, ..View::default() };
        assert_eq!(table(COLUMNS, &rows(), bare), "models     1.0M  active\nx       1023.9M  failed\n");
        assert_eq!(table(COLUMNS, &[], bare), "");
    }

    #[test]
    fn colours_do_not_move_anything() {
        let painted = table(COLUMNS, &rows(), screen(80, true));
        assert!(painted.contains("1.0M  \x1b[32mactive\x1b[0m\n"), "{painted:?}");
        let codes = ["\x1b[32m", "\x1b[31m", "\x1b[1m", "\x1b[0m"];
        let plain = codes.iter().fold(painted, |text, code| text.replace(code, ""));
        assert_eq!(plain, table(COLUMNS, &rows(), View::default()));
    }

    #[test]
    fn no_line_is_longer_than_the_terminal_is_wide() {
        let long = [["/run/shared/models-of-today".into(), "1.0M".into(), "active".into()]];
        for (columns, line) in [
            (80, "/run/shared/models-of-today  1.0M  active"),
            (30, "/run/sh…of-today  1.0M  active"),
            (22, "/ru…oday  1.0M  active"),
            (21, "/ru…day  1.0M  active"),
            (16, "/…ay  1.0M  act…"),
            (7, "…  …  …"),
            // Nothing helps there.
            (6, "…  …  …"),
        ] {
            let view = screen(columns, false);
            let text = table(COLUMNS, &long, view);
            assert_eq!(text.lines().nth(1), Some(line), "{columns}");
            assert!(text.lines().all(|line| width(line) <= columns.max(7)), "{columns}: {text}");
            let full = table(COLUMNS, &long, View { full: true, ..view });
            assert_eq!(full, table(COLUMNS, &long, View::default()));
        }
    }
}
