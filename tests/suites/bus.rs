//! The bus as clients see it.

use memcharge_tests::{
    cgroup::{Cg, MIB},
    client::report,
    host::PLAIN,
    mount::Mount,
    service::{Said, ctl, run, sh, start_daemon},
    vm_tests,
    wait::until,
};
use zbus_xml::{Annotation, ArgDirection, Interface, Node};

const NAME: &str = "org.memcharge.Memcharge1";
const ROOT: &str = "/org/memcharge/Memcharge1";
const MANAGER: &str = "org.memcharge.Memcharge1.Manager";
const MOUNT: &str = "org.memcharge.Memcharge1.Mount";
const MANAGER_XML: &str = include_str!("../../dbus-interfaces/xml/org.memcharge.Memcharge1.Manager.xml");
const MOUNT_XML: &str = include_str!("../../dbus-interfaces/xml/org.memcharge.Memcharge1.Mount.xml");

fn as_user(words: &[&str]) -> Said {
    run(&[&["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups"], words].concat())
}

fn annotations(annotations: &[Annotation]) -> Vec<String> {
    let mut all: Vec<_> = annotations.iter().map(|a| format!("{}={}", a.name(), a.value())).collect();
    // D-Bus says: without the annotation it is true.
    all.retain(|annotation| annotation != "org.freedesktop.DBus.Property.EmitsChangedSignal=true");
    all
}

/// Everything of an interface that a client relies on, a line each.
fn contract(xml: &str, interface: &str) -> Vec<String> {
    let node = Node::from_reader(xml.as_bytes()).unwrap();
    let interface: &Interface = node.interfaces().iter().find(|i| i.name() == interface).unwrap();
    let mut lines = Vec::new();
    for method in interface.methods() {
        let arg = |arg: &zbus_xml::Arg| {
            let direction = if arg.direction() == Some(ArgDirection::Out) { "out" } else { "in" };
            format!("{direction} {} {}", arg.name().unwrap_or("?"), arg.ty().inner())
        };
        lines.push(format!(
            "method {} {:?}",
            method.name(),
            method.args().iter().map(arg).collect::<Vec<_>>()
        ));
    }
    for signal in interface.signals() {
        let arg = |arg: &zbus_xml::Arg| format!("{} {}", arg.name().unwrap_or("?"), arg.ty().inner());
        lines.push(format!(
            "signal {} {:?}",
            signal.name(),
            signal.args().iter().map(arg).collect::<Vec<_>>()
        ));
    }
    for property in interface.properties() {
        let access = property.access();
        let annotations = annotations(property.annotations());
        lines.push(format!(
            "property {} {} {access:?} {annotations:?}",
            property.name(),
            property.ty().inner()
        ));
    }
    lines.sort();
    lines
}

fn introspect(path: &str) -> String {
    run(&["busctl", "introspect", "--xml-interface", NAME, path]).ok().out
}

