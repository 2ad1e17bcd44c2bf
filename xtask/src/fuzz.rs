//! Fuzzing: libFuzzer makes input from what has reached new code before, until a target panics or the time is over.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    run::{quietly, root, run, say, target},
    tools,
};

/// How long fuzzing takes as a part of `check`, in seconds: enough to find what a change has just broken.
pub(crate) const IN_CHECK: u64 = 30;

/// Longer input takes its time and reaches nothing new.
const LONGEST_INPUT: &str = "-max_len=4096";

/// One input may take so many seconds.
const SLOWEST_INPUT: &str = "-timeout=10";

/// What to fuzz, and for how long.
#[derive(Args)]
pub(crate) struct FuzzArgs {
    /// The targets, by the names of the files in fuzz/targets; without any, all of them.
    pub(crate) targets: Vec<String>,
    /// Seconds for all of them together.
    #[arg(long, default_value_t = IN_CHECK)]
    pub(crate) seconds: u64,
}

/// Runs the targets one after the other. An input that makes one panic is kept in fuzz/artifacts.
pub(crate) fn fuzz(arguments: &FuzzArgs) -> Result<ExitCode> {
    let all = targets()?;
    if let Some(unknown) = arguments.targets.iter().find(|name| !all.contains(name)) {
        bail!("there is no target {unknown}; the targets are {}", all.join(", "));
    }
    let wanted = if arguments.targets.is_empty() { &all } else { &arguments.targets };
    memcharge_vm::need("c++", "g++", &say)?;
    let program = tools::get(&tools::CARGO_FUZZ)?;
    say("building the fuzz targets");
    run(&mut cargo_fuzz(&program, "build"))?;
    // No time at all would mean no end.
    let each = (arguments.seconds / wanted.len() as u64).max(1);
    let mut failed = Vec::new();
    for name in wanted {
        say(&format!("fuzzing {name} for {each} s"));
        if let Err(e) = run_target(&program, name, each) {
            say(&format!("{e:#}"));
            failed.push(name.as_str());
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(ExitCode::SUCCESS)
}

fn run_target(program: &Path, name: &str, seconds: u64) -> Result<()> {
    // What is found stays for the next time, on this machine. The seeds, which all have, are never added to.
    let found = tools::cache("memcharge-fuzz").join(name);
    fs::create_dir_all(&found).with_context(|| format!("cannot make {}", found.display()))?;
    let seeds = root().join("fuzz/corpus").join(name);
    let mut command = cargo_fuzz(program, "run");
    command.arg(name).arg(found).arg(seeds).args(["--", "-verbosity=0", LONGEST_INPUT, SLOWEST_INPUT]);
    // libFuzzer tells pages of what it has learnt, which matter when it has found something.
    quietly(command.arg(format!("-max_total_time={seconds}")))
}

/// A subcommand of cargo-fuzz for this project. `--sanitizer none`: the others need a nightly compiler, and what is fuzzed
/// here has no unsafe code that they could find anything in.
fn cargo_fuzz(program: &Path, name: &str) -> Command {
    let mut command = tools::subcommand(program, "fuzz");
    command.args([name, "--fuzz-dir", "fuzz", "--sanitizer", "none", "--dev", "--target-dir"]);
    command.arg(target().join("fuzz"));
    command.env("CARGO_TERM_QUIET", "true");
    command
}

/// The names of all targets, sorted.
fn targets() -> Result<Vec<String>> {
    let directory = root().join("fuzz/targets");
    let entries = fs::read_dir(&directory).with_context(|| format!("cannot list {}", directory.display()))?;
    let name = |path: PathBuf| Some(path.file_stem()?.to_string_lossy().into_owned());
    let mut names = entries
        .map(|entry| Ok(name(entry?.path())))
        .filter_map(Result::transpose)
        .collect::<Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_target_is_built_and_has_seeds() {
        let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml")).unwrap();
        let built: Vec<_> = manifest
            .lines()
            .filter_map(|line| line.strip_prefix("path = \"targets/")?.strip_suffix(".rs\""))
            .collect();
        let mut sorted = built.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, targets().unwrap());
        for name in built {
            let seeds = fs::read_dir(root().join("fuzz/corpus").join(name)).unwrap().count();
            assert!(seeds > 0, "{name} has no seeds");
        }
    }
}
