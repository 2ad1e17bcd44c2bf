//! Thousands of refusals at once, while limits move and files go: nothing hangs, nothing is lost, nothing leaks, nobody
//! dies (R13, R15, R16, R21, R32).

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use memcharge_tests::{
    cgroup::{Cg, MIB},
    client::{Waiting, probe, report},
    growth::FILES,
    history::{FILE, assert_recorded, limit},
    host::{Needs, PLAIN},
    kernel_log::Mark,
    mount::Mount,
    random::Random,
    service::unit_property,
    vm_tests,
};

/// Every clause of the nightly storm, in the time of an ordinary test.
const FEW: u64 = 4_000;

/// The nightly storm.
const MANY: u64 = 10_000;

/// The targets, each with its mounts.
const TARGETS: [(&str, [&str; 2]); 2] = [("/one", ["a", "b"]), ("/two", ["c", "d"])];

/// Clients of each mount.
const CLIENTS: u64 = 2;

/// Nobody may take longer.
const PATIENCE: Duration = Duration::from_secs(240);

/// What is left to the target's own tasks. A limit that is lowered by less, while this much is free, never meets what is
/// in use: whatever clients are granted meanwhile was measured against the limit before.
const RESERVE: u64 = 12 * MIB;
const STEP: u64 = 8 * MIB;

/// Limits move between these.
const LEAST: u64 = 48 * MIB;
const MOST: u64 = 80 * MIB;

const STORM: Needs = Needs { timeout: Duration::from_secs(400), ..PLAIN };

/// What a process holds.
#[derive(Debug)]
struct Holds {
    descriptors: usize,
    resident: u64,
}

fn holds(pid: &str) -> Holds {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    Holds { descriptors: fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(), resident: kib << 10 }
}

struct Target {
    cg: Cg,
    own: Waiting,
    mounts: Vec<Mount>,
    limit: u64,
}

impl Target {
    fn make(path: &str, mounts: [&str; 2]) -> Self {
        let cg = Cg::make(path).max(LEAST);
        let own = Cg::make(&format!("{path}/own"));
        let more = ["--set", "deadline=5s", "--set", &format!("reserve={RESERVE}")];
        let mounts = mounts.map(|name| Mount::make(name, path, &more)).into();
        Self { cg, own: Waiting::start(&own, &["hog", &(8 * MIB).to_string()]), mounts, limit: LEAST }
    }

    /// Raises the limit, or lowers it if nothing that is in use is in the way.
    fn move_limit(&mut self, random: &mut Random) -> bool {
        let free = self.limit.saturating_sub(self.cg.current());
        let limit = match random.below(2) {
            0 if self.limit > LEAST && free >= RESERVE => self.limit - STEP,
            1 if self.limit < MOST => self.limit + STEP,
            _ => return false,
        };
        self.cg.write("memory.max", &limit.to_string());
        self.limit = limit;
        true
    }
}

/// A client under way.
struct Client {
    child: Child,
    mount: String,
    /// Its files are `PREFIX-0` and so on.
    prefix: String,
    asked: u64,
}

impl Client {
    fn start(mount: &Mount, seed: u64, refusals: u64) -> Self {
        let mut command = Command::new("/mnt/files/memcharge-probe");
        command.args([
            "--cgroup",
            "/client",
            "storm",
            &mount.place,
            &refusals.to_string(),
            &seed.to_string(),
        ]);
        let child = command.stdout(Stdio::piped()).spawn().unwrap();
        Self { child, mount: mount.name.clone(), prefix: mount.join(&seed.to_string()), asked: refusals }
    }

    fn file(&self, number: u64) -> String {
        format!("{}-{number}", self.prefix)
    }

