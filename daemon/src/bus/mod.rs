//! The daemon on the bus: the objects of the contract in `dbus-interfaces/xml`, and nothing behind them.

mod auth;
mod convert;
mod gate;
mod log_control;
mod manager;
mod mount;
mod options;
mod publish;
mod target;

pub(crate) use gate::connect;
pub(crate) use log_control::{LOG_CONTROL_PATH, LogControl};
pub(crate) use manager::Manager;
pub(crate) use publish::Publisher;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use memcharge_config::Roots;
    use memcharge_dbus::{
        MANAGER_INTERFACE, MANAGER_XML, MOUNT_INTERFACE, MOUNT_XML, TARGET_INTERFACE, TARGET_XML,
    };
    use memcharge_policy::{MountPolicy, Target};
    use tokio::sync::watch;
    use zbus::object_server::Interface;

    use super::*;
    use crate::{
        history::HistoryHandle,
        mounts::{MountHandle, MountView, Source, TableHandle},
        reload::ReloadHandle,
        targets::TargetView,
    };

    /// The members of an interface, each with all that the contract says of it.
    fn members(xml: &str, interface: &str) -> BTreeMap<String, String> {
        let node = zbus_xml::Node::from_reader(xml.as_bytes()).unwrap();
        let interface = node.interfaces().iter().find(|found| found.name().as_str() == interface).unwrap();
        let arg = |arg: &zbus_xml::Arg| {
            format!("{:?} {:?} {:?}", arg.name(), arg.ty().inner().to_string(), arg.direction())
        };
        let methods = interface.methods().iter().map(|method| {
            (method.name().to_string(), method.args().iter().map(arg).collect::<Vec<_>>().join(", "))
        });
        let signals = interface.signals().iter().map(|signal| {
            let args = signal
                .args()
                .iter()
                .map(|arg| format!("{:?} {:?}", arg.name(), arg.ty().inner().to_string()));
            (signal.name().to_string(), args.collect::<Vec<_>>().join(", "))
        });
        let properties = interface.properties().iter().map(|property| {
            // "true" is what a property has without the annotation.
            let changes = property.annotations().iter().map(|annotation| annotation.value());
            let changes = changes.filter(|value| *value != "true").collect::<Vec<_>>();
            let ty = property.ty().inner().to_string();
            (property.name().to_string(), format!("{ty} {:?} {changes:?}", property.access()))
        });
        methods.chain(signals).chain(properties).collect()
    }

    fn introspect(object: &impl Interface) -> String {
        let mut xml = String::from("<node>\n");
        object.introspect_to_writer(&mut xml, 0);
        xml + "</node>"
    }

    #[test]
    fn the_objects_are_as_the_contract_says() {
        let policy = MountPolicy::new("m".parse().unwrap(), "/run/m".into(), Target::Slice("m.slice".into()));
        let mount = mount::MountObject::new(
            MountHandle::detached(MountView::new(policy, Source::default())),
            HistoryHandle::detached(),
        );
        let target = target::TargetObject::new(7, "/t".into(), watch::channel(TargetView::default()).1);
        let manager = Manager {
            table: TableHandle::detached(),
            ready: watch::channel(true).1,
            roots: Roots::system(),
            history: HistoryHandle::detached(),
            dry_run: false,
            reload: ReloadHandle::detached(),
        };
        for (live, contract, interface) in [
            (introspect(&mount), MOUNT_XML, MOUNT_INTERFACE),
            (introspect(&manager), MANAGER_XML, MANAGER_INTERFACE),
            (introspect(&target), TARGET_XML, TARGET_INTERFACE),
        ] {
            assert_eq!(members(&live, interface), members(contract, interface));
        }
    }
}
