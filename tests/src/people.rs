//! A target full of people, of whom one may be killed, and what all who tell of a kill say.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test fails by a panic.

use std::{
    fs::File,
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use crate::{
    cgroup::{Cg, MIB},
    client::{Report, Waiting, probe, report_while},
    kernel_log::Mark,
    mount::Mount,
    service::{ctl, run},
    wait::until,
};

/// How memcharged names a kill that has just happened in the journal.
const KILLED: &str = "c1d283b6c7ec4af7b070e4aaeb29b7ff";

/// How it names a grant that a process died for.
const GRANTED_AFTER_KILL: &str = "7a9796f79ce5494bb7374d06e48663a8";

/// A target with a limit, people in it and one outside, and a mount that may kill.
#[derive(Debug)]
pub struct Place {
    /// Who pays.
    pub target: Cg,
    /// Where chargers live.
    pub client: Cg,
    /// The mount `m`.
    pub mount: Mount,
    /// In the target, in the order in which they were given.
    pub people: Vec<Waiting>,
    outside: Waiting,
    store: u32,
    log: Mark,
    ear: Ear,
}

impl Place {
    /// People with so many MiB of private memory each, in these cgroups below `target`, which has `limit` bytes.
    /// `more`: further arguments of `memchargectl mount`.
    pub fn make(target: &str, limit: u64, people: &[(&str, u64)], more: &[&str]) -> Self {
        let (target, client) = (Cg::make(target).max(limit), Cg::make("/client"));
        // With a child that has the controller the store's leaf has figures of its own.
        Cg::make(&format!("{}/own", target.path()));
        let usual: &[&str] =
            if more.iter().any(|word| word.starts_with("deadline=")) { &[] } else { &DEADLINE };
        let mount = Mount::make("m", target.path(), &[&["--on-full", "kill"], usual, more].concat());
        let outside = Waiting::start(&client, &["hog", &(24 * MIB).to_string()]);
        let live = |(cgroup, mib): &(&str, u64)| {
            let cgroup = Cg::make(&format!("{}/{cgroup}", target.path()));
            Waiting::start(&cgroup, &["hog", &(mib * MIB).to_string()])
        };
        let people = people.iter().map(live).collect();
        let _ = probe(&client, &["write", &mount.join("warm"), "4096"]).ok();
        std::fs::remove_file(mount.join("warm")).unwrap();
        let (store, ear) = (mount.store(), Ear::open());
        Self { target, client, mount, people, outside, store, log: Mark::now(), ear }
    }

    /// A charger outside the target asks for a new file of so many MiB, and lives.
    pub fn ask(&self, file: &str, mib: u64) -> Report {
        self.act(&["fallocate", &self.mount.join(file), &(mib * MIB).to_string()])
    }

    /// A charger outside the target does something, and lives. It stays until that is in the history.
    pub fn act(&self, words: &[&str]) -> Report {
        let before = told("m");
        let look = || until("it is recorded", || (told("m") > before).then_some(()));
        report_while(&self.client, words, look).0
    }

    /// Asks for a new file until it is there: a refusal stands for others like it for a moment.
    pub fn ask_until_granted(&self, file: &str, bytes: u64) {
        let words = ["fallocate", &self.mount.join(file), &bytes.to_string()];
        until("it is granted", || self.act(&words).errno.is_none().then_some(()));
    }

    /// Nobody but these (by their places in `people`) has died: no one else in the target or outside, not the store;
    /// nor had the kernel a hand in it.
    pub fn assert_dead(&mut self, dead: &[usize]) {
        for at in dead {
            until("the victim is gone", || (!self.people[*at].is_alive()).then_some(()));
        }
        for (at, person) in self.people.iter_mut().enumerate() {
            assert_eq!(person.is_alive(), !dead.contains(&at), "person {at}; {dead:?} should be dead");
        }
        assert!(self.outside.is_alive(), "somebody outside was killed");
        assert_eq!(self.mount.store(), self.store, "the store was killed");
        assert_eq!(self.mount.properties()["state"], "active");
        for cgroup in [&self.target, &self.client] {
            for counter in ["oom", "oom_kill", "oom_group_kill"] {
                assert_eq!(cgroup.event(counter), 0, "{counter} of {}", cgroup.path());
            }
        }
        let mut said = self.log.since();
        // An emulated processor is slow, which the kernel notices once.
        said.retain(|line| !line.contains("hrtimer: interrupt took"));
        assert!(said.is_empty(), "the kernel log has something new:\n{}", said.join("\n"));
    }

    /// The last event is a grant after the kill of this person, and all who tell of it agree; `kills` is the mount's
    /// count of them.
    pub fn assert_killed(&self, at: usize, cgroup: &str, kills: u64) -> Value {
        let pid = self.people[at].pid();
        let event = last("m");
        assert_eq!(event["outcome"], "granted-after-kill", "{event}");
        assert_eq!(event["reason"], "room", "{event}");
        assert_eq!(event["victim_pid"], pid, "{event}");
        assert_eq!(event["victim_comm"], "memcharge-probe", "{event}");
        assert_eq!(event["victim_cgroup"], format!("{}/{cgroup}", self.target.path()), "{event}");
        assert_eq!((&event["mount"], &event["charger_cgroup"]), (&"m".into(), &"/client".into()), "{event}");
        assert_eq!(self.mount.number("kills"), kills);
        let id = event["id"].as_str().unwrap();
        for message in [KILLED, GRANTED_AFTER_KILL] {
            let told = until("the journal tells of it", || {
                let told = journal(&[&format!("MEMCHARGE_EVENT_ID={id}"), &format!("MESSAGE_ID={message}")]);
                (!told.is_empty()).then_some(told)
            });
            assert_eq!(told.len(), 1, "{told:?}");
            assert_eq!(told[0]["MEMCHARGE_VICTIM_PID"], pid.to_string(), "{told:?}");
            assert_eq!(told[0]["MEMCHARGE_MOUNT"], "m", "{told:?}");
        }
        for member in ["RemoteOom", "Outcome"] {
            let heard = until("the bus tells of it", || {
                let heard = self.ear.details(member, id);
                (!heard.is_empty()).then_some(heard)
            });
            assert_eq!(heard.len(), 1, "{member}: {heard:?}");
            assert_eq!(heard[0]["VictimPid"]["data"], pid, "{member}: {heard:?}");
            assert_eq!(heard[0]["Outcome"]["data"], "granted-after-kill", "{member}: {heard:?}");
        }
        event
    }

    /// The last event is a refusal for this reason, names no victim, and so many were killed in all.
    pub fn assert_refused(&self, reason: &str, kills: u64) -> Value {
        let event = last("m");
        assert_eq!((&event["outcome"], &event["reason"]), (&"enospc".into(), &reason.into()), "{event}");
        assert_eq!(event["victim_pid"].as_u64().unwrap_or(0), 0, "{event}");
        assert_eq!(self.mount.number("kills"), kills, "{event}");
        event
    }

    /// Ends it all, so that another one can be made.
    pub fn end(self) {
        self.mount.unmount();
    }
}

/// Emulation is slow: a shorter deadline is for those who test it.
const DEADLINE: [&str; 2] = ["--set", "deadline=5s"];

/// What is recorded of a mount, newest last.
pub fn history(mount: &str) -> Vec<Value> {
    serde_json::from_str(&ctl(&["--json", "history", mount]).ok().out).unwrap()
}

/// Outcomes with their repeats: so many requests have been told of.
fn told(mount: &str) -> u64 {
    history(mount).iter().map(|event| 1 + event["repeats"].as_u64().unwrap()).sum()
}

/// The last of it.
pub fn last(mount: &str) -> Value {
    history(mount).pop().expect("something is recorded")
}

/// Entries of the journal with these fields.
pub fn journal(matches: &[&str]) -> Vec<Value> {
    let said = run(&[&["journalctl", "-b", "-q", "-o", "json", "--no-pager"], matches].concat());
    // No entry is not success to it.
    said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Hears all signals of memcharged.
#[derive(Debug)]
struct Ear {
    child: Child,
}

const HEARD: &str = "/tmp/heard";

impl Ear {
    fn open() -> Self {
        let rule = "type='signal',path_namespace='/org/memcharge/Memcharge1'";
        let child = Command::new("busctl")
            .args(["monitor", "--json=short", "--match", rule])
            .stdin(Stdio::null())
            .stdout(File::create(HEARD).unwrap())
            .spawn()
            .expect("busctl");
        // It does not say when it is ready.
        until("busctl hears", || {
            let emit = ["busctl", "emit", "/org/memcharge/Memcharge1", "org.example.Test", "AreYouThere"];
            let _ = run(&emit).ok();
            std::fs::read_to_string(HEARD).unwrap().contains("AreYouThere").then_some(())
        });
        Self { child }
    }

    /// The details of the signals `member` about this event.
    fn details(&self, member: &str, id: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(HEARD).unwrap();
        // The last line may be half written.
        let signals = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let details = signals
            .filter(|signal| signal["member"] == member)
            .filter_map(|signal| signal["payload"]["data"].as_array()?.last().cloned());
        details.filter(|details| details["Id"]["data"] == id).collect()
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
