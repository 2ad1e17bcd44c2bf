//! The contract, held by clients that know nothing but the XML files as the package installs them.

use std::{fs, path::Path, time::Duration};

use memcharge_tests::{
    host::{Needs, PLAIN},
    service::{Said, run, sh, unit_property},
    vm_tests,
};

/// With Python and GLib's D-Bus client.
const PYTHON: Needs = Needs { packages: &["python3-gi"], timeout: Duration::from_secs(300), ..PLAIN };

const INSTALLED: &str = "/usr/share/dbus-1/interfaces";

/// The client's files.
const SUITE: [(&str, &str); 5] = [
    ("main.py", include_str!("contract/main.py")),
    ("bus.py", include_str!("contract/bus.py")),
    ("refusals.py", include_str!("contract/refusals.py")),
    ("scene.py", include_str!("contract/scene.py")),
    ("xml_contract.py", include_str!("contract/xml_contract.py")),
];

/// Runs the client with the XML files of this directory.
fn drive(xml: &str) -> Said {
    let place = Path::new("/run/contract");
    fs::create_dir_all(place).unwrap();
    for (name, text) in SUITE {
        fs::write(place.join(name), text).unwrap();
    }
    run(&["python3", "-B", "/run/contract/main.py", xml])
}

fn call() -> Said {
    const NAME: &str = "org.memcharge.Memcharge1";
    const ROOT: &str = "/org/memcharge/Memcharge1";
    run(&["busctl", "call", NAME, ROOT, "org.memcharge.Memcharge1.Manager", "ListMounts"])
}

/// Another contract: a copy of the XML files with a word of one of them replaced.
fn altered(file: &str, old: &str, new: &str) -> String {
    let place = "/run/altered".to_owned();
    fs::create_dir_all(&place).unwrap();
    for name in ["Manager", "Mount", "Target"].map(|name| format!("org.memcharge.Memcharge1.{name}.xml")) {
        let text = fs::read_to_string(format!("{INSTALLED}/{name}")).unwrap();
        let altered =
            if name.contains(&format!(".{file}.")) { text.replacen(old, new, 1) } else { text.clone() };
        assert_eq!(altered != text, name.contains(&format!(".{file}.")), "{old} is in {file} alone");
        fs::write(format!("{place}/{name}"), altered).unwrap();
    }
    place
}

vm_tests! { PYTHON;
    /// Every method, property and signal of the XML is driven, with the types that it says, and everything else refused.
    fn a_client_that_knows_the_xml_alone_drives_everything() {
        // Only an enabled daemon is activated by a call.
        assert_ne!(call().status, 0, "a daemon that is not enabled was activated");
        assert_eq!(unit_property("memcharged", "ActiveState"), "inactive");
        let _ = run(&["systemctl", "enable", "memcharged"]).ok();
        let _ = call().ok();
        assert_eq!(unit_property("memcharged", "ActiveState"), "active");
        let said = drive(INSTALLED).ok();
        println!("{}", said.out.trim());
        assert_eq!(unit_property("memcharged", "NRestarts"), "0");
    }

    /// The client sees where the daemon and the XML differ.
    fn the_client_fails_where_the_xml_is_another_one() {
        let _ = run(&["systemctl", "enable", "memcharged"]).ok();
        let renamed = |from: &str, to: &str| (format!("name=\"{from}\""), format!("name=\"{to}\""));
        let typed = |of: &str, from: &str, to: &str| {
            (format!("name=\"{of}\" type=\"{from}\""), format!("name=\"{of}\" type=\"{to}\""))
        };
        for (file, (old, new), said) in [
            ("Manager", typed("MountCount", "u", "t"), "Manager.MountCount is of type u; the XML says t"),
            ("Target", renamed("Headroom", "Room"), "the XML has no property Target.Headroom"),
            ("Manager", renamed("MountNew", "MountMade"), "the signal MountNew is not in the XML"),
            ("Manager", typed("mounts", "a(sssto)", "a(sssts)"), "Manager.ListMounts replies (a(sssto))"),
            ("Mount", renamed("RevertPolicy", "ResetPolicy"), "the XML has no method Mount.RevertPolicy"),
        ] {
            let wrong = drive(&altered(file, &old, &new)).failed(1);
            println!("{}", wrong.err.trim());
            assert!(wrong.err.contains(said), "{said}: {}", wrong.err);
            let _ = sh("memchargectl unmount m; cd /sys/fs/cgroup && rmdir t/own/bare t/own t");
        }
    }
}
