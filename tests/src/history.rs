//! What is recorded of arbitrations, and what is told of them while they happen.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test fails by a panic.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    ops::RangeInclusive,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use serde_json::Value;

use crate::{
    cgroup::{Cg, MIB},
    client::report,
    mount::Mount,
    service::{ctl, run},
    wait::until,
};

const ENOSPC: Option<i32> = Some(28);

/// Where the history is kept.
pub const FILE: &str = "/var/lib/memcharge/history.jsonl";

/// A mount with a deadline that an emulated machine keeps.
pub fn mount(name: &str, target: &str, more: &[&str]) -> Mount {
    Mount::make(name, target, &[&["--set", "deadline=5s"], more].concat())
}

/// A mount whose cap is reached: each growth is refused for the same limit.
pub fn full_mount(name: &str, client: &Cg) -> Mount {
    Cg::make("/target").max(64 * MIB);
    let mount = mount(name, "/target", &["--size", "1M"]);
    let filled = report(client, &["fallocate", &mount.join("f"), &MIB.to_string()]);
    assert_eq!(filled.errno, None);
    mount
}

/// Refuses one growth of each size, from the largest to the smallest in MiB: none of them repeats another one.
pub fn refuse_each(mount: &Mount, sizes: RangeInclusive<u64>) {
    let line = "for size in $(seq $2 -1 $1); do truncate -s ${size}M $0/other && exit 1; done; exit 0";
    let (least, most) = (sizes.start().to_string(), sizes.end().to_string());
    let _ = run(&["bash", "-c", line, &mount.place, &least, &most]).ok();
}

/// Runs a probe that ends in ENOSPC: that is one that a client has seen.
pub fn refused(client: &Cg, words: &[&str]) -> u64 {
    let ended = report(client, words);
    assert_eq!(ended.errno, ENOSPC, "{words:?}: {ended:?}");
    1
}

/// The events of a mount, the newest last.
pub fn events(mount: &str) -> Vec<Value> {
    serde_json::from_str(&ctl(&["--json", "history", mount]).ok().out).unwrap()
}

/// A text of an event.
#[track_caller]
pub fn text<'a>(event: &'a Value, key: &str) -> &'a str {
    event[key].as_str().unwrap_or_else(|| unreachable!("{key} in {event}"))
}

/// A number of an event.
#[track_caller]
pub fn number(event: &Value, key: &str) -> u64 {
    event[key].as_u64().unwrap_or_else(|| unreachable!("{key} in {event}"))
}

/// Which limit was hit: its kind, its path, its name.
#[track_caller]
pub fn limit(event: &Value) -> (&str, &str, &str) {
    (text(event, "limit_kind"), text(event, "limit_path"), text(event, "limit_name"))
}

/// How many ENOSPCs these events stand for.
pub fn refusals(events: &[Value]) -> u64 {
    let refused = events.iter().filter(|event| text(event, "outcome").starts_with("enospc"));
    refused.map(|event| 1 + number(event, "repeats")).sum()
}

/// R32: the clients of `mount` have seen `seen` ENOSPCs. The store has counted as many, and before long as many are
/// recorded, each once. Returns the events.
pub fn assert_recorded(mount: &Mount, seen: u64) -> Vec<Value> {
    assert_eq!(mount.number("denials"), seen, "Denials of {}", mount.name);
    let mut last = None;
    let events = until("every refusal is recorded", || {
        let events = events(&mount.name);
        let recorded = refusals(&events);
        if last.replace(recorded) != Some(recorded) {
            println!("{}: {recorded} of {seen} refusals are recorded", mount.name);
        }
        (recorded >= seen).then_some(events)
    });
    assert_eq!(refusals(&events), seen, "recorded refusals of {}", mount.name);
    let ids: BTreeSet<_> = events.iter().map(|event| text(event, "id")).collect();
    assert_eq!(ids.len(), events.len(), "an event is there twice");
    assert!(events.is_sorted_by_key(|event| number(event, "realtime_usec")), "the newest is the last");
    events
}

/// A program that prints a line of JSON for each thing that happens; it is killed when this is dropped.
#[derive(Debug)]
pub struct Follower {
    child: Child,
    lines: Arc<Mutex<Vec<Value>>>,
}

impl Follower {
    /// Everything that memcharged says on the bus, from now on.
    pub fn bus() -> Self {
        let follower = Self::new(spawn(&["busctl", "--json=short", "monitor", "org.memcharge.Memcharge1"]));
        until("busctl follows", || {
            let _ = ctl(&["list"]).ok();
            (!follower.lines().is_empty()).then_some(())
        });
        follower
    }

    /// `memchargectl monitor`. It follows once its first line is there.
    pub fn monitor() -> Self {
        Self::new(spawn(&["memchargectl", "monitor", "--json=short"]))
    }

    fn new(mut child: Child) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (out, into) = (child.stdout.take().unwrap(), Arc::clone(&lines));
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                into.lock().unwrap().push(serde_json::from_str(&line).unwrap());
            }
        });
        Self { child, lines }
    }

    /// What it has said.
    pub fn lines(&self) -> Vec<Value> {
        self.lines.lock().unwrap().clone()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(words: &[&str]) -> Child {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdout(Stdio::piped()).spawn().expect("a program")
}
