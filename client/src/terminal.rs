//! What standard output can show: how much, and in colours. Decisions are pure; what is asked of the system is thin.

use std::{
    env,
    io::{self, IsTerminal},
};

/// Where neither the environment nor the terminal says how large it is, as on many serial lines.
const USUAL: Size = Size { columns: 80, lines: 24 };

/// What standard output can show. The default is a pipe: plain text, as long as it gets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Screen {
    /// Whether colours may be used.
    pub(crate) colour: bool,
    /// Whether a pager can work there.
    pub(crate) paged: bool,
    /// How large the terminal is; `None`: it is no terminal.
    pub(crate) size: Option<Size>,
}

/// How large a terminal is, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    /// The length of a line.
    pub(crate) columns: usize,
    /// How many lines there are.
    pub(crate) lines: usize,
}

impl Screen {
    /// Looks at standard output and the environment.
    pub(crate) fn of_stdout() -> Self {
        let stdout = io::stdout();
        if !stdout.is_terminal() {
            return Self::default();
        }
        let size = rustix::termios::tcgetwinsize(&stdout).ok();
        let size = size.map(|size| Size { columns: size.ws_col.into(), lines: size.ws_row.into() });
        Self::of_terminal(size, |name| env::var(name).ok())
    }

    /// What a terminal can show that calls itself so large, in an environment.
    fn of_terminal(found: Option<Size>, variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        // A number from the environment was set on purpose; 0 is nothing that could be filled.
        let either = |name: &str, found: Option<usize>, usual: usize| {
            let given = set(name).and_then(|value| value.parse().ok());
            given.into_iter().chain(found).find(|number| *number > 0).unwrap_or(usual)
        };
        let size = Size {
            columns: either("COLUMNS", found.map(|size| size.columns), USUAL.columns),
            lines: either("LINES", found.map(|size| size.lines), USUAL.lines),
        };
        let dumb = set("TERM").is_some_and(|name| name == "dumb");
        Self { colour: !dumb && set("NO_COLOR").is_none(), paged: !dumb, size: Some(size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn screen(found: Option<(usize, usize)>, variables: &[(&str, &str)]) -> Screen {
        let found = found.map(|(columns, lines)| Size { columns, lines });
        Screen::of_terminal(found, |name| {
            variables.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn colours_only_where_they_are_wanted_and_work() {
        for (variables, colour, paged) in [
            (&[][..], true, true),
            (&[("TERM", "xterm")], true, true),
            (&[("NO_COLOR", "")], true, true),
            (&[("NO_COLOR", "1")], false, true),
            (&[("TERM", "dumb")], false, false),
        ] {
            let found = screen(None, variables);
            assert_eq!((found.colour, found.paged), (colour, paged), "{variables:?}");
        }
        assert_eq!(Screen::default(), Screen { colour: false, paged: false, size: None });
    }

    #[test]
    fn the_environment_then_the_terminal_then_what_is_usual() {
        for (found, variables, columns, lines) in [
            (Some((100, 30)), &[][..], 100, 30),
            (Some((100, 30)), &[("COLUMNS", "60"), ("LINES", "9")], 60, 9),
            (Some((100, 30)), &[("COLUMNS", "wide"), ("LINES", "0")], 100, 30),
            (Some((0, 0)), &[], 80, 24),
            (None, &[("COLUMNS", "")], 80, 24),
        ] {
            let size = Some(Size { columns, lines });
            assert_eq!(screen(found, variables).size, size, "{found:?} {variables:?}");
        }
    }
}
