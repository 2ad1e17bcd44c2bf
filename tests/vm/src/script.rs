//! What the agent runs: a header by which it knows a new job, shell variables, and one of the two job scripts.

use std::{
    fs::File,
    io::Read,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{
    error::{Context, VmError},
    process::quoted,
    reboot::Phase,
    spec::Job,
};

const JOB: &str = include_str!("guest/job.sh");
/// Part of a layer's key: what it does is in the frozen state.
pub(crate) const INSTALL: &str = include_str!("guest/install.sh");
/// From the writing of the script to the setting of the clock by it, for a thawed machine.
const THAW: Duration = Duration::from_millis(600);
const WORD_BYTES: usize = 12;
/// How long a job's on_failure command may take.
pub(crate) const ON_FAILURE_LIMIT: Duration = Duration::from_secs(60);

/// A word that no output contains by chance, 24 digits; the agent reads as many.
pub(crate) fn random_word() -> Result<String, VmError> {
    let source = Path::new("/dev/urandom");
    let mut bytes = [0; WORD_BYTES];
    File::open(source).and_then(|mut f| f.read_exact(&mut bytes)).at("cannot read", source)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The script that runs one of the job's commands. No limit if the job's time is zero.
pub(crate) fn job(word: &str, job: &Job, phase: &Phase) -> Result<String, VmError> {
    let on_failure = job.on_failure.as_deref().unwrap_or_default();
    let command = phase.command(job);
    if command.contains('\0') || on_failure.contains('\0') {
        return Err(VmError::Invalid { reason: "a command cannot have a NUL character".into() });
    }
    let mut variables = vec![
        ("limit", seconds(job.timeout)),
        ("command", command.to_owned()),
        ("on_failure", on_failure.to_owned()),
        ("on_failure_limit", seconds(ON_FAILURE_LIMIT)),
        ("want_out", if job.out_dir.is_some() { "yes" } else { "no" }.to_owned()),
        ("swap_mb", job.swap_mb.unwrap_or(0).to_string()),
    ];
    variables.extend(phase.variables(job));
    Ok(assemble(word, &variables, JOB))
}

/// The script that installs the packages on the disk `files`.
pub(crate) fn install(word: &str, limit: Duration) -> String {
    assemble(word, &[("limit", seconds(limit))], INSTALL)
}

fn assemble(word: &str, variables: &[(&str, String)], script: &str) -> String {
    let now = (SystemTime::now() + THAW).duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut text = format!("#!memcharge {word}\nnonce={word}\nnow={now}\n");
    for (name, value) in variables {
        text += &format!("{name}={}\n", quoted(value));
    }
    text + script
}

fn seconds(duration: Duration) -> String {
    format!("{:.3}", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Guest;

    #[test]
    fn the_header_is_as_long_as_the_agent_reads() {
        let word = random_word().unwrap();
        let text = install(&word, Duration::from_secs(1));
        assert_eq!(text.lines().next().unwrap().len(), 36);
        assert!(include_str!("guest/agent.sh").contains("bs=36 count=1"));
        assert_ne!(word, random_word().unwrap());
    }

    #[test]
    fn the_command_is_quoted() {
        let mut wanted = Job::new(Guest::default(), "echo 'a b'; exit 3");
        wanted.timeout = Duration::from_millis(1500);
        let first = Phase::default();
        let text = job("w", &wanted, &first).unwrap();
        assert!(text.contains("command='echo '\\''a b'\\''; exit 3'\n"));
        assert!(text.contains("limit='1.500'\n"));
        assert!(job("w", &Job::new(Guest::default(), "a\0b"), &first).is_err());
    }
}
