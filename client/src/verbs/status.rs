//! `status`: the daemon and its mounts, for people.

use memcharge_dbus::NO_LIMIT;
use memcharge_policy::MountName;
use serde_json::{Value as Json, json};

use crate::{
    bus::Bus,
    cli::View,
    error::ClientError,
    event::{Recorded, asked_text, charger_text, outcome_text},
    json::escape_controls,
    layout::{cut_end, cut_middle, wrap},
    output::{Report, human_size, json_text},
    properties::Properties,
    style::{paint, state_style},
    time,
};

/// How wide the labels of a block are.
const LABEL_WIDTH: usize = 10;

/// How narrow the values may become; on a narrower terminal lines are too long.
const LEAST_WIDTH: usize = 10;

/// What is shown: the daemon and some of its mounts.
struct Status {
    version: String,
    dry_run: bool,
    count: u32,
    mounts: Vec<Properties>,
    /// Now, in microseconds since 1970.
    now_usec: u64,
}

/// Shows the daemon and its mounts, or one of them.
pub(crate) async fn run(name: Option<&MountName>, view: View) -> Result<Report, ClientError> {
    let bus = Bus::connect().await?;
    let mounts = match name {
        Some(name) => {
            let object = bus.find(name).await?;
            vec![Properties::read_mount(&bus, &object).await?]
        }
        None => read_all(&bus).await?,
    };
    let manager = &bus.manager;
    let (version, dry_run) = (manager.version().await?, manager.dry_run().await?);
    let status =
        Status { version, dry_run, count: manager.mount_count().await?, mounts, now_usec: time::now()? };
    Ok(json_text(view, || json(&status)).unwrap_or_else(|| text(&status, view)).into())
}

/// All mounts but those that end while they are read.
async fn read_all(bus: &Bus) -> Result<Vec<Properties>, ClientError> {
    let mut mounts = Vec::new();
    for row in bus.mounts().await? {
        match Properties::read_mount(bus, &row.object).await {
            Err(ClientError::NoSuchMount(_)) => {}
            mount => mounts.push(mount?),
        }
    }
    Ok(mounts)
}

fn json(status: &Status) -> Json {
    json!({
        "version": status.version,
        "dry_run": status.dry_run,
        "mount_count": status.count,
        "mounts": status.mounts.iter().map(Properties::json).collect::<Json>(),
    })
}

fn text(status: &Status, view: View) -> String {
    let count = match status.count {
        0 => "no mounts".to_owned(),
        1 => "1 mount".to_owned(),
        more => format!("{more} mounts"),
    };
    let mode = if status.dry_run { " (dry run)" } else { "" };
    let blocks: String = status.mounts.iter().map(|mount| block(mount, status.now_usec, view)).collect();
    format!("memcharged {}{mode}, {count}\n{blocks}", status.version)
}

fn block(mount: &Properties, now_usec: u64, view: View) -> String {
    let state = match mount.text("StateReason") {
        reason if reason.is_empty() => mount.text("State"),
        reason => format!("{} ({reason})", mount.text("State")),
    };
    let store = match mount.number("StorePid") {
        Some(0) => "none".to_owned(),
        Some(pid) => format!("PID {pid}"),
        None => mount.text("StorePid"),
    };
    let room = view.width().map(|width| width.saturating_sub(LABEL_WIDTH + ": ".len()).max(LEAST_WIDTH));
    let path = |value: String| room.map_or(value.clone(), |room| cut_middle(&value, room));
    let words = |value: String| room.map_or(value.clone(), |room| lines(&value, room));
    let entries = [
        ("Where", Some(path(mount.text("Where")))),
        ("Target", Some(path(mount.text("Target")))),
        ("State", Some(paint_state(&mount.text("State"), words(state), view))),
        ("Used", Some(words(used(mount)))),
        ("Headroom", Some(words(size(mount, "HeadroomBytes")))),
        ("Charged", Some(words(size(mount, "ChargedBytes")))),
        ("Earlier", earlier(mount).map(words)),
        ("Denials", Some(words(mount.text("Denials")))),
        ("Kills", Some(words(mount.text("Kills")))),
        ("Last", Some(words(last(mount, now_usec)))),
        ("Store", Some(words(store))),
    ];
    let line = |(label, value): (&str, Option<String>)| Some(format!("{label:>LABEL_WIDTH$}: {}\n", value?));
    let name = view.width().map_or(mount.text("Name"), |width| cut_end(&mount.text("Name"), width));
    format!("\n{name}\n{}", entries.into_iter().filter_map(line).collect::<String>())
}

