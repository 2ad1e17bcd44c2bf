//! `status`: the daemon and its mounts, for people.

use memcharge_dbus::NO_LIMIT;
use memcharge_policy::MountName;
use serde_json::{Value as Json, json};

use crate::{
    bus::Bus,
    cli::View,
    error::ClientError,
    output::{Report, human_size, json_text},
    properties::Properties,
};

/// How wide the labels of a block are.
const LABEL_WIDTH: usize = 10;

/// What is shown: the daemon and some of its mounts.
struct Status {
    version: String,
    count: u32,
    mounts: Vec<Properties>,
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
    let (version, count) = (bus.manager.version().await?, bus.manager.mount_count().await?);
    let status = Status { version, count, mounts };
    Ok(json_text(view, || json(&status)).unwrap_or_else(|| text(&status)).into())
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
        "mount_count": status.count,
        "mounts": status.mounts.iter().map(Properties::json).collect::<Json>(),
    })
}

fn text(status: &Status) -> String {
    let count = match status.count {
        0 => "no mounts".to_owned(),
        1 => "1 mount".to_owned(),
        more => format!("{more} mounts"),
    };
    let blocks: String = status.mounts.iter().map(block).collect();
    format!("memcharged {}, {count}\n{blocks}", status.version)
}

fn block(mount: &Properties) -> String {
    let state = match mount.text("StateReason") {
        reason if reason.is_empty() => mount.text("State"),
        reason => format!("{} ({reason})", mount.text("State")),
    };
    let store = match mount.number("StorePid") {
        Some(0) => "none".to_owned(),
        Some(pid) => format!("PID {pid}"),
        None => mount.text("StorePid"),
    };
    let lines = [
        ("Where", mount.text("Where")),
        ("Target", mount.text("Target")),
        ("State", state),
        ("Used", used(mount)),
        ("Headroom", size(mount, "HeadroomBytes")),
        ("Charged", size(mount, "ChargedBytes")),
        ("Denials", mount.text("Denials")),
        ("Store", store),
    ];
    let line = |(label, value): &(&str, String)| format!("{label:>LABEL_WIDTH$}: {value}\n");
    format!("\n{}\n{}", mount.text("Name"), lines.iter().map(line).collect::<String>())
}

fn used(mount: &Properties) -> String {
    match mount.number("SizeMax") {
        Some(NO_LIMIT) => size(mount, "UsedBytes"),
        _ => format!("{} of {}", size(mount, "UsedBytes"), size(mount, "SizeMax")),
    }
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
    use super::*;
    use crate::properties::tests::sample;

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
            ("StorePid", Ok(0u32.into())),
        ]);
        Status { version: "0.1.0".into(), count: 1, mounts: vec![mount] }
    }

    #[test]
    fn a_block_for_each_mount() {
        assert_eq!(
            text(&status()),
            "memcharged 0.1.0, 1 mount\n\nmodels\n     Where: /run/m\n    Target: a.slice\n     \
             State: failed (the store died)\n      Used: (error: no store) of 2.0 GiB\n  \
             Headroom: no limit\n   Charged: 14.0 MiB\n   Denials: 3\n     Store: none\n"
        );
        let empty = Status { count: 0, mounts: Vec::new(), ..status() };
        assert_eq!(text(&empty), "memcharged 0.1.0, no mounts\n");
    }

    #[test]
    fn json_has_the_exact_figures() {
        let found = json(&status());
        assert_eq!(found["mount_count"], 1);
        assert_eq!(found["mounts"][0]["size_max"], 2u64 << 30);
        assert_eq!(found["mounts"][0]["used_bytes"], Json::Null);
    }
}
