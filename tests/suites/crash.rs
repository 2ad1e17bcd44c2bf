//! Stores and the daemon are killed by SIGKILL: nothing is lost, nothing is done twice, nobody sees an error (R25, R27,
//! R28).

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use memcharge_tests::{
    cgroup::{Cg, MIB},
    client::{Waiting, report},
    host::{Needs, PLAIN},
    kernel_log::Mark,
    killer::{Killer, PAUSE, Plan, kill_and_wait, store_unit, wait},
    mount::{Mount, leftovers},
    service::{ctl, run, sh, unit_property},
    torture::{Torture, pages, sum},
    vm_tests,
    wait::until,
};

const LIMIT: u64 = 64 * MIB;
pub(crate) const ENOSPC: Option<i32> = Some(28);

/// What a restart may take in an emulated machine, and what a call may take beside.
const RESTART: Duration = Duration::from_secs(10);
const BESIDE: Duration = Duration::from_secs(2);

/// Pages that the kernel has not yet counted, or counts in batches.
const TOLERANCE: u64 = 512 << 10;

pub(crate) const CRASH: Needs = Needs { timeout: Duration::from_secs(400), ..PLAIN };
const FSX_TOO: Needs = Needs { programs: &["MEMCHARGE_FSX"], timeout: Duration::from_secs(900), ..PLAIN };
const NIGHTLY: Needs = Needs { timeout: Duration::from_secs(1200), ..PLAIN };

/// The longest that a call may take: three stores in a row die while they come back, then one has the time it needs.
fn bound() -> u64 {
    (3 * Duration::from_secs(2) + PAUSE.max(RESTART) + BESIDE).as_millis() as u64
}

/// A target by its name, with its limit.
pub(crate) fn target(name: &str) -> Cg {
    if name.ends_with(".slice") {
        let set = format!("systemctl set-property --runtime {name} MemoryMax={LIMIT} MemorySwapMax=0");
        let _ = sh(&format!("{set} && systemctl start {name}")).ok();
        return Cg::at(&format!("/{name}"));
    }
    let target = Cg::make(name).max(LIMIT);
    // With a child that has the controller the store's leaf has figures of its own.
    Cg::make(&format!("{name}/own"));
    target
}

/// A store that serves, and is not `old`.
pub(crate) fn comes_back(mount: &Mount, old: u32) -> u32 {
    until("another store serves", || {
        let properties = mount.properties();
        let pid = properties["store_pid"].as_u64().and_then(|pid| u32::try_from(pid).ok())?;
        (properties["state"] == "active" && pid != old && pid != 0).then_some(pid)
    })
}

/// Kills the store; returns when another one serves.
pub(crate) fn crash(mount: &Mount) -> u32 {
    let old = mount.store();
    kill_and_wait(old);
    comes_back(mount, old)
}

/// A torture of a mount whose store and daemon are killed meanwhile.
fn tortured(target_name: &str, seconds: u64, more: &[&str]) {
    let (client, target) = (Cg::make("/client"), target(target_name));
    let mount = Mount::make("x", target_name, more);
    let log = Mark::now();
    let sigbus: &[&str] = if more.contains(&"sigbus") { &["--sigbus"] } else { &[] };
    let torture = Torture::start(&client, &mount.place, seconds, 28, sigbus);
    let store = Killer::start(Plan::store("x"), 1);
    let daemon = Killer::start(Plan::daemon(), 2);
    let said = torture.end();
    let (stores, daemons) = (store.stop(), daemon.stop());
    println!("{stores} stores and {daemons} daemons were killed\n{}{}", said.out, said.err);
    let said = said.ok();
    let longest = sum(&said)["longest_ms"].as_u64().unwrap();
    println!("the longest call took {longest} ms; {} ms are allowed", bound());
    assert!(longest < bound(), "{longest} ms");
    // A store is killed every 1.1 s on average and has its pause after three of them.
    assert!(stores > (seconds / 6).max(2), "only {stores} stores were killed");
    assert!(daemons > seconds / 12, "only {daemons} daemons were killed");

    until("the daemon and the mount are there", || {
        let shown = ctl(&["--json", "show", "x"]);
        (shown.status == 0 && shown.out.contains("\"active\"")).then_some(())
    });
    let files = pages(Path::new(&mount.place));
    until("the target pays for the files, and for no more", || {
        let shmem = target.stat("shmem");
        println!("{shmem} bytes of shared memory are charged, the files have {files}");
        (shmem.abs_diff(files) <= TOLERANCE).then_some(())
    });
    let nobody = [&target, &client].map(|cg| cg.event("oom_kill"));
    assert_eq!(nobody, [0, 0]);
    assert_no_oom(&log);
    assert_all_is_freed(mount, &target, target_name);
}

/// Nobody ran out of memory by the kernel's log (R21).
fn assert_no_oom(log: &Mark) {
    let said = log.since();
    let bad =
        |line: &&String| ["oom-kill", "Out of memory", "oom_reaper"].iter().any(|word| line.contains(word));
    let bad: Vec<_> = said.iter().filter(bad).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    println!("the kernel's log: {said:?}");
}

