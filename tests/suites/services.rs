//! Targets that come and go: services and scopes, and cgroups that are not there yet (R25, R27, R28, R30).

use std::{
    fs,
    time::{Duration, Instant},
};

use memcharge_tests::{
    cgroup::{Cg, MIB},
    client::report,
    host::PLAIN,
    mount::{Mount, leftovers},
    service::{ctl, run, sh, start_daemon, unit_property},
    vm_tests,
    wait::until,
};

const ENOSPC: Option<i32> = Some(28);

fn configure(target: &str) -> Mount {
    let text =
        format!("where = \"/run/shared/x\"\ntarget = \"{target}\"\ndeadline = \"5s\"\nreserve = \"1M\"\n");
    fs::write("/etc/memcharge/mounts.d/x.toml", text).unwrap();
    Mount { name: "x".to_owned(), place: "/run/shared/x".to_owned() }
}

/// A service that is a target.
fn install(unit: &str, lines: &str) {
    fs::write(format!("/etc/systemd/system/{unit}"), lines).unwrap();
    let _ = run(&["systemctl", "daemon-reload"]).ok();
}

fn becomes(mount: &Mount, state: &str) {
    until(state, || (mount.properties()["state"] == state).then_some(()));
}

/// Stopping must not wait for the store, which is in the cgroup that is stopped.
fn stop(unit: &str) {
    let start = Instant::now();
    let _ = run(&["systemctl", "stop", unit]).ok();
    assert!(start.elapsed() < Duration::from_secs(10), "stopping {unit} took {:?}", start.elapsed());
    assert_eq!(unit_property(unit, "Result"), "success");
}

