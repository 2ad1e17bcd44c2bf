//! Jobs of several phases: one root disk, and between two phases a shutdown and a cold boot.

use std::{
    borrow::Cow,
    fs,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    error::{Context, VmError},
    machine::{Heard, Machine},
    progress::{Progress, Say},
    spec::Job,
};

/// systemd gives a unit 90 s to stop, and emulation is slow.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(240);
/// So much of the console is told to the next phase: the job has to fit on its disk, and in a process' environment.
const CONSOLE_BYTES: usize = 8 << 10;

/// One command of a job.
#[derive(Debug, Default)]
pub(crate) struct Phase {
    number: usize,
    before: Option<Shutdown>,
}

/// The end of the phase before.
#[derive(Debug)]
struct Shutdown {
    took: Duration,
    console: String,
}

impl Phase {
    /// Its command.
    pub(crate) fn command<'a>(&self, job: &'a Job) -> &'a str {
        let later = self.number.checked_sub(1).and_then(|n| job.then.get(n));
        later.unwrap_or(&job.command)
    }

    fn is_last(&self, job: &Job) -> bool {
        self.number >= job.then.len()
    }

    /// What the job's script has to know of it.
    pub(crate) fn variables(&self, job: &Job) -> Vec<(&'static str, String)> {
        let say = |yes| if yes { "yes" } else { "no" }.to_owned();
        let mut variables = vec![("last", say(self.is_last(job))), ("reboots", say(!job.then.is_empty()))];
        if !job.then.is_empty() {
            variables.push(("export MEMCHARGE_PHASE", self.number.to_string()));
        }
        if let Some(Shutdown { took, console }) = &self.before {
            variables.push(("export MEMCHARGE_SHUTDOWN_MS", took.as_millis().to_string()));
            variables.push(("export MEMCHARGE_SHUTDOWN_CONSOLE", console.clone()));
        }
        variables
    }

    /// Waits until this phase's machine has shut itself down, which its script makes it do; the phase after it.
    pub(crate) fn shut_down(
        &self,
        machine: &mut Machine,
        dir: &Path,
        out: &mut dyn Write,
        say: Say<'_>,
    ) -> Result<Self, VmError> {
        let start = Instant::now();
        let mut progress = Progress::quiet("shutting the VM down", Duration::from_secs(10), say);
        match machine.listen("-", SHUTDOWN_LIMIT, out, &mut progress)? {
            Heard::End => {}
            Heard::Silence | Heard::Message(_) => {
                let limit = SHUTDOWN_LIMIT.as_secs();
                return Err(machine.failed(format!("it did not shut down in {limit} s")));
            }
        }
        let before = Some(Shutdown { took: start.elapsed(), console: console(dir)? });
        Ok(Self { number: self.number + 1, before })
    }
}

/// The last of what the console showed, such that it can be a shell's variable.
fn console(dir: &Path) -> Result<String, VmError> {
    let path = dir.join("console.log");
    let bytes = fs::read(&path).at("cannot read", &path)?;
    let last = &bytes[bytes.len().saturating_sub(CONSOLE_BYTES)..];
    let text: Cow<'_, str> = String::from_utf8_lossy(last);
    Ok(text.replace(['\0', '\r'], ""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Guest;

    fn of(variables: &[(&str, String)], name: &str) -> Option<String> {
        variables.iter().find(|(n, _)| *n == name).map(|(_, value)| value.clone())
    }

    #[test]
    fn an_ordinary_job_is_its_own_last_phase() {
        let job = Job::new(Guest::default(), "a");
        let variables = Phase::default().variables(&job);
        assert_eq!(of(&variables, "last").as_deref(), Some("yes"));
        assert_eq!(of(&variables, "reboots").as_deref(), Some("no"));
        assert_eq!(variables.len(), 2);
    }

    #[test]
    fn each_phase_has_its_command_and_knows_the_shutdown_before_it() {
        let mut job = Job::new(Guest::default(), "a");
        job.then = vec!["b".into(), "c".into()];
        let before = || Some(Shutdown { took: Duration::from_millis(1234), console: "text".into() });
        let phases =
            [Phase::default(), Phase { number: 1, before: before() }, Phase { number: 2, before: before() }];
        assert_eq!(phases.each_ref().map(|phase| phase.command(&job)), ["a", "b", "c"]);
        assert_eq!(phases.each_ref().map(|phase| phase.is_last(&job)), [false, false, true]);
        let variables = phases[1].variables(&job);
        assert_eq!(of(&variables, "export MEMCHARGE_PHASE").as_deref(), Some("1"));
        assert_eq!(of(&variables, "export MEMCHARGE_SHUTDOWN_MS").as_deref(), Some("1234"));
        assert_eq!(of(&variables, "export MEMCHARGE_SHUTDOWN_CONSOLE").as_deref(), Some("text"));
    }

    #[test]
    fn the_console_is_cut_to_what_a_job_can_carry() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("console.log"), [b"a\0b\r\n".as_slice(), &[0xff; 9]].concat()).unwrap();
        assert!(console(dir.path()).unwrap().starts_with("ab\n\u{fffd}"));
        fs::write(dir.path().join("console.log"), [b'x'; CONSOLE_BYTES + 1]).unwrap();
        assert_eq!(console(dir.path()).unwrap().len(), CONSOLE_BYTES);
    }
}
