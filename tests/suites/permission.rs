//! Who may do what (R1): root, users with a cgroup of their own, and whomever polkit allows it.

use std::fs;

use memcharge_tests::{
    cgroup::{Cg, MIB},
    client::report,
    host::{PLAIN, SECURITY},
    mount::Mount,
    service::{Said, ctl, run, sh, start_daemon},
    vm_tests,
};

/// Runs a command as a user, in a cgroup.
fn as_user(uid: u32, cgroup: &str, words: &str) -> Said {
    let enter = format!("echo $$ >/sys/fs/cgroup{cgroup}/cgroup.procs");
    sh(&format!("{enter} && exec setpriv --reuid={uid} --regid={uid} --clear-groups {words}"))
}

/// Two users with homes; the first has the cgroup /d, as a manager delegates it, and is in /d/own.
fn people() {
    for uid in ["1000", "1001"] {
        let _ = run(&["useradd", "--create-home", "--uid", uid, &format!("u{uid}")]).ok();
    }
    Cg::make("/d").max(128 * MIB);
    for cgroup in ["/d/own", "/d/t", "/d/t/inner", "/d/two"] {
        let _ = Cg::make(cgroup);
    }
    let _ = Cg::make("/other").max(64 * MIB);
    let _ = sh("cd /sys/fs/cgroup/d && chown u1000 . cgroup.procs cgroup.subtree_control own t two \
                own/cgroup.procs t/cgroup.procs t/cgroup.subtree_control two/cgroup.procs")
    .ok();
}

fn mount_line(name: &str, place: &str, target: &str, more: &str) -> String {
    format!("memchargectl mount {name} --where {place} --target {target} {more}")
}

fn refused(said: &Said, word: &str) {
    assert_eq!(said.status, 4, "{}{}", said.out, said.err);
    assert!(said.err.contains(word), "{word}: {}", said.err);
    println!("{}", said.err.trim());
}

vm_tests! { PLAIN;
    /// R1: who could move a process into a cgroup may have it pay, below a directory of their own; and nobody else.
    fn r1_users_with_a_delegated_cgroup() {
        start_daemon();
        people();
        let home = "/home/u1000/m";
        let _ = as_user(1000, "/d/own", &mount_line("mine", home, "/d/t", "--size 16M")).ok();
        let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(home).unwrap());
        assert_eq!(owner, 1000, "the root directory is the user's");
        let before = Cg::at("/d/t").current();
        report(&Cg::make("/client"), &["write", &format!("{home}/f"), "8388608"]);
        assert!(Cg::at("/d/t").current() >= before + 8 * MIB - MIB / 2, "the user's cgroup pays");

        for (uid, cgroup, line, word) in [
            // Not the user's cgroup.
            (1000, "/d/own", mount_line("a", "/home/u1000/a", "/other", ""), "only root may"),
            (1001, "/d/own", mount_line("a", "/home/u1001/a", "/d/t", ""), "only root may"),
            // The closest cgroup above both is the root, which is nobody's.
            (1000, "/other", mount_line("a", "/home/u1000/a", "/d/t", ""), "only root may"),
            (1000, "/d/own", mount_line("a", "/home/u1000/a", "a.slice", ""), "only root may"),
            // The user's cgroup, and something else is not the user's.
            (1000, "/d/own", mount_line("a", "/run/shared/a", "/d/t", ""), "not in a directory of uid 1000"),
            (1000, "/d/own", mount_line("a", "/home/u1001", "/d/t", ""), "not in a directory of uid 1000"),
            (1000, "/d/own", mount_line("a", "/home/u1000/a", "/d/t", "--persist"), "the file of a mount"),
            (1000, "/d/own", mount_line("a", "/home/u1000/a", "/d/t", "--set uid=0"), "uid 0"),
            (1000, "/d/own", mount_line("a", "/home/u1000/a", "/d/t", "--set options=suid"), "suid"),
        ] {
            println!("{line}");
            refused(&as_user(uid, cgroup, &line), word);
        }
        assert!(!fs::exists("/run/shared/a").unwrap() && !fs::exists("/home/u1000/a").unwrap());
        let details = "Where s /home/u1001 Target s /d/t";
        let call = format!("busctl call org.memcharge.Memcharge1 /org/memcharge/Memcharge1 \
                            org.memcharge.Memcharge1.Manager Mount 'sa{{sv}}' a 2 {details}");
        let named = as_user(1000, "/d/own", &format!("sh -c \"{}\"", call.replace("'", "")
            .replace("sa{sv}", "'sa{sv}'")));
        assert!(named.status != 0 && named.err.contains("not in a directory"), "{}", named.err);

        // Their own mounts alone, also when the daemon is another one.
        refused(&as_user(1001, "/other", "memchargectl unmount mine"), "only root may");
        refused(&as_user(1001, "/other", "memchargectl set mine size=8M"), "only root may");
        refused(&as_user(1000, "/d/own", "memchargectl reload"), "only root may");
        let _ = as_user(1000, "/d/own", "memchargectl set mine size=32M").ok();
        // Another one of their own cgroups pays.
        let retarget = |target: &str| format!("memchargectl retarget mine {target} --mode future-only");
        refused(&as_user(1000, "/d/own", &retarget("/other")), "only root may");
        refused(&as_user(1001, "/other", &retarget("/d/two")), "only root may");
        let _ = as_user(1000, "/d/own", &retarget("/d/two")).ok();
        assert!(Cg::at("/d/two").current() < 6 * MIB && Cg::at("/d/t").current() > 7 * MIB, "old pages stay");
        let _ = run(&["systemctl", "restart", "memcharged"]).ok();
        refused(&as_user(1001, "/other", "memchargectl unmount mine"), "only root may");
        let _ = as_user(1000, "/other", "memchargectl unmount mine").ok();
        assert_eq!(ctl(&["--json", "list"]).ok().out.trim(), "[]");
        assert!(!fs::exists(home).unwrap());
    }
}

