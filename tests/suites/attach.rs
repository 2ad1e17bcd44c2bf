//! Attaching: where a mount may be and who may pay (R1 to R4), and that a failed one leaves nothing behind.

use std::fs;

use memcharge_tests::{
    cgroup::{Cg, MIB},
    client::{Waiting, report},
    host::{OLD_KERNEL, PLAIN},
    mount::{Mount, leftovers},
    service::{Said, ctl, run, sh, start_daemon},
    vm_tests,
};

fn try_mount(place: &str, target: &str, more: &[&str]) -> Said {
    let words = ["mount", "x", "--where", place, "--target", target];
    ctl(&[&words, more].concat())
}

/// The D-Bus error of the same attempt, as busctl shows it.
fn bus_error(options: &[&str]) -> String {
    let count = (options.len() / 3).to_string();
    let call = ["busctl", "call", "org.memcharge.Memcharge1", "/org/memcharge/Memcharge1"];
    let call =
        [&call[..], &["org.memcharge.Memcharge1.Manager", "Mount", "sa{sv}", "x", &count], options].concat();
    run(&call).failed(1).err
}

fn assert_nothing_left(place: &str) {
    assert_eq!(leftovers("x", place), Vec::<String>::new());
}

vm_tests! { PLAIN;
    /// R1, R3: each wrong target has its own clear error and leaves nothing behind.
    fn r1_wrong_targets_are_told_apart() {
        start_daemon();
        let full = Cg::make("/full").max(3 * MIB);
        Cg::make("/plain");
        Cg::at("/plain").write("cgroup.subtree_control", "-memory");
        fs::create_dir("/sys/fs/cgroup/plain/child").unwrap();
        let place = "/run/shared/x";
        for (target, says) in [
            ("/nowhere", "no cgroup /nowhere"),
            ("/full/memory.max", "is not a cgroup"),
            ("/plain/child", "memory controller is not enabled"),
            ("/full", "headroom"),
            ("/", "root cgroup"),
            ("nonsense", "neither a unit name nor a path"),
            ("x.service", "x.service"),
            ("x.scope", "x.scope"),
        ] {
            let said = try_mount(place, target, &[]).failed(1);
            println!("{target}: {}", said.err.trim());
            assert!(said.err.contains(says), "{target}: {}", said.err);
            assert_eq!(said.err.lines().count(), 1, "one line: {}", said.err);
            assert_nothing_left(place);
        }
        full.remove().expect("R3: the target can be removed at once");
    }

    /// R1: the errors have the names of the bus contract. busctl shows messages only, so the names come from a reply.
    fn r1_errors_are_named() {
        start_daemon();
        Cg::make("/t").max(64 * MIB);
        let monitor = sh("busctl monitor org.memcharge.Memcharge1 </dev/null >/tmp/monitor 2>&1 & sleep 2");
        let _ = monitor.ok();
        let target = ["Target", "s", "/t"];
        let place = ["Where", "s", "/run/shared/x"];
        for options in [
            [place, ["Target", "s", "/nowhere"]],
            [place, ["Target", "s", "/t/memory.max"]],
            [["Where", "s", "/dev/shm"], target],
            [["Where", "s", "relative"], target],
            [["Where", "s", "/usr/lib"], target],
        ] {
            bus_error(&options.concat());
        }
        fs::create_dir_all("/srv/full/x").unwrap();
        bus_error(&[["Where", "s", "/srv/full"], target].concat());
        bus_error(&[&place[..], &target, &["Sizemax", "t", "1"]].concat());
        bus_error(&[&place[..], &target, &["Reserve", "s", "1"]].concat());
        let names = ["NoSuchTarget", "NotACgroup", "UnsafeMountPoint", "InvalidOption", "MountPointBusy"];
        memcharge_tests::wait::until("all errors are seen", || {
            let seen = fs::read_to_string("/tmp/monitor").unwrap();
            names.iter().all(|name| seen.contains(&format!("org.memcharge.Memcharge1.Error.{name}"))).then_some(())
        });
        assert_nothing_left("/run/shared/x");
    }

    /// R3: each wrong mount point or option has its own clear error and leaves nothing behind.
    fn r3_wrong_places_and_options() {
        start_daemon();
        Cg::make("/t").max(64 * MIB);
        fs::create_dir_all("/srv/full").unwrap();
        fs::write("/srv/full/file", "x").unwrap();
        fs::write("/srv/file", "x").unwrap();
        fs::create_dir_all("/srv/mounted").unwrap();
        let _ = run(&["mount", "-t", "tmpfs", "tmpfs", "/srv/mounted"]).ok();
        std::os::unix::fs::symlink("/dev/shm", "/srv/link").unwrap();
        for (place, says) in [
            ("/srv/full", "not empty"),
            ("/srv/mounted", "mount point"),
            ("/srv/file", "not a directory"),
            ("/dev/shm", "/dev/shm"),
            ("/srv/link", "/dev/shm"),
            ("/", "hang the machine"),
            ("/run", "/run"),
        ] {
            let said = try_mount(place, "/t", &[]).failed(1);
            println!("{place}: {}", said.err.trim());
            assert!(said.err.contains(says), "{place}: {}", said.err);
            assert_eq!(leftovers("x", "/nowhere"), Vec::<String>::new());
        }
        for (option, status, says) in [
            ("size=lots", 2, "size"),
            ("sise=1G", 2, "size"),
            ("mode=999", 2, "mode"),
            ("sparse=maybe", 2, "sigbus"),
            ("options=suid,nosuid", 2, "exclude each other"),
            ("on-full=perhaps", 2, "kill"),
        ] {
            let said = try_mount("/run/shared/x", "/t", &["--set", option]).failed(status);
            println!("{option}: {}", said.err.trim());
            assert!(said.err.contains(says), "{option}: {}", said.err);
            assert_nothing_left("/run/shared/x");
        }
        Cg::make("/unlimited");
        let said = try_mount("/run/shared/x", "/unlimited", &["--size", "50%"]).failed(1);
        assert!(said.err.contains("limit"), "{}", said.err);
        assert_nothing_left("/run/shared/x");
        assert!(Cg::at("/t").children().is_empty() && Cg::at("/unlimited").children().is_empty());
    }

    /// R1: names and mount points are taken once.
    fn r1_names_and_places_are_taken_once() {
        Cg::make("/t").max(64 * MIB);
        let mount = Mount::make("x", "/t", &[]);
        let said = try_mount("/run/shared/y", "/t", &[]).failed(1);
        assert!(said.err.contains('x'), "{}", said.err);
        let words = ["mount", "y", "--where", &mount.place, "--target", "/t"];
        let said = ctl(&words).failed(1);
        assert!(said.err.contains(&mount.place), "{}", said.err);
        assert!(!fs::exists("/run/shared/y").unwrap());
        mount.unmount();
        let _ = try_mount("/run/shared/y", "/t", &[]).ok();
    }

    /// R4: a slice, a leaf with processes, and a cgroup with children can all be targets.
    fn r4_all_kinds_of_targets() {
        let client = Cg::make("/client");
        let busy = Cg::make("/busy").max(64 * MIB);
        let _inside = Waiting::start(&busy, &["hog", "4096"]);
        let parent = Cg::make("/parent").max(64 * MIB);
        Cg::make("/parent/child");
        let _ = run(&["systemctl", "set-property", "--runtime", "a-b.slice", "MemoryMax=64M"]);
        for (target, path) in [("/busy", "/busy"), ("/parent", "/parent"), ("a-b.slice", "/a.slice/a-b.slice")] {
            let mount = Mount::make("x", target, &[]);
            let cgroup = Cg::at(path);
            let before = cgroup.current();
            report(&client, &["write", &mount.join("f"), &(8 * MIB).to_string()]);
            let grown = cgroup.current() - before;
            assert!(grown.abs_diff(8 * MIB) < MIB / 2, "{target}: {grown}");
            let leaf = mount.leaf();
            assert!(leaf.path().starts_with(path), "{target}: {}", leaf.path());
            assert_eq!(mount.properties()["target"], target, "R31");
            let place = mount.place.clone();
            mount.unmount();
            assert_nothing_left(&place);
            assert!(!leaf.exists(), "R26: the leaf is removed");
        }
        // A leaf with processes can still get children, and be removed, afterwards.
        drop(_inside);
        busy.remove().unwrap();
        parent.write("cgroup.subtree_control", "+memory");
    }

    /// R25: a target cannot be removed while it pays.
    fn r25_rmdir_of_a_target_is_ebusy() {
        let target = Cg::make("/t").max(64 * MIB);
        let mount = Mount::make("x", "/t", &[]);
        assert_eq!(target.remove().unwrap_err().raw_os_error(), Some(16));
        mount.unmount();
        target.remove().unwrap();
    }
}

mod old_kernel {
    use super::{Cg, MIB, OLD_KERNEL, assert_nothing_left, start_daemon, try_mount, vm_tests};

    vm_tests! { OLD_KERNEL;
        /// R1: a kernel that is too old is told apart, and nothing is left behind.
        fn r1_a_kernel_that_is_too_old() {
            start_daemon();
            Cg::make("/t").max(64 * MIB);
            let said = try_mount("/run/shared/x", "/t", &[]).failed(1);
            println!("{}", said.err.trim());
            assert!(said.err.contains("6.9") && said.err.contains("6.1"), "{}", said.err);
            assert_nothing_left("/run/shared/x");
        }
    }
}
