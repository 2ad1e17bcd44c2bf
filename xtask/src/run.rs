//! Running programs, and saying so.

use std::{
    ffi::OsStr,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// The workspace's root directory.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// A line about what happens now.
pub(crate) fn say(line: &str) {
    eprintln!("xtask: {line}");
}

/// Cargo, in the workspace.
pub(crate) fn cargo<I: AsRef<OsStr>>(arguments: impl IntoIterator<Item = I>) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(arguments);
    command
}

/// Runs a command to its end; its failure is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = line(command);
    let status = command.status().with_context(|| format!("cannot start {line}"))?;
    if !status.success() {
        bail!("{line} failed ({status})");
    }
    Ok(())
}

/// Runs a command to its end; what it says is shown only if it fails.
pub(crate) fn quietly(command: &mut Command) -> Result<()> {
    let line = line(command);
    let output = command.output().with_context(|| format!("cannot start {line}"))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
        bail!("{line} failed ({})\n{}", output.status, said.concat());
    }
    Ok(())
}

/// Runs a command to its end, and shows what it says as it says it. Its failure is an error with what `matters` finds in its
/// standard output.
pub(crate) fn run_and_find(command: &mut Command, matters: impl Fn(&str) -> String) -> Result<()> {
    let line = line(command);
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start {line}"))?;
    let mut said = Vec::new();
    if let Some(mut from) = child.stdout.take() {
        let mut piece = [0; 4096];
        loop {
            let read = from.read(&mut piece).with_context(|| format!("cannot read what {line} says"))?;
            if read == 0 {
                break;
            }
            io::stdout().write_all(&piece[..read]).context("cannot write to standard output")?;
            io::stdout().flush().context("cannot write to standard output")?;
            said.extend_from_slice(&piece[..read]);
        }
    }
    let status = child.wait().with_context(|| format!("cannot wait for {line}"))?;
    if !status.success() {
        bail!("{line} failed ({status})\n{}", matters(&String::from_utf8_lossy(&said)));
    }
    Ok(())
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let name = |word: &OsStr| Path::new(word).to_string_lossy().into_owned();
    let mut words = words.map(name);
    let program = words.next().unwrap_or_default();
    let program =
        Path::new(&program).file_name().map_or(program.clone(), |name| name.to_string_lossy().into_owned());
    std::iter::once(program).chain(words).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_name_the_command() {
        let error = run(Command::new("/bin/false").arg("x")).unwrap_err();
        assert!(error.to_string().starts_with("false x failed"), "{error}");
        assert!(run(&mut Command::new("/bin/true")).is_ok());
    }

    #[test]
    fn failures_say_what_was_said() {
        let both = "echo out; echo err >&2; exit 1";
        let error = quietly(Command::new("/bin/sh").args(["-c", both])).unwrap_err().to_string();
        assert!(error.contains("\nout\nerr\n"), "{error}");
        let error = run_and_find(Command::new("/bin/sh").args(["-c", both]), str::to_uppercase).unwrap_err();
        assert!(error.to_string().ends_with("\nOUT\n"), "{error}");
    }
}
