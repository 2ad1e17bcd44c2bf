//! The Debian package.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context, Result, bail};

use crate::{
    run::{cargo, root, run, say, target},
    tools,
};

/// The crates whose programs the package holds.
const PROGRAMS: [&str; 3] = ["memcharged", "memchargectl", "memcharge-store"];

/// What else goes into the package, below the root.
const SOURCES: [&str; 11] = [
    "systemd",
    "config/etc",
    "config/examples",
    "client/completions",
    "dbus-interfaces/bus",
    "dbus-interfaces/polkit",
    "dbus-interfaces/xml",
    "daemon/Cargo.toml",
    "daemon/debian",
    "README.md",
    "docs",
];

/// Builds the programs and packs them, if anything has changed. Returns the package's path.
pub(crate) fn build() -> Result<PathBuf> {
    say("building the programs");
    let packages = PROGRAMS.iter().flat_map(|name| ["--package", name]);
    run(cargo(["build", "--release", "--quiet"]).args(packages))?;
    let directory = target().join("debian");
    let binaries = PROGRAMS.iter().map(|name| target().join("release").join(name));
    let newest_input = binaries
        .chain(SOURCES.iter().map(|source| root().join(source)))
        .map(|p| newest(&p))
        .collect::<Result<Vec<_>>>()?;
    let newest_input = newest_input.into_iter().max().unwrap_or(SystemTime::UNIX_EPOCH);
    if let Some(package) = find(&directory)?
        && newest(&package)? > newest_input
    {
        return Ok(package);
    }
    let program = tools::get(&tools::CARGO_DEB)?;
    say("packing the Debian package");
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    for old in packages_in(&directory)? {
        fs::remove_file(&old).with_context(|| format!("cannot remove {}", old.display()))?;
    }
    let mut pack = tools::subcommand(&program, "deb");
    pack.stdout(std::process::Stdio::null());
    // The programs are stripped by their build profile; packing leaves them as they were tested.
    run(pack
        .args(["--package", "memcharged", "--no-build", "--no-strip", "--quiet", "--output"])
        .arg(&directory))?;
    find(&directory)?.context("cargo deb made no package")
}

fn newest(path: &Path) -> Result<SystemTime> {
    let metadata = fs::metadata(path).with_context(|| format!("cannot inspect {}", path.display()))?;
    let mut newest = metadata.modified()?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            newest = newest.max(self::newest(&entry?.path())?);
        }
    }
    Ok(newest)
}

fn packages_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let Ok(entries) = fs::read_dir(directory) else { return Ok(Vec::new()) };
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    Ok(paths
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .collect())
}

fn find(directory: &Path) -> Result<Option<PathBuf>> {
    let mut packages = packages_in(directory)?;
    if packages.len() > 1 {
        bail!("{} holds several packages; remove them", directory.display());
    }
    Ok(packages.pop())
}
