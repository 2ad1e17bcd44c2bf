//! `list`: one line for each mount.

use memcharge_dbus::{MOUNT_INTERFACE, MountRow, NO_LIMIT};
use serde_json::{Value as Json, json};

use crate::{
    bus::Bus,
    cli::View,
    error::ClientError,
    json::{escape_controls, to_text},
    output::{Report, json_text, short_size},
    style::state_style,
    table::{Column, table},
};

const COLUMNS: [Column; 5] = [
    Column::text("NAME"),
    Column::path("WHERE"),
    Column::path("TARGET"),
    Column::number("USED"),
    Column::word("STATE").painted(state_style),
];

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
        let rows: Vec<_> = mounts.iter().map(row_cells).collect();
        table(COLUMNS, &rows, view)
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
    use crate::{cli::JsonMode, schema::assert_valid};

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
        let view = |json| View { json, ..View::default() };
        assert_eq!(
            render(&mounts, view(JsonMode::Off)),
            "NAME  WHERE   TARGET   USED  STATE\nm     /run/m  a.slice  1.0M  active\n"
        );
        let text = render(&mounts, view(JsonMode::Short));
        assert_valid("list", &text);
        let found: Json = serde_json::from_str(&text).unwrap();
        assert_eq!(
            found,
            json!([{"name": "m", "where": "/run/m", "target": "a.slice", "used_bytes": 1048576, "state": "active",
                    "object": "/org/memcharge/Memcharge1/mount/m"}])
        );
        assert_eq!(render(&[], view(JsonMode::Short)), "[]\n");
        let [(row, _)] = mounts;
        let gone = [(MountRow { used: NO_LIMIT, ..row }, None)];
        assert_valid("list", &render(&gone, view(JsonMode::Short)));
    }
}
