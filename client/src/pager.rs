//! The pager: for output that is longer than the terminal, as systemctl has it.

use std::{
    env,
    io::{self, Write},
    process::{Command, Stdio},
};

use tokio::signal::unix::{SignalKind, signal};

use crate::{
    cli::{JsonMode, View},
    error::ClientError,
    layout::width,
    output,
    terminal::Size,
};

/// What is tried where nobody wants another pager, or where that one is not there.
const USUAL: [&str; 2] = ["less", "more"];

/// What systemctl asks of less: end at once where all fits, fold nothing, keep colours and the screen, and more.
const LESS: &str = "FRSXMK";

/// Writes the output of a verb, through a pager where it is too long for the terminal.
pub(crate) fn show(text: &str, view: View) -> Result<(), ClientError> {
    let paged = view.screen.paged && !view.no_pager && view.json == JsonMode::Off;
    if paged && view.screen.size.is_some_and(|size| is_longer(text, size)) {
        let variable = |name: &str| env::var(name).ok();
        let less = less_options(variable);
        for program in programs(variable) {
            if page(text, &program, less.as_deref())? {
                return Ok(());
            }
        }
    }
    output::print(text)
}

/// Whether the text scrolls: its last line and the next prompt have to be on the screen, too.
fn is_longer(text: &str, size: Size) -> bool {
    let lines = text.lines().map(|line| width(line).div_ceil(size.columns.max(1)).max(1));
    lines.sum::<usize>() >= size.lines
}

/// The pagers to try, each with its arguments.
fn programs(variable: impl Fn(&str) -> Option<String>) -> Vec<Vec<String>> {
    let words = |text: String| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let wanted = variable("SYSTEMD_PAGER").or_else(|| variable("PAGER")).map(words);
    if wanted.as_ref().is_some_and(|words| words.is_empty() || *words == ["cat"]) {
        return Vec::new();
    }
    wanted.into_iter().chain(USUAL.map(|program| vec![program.to_owned()])).collect()
}

/// The value for `LESS`; `None`: what the user has set counts.
fn less_options(variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    variable("SYSTEMD_LESS").or_else(|| variable("LESS").is_none().then(|| LESS.to_owned()))
}

/// Runs this pager until it is left; `false`: it could not be started.
fn page(text: &str, program: &[String], less: Option<&str>) -> Result<bool, ClientError> {
    let [name, arguments @ ..] = program else { return Ok(false) };
    let mut command = Command::new(name);
    // What a pager can do beside showing text, such as starting a shell, is nothing for `sudo memchargectl`.
    command.args(arguments).env("LESSSECURE", "1").stdin(Stdio::piped());
    if let Some(options) = less {
        command.env("LESS", options);
    }
    // The pager decides what an interrupt ends; who is first to go leaves the terminal to the shell.
    let _deaf = signal(SignalKind::interrupt()).map_err(ClientError::Signals)?;
    let Ok(mut pager) = command.spawn() else { return Ok(false) };
    let fed = pager.stdin.take().map_or(Ok(()), |mut input| input.write_all(text.as_bytes()));
    let ended = pager.wait();
    match fed.and(ended) {
        // A pager that is left early has shown enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(ClientError::Output(error)),
        _ => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An environment with these variables.
    fn variables<'a>(set: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        move |name| set.iter().find(|(found, _)| *found == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn the_first_pager_that_is_wanted_and_then_the_usual_ones() {
        for (set, wanted) in [
            (&[][..], "less, more"),
            (&[("PAGER", "most -w")], "most -w, less, more"),
            (&[("PAGER", "most"), ("SYSTEMD_PAGER", "less -S")], "less -S, less, more"),
            (&[("PAGER", "most"), ("SYSTEMD_PAGER", "")], ""),
            (&[("PAGER", " ")], ""),
            (&[("PAGER", "cat")], ""),
        ] {
            let found: Vec<String> = programs(variables(set)).iter().map(|words| words.join(" ")).collect();
            assert_eq!(found.join(", "), wanted, "{set:?}");
        }
    }

    #[test]
    fn less_gets_the_options_of_systemd_unless_it_has_others() {
        for (set, options) in [
            (&[][..], Some("FRSXMK")),
            (&[("LESS", "R")], None),
            (&[("LESS", "R"), ("SYSTEMD_LESS", "FX")], Some("FX")),
        ] {
            assert_eq!(less_options(variables(set)).as_deref(), options, "{set:?}");
        }
    }

    #[test]
    fn long_is_what_scrolls() {
        let size = Size { columns: 10, lines: 4 };
        for (text, long) in [
            ("", false),
            ("a\nb\nc\n", false),
            ("a\nb\nc\nd\n", true),
            ("a\n\nc\nd\n", true),
            ("a\n0123456789\nc\n", false),
            ("a\n0123456789+\nc\n", true),
        ] {
            assert_eq!(is_longer(text, size), long, "{text}");
        }
    }

    #[tokio::test]
    async fn a_pager_that_is_not_there_is_said_not_to_be() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert!(!page("a\n", &words("/nonexistent/pager"), None).unwrap());
        assert!(!page("a\n", &[], None).unwrap());
        // It reads nothing: what it is given is more than a pipe holds.
        assert!(page(&"a\n".repeat(100_000), &words("true"), None).unwrap());
    }
}
