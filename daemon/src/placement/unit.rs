//! The transient unit of a store, as properties for systemd. Pure.

use std::os::fd::BorrowedFd;

use memcharge_policy::{
    MountName, Target,
    link::{GIVEN_UP, HANDOVER_FDS},
};
use zbus::zvariant::{Fd, Value};

/// The slice of stores whose target is not a unit.
const DEFAULT_SLICE: &str = "system.slice";

/// What groups all stores.
const GROUP: &str = "memcharge.target";

/// A store that has not served by then will not.
const START_LIMIT_USEC: u64 = 60_000_000;

/// A store has nothing to save; with its clean-up this keeps a shutdown below ten seconds.
const STOP_LIMIT_USEC: u64 = 5_000_000;

/// So many files of a mount can be open at once. The kernel doubles a process' table of descriptors in one charge, which
/// must stay below what the store leaves free of its target when it opens a file: 256 KiB, for this number.
const FILE_LIMIT: u64 = 1 << 15;

/// systemd keeps so many descriptors for a store that is killed: those of the handover and the state.
const KEPT_FDS: u32 = HANDOVER_FDS.len() as u32 + 1;

/// How long systemd waits before it starts a store again: clients wait as well. After an error `memcharge-store end` takes
/// its time.
const RESTART_USEC: u64 = 10_000;

/// A store that says nothing for so long is stuck. Its requests show at a quarter of this.
const WATCHDOG_USEC: u64 = 120_000_000;

/// "Never killed by the OOM killer".
const UNKILLABLE: i32 = -1000;

/// What a store may do: be root towards files, and have the kernel pass reads through. Numbers of `linux/capability.h`.
const CAPABILITIES: [(&str, u8); 8] = [
    ("CAP_CHOWN", 0),
    ("CAP_DAC_OVERRIDE", 1),
    ("CAP_DAC_READ_SEARCH", 2),
    ("CAP_FOWNER", 3),
    ("CAP_FSETID", 4),
    ("CAP_SYS_ADMIN", 21),
    ("CAP_MKNOD", 27),
    ("CAP_SETFCAP", 31),
];

/// What a store asks of the kernel: what services do, the size of its tmpfs (`fspick`, `fsconfig`), and files by their
/// handles.
const SYSTEM_CALLS: [&str; 4] = ["@system-service", "fspick", "fsconfig", "open_by_handle_at"];

/// One property of a unit.
pub(crate) type Property<'a> = (&'static str, Value<'a>);

/// What systemd is told about a store.
pub(crate) fn store_properties<'a>(
    name: &MountName,
    target: &Target,
    store: &str,
    stdin: BorrowedFd<'a>,
) -> Vec<Property<'a>> {
    let arguments = |verb: &str| vec![store.to_owned(), verb.to_owned(), name.to_string()];
    let start = vec![(store.to_owned(), arguments("serve"), false)];
    let stop = vec![(store.to_owned(), arguments("stop"), vec!["privileged".to_owned()])];
    let end = vec![(store.to_owned(), arguments("end"), vec!["privileged".to_owned()])];
    let slice = match target {
        Target::Slice(slice) => slice.clone(),
        Target::Service(_) | Target::Scope(_) | Target::Path(_) => DEFAULT_SLICE.to_owned(),
    };
    let mut properties: Vec<Property<'a>> = vec![
        ("Description", format!("memcharge mount {name}, charged to {target}").into()),
        // Keeps the unit until its result was read, should it fail.
        ("AddRef", true.into()),
        ("Type", if matches!(target, Target::Slice(_)) { "notify" } else { "exec" }.into()),
        ("NotifyAccess", "main".into()),
        ("ExecStart", start.into()),
        ("ExecStopEx", stop.into()),
        ("ExecStopPostEx", end.into()),
        ("Slice", slice.into()),
        // `systemctl isolate` stops what the new target does not ask for; data must not go that way.
        ("IgnoreOnIsolate", true.into()),
        ("PartOf", vec![GROUP].into()),
        ("Wants", vec![GROUP].into()),
        // At shutdown a store is what a mount is: it ends when all services have ended that may use it, and before systemd
        // unmounts what is left, which fails on a busy mount. A service's own dependencies would end it at once.
        ("DefaultDependencies", false.into()),
        ("Conflicts", vec!["shutdown.target"].into()),
        ("Before", vec!["basic.target", "shutdown.target"].into()),
        // And whoever stops the group waits for the stores.
        ("After", vec![GROUP, "sysinit.target"].into()),
        ("StandardInputFileDescriptor", Value::Fd(Fd::from(stdin))),
        ("StandardOutput", "journal".into()),
        ("StandardError", "journal".into()),
    ];
    properties.extend(limits());
    properties.extend(sandbox());
    properties
}

