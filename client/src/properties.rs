//! The properties of a mount, each with its value or with why it cannot be read.

use std::collections::HashMap;

use memcharge_dbus::{ErrorKind, MOUNT_INTERFACE, MOUNT_PROPERTIES, describe};
use serde_json::{Map, Value as Json};
use zbus::zvariant::{ObjectPath, OwnedValue, Value};

use crate::{
    bus::Bus,
    error::ClientError,
    json::{escape_controls, snake_case, to_json, to_text},
};

/// The properties of one object, in the order of the contract.
#[derive(Debug, Default)]
pub(crate) struct Properties(Vec<(String, Result<OwnedValue, String>)>);

impl Properties {
    /// Reads a mount's properties. One that fails does not hide the others: the daemon leaves it out of an answer
    /// for all, so it is asked for alone. Fails where nothing at all can be read.
    pub(crate) async fn read_mount(bus: &Bus, object: &ObjectPath<'_>) -> Result<Self, ClientError> {
        let mut given = match bus.all_properties(object, MOUNT_INTERFACE).await {
            Ok(given) => given,
            Err(error) if one_may_work(&error) => Default::default(),
            Err(error) => return Err(error.into()),
        };
        let mut entries = Vec::with_capacity(MOUNT_PROPERTIES.len());
        for name in MOUNT_PROPERTIES {
            let value = match given.remove(name) {
                Some(value) => Ok(value),
                None => match bus.property(object, MOUNT_INTERFACE, name).await {
                    Err(error) if !one_may_work(&error) => return Err(error.into()),
                    value => value.map_err(|error| describe(&error).1),
                },
            };
            entries.push((name.to_owned(), value));
        }
        // A newer daemon may have more than this program knows.
        let mut more: Vec<_> = given.into_iter().map(|(name, value)| (name, Ok(value))).collect();
        more.sort_by(|a, b| a.0.cmp(&b.0));
        entries.append(&mut more);
        Ok(Self(entries))
    }

    /// The value of a property as a number; `None` where it is not there or not a number.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        match &**self.get(name)?.as_ref().ok()? {
            Value::U64(number) => Some(*number),
            Value::U32(number) => Some(u64::from(*number)),
            _ => None,
        }
    }

    /// The value of a property that is a dictionary; `None` where it is not there or not a dictionary.
    pub(crate) fn dictionary(&self, name: &str) -> Option<HashMap<String, OwnedValue>> {
        self.get(name)?.as_ref().ok()?.try_clone().ok()?.try_into().ok()
    }

    /// The words of a property that is a list of them; none where it is not there or not such a list.
    pub(crate) fn words(&self, name: &str) -> Vec<String> {
        let value = self.get(name).and_then(|value| value.as_ref().ok()?.try_clone().ok());
        value.and_then(|value| value.try_into().ok()).unwrap_or_default()
    }

    /// The value of a property in one line; an error is shown in its place.
    pub(crate) fn text(&self, name: &str) -> String {
        match self.get(name) {
            Some(Ok(value)) => one_line(name, value),
            Some(Err(error)) => format!("(error: {})", escape_controls(error)),
            None => "(unknown)".to_owned(),
        }
    }

    /// `Name=value` lines, as `systemctl show` has them.
    pub(crate) fn lines(&self) -> String {
        self.0.iter().map(|(name, _)| format!("{name}={}\n", self.text(name))).collect()
    }

    /// An object with names in snake_case. What cannot be read is null, with its reason below `errors`.
    pub(crate) fn json(&self) -> Json {
        let mut object = Map::new();
        let mut errors = Map::new();
        for (name, value) in &self.0 {
            let name = snake_case(name);
            match value {
                Ok(value) => object.insert(name, to_json(value)),
                Err(error) => {
                    errors.insert(name.clone(), Json::from(error.as_str()));
                    object.insert(name, Json::Null)
                }
            };
        }
        if !errors.is_empty() {
            object.insert("errors".to_owned(), Json::Object(errors));
        }
        Json::Object(object)
    }

    fn get(&self, name: &str) -> Option<&Result<OwnedValue, String>> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value)
    }
}

/// Whether asking for a single property can succeed after this error.
fn one_may_work(error: &zbus::Error) -> bool {
    !matches!(describe(error).0, ErrorKind::AccessDenied | ErrorKind::NoSuchMount | ErrorKind::Unreachable)
}

fn one_line(name: &str, value: &Value<'_>) -> String {
    match value {
        Value::U32(mode) if name == "Mode" => format!("{mode:04o}"),
        other => to_text(other),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use memcharge_dbus::event_details;
    use serde_json::json;

    use super::*;
    use crate::{event::tests::event, schema::assert_valid};

    /// A mount as a test wants it.
    pub(crate) fn sample(entries: Vec<(&str, Result<Value<'_>, &str>)>) -> Properties {
        let owned = |value: Value<'_>| OwnedValue::try_from(value).unwrap();
        let entry = |(name, value): (&str, Result<Value<'_>, &str>)| {
            (name.to_owned(), value.map(owned).map_err(str::to_owned))
        };
        Properties(entries.into_iter().map(entry).collect())
    }

    /// A mount with every property of the contract.
    pub(crate) fn complete() -> Properties {
        let node = zbus_xml::Node::try_from(memcharge_dbus::MOUNT_XML).unwrap();
        let value = |name: &str, signature: &str| match (name, signature) {
            ("State", _) => Value::from("active"),
            ("LastOutcome", _) => event_details(&event()).into(),
            (_, "s") => "text".into(),
            (_, "as") => vec!["one", "two"].into(),
            (_, "b") => true.into(),
            (_, "u") => u32::MAX.into(),
            (_, "t") => u64::MAX.into(),
            other => panic!("{other:?}"),
        };
        let entry = |property: &zbus_xml::Property<'_>| {
            let name = property.name().to_string();
            let value = value(&name, &property.ty().inner().to_string());
            (name, Ok(OwnedValue::try_from(value).unwrap()))
        };
        Properties(node.interfaces()[0].properties().iter().map(entry).collect())
    }

    #[test]
    fn json_is_as_documented() {
        assert_valid("show", &format!("{}\n", complete().json()));
        let mut broken = complete();
        for (_, value) in &mut broken.0 {
            *value = Err("the store is gone".to_owned());
        }
        assert_valid("show", &format!("{}\n", broken.json()));
        assert!(complete().json().get("errors").is_none());
    }

    #[test]
    fn an_unreadable_figure_is_an_error_in_its_own_place() {
        let mount = sample(vec![
            ("Name", Ok("m".into())),
            ("Mode", Ok(0o755u32.into())),
            ("SizeMax", Ok(u64::MAX.into())),
            ("UsedBytes", Err("the store\nis gone")),
        ]);
        assert_eq!(
            mount.lines(),
            "Name=m\nMode=0755\nSizeMax=18446744073709551615\nUsedBytes=(error: the store\\nis gone)\n"
        );
        assert_eq!(
            mount.json(),
            json!({"name": "m", "mode": 493, "size_max": u64::MAX, "used_bytes": null,
                   "errors": {"used_bytes": "the store\nis gone"}})
        );
        assert_eq!(
            (mount.number("Mode"), mount.number("UsedBytes"), mount.number("X")),
            (Some(493), None, None)
        );
    }
}
