//! Programs of the host: found where root's programs are too, ended with us, their output kept for the error.

use std::{
    env,
    ffi::OsStr,
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use crate::{
    error::{Context, VmError},
    progress::Progress,
};

/// Where mkfs.ext4 and depmod are; not in everybody's PATH.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin";
const TAIL_LINES: usize = 30;
const POLL: Duration = Duration::from_millis(50);

/// A program that gets no input.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env("PATH", search_path()).env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
    command
}

/// A program that the kernel kills when the calling thread ends, even by SIGKILL.
pub(crate) fn bound_command(program: &str) -> Command {
    let mut command = command("setpriv");
    command.args(["--pdeathsig", "KILL", "--", program]);
    command
}

/// Whether there is such a program.
pub(crate) fn exists(program: &str) -> bool {
    env::split_paths(&search_path())
        .map(|dir| dir.join(program))
        .any(|path| fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0))
}

/// Runs a short program and returns what it wrote to stdout.
pub(crate) fn output(command: &mut Command) -> Result<String, VmError> {
    let name = name_of(command);
    let output = command.output().context(|| format!("cannot run {name}"))?;
    if !output.status.success() {
        return Err(VmError::failed(
            format!("{name}: {}", output.status),
            last_lines(&String::from_utf8_lossy(&output.stderr)),
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program that may take long, with its output into `log`; that it ran to its end says nothing about its status.
pub(crate) fn run_logged(
    command: &mut Command,
    log: &Path,
    limit: Duration,
    mut progress: Progress<'_>,
) -> Result<ExitStatus, VmError> {
    let name = name_of(command);
    let file = File::create(log).at("cannot create", log)?;
    let errors = file.try_clone().at("cannot use", log)?;
    let child = command.stdout(file).stderr(errors).spawn().context(|| format!("cannot run {name}"))?;
    let mut child = Killed(child);
    loop {
        if let Some(status) = child.0.try_wait().context(|| format!("cannot wait for {name}"))? {
            return Ok(status);
        }
        if progress.elapsed() > limit {
            return Err(VmError::failed(format!("{name}: not done in {} s", limit.as_secs()), tail(log)));
        }
        progress.tick();
        thread::sleep(POLL);
    }
}

/// The last lines of a file, or nothing if there is no such file.
pub(crate) fn tail(path: &Path) -> String {
    last_lines(&String::from_utf8_lossy(&fs::read(path).unwrap_or_default()))
}

/// A word for a shell that means exactly this text.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A process that does not outlive its owner.
pub(crate) struct Killed(pub(crate) Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Both fail only if the process has ended, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

fn search_path() -> String {
    match env::var("PATH") {
        Ok(path) if !path.is_empty() => format!("{path}:{SYSTEM_PATH}"),
        _ => SYSTEM_PATH.to_owned(),
    }
}

/// The program's name, past the one that binds it to us.
fn name_of(command: &Command) -> String {
    let program = PathBuf::from(command.get_program());
    let arguments: Vec<_> = command.get_args().collect();
    let bound = arguments.iter().position(|a| *a == "--").and_then(|at| arguments.get(at + 1));
    bound.map_or(program.as_path(), Path::new).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_text_survives_a_shell() {
        let text = "a'b \"c\" $d `e` \\ \n'";
        let echoed = output(command("sh").args(["-c", &format!("printf %s {}", quoted(text))])).unwrap();
        assert_eq!(echoed, text);
    }

    #[test]
    fn the_tail_is_thirty_lines() {
        let text: String = (0..100).map(|n| format!("{n}\r\n\n")).collect();
        let last = last_lines(&text);
        assert_eq!(last.lines().count(), TAIL_LINES);
        assert!(last.starts_with("70\n") && last.ends_with("99"));
    }

    #[test]
    fn a_bound_program_is_named_by_its_own_name() {
        assert_eq!(name_of(&bound_command("sleep")), "sleep");
        assert_eq!(name_of(&command("sleep")), "sleep");
    }
}
