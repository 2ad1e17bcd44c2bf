//! R27: the daemon is killed at each single step of a reload.

use std::fs;

use memcharge_tests::{
    cgroup::MIB,
    mount::{Mount, leftovers},
    service::ctl,
    vm_tests,
    wait::until,
};

use crate::faults::{FAULTY, arm, assert_fired, install, settle};

fn file(name: &str) -> String {
    format!("/etc/memcharge/mounts.d/{name}.toml")
}

fn configure(name: &str, size: u64) -> Mount {
    let place = format!("/run/shared/{name}");
    let text = format!("where = \"{place}\"\ntarget = \"/t\"\nsize = {}\n", size * MIB);
    fs::write(file(name), text).unwrap();
    Mount { name: name.to_owned(), place }
}

/// The cap of a mount that works, in MiB; `None`: there is nothing of it.
fn there(mount: &Mount) -> Option<u64> {
    until("it is there or gone", || {
        let shown = ctl(&["--json", "show", &mount.name]);
        if shown.status == 5 && leftovers(&mount.name, &mount.place).is_empty() {
            return Some(None);
        }
        let works = shown.status == 0 && fs::write(mount.join("works"), "x").is_ok();
        (works && mount.properties()["state"] == "active").then(|| Some(mount.number("size_max") / MIB))
    })
}

vm_tests! { FAULTY;
    /// Each mount is as it was or as it shall be, and the next reload does the rest. Data of what stays are kept.
    fn r27_killed_while_reloading() {
        install();
        for place in [
            "reload.planned", "reload.cleared", "unmount.begun", "unmount.released", "unmount.stopped",
            "unmount.cleared", "reload.ended", "set.given", "set.written", "reload.followed", "mount.recorded",
            "mount.launched", "reload.made",
        ] {
            let (goes, stays) = (configure("goes", 8), configure("stays", 8));
            settle();
            let _ = ctl(&["reload"]).ok();
            fs::write(stays.join("f"), place).unwrap();

            fs::remove_file(file("goes")).unwrap();
            configure("stays", 16);
            let comes = configure("comes", 8);
            arm(place);
            let said = ctl(&["reload"]);
            assert_fired(place);
            settle();
            let found = [&goes, &stays, &comes].map(there);
            println!("{place}: reload said {}, then {found:?}", said.status);
            assert_ne!(said.status, 0, "{place}: nobody was there to say that it is done");
            assert!([None, Some(8)].contains(&found[0]), "{place}");
            assert!([Some(8), Some(16)].contains(&found[1]), "{place}");
            assert!([None, Some(8)].contains(&found[2]), "{place}");
            assert_eq!(fs::read_to_string(stays.join("f")).unwrap(), place);

            let _ = ctl(&["reload"]).ok();
            assert_eq!([&goes, &stays, &comes].map(there), [None, Some(16), Some(8)], "{place}");
            assert_eq!(fs::read_to_string(stays.join("f")).unwrap(), place);
            fs::remove_file(file("comes")).unwrap();
        }
    }
}