mod polkit {
    use super::*;

    /// What an administrator might write.
    const RULE: &str = r#"
polkit.addRule(function(action, subject) {
    if (action.id == "org.memcharge.Memcharge1.set-policy" && subject.user == "u1000"
        && action.lookup("mount") == "x") {
        return polkit.Result.YES;
    }
    if (action.id == "org.memcharge.Memcharge1.reload") {
        return polkit.Result.NO;
    }
});
"#;

    vm_tests! { SECURITY;
        /// polkit decides for everybody but root, and says whether a password would help.
        fn r1_polkit_decides() {
            people();
            fs::write("/etc/polkit-1/rules.d/10-memcharge.rules", RULE).unwrap();
            let mount = Mount::make("x", "/other", &[]);
            let other = Mount::make("y", "/other", &[]);
            let _ = as_user(1000, "/other", "memchargectl set x size=24M").ok();
            assert_eq!(mount.number("size_max"), 24 * MIB);
            let _ = as_user(1000, "/other", "memchargectl revert x").ok();
            refused(&as_user(1000, "/other", "memchargectl set y size=24M"), "password");
            refused(&as_user(1001, "/other", "memchargectl set x size=24M"), "password");
            refused(&as_user(1000, "/other", "memchargectl unmount x"), "password");
            refused(&as_user(1000, "/other", "memchargectl reload"), "polkit does not allow it");
            refused(&as_user(1000, "/other", &mount_line("a", "/home/u1000/a", "/other", "")), "password");
            // Root need not ask; with polkit gone, nobody else can.
            let _ = run(&["systemctl", "mask", "--now", "--runtime", "polkit"]).ok();
            refused(&as_user(1000, "/other", "memchargectl set x size=24M"), "only root may");
            let _ = ctl(&["set", "x", "size=24M"]).ok();
            let all = run(&["pkaction"]);
            println!("{}{}", all.out, all.err);
            mount.unmount();
            other.unmount();
        }
    }
}