/// A value in lines of at most `room` columns, those after the first below it. Nothing is left out but the end of a
/// word that is too long by itself: reasons say what to do.
fn lines(value: &str, room: usize) -> String {
    let lines: Vec<String> = wrap(value, room).lines().map(|line| cut_end(line, room)).collect();
    lines.join(&format!("\n{}", " ".repeat(LABEL_WIDTH + ": ".len())))
}

/// The state, at the beginning of the value, in its colour.
fn paint_state(state: &str, value: String, view: View) -> String {
    match value.strip_prefix(state) {
        Some(rest) => format!("{}{rest}", paint(state, state_style(state), view.screen.colour)),
        None => value,
    }
}

/// Who still pays for what was written before the mount was retargeted; `None` where nobody does.
fn earlier(mount: &Properties) -> Option<String> {
    let targets = mount.words("PreviousTargets");
    let targets = targets.iter().map(|target| escape_controls(target)).collect::<Vec<_>>().join(", ");
    (!targets.is_empty()).then(|| format!("up to {} paid by {targets}", size(mount, "PreviousBytes")))
}

fn used(mount: &Properties) -> String {
    match mount.number("SizeMax") {
        Some(NO_LIMIT) => size(mount, "UsedBytes"),
        _ => format!("{} of {}", size(mount, "UsedBytes"), size(mount, "SizeMax")),
    }
}

/// The last arbitration in one line.
fn last(mount: &Properties, now_usec: u64) -> String {
    let Some(details) = mount.dictionary("LastOutcome") else { return mount.text("LastOutcome") };
    if details.is_empty() {
        return "none".to_owned();
    }
    let event = match Recorded::read(details) {
        Ok(recorded) => recorded.event,
        Err(error) => return format!("(error: {error})"),
    };
    format!(
        "{} {} ({} {}, {} asked by {})",
        outcome_text(&event),
        time::ago(event.realtime_usec, now_usec),
        event.limit.kind,
        event.limit.name,
        asked_text(&event),
        charger_text(&event)
    )
}