/// Takes away what a store has no use for. It lives in a mount namespace of its own, which follows the host's; the mount
/// that it serves is attached by memcharged, on the host. What undoes a mount (`privileged`) leaves it.
///
/// Each of these costs time when a store is started again, while clients wait: no ProtectKernelTunables=, a dozen mounts.
fn sandbox() -> Vec<Property<'static>> {
    let capabilities: u64 = CAPABILITIES.iter().map(|(_, number)| 1 << number).sum();
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    let anywhere = vec![(libc::AF_INET, vec![0u8; 4], 0u32), (libc::AF_INET6, vec![0u8; 16], 0u32)];
    vec![
        ("CapabilityBoundingSet", capabilities.into()),
        ("NoNewPrivileges", true.into()),
        ("ProtectSystem", "strict".into()),
        ("ProtectProc", "invisible".into()),
        ("ProtectKernelModules", true.into()),
        ("ProtectKernelLogs", true.into()),
        ("ProtectClock", true.into()),
        ("ProtectHostname", true.into()),
        ("DevicePolicy", "closed".into()),
        // Clients make device nodes. Nobody opens them here.
        (
            "DeviceAllow",
            vec![("char-*".to_owned(), "m".to_owned()), ("block-*".to_owned(), "m".to_owned())].into(),
        ),
        ("PrivateNetwork", true.into()),
        ("IPAddressDeny", anywhere.into()),
        ("RestrictAddressFamilies", (true, words(&["AF_UNIX"])).into()),
        ("RestrictNamespaces", 0u64.into()),
        ("RestrictRealtime", true.into()),
        ("LockPersonality", true.into()),
        ("MemoryDenyWriteExecute", true.into()),
        ("SystemCallArchitectures", words(&["native"]).into()),
        ("SystemCallFilter", (true, words(&SYSTEM_CALLS)).into()),
        ("SystemCallFilter", (false, words(&["@resources"])).into()),
        ("SystemCallErrorNumber", libc::EPERM.into()),
        ("KeyringMode", "private".into()),
        ("UMask", 0o077u32.into()),
    ]
}

fn limits() -> Vec<Property<'static>> {
    let no_restart = (vec![0i32, i32::from(GIVEN_UP)], Vec::<i32>::new());
    vec![
        ("TimeoutStartUSec", START_LIMIT_USEC.into()),
        ("TimeoutStopUSec", STOP_LIMIT_USEC.into()),
        ("CollectMode", "inactive-or-failed".into()),
        ("KillMode", "mixed".into()),
        // A store that is killed goes on with what systemd keeps. After an end of the mount there is nothing to go on with.
        ("Restart", "always".into()),
        ("RestartUSec", RESTART_USEC.into()),
        ("RestartPreventExitStatus", no_restart.into()),
        // A unit that has failed for good would lose what is kept.
        ("StartLimitIntervalUSec", 0u64.into()),
        ("FileDescriptorStoreMax", KEPT_FDS.into()),
        ("WatchdogUSec", WATCHDOG_USEC.into()),
        ("OOMScoreAdjust", UNKILLABLE.into()),
        ("OOMPolicy", "continue".into()),
        ("MemoryAccounting", true.into()),
        ("MemorySwapMax", 0u64.into()),
        ("LimitMEMLOCK", u64::MAX.into()),
        ("LimitMEMLOCKSoft", u64::MAX.into()),
        ("LimitNOFILE", FILE_LIMIT.into()),
        ("LimitNOFILESoft", FILE_LIMIT.into()),
        ("LimitCORE", 0u64.into()),
        ("LimitCORESoft", 0u64.into()),
    ]
}

