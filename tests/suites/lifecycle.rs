//! Mounts, the daemon and the stores over time (R2, R26, R27 as far as built, the life cycle of the interface).

use std::fs;

use memcharge_tests::{
    cgroup::{Cg, MIB},
    client::{Waiting, report},
    host::{BOOKWORM, PLAIN},
    mount::{Mount, leftovers},
    service::{ctl, run, sh, start_daemon, unit_property},
    vm_tests,
    wait::until,
};

fn configure(name: &str, text: &str) {
    fs::write(format!("/etc/memcharge/mounts.d/{name}.toml"), text).unwrap();
}

fn is_gone(name: &str, place: &str) {
    until("everything of the mount is gone", || leftovers(name, place).is_empty().then_some(()));
    until("memcharged knows", || (ctl(&["show", name]).status == 5).then_some(()));
}

fn configured_mounts_come_up() {
    configure(
        "models",
        "where = \"/run/shared/models\"\ntarget = \"models.slice\"\nsize = \"32M\"\nmode = \"0750\"\nuid = \"nobody\"\n",
    );
    configure(
        "cache",
        "where = \"/srv/cache\"\ntarget = \"models.slice\"\nsparse = \"sigbus\"\noptions = [\"nosuid\", \"nodev\", \"noexec\"]\n",
    );
    let _ = run(&["systemctl", "enable", "--now", "memcharged"]).ok();
    assert_eq!(unit_property("memcharged", "StatusText"), "2 mounts active");
    // READY came when the mounts were there: no waiting here.
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = mountinfo.lines().find(|line| line.contains(" /run/shared/models ")).unwrap();
    assert!(line.contains("fuse.memcharge models.slice"), "R31: {line}");
    let line = mountinfo.lines().find(|line| line.contains(" /srv/cache ")).unwrap();
    for option in ["nosuid", "nodev", "noexec"] {
        assert!(line.contains(option), "{line}");
    }
    let stat = run(&["stat", "-c", "%a %U", "/run/shared/models"]).ok().out;
    assert_eq!(stat.trim(), "750 nobody");
    let list = ctl(&["list", "--no-legend"]).ok().out;
    assert!(list.contains("cache") && list.contains("/run/shared/models"), "{list}");
    let journal = sh("journalctl -b -u memcharged -u 'memcharge-store-*' -p warning --no-pager -q").ok().out;
    assert_eq!(journal.trim(), "", "no warning in the journal");
    let unknown = sh("journalctl -b --no-pager -q | grep -iE 'memcharge.*(unknown|ignoring|deprecated)'");
    assert_eq!(unknown.out.trim(), "", "systemd understands all of it");
    for unit in ["memcharge-store-models.service", "memcharge-store-cache.service"] {
        assert_eq!(unit_property(unit, "OOMScoreAdjust"), "-1000");
        assert_eq!(unit_property(unit, "Slice"), "models.slice");
    }
    let _ = ctl(&["unmount", "models"]).ok();
    is_gone("models", "/run/shared/models");
    assert!(fs::exists("/srv/cache").unwrap());
}

