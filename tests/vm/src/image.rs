//! The root image: built once per suite, kernel, package list and recipe.

use std::{fs, path::Path, time::Duration};

use crate::{
    cache::{self, Cache, Entry},
    error::{Context, VmError},
    host, process,
    progress::{Progress, Say},
    spec::Image,
};

const RECIPE: &str = include_str!("guest/image.sh");
const AGENT: &str = include_str!("guest/agent.sh");
const BASE_PACKAGES: [&str; 8] =
    ["systemd", "systemd-sysv", "libnss-systemd", "dbus", "kmod", "busybox-static", "fuse3", "procps"];
/// The recipe's exit status when the mirror is the reason.
const NO_MIRROR: i32 = 69;
const BUILD_LIMIT: Duration = Duration::from_secs(1200);

/// The image's entry in the cache: vmlinux, initrd, root.img and manifest.
pub(crate) fn get(cache: &Cache, image: &Image, say: Say<'_>) -> Result<Entry, VmError> {
    let packages = packages(image)?;
    let kernel = image.kernel_package()?;
    cache.entry(&name(image, &packages), say, |dir| build(dir, image, kernel, &packages, say))
}

fn build(dir: &Path, image: &Image, kernel: &str, packages: &str, say: Say<'_>) -> Result<(), VmError> {
    if !rustix::process::geteuid().is_root() {
        return Err(VmError::unavailable(
            "the root image can be built by root only; run this once as root with MEMCHARGE_VM_CACHE set to a \
             directory of yours, then give that to yourself with chown -R",
        ));
    }
    let mirror = host::mirror()?;
    let (agent, log) = (dir.join("agent"), dir.join("build.log"));
    fs::write(&agent, AGENT).at("cannot write", &agent)?;
    let suite = image.suite.name();
    let what = format!("building the root image ({suite}, kernel {})", image.kernel.name());
    // In a PID namespace of its own: the package manager's processes end with the shell, and the shell with us.
    let mut command = process::bound_command("unshare");
    command.args(["--pid", "--fork", "--kill-child", "bash", "-c", RECIPE]);
    command.envs([("TMP", dir), ("AGENT", &agent)].map(|(name, path)| (name, path.as_os_str())));
    command.envs([("SUITE", suite), ("META", kernel), ("PACKAGES", packages)]);
    command.envs([("MIRROR", &mirror.main), ("SECURITY", &mirror.security)]);
    let status = process::run_logged(&mut command, &log, BUILD_LIMIT, Progress::new(&what, say))?;
    match status.code() {
        Some(0) => fs::remove_file(&agent).at("cannot remove", &agent),
        Some(NO_MIRROR) => Err(VmError::unavailable(format!("the mirror {} cannot be reached", mirror.main))),
        _ => Err(VmError::failed(format!("{what}: {status}"), process::tail(&log))),
    }
}

/// All packages, each once, in order.
fn packages(image: &Image) -> Result<String, VmError> {
    let mut all: Vec<&str> =
        BASE_PACKAGES.into_iter().chain(image.packages.iter().map(String::as_str)).collect();
    let valid = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c))
    };
    if let Some(name) = all.iter().find(|name| !valid(name)) {
        return Err(VmError::Invalid { reason: format!("{name:?} is not the name of a Debian package") });
    }
    all.sort_unstable();
    all.dedup();
    Ok(all.join(" "))
}

fn name(image: &Image, packages: &str) -> String {
    let (suite, kernel) = (image.suite.name(), image.kernel.name());
    let recipe = cache::key([suite, kernel, packages, RECIPE, AGENT]);
    format!("image-{suite}-{kernel}-{}-{recipe}", cache::key([packages]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Kernel, Suite};

    fn name_of(suite: Suite, kernel: Kernel, extra: &[&str]) -> String {
        let image = Image { suite, kernel, packages: extra.iter().map(|p| (*p).to_owned()).collect() };
        name(&image, &packages(&image).unwrap())
    }

    #[test]
    fn the_name_depends_on_all_but_the_order_of_packages() {
        let plain = name_of(Suite::Trixie, Kernel::V6_12, &[]);
        assert!(plain.starts_with("image-trixie-6.12-"));
        assert_eq!(plain, name_of(Suite::Trixie, Kernel::V6_12, &["dbus", "dbus"]));
        assert_ne!(plain, name_of(Suite::Bookworm, Kernel::V6_12, &[]));
        assert_ne!(plain, name_of(Suite::Trixie, Kernel::V6_12, &["stress-ng"]));
        assert_eq!(
            name_of(Suite::Trixie, Kernel::V6_12, &["udev", "stress-ng"]),
            name_of(Suite::Trixie, Kernel::V6_12, &["stress-ng", "udev"])
        );
    }

    #[test]
    fn odd_package_names_and_pairs_are_refused() {
        for bad in ["", "a b", "--x", "a,b", "$(id)", "Upper"] {
            assert!(packages(&Image { packages: vec![bad.into()], ..Image::default() }).is_err(), "{bad}");
        }
        assert!(Image { kernel: Kernel::V6_1, ..Image::default() }.kernel_package().is_err());
    }
}
