//! The package.

use std::fs;

use memcharge_tests::{
    cgroup::{Cg, MIB},
    client::Waiting,
    host::{BOOKWORM, PLAIN},
    mount::Mount,
    service::{run, sh, start_daemon},
    vm_tests,
};

fn installs_quietly() {
    for file in [
        "/usr/sbin/memcharged",
        "/usr/bin/memchargectl",
        "/usr/libexec/memcharge/memcharge-store",
        "/etc/memcharge/memcharged.toml",
        "/etc/memcharge/mounts.d",
        "/usr/share/polkit-1/actions/org.memcharge.Memcharge1.policy",
        "/usr/share/bash-completion/completions/memchargectl",
    ] {
        assert!(fs::exists(file).unwrap(), "{file}");
    }
    assert_eq!(run(&["systemctl", "is-enabled", "memcharged"]).out.trim(), "disabled");
    assert_eq!(run(&["systemctl", "is-active", "memcharged"]).out.trim(), "inactive");
    let verified = run(&["systemd-analyze", "verify", "memcharged.service", "memcharge.target"]).ok();
    assert_eq!((verified.out.as_str(), verified.err.as_str()), ("", ""), "no complaint about the units");
    let _ = run(&["memcharged", "--check-config"]).ok();
    let version = run(&["memcharged", "--version"]).ok().out;
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    start_daemon();
    let status = run(&["systemctl", "show", "-p", "StatusText", "--value", "memcharged"]).ok().out;
    assert_eq!(status.trim(), "no mounts configured");
}

vm_tests! { PLAIN;
    /// Installing enables and starts nothing; the units are sound; the daemon starts with nothing to do.
    fn installs_quietly_on_debian_13() {
        installs_quietly();
    }

    /// Removal is refused while a mount is busy, and names who uses it; afterwards nothing is left.
    fn removal_takes_care() {
        let client = Cg::make("/client");
        Cg::make("/t").max(64 * MIB);
        let mount = Mount::make("x", "/t", &[]);
        fs::write(mount.join("f"), "x").unwrap();
        let user = Waiting::start(&client, &["hold", &mount.join("f")]);
        let refused = sh("dpkg --remove memcharge 2>&1");
        println!("{}", refused.out);
        assert_ne!(refused.status, 0);
        assert!(refused.out.contains(&format!("pid {}", user.pid())), "{}", refused.out);
        assert_eq!(fs::read_to_string(mount.join("f")).unwrap(), "x", "the mount is untouched");
        user.end();
        let _ = sh("dpkg --purge memcharge").ok();
        let left = sh("ls -d /etc/memcharge /run/memcharge /var/lib/memcharge /run/shared/x 2>/dev/null; \
            systemctl list-units --all --plain --no-legend 'memcharge*' | grep -v ^memcharge-vm; \
            pgrep -ax 'memcharge(d|-store|ctl)'; grep memcharge /proc/self/mountinfo");
        assert_eq!(left.out, "");
    }
}

mod bookworm {
    use super::{BOOKWORM, vm_tests};

    vm_tests! { BOOKWORM;
        /// The same on Debian 12.
        fn installs_quietly_on_debian_12() {
            super::installs_quietly();
        }
    }
}
