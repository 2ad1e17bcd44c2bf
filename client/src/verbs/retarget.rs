//! `retarget`: has another cgroup pay for a mount.

use std::collections::HashMap;

use zbus::zvariant::Value;

use super::set::proxy;
use crate::{
    bus::Bus,
    cli::{RetargetArgs, RetargetMode},
    error::ClientError,
    output::Report,
};

/// Returns when the new target pays. The daemon's refusal says which files hold memory, or what else is in the way.
pub(crate) async fn run(args: &RetargetArgs) -> Result<Report, ClientError> {
    let options = options(args.mode);
    let sent = options.iter().map(|(name, value)| (*name, value)).collect();
    let bus = Bus::connect().await?;
    proxy(&bus, &args.name).await?.retarget(&args.target, sent).await?;
    Ok(Report::default())
}

/// The options of the call; what is not given is the daemon's to decide.
fn options(mode: Option<RetargetMode>) -> HashMap<&'static str, Value<'static>> {
    mode.map(|mode| ("Mode", Value::from(mode.as_str()))).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_given_is_sent() {
        for (mode, sent) in [
            (None, HashMap::new()),
            (Some(RetargetMode::Refuse), HashMap::from([("Mode", Value::from("refuse"))])),
            (Some(RetargetMode::FutureOnly), HashMap::from([("Mode", Value::from("future-only"))])),
            (Some(RetargetMode::Migrate), HashMap::from([("Mode", Value::from("migrate"))])),
        ] {
            assert_eq!(options(mode), sent);
        }
    }
}
