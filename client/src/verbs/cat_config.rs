//! `cat-config`: what the configuration on disk says, and in which file.

use memcharge_policy::MountName;
use serde_json::json;

use crate::{
    bus::Bus,
    cli::View,
    error::ClientError,
    json::escape_controls,
    output::{Report, json_text},
};

/// Shows the configuration of this mount, or the main one.
pub(crate) async fn run(name: Option<&MountName>, view: View) -> Result<Report, ClientError> {
    let asked = name.map(MountName::as_str);
    let text = Bus::connect().await?.manager.cat_config(asked.unwrap_or_default()).await?;
    Ok(render(asked, &text, view).into())
}

fn render(name: Option<&str>, text: &str, view: View) -> String {
    let json = || json!({"name": name, "text": text});
    json_text(view, json).unwrap_or_else(|| text.lines().map(line).collect())
}

/// A line of TOML, where a tab is the only control character that can be. A file's name may have others.
fn line(text: &str) -> String {
    let parts: Vec<String> = text.split('\t').map(escape_controls).collect();
    format!("{}\n", parts.join("\t"))
}

#[cfg(test)]
mod tests {
    use serde_json::Value as Json;

    use super::*;
    use crate::{cli::JsonMode, schema::assert_valid};

    const TEXT: &str =
        "where = \"/run/m\"\t# /etc/memcharge/mounts.d/m.toml\nsize = \"2G\" # /etc/\u{1b}.toml";

    #[test]
    fn text_is_shown_as_it_is_but_cannot_drive_a_terminal() {
        assert_eq!(
            render(Some("m"), TEXT, View::default()),
            "where = \"/run/m\"\t# /etc/memcharge/mounts.d/m.toml\nsize = \"2G\" # /etc/\\u{1b}.toml\n"
        );
        assert_eq!(render(None, "", View::default()), "");
    }

    #[test]
    fn json_says_whose_it_is() {
        let view = View { json: JsonMode::Short, ..View::default() };
        let read = |name| {
            let text = render(name, TEXT, view);
            assert_valid("cat-config", &text);
            serde_json::from_str::<Json>(&text).unwrap()
        };
        assert_eq!(read(Some("m")), json!({"name": "m", "text": TEXT}));
        assert_eq!(read(None)["name"], Json::Null);
    }
}