    fn is_done(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    fn end(mut self) {
        let mut line = String::new();
        BufReader::new(self.child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(self.child.wait().unwrap().success(), "a client of {}", self.mount);
        let said: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(said["done"], self.asked, "refusals that a client of {} has seen", self.mount);
    }
}

/// Moves limits and removes files until all clients are done; returns how often it did.
fn disturb(targets: &mut [Target], clients: &mut [Client]) -> (u64, u64) {
    let (mut random, start) = (Random::new(42), Instant::now());
    let (mut moved, mut removed) = (0, 0);
    while !clients.iter_mut().all(Client::is_done) {
        assert!(start.elapsed() < PATIENCE, "the storm has not ended after {PATIENCE:?}");
        let target = &mut targets[random.below(2) as usize];
        match random.below(4) {
            0 => moved += u64::from(target.move_limit(&mut random)),
            1 => {
                let client = &clients[random.below(clients.len() as u64) as usize];
                removed += u64::from(fs::remove_file(client.file(random.below(FILES))).is_ok());
            }
            _ => {}
        }
        // The pace of what is done to the clients: faster, and they never meet a limit.
        std::thread::sleep(Duration::from_millis(50 + random.below(100)));
    }
    println!("{} limits moved, {removed} files removed, {:?}", moved, start.elapsed());
    (moved, removed)
}

fn storm(refusals: u64) {
    let client = Cg::make("/client");
    let mut targets: Vec<_> = TARGETS.map(|(path, mounts)| Target::make(path, mounts)).into();
    // All warm: whatever is made once is made.
    for mount in targets.iter().flat_map(|target| &target.mounts) {
        let warm = report(&client, &["fallocate", &mount.join("warm"), &(1u64 << 40).to_string()]);
        assert_eq!(warm.errno, Some(28));
        let _ = probe(&client, &["write", &mount.join("warm"), "4096"]).ok();
        fs::remove_file(mount.join("warm")).unwrap();
        assert_recorded(mount, 1);
    }
    let daemon = unit_property("memcharged", "MainPID");
    let pids: Vec<String> = std::iter::once(daemon.clone())
        .chain(targets.iter().flat_map(|target| &target.mounts).map(|mount| mount.store().to_string()))
        .collect();
    let before: Vec<_> = pids.iter().map(|pid| holds(pid)).collect();
    let log = Mark::now();

    let each = refusals / (4 * CLIENTS);
    let mounts = targets.iter().flat_map(|target| &target.mounts).enumerate();
    let mut clients: Vec<_> = mounts
        .flat_map(|(at, mount)| {
            (0..CLIENTS).map(move |i| Client::start(mount, at as u64 * CLIENTS + i, each))
        })
        .collect();
    let (moved, removed) = disturb(&mut targets, &mut clients);
    assert!(moved > 5 && removed > 5, "{moved} limits moved, {removed} files removed");
    clients.into_iter().for_each(Client::end);

    for target in &mut targets {
        for mount in &target.mounts {
            let events = assert_recorded(mount, 1 + each * CLIENTS);
            println!("{}: {} refusals in {} events", mount.name, 1 + each * CLIENTS, events.len());
            assert!(events.len() < 1000, "more events than one answer holds");
            for event in &events {
                assert_eq!(limit(event), ("target", target.cg.path(), "memory.max"), "{event}");
            }
            assert_eq!(mount.properties()["state"], "active");
        }
        assert_eq!(target.cg.event("oom_kill"), 0);
        assert!(target.own.is_alive(), "the own task of {} was killed", target.cg.path());
    }
    assert_eq!(client.event("oom_kill"), 0);
    log.assert_silent();
    assert_nothing_leaked(&pids, &before);
    for target in targets {
        let Target { mounts, own, .. } = target;
        own.end();
        mounts.into_iter().for_each(Mount::unmount);
    }
}

/// The daemon and the stores have as many descriptors as before, and hardly more memory.
fn assert_nothing_leaked(pids: &[String], before: &[Holds]) {
    assert_eq!(unit_property("memcharged", "MainPID"), pids[0], "the daemon is the same");
    for (pid, before) in pids.iter().zip(before) {
        let after = memcharge_tests::wait::until("what was open is closed", || {
            let after = holds(pid);
            (after.descriptors <= before.descriptors).then_some(after)
        });
        println!("{pid}: {before:?}, then {after:?}");
        let grown = after.resident.saturating_sub(before.resident);
        assert!(grown < 16 * MIB, "{pid} has grown by {grown} bytes");
    }
    let size = fs::metadata(FILE).unwrap().len();
    println!("the history has {size} bytes");
    assert!(size < 16 * MIB);
}

vm_tests! { STORM;
    /// R32: no outcome is missed or doubled, whatever happens meanwhile.
    fn r32_a_storm_of_refusals() {
        storm(FEW);
    }

    /// The same, in full.
    #[ignore = "takes minutes; part of the nightly run"]
    fn r32_a_storm_of_ten_thousand_refusals() {
        storm(MANY);
    }
}