/// R26 after crashes: nothing is left of the mount, and the target can go.
fn assert_all_is_freed(mount: Mount, target: &Cg, name: &str) {
    let place = mount.place.clone();
    let _ = sh(&format!("rm -rf {place}/*")).ok();
    until("the files' pages are given back", || (target.stat("shmem") <= TOLERANCE).then_some(()));
    mount.unmount();
    until("nothing of the mount is left", || leftovers("x", &place).is_empty().then_some(()));
    if name.ends_with(".slice") {
        let _ = run(&["systemctl", "stop", name]).ok();
        return;
    }
    until("all memory is given back", || (target.current() < MIB / 4).then_some(()));
    until("no leaf of a store is left", || (target.children() == ["own"]).then_some(()));
    Cg::at(&format!("{name}/own")).remove().unwrap();
    target.remove().expect("no dying cgroup holds the target");
}

vm_tests! { CRASH;
    /// R28 with a raw cgroup as the target.
    fn r28_nothing_is_lost_when_the_store_is_killed() {
        tortured("/t", 60, &[]);
    }

    /// R28 with a slice as the target.
    fn r28_nothing_is_lost_when_the_store_is_killed_in_a_slice() {
        tortured("t.slice", 30, &[]);
    }

    /// R28 with files that have holes.
    fn r28_nothing_is_lost_when_the_store_is_killed_sigbus() {
        tortured("/t", 20, &["--sparse", "sigbus"]);
        tortured("t.slice", 20, &["--sparse", "sigbus"]);
    }

    /// R25, R15: a store that comes back to a full target kills nobody, and lets nothing grow.
    fn r25_kills_while_the_target_is_full() {
        let (client, target) = (Cg::make("/client"), target("/t"));
        let mount = Mount::make("x", "/t", &["--set", "deadline=5s"]);
        let mut innocent = Waiting::start(&Cg::at("/t/own"), &["hog", &(16 * MIB).to_string()]);
        let file = mount.join("f");
        let filled = report(&client, &["write", &file, &(1u64 << 40).to_string()]);
        assert_eq!(filled.errno, ENOSPC);
        let (filled, log) = (filled.done, Mark::now());
        for round in 0..5 {
            let pid = crash(&mount);
            println!("round {round}: store {pid}, {} of {LIMIT} bytes in use", target.current());
            // More than a store that died and came back can have given back.
            let grown = report(&client, &["fallocate", &file, &(filled + 8 * MIB).to_string()]);
            assert_eq!(grown.errno, ENOSPC);
            assert_eq!(fs::metadata(&file).unwrap().len(), filled, "a refused growth changes nothing");
            let over = report(&client, &["write", &file, &filled.to_string()]);
            assert_eq!((over.done, over.errno), (filled, None), "what is there can be written");
            report(&client, &["verify", &file, &filled.to_string()]);
            assert_eq!([&target, &client].map(|cg| cg.event("oom_kill")), [0, 0]);
            assert!(innocent.is_alive());
            assert_no_oom(&log);
        }
        fs::remove_file(&file).unwrap();
        until("there is room again", || {
            report(&client, &["write", &mount.join("g"), &(8 * MIB).to_string()]).errno.is_none().then_some(())
        });
    }
}

mod long {
    use super::{NIGHTLY, tortured, vm_tests};

    vm_tests! { NIGHTLY;
        /// R28 for ten minutes.
        #[ignore = "takes minutes; part of the nightly run"]
        fn r28_nothing_is_lost_in_ten_minutes() {
            tortured("/t", 600, &[]);
        }
    }
}

mod fsx {
    use super::*;

    vm_tests! { FSX_TOO;
        /// R28: fsx sees no wrong byte while its store is killed.
        fn r28_fsx_while_the_store_is_killed() {
            let _target = target("/t");
            let mount = Mount::make("x", "/t", &[]);
            fs::write("/tmp/fsx.toml", crate::conformance::FSX).unwrap();
            let (out, file) = (File::create("/tmp/fsx.out").unwrap(), mount.join("fsx"));
            let errors = out.try_clone().unwrap();
            let mut command = Command::new("/mnt/files/MEMCHARGE_FSX");
            command.args(["-N", "6000", "-S", "28", "-f", "/tmp/fsx.toml", "-P", "/tmp", &file]);
            let mut fsx = command.stdin(Stdio::null()).stdout(out).stderr(errors).spawn().unwrap();
            let killer = Killer::start(Plan { every: 200..800, ..Plan::store("x") }, 3);
            let status = wait(&mut fsx, Duration::from_secs(600));
            let kills = killer.stop();
            let said = fs::read_to_string("/tmp/fsx.out").unwrap();
            println!("{kills} stores were killed; {}", said.lines().last().unwrap_or_default());
            assert!(status.success(), "{status}\n{said}");
            assert!(kills > 3, "only {kills} stores were killed");
            comes_back(&mount, 0);
            assert_eq!(mount.number("denials"), 0);
            println!("{}", unit_property(&store_unit("x"), "NRestarts"));
        }
    }
}
