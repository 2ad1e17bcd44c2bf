//! `retarget`: has another cgroup pay for a mount.

use std::collections::HashMap;

use zbus::zvariant::Value;

use super::set::proxy;
use crate::{bus::Bus, cli::RetargetArgs, error::ClientError, output::Report};

/// Returns when the new target pays. The daemon's refusal says how much the files hold, or what else is in the way.
pub(crate) async fn run(args: &RetargetArgs) -> Result<Report, ClientError> {
    let options = options(args);
    let sent = options.iter().map(|(name, value)| (*name, value)).collect();
    let bus = Bus::connect().await?;
    proxy(&bus, &args.name).await?.retarget(&args.target, sent).await?;
    Ok(Report::default())
}

/// The options of the call; what is not given is the daemon's to decide.
fn options(args: &RetargetArgs) -> HashMap<&'static str, Value<'static>> {
    let mode = args.mode.map(|mode| ("Mode", Value::from(mode.as_str())));
    mode.into_iter().chain(args.wait.then(|| ("Wait", true.into()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::RetargetMode;

    #[test]
    fn only_what_is_given_is_sent() {
        for (mode, wait, sent) in [
            (None, false, HashMap::new()),
            (None, true, HashMap::from([("Wait", Value::from(true))])),
            (Some(RetargetMode::Refuse), false, HashMap::from([("Mode", Value::from("refuse"))])),
            (Some(RetargetMode::FutureOnly), false, HashMap::from([("Mode", Value::from("future-only"))])),
            (Some(RetargetMode::Migrate), false, HashMap::from([("Mode", Value::from("migrate"))])),
        ] {
            let (name, target) = ("m".parse().unwrap(), "b.slice".to_owned());
            assert_eq!(options(&RetargetArgs { name, target, mode, wait }), sent);
        }
    }
}
