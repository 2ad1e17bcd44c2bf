//! What is told of an arbitration while it happens: on the bus, in the journal (R32).

use memcharge_tests::{
    cgroup::{Cg, MIB},
    client::report,
    history::{Follower, assert_recorded, events, full_mount, number, refuse_each, refused, text},
    host::TIMED,
    mount::Mount,
    service::{ctl, run},
    vm_tests,
    wait::until,
};
use serde_json::Value;

/// The `MESSAGE_ID` of a refusal; it never changes.
const REFUSED: &str = "b93779109b0645b98b7c60375fd66e8d";

const ROOT: &str = "/org/memcharge/Memcharge1";

fn number_of_events(mount: &Mount) -> u64 {
    events(&mount.name).len() as u64
}

fn own_of<'a>(lines: &'a [Value], member: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["type"] == "signal" && line["member"] == member).collect()
}

vm_tests! { TIMED;
    /// R32: history, log, signals and properties agree about each event, and signals come once each.
    fn r32_everybody_is_told_the_same() {
        let client = Cg::make("/client");
        let mount = full_mount("m", &client);
        let (bus, monitor) = (Follower::bus(), Follower::monitor());
        let start = std::time::Instant::now();
        let mut seen = 0;
        until("the monitor follows", || {
            // Each asks for less than the one before, and so is no repeat of it.
            seen += refused(&client, &["truncate", &mount.join("f"), &((2000 - seen) * MIB).to_string()]);
            (!monitor.lines().is_empty()).then_some(())
        });
        println!("the monitor follows after {:?}", start.elapsed());
        let before = assert_recorded(&mount, seen).len();
        refuse_each(&mount, 20..=22);
        seen += 3;
        let grown = report(&client, &["grow", &mount.join("f"), "5"]).done;
        let asked = std::time::Instant::now();
        let events = assert_recorded(&mount, seen + grown);
        println!("repeats are shown after {:?}", asked.elapsed());
        assert!(asked.elapsed().as_secs() < 2, "R32: repeats are shown within 2 s");
        let ids: Vec<_> = events.iter().map(|event| text(event, "id")).collect();

        until("all signals", || (own_of(&bus.lines(), "RemoteOom").len() >= ids.len()).then_some(()));
        let lines = bus.lines();
        let mut told = Vec::new();
        for signal in own_of(&lines, "RemoteOom") {
            let data = &signal["payload"]["data"];
            assert_eq!((&signal["path"], &data[0]), (&Value::from(ROOT), &Value::from(format!("{ROOT}/mount/m"))));
            assert_eq!(data[1], data[2]["Outcome"]["data"]);
            told.push(data[2]["Id"]["data"].as_str().unwrap());
        }
        assert_eq!(told, ids, "RemoteOom");
        let outcomes = own_of(&lines, "Outcome");
        let outcomes: Vec<_> = outcomes.iter().map(|s| s["payload"]["data"][1]["Id"]["data"].as_str().unwrap()).collect();
        assert_eq!(outcomes, ids, "Outcome");
        // The property is told with each event, and again with what repeats it.
        let last = events.last().unwrap();
        until("LastOutcome", || {
            let lines = bus.lines();
            let changes = lines.iter().filter(|line| line["member"] == "PropertiesChanged");
            let mut told = changes.map(|line| &line["payload"]["data"][1]["LastOutcome"]["data"]).filter(|told| !told.is_null());
            let told = told.next_back()?;
            let same = |key, name: &str| told[name]["data"] == last[key];
            (same("id", "Id") && same("repeats", "Repeats")).then_some(())
        });

        // What was there before it followed is the one thing that it does not show.
        let shown = || monitor.lines().iter().map(|line| text(&line["details"], "id").to_owned()).collect::<Vec<_>>();
        until("the monitor's lines", || (shown().last().map(String::as_str) == ids.last().copied()).then_some(()));
        assert!(shown().len() > ids.len() - before);
        assert_eq!(shown(), ids[ids.len() - shown().len()..], "memchargectl monitor");
        let line = monitor.lines().remove(0);
        assert_eq!((text(&line, "signal"), text(&line, "mount")), ("remote_oom", "m"));

        let shown = mount.properties();
        assert_eq!(&shown["last_outcome"], events.last().unwrap());
        assert!(ctl(&["history", "m"]).ok().out.contains(&ids[before][..12]));
    }

    /// R32: the journal has each event with its fields, and explains it; too many are counted, not told.
    fn r32_the_journal_explains() {
        let client = Cg::make("/client");
        let mount = full_mount("m", &client);
        let seen = refused(&client, &["truncate", &mount.join("f"), &(1u64 << 40).to_string()]);
        let event = assert_recorded(&mount, seen).remove(0);
        let id = format!("MEMCHARGE_EVENT_ID={}", text(&event, "id"));
        let message_id = format!("MESSAGE_ID={REFUSED}");
        let entry = until("the entry", || {
            let out = run(&["journalctl", "-b", "-o", "json", &message_id, &id]).out;
            serde_json::from_str::<Value>(out.trim()).ok()
        });
        for (field, key) in [("MOUNT", "mount"), ("OUTCOME", "outcome"), ("LIMIT_KIND", "limit_kind"), ("LIMIT_NAME", "limit_name")] {
            assert_eq!(text(&entry, &format!("MEMCHARGE_{field}")), text(&event, key));
        }
        for (field, key) in [("BYTES_ASKED", "bytes_asked"), ("BYTES_MISSING", "bytes_missing"), ("CHARGER_PID", "charger_pid")] {
            assert_eq!(text(&entry, &format!("MEMCHARGE_{field}")), number(&event, key).to_string());
        }
        assert_eq!(text(&entry, "PRIORITY"), "4");
        let explained = run(&["journalctl", "-b", "-x", "--no-pager", &message_id, &id]).ok().out;
        let explained = explained.replace("░░", "").split_whitespace().collect::<Vec<_>>().join(" ");
        for part in [
            "Subject: A writer to the mount m got ENOSPC",
            "are charged to /target, and there was no memory left",
            "the limit that was hit is size (mount)",
            &format!("memchargectl explain {}", text(&event, "id")),
        ] {
            assert!(explained.contains(part), "{part:?} is not in: {explained}");
        }
        refuse_each(&mount, 100..=149);
        assert_recorded(&mount, seen + 50);
        let count = || {
            let out = run(&["journalctl", "-b", "-o", "json", &message_id]).out;
            let entries: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let suppressed = |e: &Value| e["MEMCHARGE_SUPPRESSED"].as_str().map_or(0, |n| n.parse::<u64>().unwrap());
            (entries.len() as u64, entries.iter().map(suppressed).sum::<u64>())
        };
        assert!(count().0 < 40, "the log is not flooded: {:?}", count());
        // The next one that goes out says how many did not.
        let all = until("what was not told is counted", || {
            let often = refused(&client, &["write", &mount.join("f"), "4096", "--append"]);
            let (told, suppressed) = count();
            assert!(often == 1 && told + suppressed <= number_of_events(&mount));
            (told + suppressed == number_of_events(&mount)).then_some((told, suppressed))
        });
        println!("{} entries, {} suppressed", all.0, all.1);
    }
}
