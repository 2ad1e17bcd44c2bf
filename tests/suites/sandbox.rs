//! What memcharged and the stores may do, and that mounts are on the host in spite of it.

use std::{collections::BTreeSet, fs};

use memcharge_tests::{
    cgroup::{Cg, MIB},
    client::{Waiting, report},
    host::{BOOKWORM, PLAIN},
    mount::{Mount, leftovers},
    service::{ctl, run, sh, start_daemon, unit_property},
    vm_tests,
};

const OPERATIONS: &str = include_str!("../../docs/operations.md");

/// What `systemd-analyze security` finds fault with, as it names it.
fn faults(unit: &str) -> BTreeSet<String> {
    let table = run(&["systemd-analyze", "security", "--no-pager", unit]).ok().out;
    println!("{table}");
    let faults = table.lines().filter_map(|line| line.strip_prefix("✗ "));
    faults.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

/// What docs/operations.md explains in this column of its table.
fn explained(column: usize) -> BTreeSet<String> {
    let (_, table) = OPERATIONS.split_once("### What the sandbox leaves open").unwrap();
    let rows = table.lines().filter(|line| line.starts_with('|')).map(|line| line.replace("\\|", "\0"));
    let cells = rows.map(|row| row.split('|').map(|cell| cell.trim().replace('\0', "|")).collect::<Vec<_>>());
    let explained = cells.filter(|cells| !cells[column].is_empty());
    explained
        .flat_map(|cells| {
            cells[1].split(", ").map(|name| name.trim_matches('`').to_owned()).collect::<Vec<_>>()
        })
        .collect()
}

fn exposure() {
    Cg::make("/t").max(64 * MIB);
    let mounts =
        [("raw", "/t"), ("slice", "models.slice")].map(|(name, target)| Mount::make(name, target, &[]));
    for (unit, threshold, column) in [
        ("memcharged.service", "--threshold=30", 2),
        ("memcharge-store-raw.service", "--threshold=26", 3),
        ("memcharge-store-slice.service", "--threshold=26", 3),
    ] {
        let explained = explained(column);
        let faults = faults(unit);
        assert!(faults.contains("User=/DynamicUser="), "{faults:?}");
        for fault in faults {
            assert!(explained.contains(&fault), "docs/operations.md does not explain {fault} of {unit}");
        }
        let _ = run(&["systemd-analyze", "security", "--no-pager", threshold, unit]).ok();
    }
    for mount in mounts {
        let node = sh(&format!("mknod {0}/node b 7 0 && stat -c %t {0}/node", mount.place)).ok();
        assert_eq!(node.out.trim(), "7", "clients make devices");
        mount.unmount();
    }
}

vm_tests! { PLAIN;
    /// The sandbox is as tight as documented, and what it leaves open is explained.
    fn what_is_left_open_is_explained() {
        exposure();
    }

    /// Mounts are on the host, also where the sandbox hides it from memcharged, and go from there.
    fn mounts_are_on_the_host() {
        Cg::make("/t").max(64 * MIB);
        start_daemon();
        let _ = sh("mkdir /private && mount -t tmpfs --make-private none /private").ok();
        let places = ["/home/user/m", "/root/m", "/tmp/a/b", "/private/p"];
        for (at, place) in places.iter().enumerate() {
            let _ = ctl(&["mount", &format!("m{at}"), "--where", place, "--target", "/t"]).ok();
            fs::write(format!("{place}/file"), "data").unwrap();
        }
        // Its namespace, and that of the next memcharged, have copies of all of them; the one on a mount that is not
        // shared stays there.
        let later = Mount::make("later", "/t", &[]);
        let _ = run(&["systemctl", "restart", "memcharged"]).ok();
        for (at, place) in places.iter().enumerate() {
            assert_eq!(fs::read_to_string(format!("{place}/file")).unwrap(), "data");
            let user = Waiting::start(&Cg::make("/client"), &["hold", &format!("{place}/file")]);
            let refused = ctl(&["unmount", &format!("m{at}")]).failed(1);
            assert!(refused.err.contains(&format!("pid {}", user.pid())), "{place}: {}", refused.err);
            user.end();
            let _ = ctl(&["unmount", &format!("m{at}")]).ok();
            assert_eq!(leftovers(&format!("m{at}"), place), Vec::<String>::new());
        }
        later.unmount();
    }

    /// A store starts again, and another one starts, while the mount of a third, which both see, does not answer.
    fn a_stuck_store_holds_up_nobody() {
        Cg::make("/t").max(64 * MIB);
        let (stuck, mount) = (Mount::make("stuck", "/t", &[]), Mount::make("m", "/t", &[]));
        fs::write(mount.join("file"), "data").unwrap();
        let store = stuck.store();
        let _ = sh(&format!("kill -STOP {store}; systemctl kill -s KILL memcharge-store-m")).ok();
        assert_eq!(fs::read_to_string(mount.join("file")).unwrap(), "data");
        let _ = run(&["systemctl", "restart", "memcharged"]).ok();
        let other = Mount::make("other", "/t", &[]);
        fs::write(other.join("file"), "data").unwrap();
        let _ = sh(&format!("kill -CONT {store}")).ok();
        for mount in [stuck, mount, other] {
            mount.unmount();
        }
    }

    /// A store in a slice pays for its copy of the host's mounts, no more than documented, and is asked for with that.
    fn a_store_beside_a_thousand_mounts() {
        let _ = sh("mkdir /one /all; mount -t tmpfs none /one && mount --make-private /one && mkdir /one/d; \
                    for i in {1..49}; do mkdir /one/$i && mount --bind /one/d /one/$i; done; mount -t tmpfs none /all; \
                    for i in {1..20}; do mkdir /all/$i && mount --rbind /one /all/$i; done")
        .ok();
        let host = fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
        let needs = 3 * MIB + 2048 * u64::try_from(host).unwrap();
        assert!(needs > 5 * MIB, "{host} mounts");
        let limit = |max: u64| {
            let _ = sh(&format!("systemctl set-property --runtime pay.slice MemoryMax={max}")).ok();
        };
        start_daemon();
        let _ = run(&["systemctl", "start", "pay.slice"]).ok();
        limit(5 * MIB);
        let mount = ["mount", "m", "--where", "/run/shared/m", "--target", "pay.slice"];
        let refused = ctl(&mount).failed(1);
        assert!(refused.err.contains(&format!("a store needs {}K", needs / 1024)), "{}", refused.err);
        limit(32 * MIB);
        let slice = Cg::at("/pay.slice");
        let before = slice.current();
        let mount = Mount::make("m", "pay.slice", &[]);
        let peak: u64 = slice.read("memory.peak").trim().parse().unwrap();
        println!("{host} mounts, {before} bytes before, {peak} at the peak, {needs} documented");
        // Without the copies it is less than 3 MiB.
        assert!(peak > 3 * MIB + MIB / 2 && peak - before < needs);
        // The next store finds room in a target that clients have filled.
        let filled = report(&Cg::make("/client"), &["write", &mount.join("f"), &(1u64 << 40).to_string()]);
        assert!(filled.done > 16 * MIB, "{filled:?}");
        let store = mount.store();
        let _ = sh(&format!("kill -KILL {store}")).ok();
        assert_eq!(fs::metadata(mount.join("f")).unwrap().len(), filled.done);
        assert_ne!(mount.store(), store);
        assert_eq!(slice.event("oom_kill"), 0);
        mount.unmount();
    }

    /// In a container memcharged says so, and does nothing.
    fn a_container_is_refused() {
        for (kinds, named) in [
            ("--cgroup", "cgroup"),
            ("--pid --fork --mount-proc", "pid"),
            ("--user --map-root-user", "user"),
            ("--cgroup --pid --fork --mount-proc", "cgroup, pid"),
        ] {
            let refused = sh(&format!("unshare {kinds} memcharged")).failed(78);
            let expected = format!("this is a container (it has these namespaces of its own: {named})");
            assert!(refused.err.contains(&expected), "{}", refused.err);
        }
        let _ = sh("unshare --cgroup memcharged --check-config").ok();
        start_daemon();
        assert_eq!(unit_property("memcharged", "StatusText"), "no mounts configured");
    }
}

mod apparmor {
    use std::fs;

    use super::{Cg, MIB, Mount, sh, vm_tests};
    use memcharge_tests::host::SECURITY;

    /// A shell that writes a file of the mount and reads it, under this profile.
    fn confined(profile: &str) -> memcharge_tests::service::Said {
        let shell = "echo works > /run/shared/m/f && read said < /run/shared/m/f && echo $said";
        sh(&format!("aa-exec -p {profile} -- /bin/sh -c '{shell}'"))
    }

    vm_tests! { SECURITY;
        /// A client under AppArmor needs a rule for the path where it sees the mount. memcharged and the stores need none.
        fn a_client_under_apparmor() {
            Cg::make("/t").max(64 * MIB);
            let mount = Mount::make("m", "/t", &[]);
            let common = "/{usr/,}bin/* mr, /{usr/,}lib/** mr, /etc/ld.so.cache r,";
            let profiles = format!(
                "profile without {{ {common} }}\nprofile with {{ {common} /run/shared/m/** rwk, }}\n"
            );
            fs::write("/tmp/profiles", profiles).unwrap();
            let _ = sh("apparmor_parser --replace /tmp/profiles").ok();
            let refused = confined("without").failed(2);
            assert!(refused.err.contains("Permission denied"), "{}", refused.err);
            assert_eq!(confined("with").ok().out, "works\n");
            let confinement = sh(&format!("cat /proc/$(pidof memcharged)/attr/current /proc/{}/attr/current", mount.store()));
            assert_eq!(confinement.ok().out, "unconfined\nunconfined\n");
        }
    }
}

mod bookworm {
    use super::{BOOKWORM, vm_tests};

    vm_tests! { BOOKWORM;
        /// The same on Debian 12.
        fn what_is_left_open_is_explained_on_debian_12() {
            super::exposure();
        }
    }
}
