//! Mounts made by a test.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test fails by a panic.

use std::{fs, path::Path};

use serde_json::Value;

use crate::{
    cgroup::Cg,
    service::{ctl, start_daemon},
};

/// A mount with a name, at /run/shared/NAME.
#[derive(Debug)]
pub struct Mount {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub place: String,
}

impl Mount {
    /// Starts the daemon and makes a mount whose pages `target` pays for. `more`: further arguments of
    /// `memchargectl mount`.
    pub fn make(name: &str, target: &str, more: &[&str]) -> Self {
        start_daemon();
        let place = format!("/run/shared/{name}");
        let words = ["mount", name, "--where", &place, "--target", target];
        let _ = ctl(&[&words, more].concat()).ok();
        Self { name: name.to_owned(), place }
    }

    /// A path below the mount.
    pub fn join(&self, path: &str) -> String {
        format!("{}/{path}", self.place)
    }

    /// All properties, as `memchargectl show --json` gives them.
    pub fn properties(&self) -> Value {
        serde_json::from_str(&ctl(&["--json", "show", &self.name]).ok().out).unwrap()
    }

    /// A property that is a number.
    pub fn number(&self, property: &str) -> u64 {
        let properties = self.properties();
        properties[property].as_u64().unwrap_or_else(|| unreachable!("{property} in {properties}"))
    }

    /// The store's process.
    pub fn store(&self) -> u32 {
        u32::try_from(self.number("store_pid")).unwrap()
    }

    /// The store's cgroup.
    pub fn leaf(&self) -> Cg {
        let text = fs::read_to_string(format!("/proc/{}/cgroup", self.store())).unwrap();
        Cg::at(text.trim().strip_prefix("0::").unwrap())
    }

    /// Ends it.
    pub fn unmount(self) {
        let _ = ctl(&["unmount", &self.name]).ok();
    }
}

/// Whether anything of a mount is left: the mount, its unit, its files in /run, its directory.
pub fn leftovers(name: &str, place: &str) -> Vec<String> {
    let mut left = Vec::new();
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let own = |line: &&str| line.contains("fuse.memcharge") && line.contains(&format!(" {place} "));
    left.extend(mountinfo.lines().filter(own).map(str::to_owned));
    let units = crate::service::run(&[
        "systemctl",
        "list-units",
        "--all",
        "--plain",
        "--no-legend",
        "memcharge-store-*",
    ]);
    left.extend(
        units.out.lines().filter(|line| line.contains(&format!("-{name}.service "))).map(str::to_owned),
    );
    for path in [
        format!("/run/memcharge/mounts/{name}.json"),
        format!("/run/memcharge/stores/{name}.sock"),
        place.to_owned(),
    ] {
        if Path::new(&path).exists() {
            left.push(path);
        }
    }
    let stores = crate::service::sh(&format!("pgrep -af 'memcharge-store serve {name}$'"));
    left.extend(stores.out.lines().filter(|line| !line.contains("bash")).map(str::to_owned));
    left
}
