//! `set` and `revert`: the policy of a mount at run time.

use std::collections::BTreeMap;

use memcharge_dbus::MountProxy;
use memcharge_policy::MountName;
use serde_json::json;
use zbus::{proxy::CacheProperties, zvariant::Value};

use crate::{
    bus::Bus,
    cli::View,
    error::ClientError,
    output::{Report, json_text},
    settings::{key_of, parse_assignment},
};

/// Keys that are no part of a policy, and what changes them.
const FIXED: [(&str, &str); 2] = [
    ("where", "a mount stays where it is: unmount it and make it anew"),
    ("target", "who pays is changed with: memchargectl retarget"),
];

/// Changes the policy; returns when it is in force.
pub(crate) async fn run(name: &MountName, assignments: &[String], view: View) -> Result<Report, ClientError> {
    let options = options(assignments)?;
    let bus = Bus::connect().await?;
    let sent = options.iter().map(|(name, value)| (*name, value)).collect();
    let generation = proxy(&bus, name).await?.set_policy(sent).await?;
    Ok(render(generation, view).into())
}

/// The number of changes so far is for programs only.
fn render(generation: u64, view: View) -> String {
    json_text(view, || json!({"generation": generation})).unwrap_or_default()
}

/// Goes back to the policy of the file, or to the one that the mount was made with.
pub(crate) async fn revert(name: &MountName) -> Result<Report, ClientError> {
    let bus = Bus::connect().await?;
    proxy(&bus, name).await?.revert_policy().await?;
    Ok(Report::default())
}

/// The mount of this name on the bus.
pub(super) async fn proxy(bus: &Bus, name: &MountName) -> Result<MountProxy<'static>, ClientError> {
    let object = bus.find(name).await?;
    let proxy = MountProxy::builder(&bus.connection).cache_properties(CacheProperties::No);
    Ok(proxy.path(object)?.build().await?)
}

/// The options of the call. What is given twice is refused, since only one of the two could count.
fn options(assignments: &[String]) -> Result<BTreeMap<&'static str, Value<'static>>, ClientError> {
    let mut options = BTreeMap::new();
    for text in assignments {
        let key = text.split('=').next().unwrap_or_default().trim();
        if let Some((key, hint)) = FIXED.iter().find(|(fixed, _)| *fixed == key) {
            return Err(ClientError::UnknownKey { key: (*key).to_owned(), hint: (*hint).to_owned() });
        }
        let setting = parse_assignment(text)?;
        if options.insert(setting.property, setting.value).is_some() {
            return Err(ClientError::Twice(key_of(setting.property)));
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::JsonMode, schema::assert_valid};

    #[test]
    fn nothing_is_said_but_to_programs() {
        assert_eq!(render(3, View::default()), "");
        assert_valid("set", &render(3, View { json: JsonMode::Short, ..View::default() }));
    }

    fn read(assignments: &[&str]) -> Result<BTreeMap<&'static str, Value<'static>>, ClientError> {
        options(&assignments.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn keys_of_the_file_become_options_of_the_bus() {
        assert_eq!(
            read(&["size=1G", "kill.victim=newest"]).unwrap(),
            BTreeMap::from([("SizeMax", Value::from(1u64 << 30)), ("KillVictim", Value::from("newest"))])
        );
    }

    #[test]
    fn what_cannot_be_set_is_refused_with_what_can_be_done() {
        for (assignments, message) in [
            (vec!["size=1G", "size=2G"], "size is given twice"),
            (vec!["size"], "`size` is not of the form KEY=VALUE"),
            (vec!["rserve=1M"], "there is no key `rserve`; did you mean `reserve`?"),
            (
                vec!["target=a.slice"],
                "there is no key `target`; who pays is changed with: memchargectl retarget",
            ),
            (
                vec!["where=/x"],
                "there is no key `where`; a mount stays where it is: unmount it and make it anew",
            ),
        ] {
            let error = read(&assignments).unwrap_err();
            assert_eq!((error.to_string().as_str(), error.exit_code()), (message, 2));
        }
    }
}
