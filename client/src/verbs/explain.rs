//! `explain`: one arbitration in full, in words.

use serde_json::Value as Json;

use crate::{
    bus::Bus,
    cli::View,
    error::ClientError,
    event::{Recorded, outcome_text},
    explanation::explain,
    json::escape_controls,
    layout::wrap,
    output::{Report, json_text},
    time::utc,
};

/// The length of a line, where the terminal is not narrower: longer ones are hard to read.
const WIDTH: usize = 80;

/// Explains the event with this id, or with these first digits of it.
pub(crate) async fn run(id: &str, view: View) -> Result<Report, ClientError> {
    let recorded = Recorded::read(Bus::connect().await?.manager.get_event(id).await?)?;
    Ok(render(&recorded, view).into())
}

fn render(recorded: &Recorded, view: View) -> String {
    let (event, paragraphs) = (&recorded.event, explain(&recorded.event));
    let json = || {
        let mut object = recorded.json();
        object.insert("explanation".to_owned(), Json::from(paragraphs.join("\n")));
        Json::Object(object)
    };
    json_text(view, json).unwrap_or_else(|| {
        let (mount, outcome) = (escape_controls(&event.mount), outcome_text(event));
        let head = format!("{} {mount}: {outcome}\nEvent {}\n", utc(event.realtime_usec), event.id);
        let width = view.width().map_or(WIDTH, |width| width.min(WIDTH));
        let blocks = paragraphs.iter().map(|text| format!("\n{}\n", wrap(text, width)));
        head + &blocks.collect::<String>()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::JsonMode,
        event::tests::{details, event},
        schema::assert_valid,
    };

    #[test]
    fn text_is_for_a_terminal_and_json_has_the_event_too() {
        let recorded = Recorded::read(details(&event())).unwrap();
        let view = |json| View { json, ..View::default() };
        let text = render(&recorded, view(JsonMode::Off));
        assert!(
            text.starts_with(
                "2025-01-01 00:00:00Z models: enospc\nEvent 000000000000abcd0000000000000007\n\npython3 (PID 123,"
            ),
            "{text}"
        );
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        let text = render(&recorded, view(JsonMode::Short));
        assert_valid("explain", &text);
        let json: Json = serde_json::from_str(&text).unwrap();
        assert_eq!(json["outcome"], "enospc");
        assert_eq!(json["explanation"].as_str().unwrap().lines().count(), 5);
    }
}