vm_tests! { PLAIN;
    /// Configured mounts are there when the daemon is ready.
    fn configured_mounts_are_up_when_the_daemon_is_ready() {
        configured_mounts_come_up();
    }

    /// R27 as far as built: stopping, restarting or killing the daemon touches no mount.
    fn r27_the_daemon_comes_and_goes() {
        let client = Cg::make("/client");
        Cg::make("/t").max(64 * MIB);
        let mount = Mount::make("x", "/t", &["--size", "40M"]);
        let file = mount.join("f");
        report(&client, &["write", &file, &(4 * MIB).to_string()]);
        let user = Waiting::start(&client, &["hold", &file, "--map"]);
        let (store, id) = (mount.store(), mount.number("target_id"));
        for how in ["systemctl restart memcharged", "systemctl stop memcharged; systemctl start memcharged",
                    "systemctl kill -s KILL memcharged; sleep 3; systemctl start memcharged"] {
            let _ = sh(how).ok();
            assert_eq!(mount.store(), store, "{how}");
            assert_eq!(mount.number("target_id"), id);
            assert_eq!(mount.number("size_max"), 40 * MIB);
            assert_eq!(mount.properties()["state"], "active");
            report(&client, &["write", &file, &(2 * MIB).to_string()]);
        }
        let _ = run(&["systemctl", "stop", "memcharged"]).ok();
        let written = report(&client, &["write", &mount.join("g"), &(4 * MIB).to_string()]);
        assert_eq!(written.errno, None, "the store goes on alone");
        assert_eq!(report(&client, &["write", &mount.join("h"), &(1u64 << 40).to_string()]).errno, Some(28));
        user.end();
        start_daemon();
        mount.unmount();
    }

    /// R26: unmounting frees everything; while somebody uses the mount it is refused, and says who.
    fn r26_unmount() {
        let client = Cg::make("/client");
        let target = Cg::make("/t").max(64 * MIB);
        let mount = Mount::make("x", "/t", &[]);
        let file = mount.join("f");
        report(&client, &["write", &file, &(16 * MIB).to_string()]);
        let user = Waiting::start(&client, &["hold", &file]);
        let refused = ctl(&["unmount", "x"]).failed(1);
        println!("{}", refused.err.trim());
        assert!(refused.err.contains(&format!("pid {}", user.pid())), "{}", refused.err);
        assert!(refused.err.contains("memcharge-probe"), "{}", refused.err);
        assert_eq!(report(&client, &["read", &file]).done, 16 * MIB, "nothing was lost by the refusal");
        user.end();
        let (place, leaf) = (mount.place.clone(), mount.leaf());
        // A mapping keeps a mount busy as well. After a lazy unmount its pages live until it is gone.
        let mapped = Waiting::start(&client, &["hold", &file, "--map"]);
        let refused = ctl(&["unmount", "x"]).failed(1);
        assert!(refused.err.contains(&format!("pid {}", mapped.pid())), "{}", refused.err);
        let _ = ctl(&["unmount", "x", "--lazy"]).ok();
        is_gone("x", &place);
        assert!(!leaf.exists());
        assert!(target.current() > 15 * MIB, "the mapping still holds the pages");
        mapped.end();
        until("all memory is given back", || (target.current() < MIB / 4).then_some(()));
        target.remove().expect("no dying cgroup holds the target");
    }

    /// A lazy unmount ends a mount that is in use; its users get errors, not a hang.
    fn a_lazy_unmount_ends_a_mount_in_use() {
        let client = Cg::make("/client");
        Cg::make("/t").max(64 * MIB);
        let mount = Mount::make("x", "/t", &[]);
        let file = mount.join("f");
        report(&client, &["write", &file, "4096"]);
        let user = Waiting::start(&client, &["hold", &file]);
        let _ = ctl(&["unmount", "x", "--lazy"]).ok();
        is_gone("x", &mount.place);
        user.end();
    }

    /// The store's unit, or the target that groups all of them, ends mounts, also while the daemon is away.
    fn stopping_the_store_s_unit_ends_the_mount() {
        Cg::make("/t").max(64 * MIB);
        let place = "/run/shared/x";
        for (how, daemon) in [
            ("systemctl stop memcharge-store-x", true),
            ("systemctl stop memcharge.target", true),
            ("systemctl stop memcharged; systemctl stop memcharge-store-x; systemctl start memcharged", false),
            ("umount /run/shared/x", true),
        ] {
            for target in ["/t", "t.slice"] {
                let mount = Mount::make("x", target, &[]);
                assert_eq!(mount.place, place);
                let leaf = mount.leaf();
                let _ = sh(how).ok();
                is_gone("x", place);
                assert!(!leaf.exists(), "{how} (daemon there: {daemon}): {}", leaf.path());
            }
        }
    }

    /// R28: a store that is killed comes back, with its files and whoever has them open; nobody gets an error.
    fn r28_a_killed_store_comes_back() {
        for target in ["/t", "t.slice"] {
            let client = Cg::make("/client");
            Cg::make("/t").max(64 * MIB);
            let mount = Mount::make("x", target, &["--size", "40M"]);
            let file = mount.join("f");
            report(&client, &["write", &file, &(4 * MIB).to_string()]);
            let user = Waiting::start(&client, &["hold", &file, "--map"]);
            let (leaf, id) = (mount.leaf().path().to_owned(), mount.number("target_id"));
            for _ in 0..3 {
                let store = mount.store();
                let _ = sh(&format!("kill -9 {store}")).ok();
                report(&client, &["write", &mount.join("g"), &MIB.to_string()]);
                assert_eq!(report(&client, &["read", &file]).done, 4 * MIB);
                until("memcharged knows the new store", || (mount.store() != store).then_some(()));
                assert_eq!((mount.leaf().path(), mount.number("target_id")), (leaf.as_str(), id));
                until("it is active", || (mount.properties()["state"] == "active").then_some(()));
                assert_eq!(mount.number("used_bytes"), 5 * MIB);
            }
            let refused = report(&client, &["write", &mount.join("h"), &(1u64 << 40).to_string()]);
            assert_eq!(refused.errno, Some(28), "the cap of before holds");
            user.end();
            let place = mount.place.clone();
            mount.unmount();
            is_gone("x", &place);
        }
    }

    /// A store that is given up: clients get an error, the data are kept, and come back when somebody asks for them.
    fn r28_data_outlive_a_store_that_is_given_up() {
        const STORE: &str = "/usr/libexec/memcharge/memcharge-store";
        let client = Cg::make("/client");
        let target = Cg::make("/t").max(64 * MIB);
        let mount = Mount::make("x", "/t", &[]);
        report(&client, &["write", &mount.join("f"), &(4 * MIB).to_string()]);
        let user = Waiting::start(&client, &["hold", &mount.join("f")]);
        let break_it = || {
            let _ = sh(&format!("mv {STORE} {STORE}.good; printf '#!/bin/sh\nexit 70\n' >{STORE}; chmod +x {STORE}")).ok();
            let _ = sh(&format!("kill -9 {}", mount.store())).ok();
            until("the state is known", || (mount.properties()["state"] == "failed").then_some(()));
            let _ = sh(&format!("mv {STORE}.good {STORE}")).ok();
        };
        break_it();
        let reason = mount.properties()["state_reason"].as_str().unwrap().to_owned();
        println!("{reason}");
        assert!(reason.contains("data are kept") && reason.contains("memchargectl recover x"), "{reason}");
        let error = fs::read(mount.join("f")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(107), "ENOTCONN: {error}");
        let properties = mount.properties();
        assert!(properties["used_bytes"].is_null(), "a figure that cannot be read is no number: {properties}");
        let _ = run(&["systemctl", "kill", "-s", "KILL", "memcharged"]).ok();
        until("a new daemon knows as well", || {
            let shown = ctl(&["--json", "show", "x"]);
            (shown.status == 0 && shown.out.contains("\"failed\"")).then_some(())
        });
        let _ = ctl(&["recover", "x"]).ok();
        assert_eq!(mount.properties()["state"], "active");
        assert_eq!(report(&client, &["read", &mount.join("f")]).done, 4 * MIB, "with its data");
        report(&client, &["write", &mount.join("f"), &(4 * MIB).to_string(), "--append"]);
        let said = ctl(&["recover", "x"]).failed(1);
        assert!(said.err.contains("nothing to recover"), "{}", said.err);
        user.end();
        break_it();
        let place = mount.place.clone();
        mount.unmount();
        is_gone("x", &place);
        until("all memory is given back", || (target.current() < MIB / 4).then_some(()));
        Mount::make("x", "/t", &[]).unmount();
    }

    /// A signal that was not systemd's end of the unit ends no mount.
    fn r28_signals_end_no_mount() {
        Cg::make("/t").max(64 * MIB);
        let mount = Mount::make("x", "/t", &[]);
        fs::write(mount.join("f"), "data").unwrap();
        for signal in ["TERM", "INT", "HUP", "ABRT"] {
            let store = mount.store();
            let _ = sh(&format!("kill -{signal} {store}")).ok();
            until("the store is back", || (mount.store() != store).then_some(()));
            assert_eq!(fs::read_to_string(mount.join("f")).unwrap(), "data", "SIG{signal}");
        }
        let place = mount.place.clone();
        let _ = run(&["systemctl", "stop", "memcharge-store-x"]).ok();
        is_gone("x", &place);
    }

    /// Wrong configuration: every error at once, with file and line; nothing starts.
    fn wrong_configuration_is_refused() {
        configure("a", "where = \"/run/shared/a\"\ntargt = \"a.slice\"\n");
        configure("b", "where = \"/dev/shm\"\ntarget = \"b.slice\"\nsize = \"big\"\n");
        let checked = run(&["memcharged", "--check-config"]).failed(1);
        println!("{}", checked.err);
        for says in [
            "/etc/memcharge/mounts.d/a.toml:2:", "did you mean `target`", "/etc/memcharge/mounts.d/b.toml:1:",
            "/etc/memcharge/mounts.d/b.toml:3:",
        ] {
            assert!(checked.err.contains(says), "{says} in {}", checked.err);
        }
        let _ = run(&["systemctl", "start", "memcharged"]).failed(1);
        let journal = sh("journalctl -b -u memcharged --no-pager").ok().out;
        assert!(journal.contains("a.toml:2"), "{journal}");
        assert!(leftovers("a", "/run/shared/a").is_empty());
        let _ = ctl(&["check"]).failed(1);
        fs::remove_file("/etc/memcharge/mounts.d/a.toml").unwrap();
        configure("b", "where = \"/run/shared/b\"\ntarget = \"b.slice\"\n");
        let _ = ctl(&["check"]).ok();
        start_daemon();
        assert_eq!(unit_property("memcharged", "StatusText"), "1 mount active");
    }

    /// A mount that cannot be made is failed and says why; the others are not held up.
    fn a_mount_that_fails_does_not_hold_up_others() {
        configure("good", "where = \"/run/shared/good\"\ntarget = \"good.slice\"\n");
        configure("bad", "where = \"/run/shared/bad\"\ntarget = \"bad.slice\"\n");
        fs::create_dir_all("/run/shared/bad/somebody-s").unwrap();
        start_daemon();
        assert_eq!(unit_property("memcharged", "StatusText"), "1 mount active, 1 failed");
        let status = ctl(&["status", "bad"]).ok().out;
        println!("{status}");
        assert!(status.contains("not empty"), "{status}");
        assert!(fs::exists("/run/shared/bad/somebody-s").unwrap());
    }
}

mod bookworm {
    use super::{BOOKWORM, vm_tests};

    vm_tests! { BOOKWORM;
        /// Debian 12's systemd 252 has no complaint either.
        fn configured_mounts_are_up_on_debian_12() {
            super::configured_mounts_come_up();
        }
    }
}
