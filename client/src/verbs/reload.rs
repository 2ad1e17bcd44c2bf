//! `reload`: puts the configuration on disk in force.

use serde_json::json;
use zbus::proxy::MethodFlags;

use crate::{
    bus::Bus,
    cli::{JsonMode, View},
    error::ClientError,
    output::{Report, json_text},
};

/// Returns when the configuration is in force. The daemon's refusal says all that is wrong, or could not be done.
pub(crate) async fn run(view: View) -> Result<Report, ClientError> {
    let bus = Bus::connect_as_it_is().await?;
    // A daemon that starts reads the configuration anyway; whether it shall start is not for this to say.
    let _: Option<()> =
        bus.manager.inner().call_with_flags("Reload", MethodFlags::NoAutoStart.into(), &()).await?;
    if view.json == JsonMode::Off {
        return Ok(Report::default());
    }
    let generation = bus.manager.config_generation().await?;
    Ok(render(generation, view).into())
}

fn render(generation: u64, view: View) -> String {
    json_text(view, || json!({"config_generation": generation})).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::assert_valid;

    #[test]
    fn nothing_is_said_but_to_programs() {
        assert_eq!(render(3, View::default()), "");
        assert_valid("reload", &render(3, View { json: JsonMode::Short, ..View::default() }));
    }
}
