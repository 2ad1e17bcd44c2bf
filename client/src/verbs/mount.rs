//! `mount`: makes a mount now.

use std::collections::BTreeMap;

use serde_json::json;
use zbus::zvariant::{ObjectPath, Value};

use crate::{
    bus::Bus,
    cli::{MountArgs, View},
    error::ClientError,
    output::{Report, json_text},
    settings::{Setting, key_of, parse_assignment, parse_setting},
};

/// Makes the mount; returns when it is usable.
pub(crate) async fn run(args: &MountArgs, view: View) -> Result<Report, ClientError> {
    let options = options(args)?;
    let bus = Bus::connect().await?;
    let sent = options.iter().map(|(name, value)| (*name, value)).collect();
    let object = bus.manager.mount(args.name.as_str(), sent).await?;
    Ok(if view.quiet { Report::default() } else { render(&object, view).into() })
}

fn render(object: &ObjectPath<'_>, view: View) -> String {
    json_text(view, || json!({"mount": object.as_str()})).unwrap_or_else(|| format!("{object}\n"))
}

/// The options of the call. What is given twice is refused, since only one of the two could count.
fn options(args: &MountArgs) -> Result<BTreeMap<&'static str, Value<'static>>, ClientError> {
    let mut options = BTreeMap::from([
        ("Where", Value::from(args.place.clone())),
        ("Target", Value::from(args.target.clone())),
    ]);
    for (flag, name) in [(args.persist, "Persist"), (args.wait, "Wait")] {
        if flag {
            options.insert(name, Value::from(true));
        }
    }
    let named = [("size", &args.size), ("on-full", &args.on_full), ("sparse", &args.sparse)];
    let named = named.into_iter().filter_map(|(key, value)| Some(parse_setting(key, value.as_deref()?)));
    for setting in named.chain(args.set.iter().map(|text| parse_assignment(text))) {
        let Setting { property, value } = setting?;
        if options.insert(property, value).is_some() {
            return Err(ClientError::Twice(key_of(property)));
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::JsonMode, schema::assert_valid};

    fn args() -> MountArgs {
        MountArgs {
            name: "m".parse().unwrap(),
            place: "/run/m".into(),
            target: "a.slice".into(),
            size: None,
            on_full: None,
            sparse: None,
            set: Vec::new(),
            persist: false,
            wait: false,
        }
    }

    #[test]
    fn only_what_is_given_is_sent() {
        let bare = options(&args()).unwrap();
        assert_eq!(bare.keys().copied().collect::<Vec<_>>(), ["Target", "Where"]);
        let full = options(&MountArgs {
            size: Some("50%".into()),
            on_full: Some("kill".into()),
            sparse: Some("sigbus".into()),
            set: vec!["reserve=1M".into()],
            persist: true,
            wait: true,
            ..args()
        })
        .unwrap();
        assert_eq!(
            full.into_iter().collect::<Vec<_>>(),
            [
                ("OnFull", Value::from("kill")),
                ("Persist", Value::from(true)),
                ("Reserve", Value::from(1u64 << 20)),
                ("SizeMax", Value::from("50%")),
                ("Sparse", Value::from("sigbus")),
                ("Target", Value::from("a.slice")),
                ("Wait", Value::from(true)),
                ("Where", Value::from("/run/m")),
            ]
        );
    }

    #[test]
    fn the_object_is_named() {
        let object = memcharge_dbus::mount_path(&"a.b".parse().unwrap());
        assert_eq!(render(&object, View::default()), "/org/memcharge/Memcharge1/mount/a_2eb\n");
        assert_valid("mount", &render(&object, View { json: JsonMode::Short, ..View::default() }));
    }

    #[test]
    fn two_values_for_one_key_are_refused() {
        let twice = MountArgs { size: Some("1G".into()), set: vec!["size=2G".into()], ..args() };
        assert_eq!(options(&twice).unwrap_err().to_string(), "size is given twice");
    }
}
