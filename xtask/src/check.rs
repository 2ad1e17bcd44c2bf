//! Tests and checks.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    codegen, deb, fuzz,
    run::{cargo, root, run, run_and_find, say, target},
    tools,
};

/// What to test.
#[derive(Args)]
pub(crate) struct TestArgs {
    /// Only tests whose names contain this.
    filter: Option<String>,
    /// Also the long ones, which take an hour.
    #[arg(long)]
    nightly: bool,
}

/// Runs all tests; as many VMs at once as there are processors.
pub(crate) fn test(arguments: &TestArgs) -> Result<ExitCode> {
    let package = deb::build()?;
    let pjdfstest = tools::get(&tools::PJDFSTEST)?;
    let fsx = tools::get(&tools::FSX)?;
    let (daemon, store) = faulty_programs()?;
    let mut tests = cargo(["test", "--workspace", "--all-targets", "--no-fail-fast", "--quiet"]);
    tests.env("MEMCHARGE_DEB", package).env("MEMCHARGE_PJDFSTEST", pjdfstest).env("MEMCHARGE_FSX", fsx);
    tests.env("MEMCHARGE_FAULTY_DAEMON", daemon).env("MEMCHARGE_FAULTY_STORE", store);
    tests.arg("--").args(arguments.filter.as_slice());
    if arguments.nightly {
        tests.arg("--include-ignored");
    }
    run_and_find(&mut tests, panics)?;
    Ok(ExitCode::SUCCESS)
}

/// Where tests have panicked and why, out of all that they said, which is thousands of lines.
fn panics(said: &str) -> String {
    /// The two sides of an `assert_eq!` stand below its message.
    const LINES: usize = 4;
    let lines: Vec<&str> = said.lines().collect();
    let at = (0..lines.len()).filter(|&at| lines[at].contains("panicked at "));
    at.flat_map(|at| &lines[at..lines.len().min(at + LINES)]).copied().collect::<Vec<_>>().join("\n")
}

/// Builds the daemon and the store once more, as programs that die where a test wants it.
fn faulty_programs() -> Result<(PathBuf, PathBuf)> {
    let programs = ["memcharged", "memcharge-store"];
    let packages = programs.iter().flat_map(|name| ["--package", name]);
    run(cargo(["build", "--quiet", "--features", "faults"]).args(packages))?;
    // The tests' own build puts programs without faults in their places.
    let kept = target().join("faulty");
    fs::create_dir_all(&kept).with_context(|| format!("cannot make {}", kept.display()))?;
    let keep = |name: &str| {
        let (from, to) = (target().join("debug").join(name), kept.join(name));
        fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        Ok::<_, anyhow::Error>(to)
    };
    let [daemon, store] = programs.map(keep);
    let (daemon, store) = (daemon?, store?);
    Ok((daemon, store))
}

/// Runs all that CI runs. Everything is tried; what failed is listed at the end.
pub(crate) fn check() -> Result<ExitCode> {
    let mut failed = Vec::new();
    let mut step = |name: &'static str, result: Result<()>| {
        if let Err(e) = result {
            say(&format!("{name}: {e:#}"));
            failed.push(name);
        }
    };
    say("format, generated files, licences, lints, docs");
    step("format", run(&mut cargo(["fmt", "--all", "--check"])));
    step("format of fuzz", run(&mut cargo(["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"])));
    step("generated files", codegen::run(&root(), true).map_err(|e| anyhow::anyhow!("{e}")));
    step("licences", licences());
    step(
        "lints",
        run(&mut cargo(["clippy", "--workspace", "--all-targets", "--quiet", "--", "--deny", "warnings"])),
    );
    let mut docs = cargo(["doc", "--workspace", "--no-deps", "--document-private-items", "--quiet"]);
    step("docs", run(docs.env("RUSTDOCFLAGS", "--deny warnings")));
    say("tests");
    step("tests", test(&TestArgs { filter: None, nightly: false }).map(drop));
    say("fuzzing");
    let all = fuzz::FuzzArgs { targets: Vec::new(), seconds: fuzz::IN_CHECK };
    step("fuzzing", fuzz::fuzz(&all).map(drop));
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    say("all checks passed");
    Ok(ExitCode::SUCCESS)
}

/// Advisories need a database from the network that a build machine may not reach: they are not part of this.
fn licences() -> Result<()> {
    let program = tools::get(&tools::CARGO_DENY)?;
    run(tools::subcommand(&program, "--workspace").args(["check", "licenses", "bans", "sources"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_are_found() {
        let said =
            "..F.\nthread 'a' panicked at b.rs:1:2:\nassertion failed\n  left: 1\n right: 2\nnote: more\n";
        assert_eq!(panics(said), "thread 'a' panicked at b.rs:1:2:\nassertion failed\n  left: 1\n right: 2");
        assert_eq!(panics("thread 'a' panicked at b.rs:1:2:"), "thread 'a' panicked at b.rs:1:2:");
        assert_eq!(panics("........ok\n"), "");
    }
}
