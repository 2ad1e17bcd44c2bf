//! What the host has to have: an x86-64 processor, QEMU and the tools that build an image, and a Debian mirror.

use std::{env, fs, path::Path, time::Duration};

use crate::{
    cache::Cache,
    error::VmError,
    process,
    progress::{Progress, Say},
};

const PACKAGES: [&str; 9] = [
    "qemu-system-x86",
    "mmdebstrap",
    "debian-archive-keyring",
    "e2fsprogs",
    "cpio",
    "kmod",
    "xz-utils",
    "zstd",
    "lz4",
];
pub(crate) const QEMU: &str = "qemu-system-x86_64";
const TOOLS: [&str; 11] = [
    QEMU,
    "mmdebstrap",
    "mkfs.ext4",
    "cpio",
    "depmod",
    "modprobe",
    "xz",
    "zstd",
    "lz4",
    "setpriv",
    "unshare",
];
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const UPDATE_LIMIT: Duration = Duration::from_secs(300);
const INSTALL_LIMIT: Duration = Duration::from_secs(900);

/// Where Debian's packages come from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mirror {
    pub(crate) main: String,
    pub(crate) security: String,
}

/// The cache, on a machine that has what a VM needs: what is missing is installed if this process may do that.
pub(crate) fn ready_cache(say: Say<'_>) -> Result<Cache, VmError> {
    if cfg!(not(all(target_arch = "x86_64", target_os = "linux"))) {
        return Err(VmError::unavailable("the VM runs on x86-64 Linux only"));
    }
    let cache = Cache::open()?;
    if !missing().is_empty() {
        install(&PACKAGES, &missing, say)?;
    }
    Ok(cache)
}

/// Sees to it that the host has a program, for whatever needs it: where it is missing its Debian package is installed, if
/// this process may do that.
pub fn need(program: &str, package: &str, say: Say<'_>) -> Result<(), VmError> {
    let missing = || if process::exists(program) { Vec::new() } else { vec![program.to_owned()] };
    if missing().is_empty() { Ok(()) } else { install(&[package], &missing, say) }
}

/// The mirror of MEMCHARGE_VM_MIRROR (an address with debian and debian-security below it), or of the machine's own apt.
pub(crate) fn mirror() -> Result<Mirror, VmError> {
    let none = "no Debian mirror in this machine's apt sources; name one in MEMCHARGE_VM_MIRROR, such that debian and \
                debian-security are below that address";
    if let Some(base) = env::var("MEMCHARGE_VM_MIRROR").ok().filter(|base| !base.is_empty()) {
        return Ok(below(&base));
    }
    let listed = process::output(process::command("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI)",
        "Identifier: Packages",
    ]));
    listed.ok().as_deref().and_then(parse_mirror).ok_or_else(|| VmError::unavailable(none))
}

/// What an emulated machine's behaviour depends on: QEMU's version, and the processor (its clock rate is a part of a frozen
/// machine).
pub(crate) fn fingerprint() -> Result<String, VmError> {
    let qemu = process::output(process::command(QEMU).arg("--version"))?;
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = ["model name", "flags"].map(|key| cpuinfo.lines().find(|line| line.starts_with(key)));
    Ok(processor.iter().flatten().fold(qemu, |all, line| all + line + "\n"))
}

fn missing() -> Vec<String> {
    let mut missing: Vec<&str> = TOOLS.into_iter().filter(|tool| !process::exists(tool)).collect();
    if !Path::new(KEYRING).exists() {
        missing.push("debian-archive-keyring");
    }
    missing.into_iter().map(str::to_owned).collect()
}

/// Installs packages, if this process may do that. `missing`: the programs that they are for.
fn install(packages: &[&str], missing: &dyn Fn() -> Vec<String>, say: Say<'_>) -> Result<(), VmError> {
    let by_hand = format!("apt-get install --no-install-recommends {}", packages.join(" "));
    let refuse = |why: &str| {
        VmError::unavailable(format!("{} missing, {why}\nas root: {by_hand}", missing().join(" ")))
    };
    if !rustix::process::geteuid().is_root() {
        return Err(refuse("and this is not root"));
    }
    if !process::exists("apt-get") {
        return Err(refuse("and there is no apt-get"));
    }
    let scratch = Cache::open()?.scratch()?;
    let log = scratch.path().join("apt.log");
    let apt = |arguments: &[&str], limit, what: &str| {
        let mut command = process::command("apt-get");
        command
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["-y", "-o", "DPkg::Lock::Timeout=120"])
            .args(arguments);
        match process::run_logged(&mut command, &log, limit, Progress::new(what, say)) {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("{status}\n{}", process::tail(&log))),
            Err(e) => Err(e.to_string()),
        }
    };
    let arguments = [&["install", "--no-install-recommends"], packages].concat();
    let what = format!("installing {}", packages.join(" "));
    if apt(&arguments, INSTALL_LIMIT, &what).is_err() {
        apt(&["update"], UPDATE_LIMIT, "updating apt's package lists")
            .and_then(|()| apt(&arguments, INSTALL_LIMIT, &what))
            .map_err(|e| refuse(&format!("and apt-get cannot install it: {e}")))?;
    }
    if missing().is_empty() { Ok(()) } else { Err(refuse("although apt-get installed it")) }
}

fn below(base: &str) -> Mirror {
    let base = base.trim_end_matches('/');
    Mirror { main: format!("{base}/debian"), security: format!("{base}/debian-security") }
}

/// The mirror among the addresses that `apt-get indextargets` lists.
fn parse_mirror(listed: &str) -> Option<Mirror> {
    let ending =
        |end: &str| listed.lines().map(|uri| uri.trim().trim_end_matches('/')).find(|uri| uri.ends_with(end));
    let main = ending("/debian")?;
    let guess = below(main.trim_end_matches("/debian"));
    Some(Mirror {
        main: main.to_owned(),
        security: ending("/debian-security").map_or(guess.security, str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror_of(main: &str, security: &str) -> Option<Mirror> {
        Some(Mirror { main: main.to_owned(), security: security.to_owned() })
    }

    #[test]
    fn the_mirror_is_found_among_other_sources() {
        let listed = "http://x/node\nhttp://m/debian/\nhttp://s/debian-security/\nhttp://m/debian/\n";
        assert_eq!(parse_mirror(listed), mirror_of("http://m/debian", "http://s/debian-security"));
        assert_eq!(
            parse_mirror("https://m/a/debian\n"),
            mirror_of("https://m/a/debian", "https://m/a/debian-security")
        );
        assert_eq!(parse_mirror("http://m/ubuntu/\n"), None);
        assert_eq!(parse_mirror(""), None);
    }
}