vm_tests! { PLAIN;
    /// R25: a service pays while it runs; while it does not, files are there and nothing grows.
    fn r25_a_service_comes_and_goes() {
        install("db.service", "[Service]\nExecStart=/bin/sleep infinity\nMemoryMax=64M\n");
        let client = Cg::make("/client");
        let mount = configure("db.service");
        let _ = run(&["systemctl", "start", "memcharged"]).ok();
        assert_eq!(unit_property("memcharged", "StatusText"), "0 mounts active, 1 waiting", "READY came all the same");
        let reason = mount.properties()["state_reason"].as_str().unwrap().to_owned();
        println!("{reason}");
        assert!(reason.contains("db.service"), "{reason}");
        let file = mount.join("f");
        let start = Instant::now();
        assert_eq!(fs::write(&file, "x").unwrap_err().raw_os_error(), ENOSPC);
        assert!(start.elapsed() < Duration::from_secs(2), "nobody waits for a service that is not there");
        for round in 1..=3u64 {
            let _ = run(&["systemctl", "start", "db"]).ok();
            becomes(&mount, "active");
            assert_eq!(mount.leaf().path(), "/system.slice/db.service");
            let target = Cg::at("/system.slice/db.service");
            let before = target.current();
            let written = report(&client, &["write", &file, &(round * 4 * MIB).to_string()]);
            assert_eq!((written.done, written.errno), (round * 4 * MIB, None));
            let grown = target.current() - before;
            assert!(grown.abs_diff(4 * MIB) < MIB, "round {round}: the service pays for what is new: {grown}");
            stop("db");
            becomes(&mount, "waiting");
            assert_eq!(report(&client, &["read", &file]).done, round * 4 * MIB, "the data are kept");
            assert_eq!(report(&client, &["write", &file, &MIB.to_string()]).errno, None, "and can be written");
            let more = report(&client, &["write", &file, &MIB.to_string(), "--append"]);
            assert_eq!((more.done, more.errno), (0, ENOSPC), "nobody else pays for growth");
            let again = fs::exists("/sys/fs/cgroup/system.slice/db.service").unwrap();
            assert!(!again, "nobody makes its cgroup again");
        }
        let event = ctl(&["--json", "history", "x"]).ok().out;
        assert!(event.contains("enospc"), "{event}");
        let place = mount.place.clone();
        mount.unmount();
        assert!(leftovers("x", &place).is_empty());
    }

    /// R28, R27: a store that is killed goes back to its service; so it does when the daemon was killed meanwhile.
    fn r28_killed_in_a_service() {
        install("db.service", "[Service]\nExecStart=/bin/sleep infinity\nMemoryMax=64M\n");
        let client = Cg::make("/client");
        let mount = configure("db.service");
        let _ = run(&["systemctl", "start", "memcharged", "db"]).ok();
        becomes(&mount, "active");
        let file = mount.join("f");
        report(&client, &["write", &file, &(4 * MIB).to_string()]);
        for how in [
            format!("kill -9 {}", mount.store()),
            "systemctl kill -s KILL memcharged; sleep 2".to_owned(),
            "kill -9 $(systemctl show -p MainPID --value memcharge-store-x memcharged | xargs)".to_owned(),
        ] {
            let _ = sh(&how).ok();
            until("it is there and active", || {
                let shown = ctl(&["--json", "show", "x"]);
                (shown.status == 0 && shown.out.contains("\"active\"")).then_some(())
            });
            assert_eq!(mount.leaf().path(), "/system.slice/db.service", "{how}");
            assert_eq!(report(&client, &["read", &file]).done, 4 * MIB);
            assert_eq!(report(&client, &["write", &mount.join("g"), &MIB.to_string()]).errno, None, "{how}");
        }
        stop("db");
        becomes(&mount, "waiting");
        mount.unmount();
    }

    /// A service that needs the mount and is its target: it can write as soon as it runs, at each start.
    fn r30_a_service_that_needs_the_mount() {
        install(
            "db.service",
            "[Unit]\nAfter=memcharged.service\nRequires=memcharged.service\n\
             [Service]\nBindPaths=/run/shared/x:/dev/shm\nMemoryMax=64M\nRestart=on-failure\nRestartSec=100ms\n\
             ExecStart=/bin/sh -c 'n=$(cat /dev/shm/starts 2>/dev/null | wc -l); echo start >>/dev/shm/starts || exit 9; \
             head -c 2097152 /dev/zero >/dev/shm/segment-$n || exit 10; exec sleep infinity'\n",
        );
        let mount = configure("db.service");
        let starts = |wanted: usize| {
            until("the service has written", || {
                let text = fs::read_to_string(mount.join("starts")).unwrap_or_default();
                let last = fs::metadata(mount.join(&format!("segment-{}", wanted - 1)));
                (text.lines().count() == wanted && last.is_ok_and(|last| last.len() == 2 * MIB)).then_some(())
            });
            let crashed = usize::from(fs::exists("/run/crashed").unwrap());
            assert_eq!(unit_property("db", "NRestarts").parse(), Ok(crashed), "it never failed by itself");
        };
        let _ = run(&["systemctl", "start", "db"]).ok();
        starts(1);
        becomes(&mount, "active");
        stop("db");
        let _ = run(&["systemctl", "start", "db"]).ok();
        starts(2);
        let _ = run(&["systemctl", "restart", "db"]).ok();
        starts(3);
        fs::write("/run/crashed", "").unwrap();
        let _ = sh("kill -9 $(systemctl show -p MainPID --value db)").ok();
        starts(4);
        becomes(&mount, "active");
        let used = mount.number("used_bytes");
        assert_eq!(used, 4 * 2 * MIB + 4096, "all data are there");
        stop("db");
        becomes(&mount, "waiting");
        mount.unmount();
    }

    /// Mounts made by hand: a target that is not there is refused, or waited for.
    fn r1_a_target_that_is_not_there() {
        start_daemon();
        install("db.service", "[Service]\nExecStart=/bin/sleep infinity\nMemoryMax=64M\n");
        let words = |target: &'static str| ["mount", "x", "--where", "/run/shared/x", "--target", target];
        for (target, says) in [("db.service", "--wait"), ("/later", "no cgroup /later"), ("none.service", "none.service")] {
            let said = ctl(&words(target)).failed(1);
            println!("{}", said.err.trim());
            assert!(said.err.contains(says), "{}", said.err);
            assert!(leftovers("x", "/run/shared/x").is_empty());
        }
        let mount = Mount { name: "x".to_owned(), place: "/run/shared/x".to_owned() };
        let _ = ctl(&[&words("/later")[..], &["--wait"]].concat()).ok();
        assert_eq!(mount.properties()["state"], "waiting");
        let later = Cg::make("/later").max(64 * MIB);
        becomes(&mount, "active");
        let before = later.current();
        report(&Cg::make("/client"), &["write", &mount.join("f"), &(4 * MIB).to_string()]);
        assert!((later.current() - before).abs_diff(4 * MIB) < MIB);
        mount.unmount();
        later.remove().expect("nothing is left in it");
        let _ = sh("setsid systemd-run --scope --unit=job -p MemoryMax=64M sleep infinity </dev/null >/dev/null 2>&1 &").ok();
        until("the scope is there", || (unit_property("job.scope", "ActiveState") == "active").then_some(()));
        let _ = ctl(&words("job.scope")).ok();
        let mount = Mount { name: "x".to_owned(), place: "/run/shared/x".to_owned() };
        assert!(mount.leaf().path().ends_with("/job.scope"));
        mount.unmount();
    }
}