fn size(mount: &Properties, name: &str) -> String {
    match mount.number(name) {
        Some(NO_LIMIT) => "no limit".to_owned(),
        Some(bytes) => human_size(bytes),
        None => mount.text(name),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use memcharge_dbus::event_details;
    use memcharge_policy::outcome::Event;
    use zbus::zvariant::Value;

    use super::*;
    use crate::{
        event::tests::event,
        properties::tests::{complete, sample},
        schema::assert_valid,
        terminal::{Screen, Size},
    };

    #[test]
    fn r29_who_paid_earlier_is_named_while_they_still_do() {
        let mount = |targets: Vec<&'static str>, bytes: Result<u64, &'static str>| {
            let bytes = bytes.map(Value::from);
            sample(vec![("PreviousTargets", Ok(targets.into())), ("PreviousBytes", bytes)])
        };
        for (mount, line) in [
            (mount(vec!["a.slice"], Ok(12 << 20)), Some("up to 12.0 MiB paid by a.slice")),
            (mount(vec!["a.slice", "/b\nc"], Ok(0)), Some("up to 0 B paid by a.slice, /b\\nc")),
            (mount(vec!["a.slice"], Err("no store")), Some("up to (error: no store) paid by a.slice")),
            (mount(vec![], Ok(0)), None),
            (sample(vec![]), None),
        ] {
            assert_eq!(earlier(&mount).as_deref(), line);
        }
        let shown = block(&mount(vec!["a.slice"], Ok(12 << 20)), 0, View::default());
        assert!(shown.contains("\n   Earlier: up to 12.0 MiB paid by a.slice\n"), "{shown}");
        assert!(!block(&sample(vec![]), 0, View::default()).contains("Earlier"));
    }

    fn status() -> Status {
        let mount = sample(vec![
            ("Name", Ok("models".into())),
            ("Where", Ok("/run/m".into())),
            ("Target", Ok("a.slice".into())),
            ("State", Ok("failed".into())),
            ("StateReason", Ok("the store died".into())),
            ("SizeMax", Ok((2u64 << 30).into())),
            ("UsedBytes", Err("no store")),
            ("HeadroomBytes", Ok(u64::MAX.into())),
            ("ChargedBytes", Ok((14u64 << 20).into())),
            ("Denials", Ok(3u64.into())),
            ("Kills", Ok(1u64.into())),
            ("LastOutcome", Ok(HashMap::<String, Value<'_>>::new().into())),
            ("StorePid", Ok(0u32.into())),
        ]);
        Status { version: "0.1.0".into(), dry_run: false, count: 1, mounts: vec![mount], now_usec: 0 }
    }

    #[test]
    fn a_block_for_each_mount() {
        assert_eq!(
            text(&status(), View::default()),
            "memcharged 0.1.0, 1 mount\n\nmodels\n     Where: /run/m\n    Target: a.slice\n     \
             State: failed (the store died)\n      Used: (error: no store) of 2.0 GiB\n  \
             Headroom: no limit\n   Charged: 14.0 MiB\n   Denials: 3\n     Kills: 1\n      Last: none\n     Store: none\n"
        );
        let empty = Status { count: 0, mounts: Vec::new(), ..status() };
        assert_eq!(text(&empty, View::default()), "memcharged 0.1.0, no mounts\n");
        let dry = Status { dry_run: true, ..empty };
        assert_eq!(text(&dry, View::default()), "memcharged 0.1.0 (dry run), no mounts\n");
    }

    #[test]
    fn a_terminal_gets_colours_and_lines_that_fit() {
        let size = Some(Size { columns: 24, lines: 50 });
        let view = View { screen: Screen { colour: true, size, paged: true }, ..View::default() };
        let mut long = status();
        long.mounts = vec![sample(vec![
            ("Name", Ok("models".into())),
            ("Where", Ok("/run/shared/models".into())),
            ("State", Ok("failed".into())),
            ("StateReason", Ok("the store died, and the data are kept".into())),
        ])];
        let shown = text(&long, view);
        for part in [
            "     Where: /run/…models\n",
            "     State: \u{1b}[1m\u{1b}[31mfailed\u{1b}[0m (the\n            store died,\n",
        ] {
            assert!(shown.contains(part), "{shown}");
        }
        let plain = shown.replace("\u{1b}[1m\u{1b}[31m", "").replace("\u{1b}[0m", "");
        assert!(plain.lines().skip(1).all(|line| line.chars().count() <= 24), "{plain}");
        assert!(
            text(&long, View { full: true, ..view }).contains("(the store died, and the data are kept)\n")
        );
    }

    #[test]
    fn the_last_outcome_in_one_line() {
        let with = |event: &Event| sample(vec![("LastOutcome", Ok(event_details(event).into()))]);
        let now = event().realtime_usec + 130_000_000;
        assert_eq!(
            last(&with(&event()), now),
            "enospc 2 min ago (target memory.max, 1.0 MiB asked by python3[123])"
        );
        let broken = sample(vec![("LastOutcome", Ok(HashMap::from([("Id", Value::from(1u32))]).into()))]);
        assert!(
            last(&broken, now).starts_with("(error: memcharged's answer does not hold together: the event")
        );
        assert_eq!(last(&sample(vec![("LastOutcome", Err("no store"))]), now), "(error: no store)");
        assert_eq!(last(&sample(vec![]), now), "(unknown)");
    }

    #[test]
    fn json_has_the_exact_figures() {
        let found = json(&status());
        assert_eq!(found["mount_count"], 1);
        assert_eq!(found["dry_run"], false);
        assert_eq!(found["mounts"][0]["size_max"], 2u64 << 30);
        assert_eq!(found["mounts"][0]["used_bytes"], Json::Null);
        let whole = Status { mounts: vec![complete()], ..status() };
        assert_valid("status", &format!("{}\n", json(&whole)));
    }
}
