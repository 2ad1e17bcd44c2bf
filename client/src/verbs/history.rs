//! `history`: recorded arbitrations, one line each.

use std::collections::HashMap;

use zbus::zvariant::Value;

use crate::{
    bus::Bus,
    cli::{HistoryArgs, View},
    error::ClientError,
    event::{Recorded, asked_text, charger_text, limit_text, outcome_text},
    json::escape_controls,
    output::{Report, json_text},
    table::{Column, table},
    time::{self, utc},
};

const COLUMNS: [Column; 8] = [
    Column::word("TIME"),
    Column::word("ID"),
    Column::text("MOUNT"),
    Column::text("OUTCOME"),
    Column::path("LIMIT"),
    Column::number("ASKED"),
    Column::text("CHARGER"),
    Column::number("REPEATS"),
];

/// So many digits tell events apart; `explain` takes them. JSON has them all.
const ID_DIGITS: usize = 12;

/// Shows what is recorded, newest last.
pub(crate) async fn run(args: &HistoryArgs, view: View) -> Result<Report, ClientError> {
    let options = options(args, time::now()?);
    let sent = options.iter().map(|(name, value)| (*name, value)).collect();
    let answer = Bus::connect().await?.manager.get_history(sent).await?;
    let events = answer.into_iter().map(Recorded::read).collect::<Result<Vec<_>, _>>()?;
    Ok(render(&events, view).into())
}

/// The options of the call; what is not given is the daemon's to decide.
fn options(args: &HistoryArgs, now_usec: u64) -> HashMap<&'static str, Value<'static>> {
    let mount = args.name.as_ref().map(|name| ("Mount", Value::from(name.to_string())));
    let since = args.since.map(|since| ("Since", Value::from(since.resolve(now_usec))));
    let limit = args.limit.map(|limit| ("Limit", Value::from(limit)));
    [mount, since, limit].into_iter().flatten().collect()
}

fn render(events: &[Recorded], view: View) -> String {
    json_text(view, || events.iter().map(Recorded::json).collect()).unwrap_or_else(|| {
        let rows: Vec<_> = events.iter().map(row).collect();
        table(COLUMNS, &rows, view)
    })
}

/// The id stands in full: those of one store differ in their last digits only, and a shorter one might be ambiguous
/// among the events that are not shown.
fn row(recorded: &Recorded) -> [String; 8] {
    let event = &recorded.event;
    [
        utc(event.realtime_usec),
        event.id.to_string().chars().take(ID_DIGITS).collect(),
        escape_controls(&event.mount),
        outcome_text(event),
        limit_text(&event.limit),
        asked_text(event),
        charger_text(event),
        event.repeats.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::Value as Json;

    use super::*;
    use crate::{
        cli::JsonMode,
        event::tests::{details, event},
        schema::assert_valid,
        time::Since,
    };

    #[test]
    fn a_line_for_each_event() {
        let events = [Recorded::read(details(&event())).unwrap()];
        let view = |json| View { json, ..View::default() };
        let text = render(&events, view(JsonMode::Off));
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split("  ").collect()).collect();
        let words = |line: usize| lines[line].iter().map(|cell| cell.trim()).filter(|cell| !cell.is_empty());
        assert_eq!(
            words(0).collect::<Vec<_>>(),
            ["TIME", "ID", "MOUNT", "OUTCOME", "LIMIT", "ASKED", "CHARGER", "REPEATS"]
        );
        assert_eq!(
            words(1).collect::<Vec<_>>(),
            [
                "2025-01-01 00:00:00Z",
                "000000000000",
                "models",
                "enospc",
                "target /models.slice memory.max",
                "1.0 MiB",
                "python3[123]",
                "0"
            ]
        );
        let text = render(&events, view(JsonMode::Short));
        assert_valid("history", &text);
        let found: Json = serde_json::from_str(&text).unwrap();
        assert_eq!(found[0]["bytes_asked"], 1 << 20);
        assert_eq!(render(&[], view(JsonMode::Short)), "[]\n");
    }

    #[test]
    fn only_what_is_given_is_sent() {
        let none = HistoryArgs { name: None, since: None, limit: None };
        assert_eq!(options(&none, 7), HashMap::new());
        let since = Since::Ago(std::time::Duration::from_micros(2));
        let all = HistoryArgs { name: Some("m".parse().unwrap()), since: Some(since), limit: Some(3) };
        assert_eq!(
            options(&all, 7),
            HashMap::from([
                ("Mount", Value::from("m")),
                ("Since", Value::from(5u64)),
                ("Limit", Value::from(3u32))
            ])
        );
    }
}
