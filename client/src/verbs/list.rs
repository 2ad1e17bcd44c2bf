//! `list`: one line for each mount.

use memcharge_dbus::{MOUNT_INTERFACE, MountRow, NO_LIMIT};
use serde_json::{Value as Json, json};

use crate::{
    bus::Bus,
    cli::View,
    error::ClientError,
    json::{escape_controls, to_text},
    output::{Align, Report, json_text, short_size, table},
};

/// Lists the mounts.
pub(crate) async fn run(view: View) -> Result<Report, ClientError> {
    let bus = Bus::connect().await?;
    let mut mounts = Vec::new();
    for row in bus.mounts().await? {
        let state = bus.property(&row.object, MOUNT_INTERFACE, "State").await;
        mounts.push((row, state.ok().map(|state| to_text(&state))));
    }
    Ok(render(&mounts, view).into())
}

/// The state is `None` where it cannot be read, as for a mount that has ended meanwhile.
fn render(mounts: &[(MountRow, Option<String>)], view: View) -> String {
    json_text(view, || mounts.iter().map(row_json).collect()).unwrap_or_else(|| {
        let head = [
            ("NAME", Align::Left),
            ("WHERE", Align::Left),
            ("TARGET", Align::Left),
            ("USED", Align::Right),
            ("STATE", Align::Left),
        ];
        let rows: Vec<_> = mounts.iter().map(row_cells).collect();
        table(head, &rows, !view.no_legend)
    })
}

fn row_cells((row, state): &(MountRow, Option<String>)) -> [String; 5] {
    [
        escape_controls(&row.name),
        escape_controls(&row.place),
        escape_controls(&row.target),
        if row.used == NO_LIMIT { "-".to_owned() } else { short_size(row.used) },
        state.clone().unwrap_or_else(|| "-".to_owned()),
    ]
}

fn row_json((row, state): &(MountRow, Option<String>)) -> Json {
    json!({
        "name": row.name,
        "where": row.place,
        "target": row.target,
        "used_bytes": (row.used != NO_LIMIT).then_some(row.used),
        "state": state,
        "object": row.object.as_str(),
    })
}

#[cfg(test)]
mod tests {
    use memcharge_dbus::mount_path;

    use super::*;
    use crate::cli::JsonMode;

    #[test]
    fn text_and_json() {
        let row = MountRow {
            name: "m".into(),
            place: "/run/m".into(),
            target: "a.slice".into(),
            used: 1 << 20,
            object: mount_path(&"m".parse().unwrap()),
        };
        let mounts = [(row, Some("active".to_owned()))];
        let view = |json| View { json, no_pager: false, no_legend: false, quiet: false };
        assert_eq!(
            render(&mounts, view(JsonMode::Off)),
            "NAME  WHERE   TARGET   USED  STATE\nm     /run/m  a.slice  1.0M  active\n"
        );
        let found: Json = serde_json::from_str(&render(&mounts, view(JsonMode::Short))).unwrap();
        assert_eq!(
            found,
            json!([{"name": "m", "where": "/run/m", "target": "a.slice", "used_bytes": 1048576, "state": "active",
                    "object": "/org/memcharge/Memcharge1/mount/m"}])
        );
        assert_eq!(render(&[], view(JsonMode::Short)), "[]\n");
    }
}
