//! Programs built from other crates, which a Rust toolchain does not bring: used where they are installed, else built
//! once per user.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::run::{cargo, run, say, target};

/// A tool: the crate, its program, and the version that is built where there is none.
pub(crate) struct Tool {
    krate: &'static str,
    program: &'static str,
    version: &'static str,
    what_for: &'static str,
    /// Optimised only where tests wait for its work.
    profile: &'static str,
}

/// Makes Debian packages.
pub(crate) const CARGO_DEB: Tool = Tool {
    krate: "cargo-deb",
    program: "cargo-deb",
    version: "^3",
    what_for: "the Debian package",
    profile: "dev",
};

/// Checks licences and sources of dependencies.
pub(crate) const CARGO_DENY: Tool = Tool {
    krate: "cargo-deny",
    program: "cargo-deny",
    version: "^0.19",
    what_for: "the licence check",
    profile: "dev",
};

/// Builds programs with the instruments of libFuzzer, and runs them.
pub(crate) const CARGO_FUZZ: Tool = Tool {
    krate: "cargo-fuzz",
    program: "cargo-fuzz",
    version: "^0.13",
    what_for: "fuzzing",
    profile: "dev",
};

/// The POSIX conformance suite.
pub(crate) const PJDFSTEST: Tool = Tool {
    krate: "pjdfstest",
    program: "pjdfstest",
    version: "^0.2",
    what_for: "the POSIX conformance tests",
    profile: "release",
};

/// The file system exerciser.
pub(crate) const FSX: Tool = Tool {
    krate: "fsx",
    program: "fsx",
    version: "^0.3",
    what_for: "random file operations",
    profile: "release",
};

/// The tool's program, built if need be.
pub(crate) fn get(tool: &Tool) -> Result<PathBuf> {
    let tools = directory(tool);
    let own = tools.join("bin").join(tool.program);
    if own.exists() {
        return Ok(own);
    }
    if let Some(installed) = in_path(tool.program) {
        return Ok(installed);
    }
    say(&format!("building {} for {} (once, a few minutes)", tool.krate, tool.what_for));
    let mut install = cargo(["install", "--quiet", "--locked", "--version", tool.version, tool.krate]);
    install.args(["--profile", tool.profile, "--root"]).arg(&tools);
    run(install.env_remove("CARGO_TARGET_DIR").env("CARGO_PROFILE_DEV_DEBUG", "false"))?;
    Ok(own)
}

/// Where the tool is kept.
fn directory(tool: &Tool) -> PathBuf {
    cache("memcharge-tools").join(format!("{}-{}", tool.krate, tool.version.trim_start_matches('^')))
}

/// A directory of the user's for what takes long to make: outside the checkout, so that a new one has it too.
pub(crate) fn cache(name: &str) -> PathBuf {
    let path = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = path("XDG_CACHE_HOME").or_else(|| Some(path("HOME")?.join(".cache")));
    cache.unwrap_or_else(target).join(name)
}

/// A command for a cargo subcommand that [`get`] has found.
pub(crate) fn subcommand(program: &Path, name: &str) -> Command {
    let mut command = Command::new(program);
    command.arg(name).current_dir(crate::run::root());
    command
}

fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.is_file())
}
