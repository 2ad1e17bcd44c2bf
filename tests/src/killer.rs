//! Kills a store and the daemon at random moments, while a test goes on.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test fails by a panic.

use std::{
    fs,
    ops::Range,
    process::ExitStatus,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal};

use crate::{random::Random, service::unit_property};

/// The daemon's unit.
pub const DAEMON: &str = "memcharged";

/// The unit of a mount's store.
pub fn store_unit(mount: &str) -> String {
    format!("memcharge-store-{mount}")
}

/// The main process of a unit, if it runs.
pub fn main_pid(unit: &str) -> Option<Pid> {
    Pid::from_raw(unit_property(unit, "MainPID").parse().unwrap())
}

/// Kills a unit's process by SIGKILL. Returns which it was; nothing if there was none.
pub fn kill(unit: &str) -> Option<Pid> {
    let pid = main_pid(unit)?;
    rustix::process::kill_process(pid, Signal::KILL).is_ok().then_some(pid)
}

/// Kills a process by SIGKILL and waits until it is gone: nothing is served by it any more.
pub fn kill_and_wait(pid: u32) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    let gone = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
        // A zombie has closed everything.
        stat.map_or(true, |stat| stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z')))
    };
    while !gone() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What is killed, and when.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The unit.
    pub unit: String,
    /// The time between two kills, in milliseconds.
    pub every: Range<u64>,
    /// After so many kills there is one pause of `PAUSE`.
    pub in_a_row: u64,
    /// Whether the kernel forgets names and inodes now and then, so that clients ask the store for them again.
    pub forget: bool,
}

/// Long enough to come back even in an emulated machine: whoever waits is served at the latest then.
pub const PAUSE: Duration = Duration::from_secs(4);

impl Plan {
    /// The store of a mount, every 0.2 to 2 s.
    pub fn store(mount: &str) -> Self {
        Self { unit: store_unit(mount), every: 200..2000, in_a_row: 3, forget: true }
    }

    /// The daemon, every 3 s.
    pub fn daemon() -> Self {
        Self { unit: DAEMON.to_owned(), every: 3000..3001, in_a_row: u64::MAX, forget: false }
    }
}

/// Kills until it is stopped.
#[derive(Debug)]
pub struct Killer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Killer {
    /// Begins to kill.
    pub fn start(plan: Plan, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || kill_on(&plan, seed, &stopped));
        Self { stop, thread: Some(thread) }
    }

    /// Stops. Returns how many processes it has killed, each of them another one.
    pub fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Killer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn kill_on(plan: &Plan, seed: u64, stopped: &AtomicBool) -> u64 {
    let (mut random, mut kills, mut last) = (Random::new(seed), 0, None);
    let sleep = |time: Duration| {
        let start = Instant::now();
        while start.elapsed() < time && !stopped.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    while !stopped.load(Ordering::Relaxed) {
        let every = plan.every.start + random.below(plan.every.end - plan.every.start);
        sleep(Duration::from_millis(every));
        if plan.forget && random.below(4) == 0 {
            fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
        }
        if stopped.load(Ordering::Relaxed) {
            break;
        }
        // The same process again is one whose death systemd has not seen yet.
        let hit = kill(&plan.unit).filter(|pid| last.replace(*pid) != Some(*pid));
        kills += u64::from(hit.is_some());
        if hit.is_some() && kills.is_multiple_of(plan.in_a_row) {
            sleep(PAUSE);
        }
    }
    kills
}

/// Waits for a program while things are killed; it must not take longer than `most`.
///
/// # Panics
/// If it does.
pub fn wait(child: &mut std::process::Child, most: Duration) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if start.elapsed() > most {
            let _ = child.kill();
            #[allow(clippy::panic)]
            {
                panic!("a client has not ended after {most:?}")
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
