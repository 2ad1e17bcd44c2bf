//! The XML, the bus policy and the constants name the same things.

use memcharge_dbus::{
    BUS_NAME, EVENT_KEYS, MANAGER_INTERFACE, MANAGER_XML, MOUNT_INTERFACE, MOUNT_XML, ROOT_PATH,
    TARGET_INTERFACE, TARGET_XML,
};
use zbus_xml::{Interface, Node};

const BUS_POLICY: &str = include_str!("../bus/org.memcharge.Memcharge1.conf");
const ACTIVATION: &str = include_str!("../bus/org.memcharge.Memcharge1.service");

/// What the documented interface has, of which a version may build a part.
const MANAGER_MEMBERS: &str = "Mount Unmount Reload GetMount GetMountByPath ListMounts GetHistory GetEvent CheckConfig \
    CatConfig Version MountCount ConfigGeneration DryRun MountNew MountRemoved RemoteOom";
const MOUNT_MEMBERS: &str = "Name Where Backend Target TargetId OnFull Sparse Reserve SizeMax InodesMax InodesUsed Mode \
    Uid Gid Options Reclaim DeadlineUSec KillVictim KillScope KillProtect KillCooldownUSec FragmentPath DropInPaths \
    State StateReason StorePid UsedBytes ChargedBytes PreviousTargets PreviousBytes HeadroomBytes Denials Kills LastOutcome SetPolicy RevertPolicy \
    Retarget Recover Outcome";
const TARGET_MEMBERS: &str = "Path Id MemoryCurrent MemoryMax Headroom Events Mounts MemoryEvent";

/// Each interface: its XML, its name, what it may have.
const INTERFACES: [(&str, &str, &str); 3] = [
    (MANAGER_XML, MANAGER_INTERFACE, MANAGER_MEMBERS),
    (MOUNT_XML, MOUNT_INTERFACE, MOUNT_MEMBERS),
    (TARGET_XML, TARGET_INTERFACE, TARGET_MEMBERS),
];

const POLKIT: &str = include_str!("../polkit/org.memcharge.Memcharge1.policy");

/// Methods that change something, and the polkit action that each is for.
const CHANGING: [(&str, &str); 7] = [
    ("Mount", "mount"),
    ("Unmount", "unmount"),
    ("Reload", "reload"),
    ("SetPolicy", "set-policy"),
    ("RevertPolicy", "set-policy"),
    ("Retarget", "retarget"),
    ("Recover", "mount"),
];

fn members(interface: &Interface<'_>) -> Vec<String> {
    let methods = interface.methods().iter().map(|m| m.name().to_string());
    let signals = interface.signals().iter().map(|s| s.name().to_string());
    let properties = interface.properties().iter().map(|p| p.name().to_string());
    methods.chain(signals).chain(properties).collect()
}

#[test]
fn the_xml_has_only_documented_names() {
    for (xml, name, documented) in INTERFACES {
        let node = Node::try_from(xml).unwrap();
        let [interface] = node.interfaces() else { panic!("one interface in each file") };
        assert_eq!(interface.name().as_str(), name);
        let documented: Vec<&str> = documented.split_whitespace().collect();
        for member in members(interface) {
            assert!(documented.contains(&member.as_str()), "{name}.{member}");
        }
    }
    assert_eq!(Node::try_from(MANAGER_XML).unwrap().name(), Some(ROOT_PATH));
}

#[test]
fn the_bus_policy_names_every_method_and_nothing_as_a_whole() {
    for (xml, interface, _) in INTERFACES {
        let node = Node::try_from(xml).unwrap();
        for method in node.interfaces()[0].methods() {
            let opened = format!("send_interface=\"{interface}\" send_member=\"{}\"", method.name());
            assert!(BUS_POLICY.contains(&opened), "{interface}.{}", method.name());
        }
        assert!(
            !BUS_POLICY.contains(&format!("send_interface=\"{interface}\"/>")),
            "{interface} is open as a whole"
        );
    }
    // Properties can be set (the log level can) by root alone.
    assert!(!BUS_POLICY.contains("send_member=\"Set\"") && !BUS_POLICY.contains("Properties\"/>"));
}

#[test]
fn every_changing_method_has_a_polkit_action_that_needs_an_administrator() {
    for (method, action) in CHANGING {
        assert!(
            INTERFACES.iter().any(|(xml, ..)| xml.contains(&format!("<method name=\"{method}\""))),
            "{method}"
        );
        assert!(POLKIT.contains(&format!("<action id=\"org.memcharge.Memcharge1.{action}\">")), "{action}");
    }
    for line in POLKIT.lines().filter(|line| line.trim().starts_with("<allow_")) {
        assert!(line.contains(">auth_admin<") || line.contains(">auth_admin_keep<"), "{line}");
    }
}

#[test]
fn the_keys_of_an_event_are_documented_with_their_types() {
    let documented = MANAGER_XML.split("<node").next().unwrap();
    for (key, ty) in EVENT_KEYS {
        assert!(documented.contains(&format!(" {key} {ty}")), "{key} {ty}");
    }
}

#[test]
fn activation_goes_through_the_alias_of_an_enabled_unit() {
    assert!(ACTIVATION.contains(&format!("Name={BUS_NAME}\n")));
    assert!(ACTIVATION.contains(&format!("SystemdService=dbus-{BUS_NAME}.service\n")));
}
