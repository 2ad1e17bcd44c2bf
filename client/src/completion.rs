//! Completion in shells: what the command line's definition knows, and names that the daemon knows.
//!
//! Shells run this program with `COMPLETE` set: for the code that they shall load, and at each press of the key. A
//! daemon that does not answer must neither be noticed there nor waited for.

use std::{
    collections::BTreeSet,
    env,
    ffi::OsString,
    io::{self, Write},
    path::Path,
    time::Duration,
};

use clap::{Command, CommandFactory};
use clap_complete::{
    CompletionCandidate,
    env::{Bash, CompleteEnv, EnvCompleter, Fish, Shells, Zsh},
};
use memcharge_dbus::MountRow;
use zbus::proxy::MethodFlags;

use crate::{bus::Bus, cli::Cli, error::ClientError};

/// The longest wait for the daemon: a second is what people bear at the press of a key, and the program has to start.
const PATIENCE: Duration = Duration::from_millis(800);

/// Where a shell's code says which word is to be completed, and how it wants words to be separated.
const INDEX: &str = "_CLAP_COMPLETE_INDEX";
const SEPARATOR: &str = "_CLAP_IFS";

/// Answers a shell that asks for a completion; `false`: it is no shell that calls. To be called before anything else.
pub(crate) fn answer() -> Result<bool, clap::Error> {
    let shells: [&dyn EnvCompleter; 3] = [&Tidy(Bash), &Tidy(Zsh), &Tidy(Fish)];
    CompleteEnv::with_factory(Cli::command)
        .shells(Shells(&shells))
        .try_complete(env::args_os(), env::current_dir().ok().as_deref())
}

/// The names of all mounts.
pub(crate) fn mounts() -> Vec<CompletionCandidate> {
    let candidate = |row: MountRow| {
        let help = format!("{}, {} pays", row.place, row.target);
        CompletionCandidate::new(row.name).help(Some(help.into()))
    };
    rows().into_iter().map(candidate).collect()
}

/// Who pays for the mounts that there are.
pub(crate) fn targets() -> Vec<CompletionCandidate> {
    let targets: BTreeSet<String> = rows().into_iter().map(|row| row.target).collect();
    targets.into_iter().map(CompletionCandidate::new).collect()
}

/// The mounts; none where the daemon does not give them, for whatever reason.
fn rows() -> Vec<MountRow> {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return Vec::new();
    };
    let answer = runtime.block_on(async { tokio::time::timeout(PATIENCE, ask()).await });
    // Nothing that is still under way may hold up the end.
    runtime.shutdown_background();
    answer.ok().and_then(Result::ok).unwrap_or_default()
}

async fn ask() -> Result<Vec<MountRow>, ClientError> {
    let bus = Bus::connect_as_it_is().await?;
    // A daemon that does not run is not to be started by the press of a key.
    let flags = MethodFlags::NoAutoStart.into();
    Ok(bus.manager.inner().call_with_flags("ListMounts", flags, &()).await?.unwrap_or_default())
}

/// A shell that is offered options once a dash has been typed: before that, names are looked for.
struct Tidy<S>(S);

impl<S: EnvCompleter> EnvCompleter for Tidy<S> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn is(&self, name: &str) -> bool {
        self.0.is(name)
    }

    fn write_registration(
        &self,
        var: &str,
        name: &str,
        bin: &str,
        completer: &str,
        buf: &mut dyn Write,
    ) -> io::Result<()> {
        self.0.write_registration(var, name, bin, completer, buf)
    }

    fn write_complete(
        &self,
        cmd: &mut Command,
        args: Vec<OsString>,
        current_dir: Option<&Path>,
        buf: &mut dyn Write,
    ) -> io::Result<()> {
        let index = env::var(INDEX).ok().and_then(|index| index.parse().ok());
        let index = index.unwrap_or_else(|| args.len().saturating_sub(1));
        let empty = args.get(index).is_none_or(|word| word.is_empty());
        let mut answer = Vec::new();
        self.0.write_complete(cmd, without_open_json(args), current_dir, &mut answer)?;
        let separator = env::var(SEPARATOR).ok().filter(|text| !text.is_empty());
        let answer = String::from_utf8_lossy(&answer);
        let kept =
            if empty { tidy(&answer, separator.as_deref().unwrap_or("\n")) } else { answer.into_owned() };
        buf.write_all(kept.as_bytes())
    }
}

/// The words with each `--json` in full: its value is optional, and what follows would be taken for one.
fn without_open_json(words: Vec<OsString>) -> Vec<OsString> {
    words.into_iter().map(|word| if word == "--json" { "--json=short".into() } else { word }).collect()
}

/// The answer without options. Words in it may be followed by what they mean.
fn tidy(answer: &str, separator: &str) -> String {
    let words: Vec<&str> = answer.split(separator).filter(|word| !word.starts_with('-')).collect();
    words.join(separator)
}

#[cfg(test)]
mod tests {
    use clap_complete::engine::complete;

    use super::*;

    #[test]
    fn options_do_not_hide_names() {
        for (answer, separator, kept) in [
            ("m\u{b}n\u{b}--json\u{b}-h", "\u{b}", "m\u{b}n"),
            ("--json\u{b}-h", "\u{b}", ""),
            ("m:place\n--json:Print JSON", "\n", "m:place"),
            ("m\tplace\n--json\tPrint JSON\n", "\n", "m\tplace\n"),
            ("--json\tPrint JSON\n", "\n", ""),
            ("", "\n", ""),
        ] {
            assert_eq!(tidy(answer, separator), kept);
        }
    }

    #[test]
    fn the_definition_knows_verbs_options_and_words() {
        for (line, wanted, unwanted) in [
            ("memchargectl re", &["recover", "reload", "revert"][..], "status"),
            ("memchargectl status --no-", &["--no-legend", "--no-pager"], "--full"),
            ("memchargectl --json=", &["--json=short", "--json=pretty", "--json=off"], "--json"),
            ("memchargectl ", &["status", "cat-config", "monitor"], "prune"),
        ] {
            let words: Vec<OsString> = line.split(' ').map(Into::into).collect();
            let last = words.len() - 1;
            let found = complete(&mut Cli::command(), without_open_json(words), last, None).unwrap();
            let found: Vec<_> = found.iter().map(|c| c.get_value().to_string_lossy()).collect();
            assert!(wanted.iter().all(|word| found.contains(&(*word).into())), "{line}: {found:?}");
            assert!(!found.contains(&unwanted.into()), "{line}: {found:?}");
        }
    }
}