/// The object path of a unit, as systemd escapes it.
pub(crate) fn unit_path(unit: &str) -> String {
    unit.bytes().fold("/org/freedesktop/systemd1/unit/".to_owned(), |mut path, byte| {
        let leads = path.ends_with('/');
        if byte.is_ascii_alphabetic() || (byte.is_ascii_digit() && !leads) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("_{byte:02x}"));
        }
        path
    })
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, os::fd::AsFd};

    use super::*;

    fn properties_of(target: &str) -> BTreeMap<&'static str, String> {
        let name = "m.1".parse().unwrap();
        let stdin = std::io::stdin();
        store_properties(&name, &target.parse().unwrap(), "/usr/libexec/store", stdin.as_fd())
            .into_iter()
            .map(|(key, value)| (key, format!("{} {value}", value.value_signature())))
            .collect()
    }

    #[test]
    fn properties_have_the_types_that_systemd_takes() {
        let properties = properties_of("a-b.slice");
        for (key, expected) in [
            (
                "ExecStart",
                r#"a(sasb) [("/usr/libexec/store", ["/usr/libexec/store", "serve", "m.1"], false)]"#,
            ),
            (
                "ExecStopPostEx",
                r#"a(sasas) [("/usr/libexec/store", ["/usr/libexec/store", "end", "m.1"], ["privileged"])]"#,
            ),
            ("Slice", r#"s "a-b.slice""#),
            ("RestartPreventExitStatus", "(aiai) ([0, 70], @ai [])"),
            ("FileDescriptorStoreMax", "u uint32 8"),
            ("PartOf", r#"as ["memcharge.target"]"#),
            ("DefaultDependencies", "b false"),
            ("OOMScoreAdjust", "i -1000"),
            ("MemorySwapMax", "t uint64 0"),
            ("LimitMEMLOCK", "t uint64 18446744073709551615"),
            ("MemoryAccounting", "b true"),
            ("CapabilityBoundingSet", "t uint64 2283798559"),
            ("RestrictAddressFamilies", r#"(bas) (true, ["AF_UNIX"])"#),
            ("RestrictNamespaces", "t uint64 0"),
            ("SystemCallErrorNumber", "i 1"),
            ("UMask", "u uint32 63"),
        ] {
            assert_eq!(properties.get(key).map(String::as_str), Some(expected), "{key}");
        }
        assert!(properties["StandardInputFileDescriptor"].starts_with('h'));
        assert!(properties["IPAddressDeny"].starts_with("a(iayu) [(2, ["));
    }

    #[test]
    fn a_bare_cgroup_has_its_store_started_elsewhere() {
        assert_eq!(properties_of("/pods/a")["Slice"], r#"s "system.slice""#);
        assert_eq!(properties_of("/pods/a")["Type"], r#"s "exec""#);
    }

    #[test]
    fn unit_paths() {
        for (unit, path) in [
            ("a.slice", "/org/freedesktop/systemd1/unit/a_2eslice"),
            ("memcharge-store-0.service", "/org/freedesktop/systemd1/unit/memcharge_2dstore_2d0_2eservice"),
            ("0.slice", "/org/freedesktop/systemd1/unit/_30_2eslice"),
        ] {
            assert_eq!(unit_path(unit), path);
        }
    }
}