vm_tests! { PLAIN;
    /// The XML is the contract: what the daemon offers is exactly that.
    fn live_introspection_is_the_xml() {
        Cg::make("/t").max(64 * MIB);
        let _mount = Mount::make("my-mount", "/t", &[]);
        assert_eq!(contract(&introspect(ROOT), MANAGER), contract(MANAGER_XML, MANAGER));
        let path = format!("{ROOT}/mount/my_2dmount");
        assert_eq!(contract(&introspect(&path), MOUNT), contract(MOUNT_XML, MOUNT));
        let tree = run(&["busctl", "tree", "--list", NAME]).ok().out;
        assert!(tree.lines().any(|line| line.trim() == path), "{tree}");
        let managed = run(&["busctl", "call", NAME, ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects"]);
        assert!(managed.ok().out.contains(&path), "ObjectManager lists the mount");
    }

    /// Only uid 0 may change anything; everybody may look.
    fn only_root_may_change_mounts() {
        let _ = run(&["useradd", "--uid", "1000", "somebody"]).ok();
        Cg::make("/t").max(64 * MIB);
        let mount = Mount::make("x", "/t", &[]);
        assert!(as_user(&["memchargectl", "list"]).ok().out.contains("/run/shared/x"));
        assert!(as_user(&["memchargectl", "status"]).ok().out.contains("active"));
        let _ = as_user(&["memchargectl", "unmount", "x"]).failed(4);
        let said = as_user(&["memchargectl", "mount", "y", "--where", "/run/shared/y", "--target", "/t"]).failed(4);
        println!("{}", said.err.trim());
        let said = as_user(&["busctl", "call", NAME, ROOT, MANAGER, "Unmount", "sa{sv}", "x", "0"]).failed(1);
        assert!(said.err.contains("denied") || said.err.contains("Denied"), "{}", said.err);
        assert_eq!(mount.properties()["state"], "active");
        assert!(!std::fs::exists("/run/shared/y").unwrap());
    }

    /// Methods, properties and signals, with busctl.
    fn busctl_can_do_all_of_it() {
        start_daemon();
        Cg::make("/t").max(64 * MIB);
        let _ = sh(&format!("busctl monitor {NAME} </dev/null >/tmp/monitor 2>&1 & sleep 2")).ok();
        let call = |words: &[&str]| run(&[&["busctl", "call", NAME, ROOT, MANAGER], words].concat());
        let options = ["Where", "s", "/run/shared/x", "Target", "s", "/t", "SizeMax", "t", "10485760", "Mode", "u", "448"];
        let made = call(&[&["Mount", "sa{sv}", "x", "4"], &options[..]].concat()).ok().out;
        assert_eq!(made.trim(), format!("o \"{ROOT}/mount/x\""));
        assert_eq!(call(&["GetMount", "s", "x"]).ok().out, made);
        assert_eq!(call(&["GetMountByPath", "s", "/run/shared/x/a/b"]).ok().out, made);
        let _ = call(&["GetMountByPath", "s", "/run/shared/xy"]).failed(1);
        let list = call(&["ListMounts"]).ok().out;
        assert_eq!(list.trim(), format!("a(sssto) 1 \"x\" \"/run/shared/x\" \"/t\" 0 \"{ROOT}/mount/x\""));
        let get = |property: &str| {
            run(&["busctl", "get-property", NAME, &format!("{ROOT}/mount/x"), MOUNT, property]).ok().out.trim().to_owned()
        };
        for (property, value) in [
            ("Name", "s \"x\""), ("Where", "s \"/run/shared/x\""), ("Backend", "s \"redirect\""), ("Target", "s \"/t\""),
            ("OnFull", "s \"enospc\""), ("Sparse", "s \"reserve\""), ("SizeMax", "t 10485760"),
            ("Reserve", "t 18446744073709551615"), ("Mode", "u 448"), ("Reclaim", "b true"), ("DeadlineUSec", "t 200000"),
            ("State", "s \"active\""), ("Options", "as 2 \"nosuid\" \"nodev\""), ("Denials", "t 0"), ("FragmentPath", "s \"\""),
        ] {
            assert_eq!(get(property), value, "{property}");
        }
        let client = Cg::make("/client");
        let file = "/run/shared/x/f";
        assert_eq!(report(&client, &["write", file, "1073741824"]).done, 10 * MIB);
        assert_eq!(get("UsedBytes"), "t 10485760");
        assert_eq!(get("HeadroomBytes"), "t 0");
        assert_ne!(get("Denials"), "t 0");
        let _ = call(&["Unmount", "sa{sv}", "x", "0"]).ok();
        let _ = call(&["GetMount", "s", "x"]).failed(1);
        until("both signals are seen", || {
            let seen = std::fs::read_to_string("/tmp/monitor").unwrap();
            (seen.contains("MountNew") && seen.contains("MountRemoved")).then_some(())
        });
        assert_eq!(ctl(&["show", "x"]).status, 5);
    }

    /// What systemctl sets, root alone can set; it holds until the configuration says something else.
    fn the_log_level_and_the_merged_configuration() {
        start_daemon();
        let level = |words: &[&str]| run(&[&["systemctl", "service-log-level", "memcharged"], words].concat());
        assert_eq!(level(&[]).ok().out.trim(), "info");
        let _ = level(&["debug"]).ok();
        assert_eq!(level(&[]).ok().out.trim(), "debug");
        let _ = level(&["loud"]).failed(1);
        let set = ["busctl", "set-property", NAME, "/org/freedesktop/LogControl1", "org.freedesktop.LogControl1",
            "LogLevel", "s", "err"];
        let _ = run(&["useradd", "--uid", "1000", "somebody"]).ok();
        assert!(as_user(&set).failed(1).err.to_lowercase().contains("denied"));
        assert_eq!(level(&[]).ok().out.trim(), "debug");

        std::fs::create_dir_all("/etc/memcharge/mounts.d/m.toml.d").unwrap();
        std::fs::write("/etc/memcharge/mounts.d/m.toml", "where = \"/run/shared/m\"\ntarget = \"m.slice\"\n").unwrap();
        std::fs::write("/etc/memcharge/mounts.d/m.toml.d/a.toml", "size = \"8M\"\n").unwrap();
        std::fs::write("/etc/memcharge/memcharged.toml", "[defaults]\nmode = \"0700\"\n").unwrap();
        let text = ctl(&["cat-config", "m"]).ok().out;
        for line in [
            "target = \"m.slice\"  # /etc/memcharge/mounts.d/m.toml",
            "size = \"8M\"  # /etc/memcharge/mounts.d/m.toml.d/a.toml",
            "mode = \"0700\"  # /etc/memcharge/memcharged.toml",
            "on-full = \"enospc\"  # built-in default",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
        assert_eq!(ctl(&["cat-config", "n"]).status, 5);
        std::fs::write("/etc/memcharge/mounts.d/n.toml", "sise = 1\n").unwrap();
        let wrong = ctl(&["cat-config"]).failed(1);
        assert!(wrong.err.contains("n.toml:1") && wrong.err.contains("sise"), "{}", wrong.err);
    }

    /// The exit codes of the CLI, and JSON.
    fn exit_codes_and_json() {
        let _ = ctl(&["list"]).failed(3);
        start_daemon();
        assert_eq!(ctl(&["--json", "list"]).ok().out.trim(), "[]");
        let _ = ctl(&["unmount", "x"]).failed(5);
        let _ = ctl(&["mount"]).failed(2);
        let _ = ctl(&["explain", "0123"]).failed(1);
        assert_eq!(ctl(&["--json", "history"]).ok().out.trim(), "[]");
        Cg::make("/t").max(64 * MIB);
        let made = ctl(&["mount", "x", "--where", "/run/shared/x", "--target", "/t", "--persist", "--size", "8M"]).ok();
        assert!(made.out.contains("/mount/x"), "{}", made.out);
        let list: serde_json::Value = serde_json::from_str(&ctl(&["list", "--json"]).ok().out).unwrap();
        assert_eq!(list[0]["name"], "x");
        assert_eq!(list[0]["used_bytes"], 0);
        let file = std::fs::read_to_string("/etc/memcharge/mounts.d/x.toml").unwrap();
        assert!(file.contains("size = \"8M\""), "{file}");
        let _ = ctl(&["check"]).ok();
        let _ = ctl(&["unmount", "x"]).ok();
        let _ = run(&["systemctl", "restart", "memcharged"]).ok();
        assert_eq!(ctl(&["list", "--json"]).ok().out.matches("\"x\"").count(), 1, "the file was written");
    }
}
