//! An administrator's first hour with memcharge, from the package to its removal, as README.md tells it.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use memcharge_tests::{
    cgroup::{Cg, MIB},
    client::{Report, Waiting, report_while},
    host::{BOOKWORM, DEB, Needs, PLAIN},
    service::{Said, ctl, run, sh, unit_property},
    vm_tests,
    wait::until,
};
use serde_json::Value;

const README: &str = include_str!("../../README.md");

/// The file that README.md gives.
const FILE: &str = "/etc/memcharge/mounts.d/models.toml";

/// Where its mount is.
const PLACE: &str = "/run/shared/models";

/// The packages of Debian, and nothing of memcharge.
const BARE: Needs = Needs { programs: &[DEB], bare: true, ..PLAIN };

/// The same on Debian 12.
const BARE_BOOKWORM: Needs = Needs { programs: &[DEB], bare: true, ..BOOKWORM };

/// The text of README.md's block that begins with `begins`.
fn block(begins: &str) -> &'static str {
    let at = README.find(begins).unwrap_or_else(|| panic!("README.md has no {begins}"));
    README[at..].split_once('\n').unwrap().1.split("```").next().unwrap()
}

/// The command of README.md that begins with `words`, without the comment behind it. Here everybody is root.
fn told(words: &str) -> &'static str {
    let commands = block("```sh\nsudo systemctl enable").lines();
    let mut commands = commands.map(|line| line.trim_start_matches("sudo ").split("  ").next().unwrap());
    commands.find(|command| command.starts_with(words)).unwrap_or_else(|| panic!("README.md has no {words}"))
}

/// The configuration that README.md gives.
fn configuration() -> &'static str {
    block("```toml")
}

/// Files, mounts and cgroups: what a program can leave behind on a machine.
fn traces() -> BTreeSet<String> {
    // Logs, caches and the package manager's own records are no concern of a package.
    let files = "find /etc /usr /opt /srv /var /run -xdev \\( -path /var/log -o -path /var/cache -o -path /var/lib/dpkg \
        -o -path /var/lib/apt -o -path /run/systemd -o -path /run/log \\) -prune -o -print; \
        cut -d' ' -f5 /proc/self/mountinfo; find /sys/fs/cgroup -type d";
    sh(files).ok().out.lines().map(str::to_owned).collect()
}

fn installs() {
    assert_eq!(sh("command -v memcharged memchargectl").out, "", "it is not there yet");
    fs::copy(format!("/mnt/files/{DEB}"), "/tmp/memcharge_0_amd64.deb").unwrap();
    let _ = sh("DEBIAN_FRONTEND=noninteractive apt-get install -y /tmp/memcharge_*.deb 2>&1").ok();
    assert_eq!(unit_property("memcharged", "ActiveState"), "inactive");
    assert_eq!(run(&["systemctl", "is-enabled", "memcharged"]).out.trim(), "disabled");
    // Nobody is told to wait for a daemon that nobody has asked for.
    let said = ctl(&["status"]).failed(3);
    assert!(
        said.err.starts_with("memchargectl: memcharged is not running; start it with: systemctl "),
        "{}",
        said.err
    );
}

/// Slips in the file are shown with file, line and the nearest word, by everybody who reads it.
fn is_told_of_slips() {
    let slips = configuration().replace("reserve =", "reserv =").replace("\"enospc\"", "\"enosp\"");
    fs::write(FILE, slips).unwrap();
    let errors = format!(
        "{FILE}:4: unknown key `reserv`; did you mean `reserve`?\n\
         {FILE}:5: `enosp` is not a value of on-full; give \"enospc\" or \"kill\"; did you mean `enospc`?\n"
    );
    let checked = ctl(&["check"]).failed(1);
    assert_eq!(checked.out + &checked.err, errors);
    assert_eq!(run(&["memcharged", "--check-config"]).failed(1).err, errors);
    let said = sh(told("systemctl enable --now")).failed(1);
    assert!(
        said.err.contains("systemctl status memcharged.service"),
        "systemd says where to look: {}",
        said.err
    );
    let status = run(&["systemctl", "status", "--no-pager", "--full", "memcharged"]);
    for error in errors.lines() {
        assert!(status.out.contains(error), "{}", status.out);
    }
    assert!(!Path::new(PLACE).exists());
    // The bus starts what is enabled, and would wait 25 s for it.
    let start = Instant::now();
    let said = ctl(&["status"]).failed(3);
    assert_eq!(said.err, "memchargectl: memcharged could not be started; see: systemctl status memcharged\n");
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

fn starts() {
    fs::write(FILE, configuration()).unwrap();
    assert_eq!(ctl(&["check"]).ok().out, "configuration is valid: 1 mounts\n");
    let _ = sh(told("systemctl enable --now")).ok();
    let status = sh(told("memchargectl status")).ok().out;
    let begins = format!(
        "memcharged {}, 1 mount\n\nmodels\n     Where: {PLACE}\n    Target: models.slice\n     State: active\n      \
         Used: 0 B of 2.0 GiB\n",
        env!("CARGO_PKG_VERSION")
    );
    assert!(status.starts_with(&begins), "{status}");
    assert!(status.contains("\n   Denials: 0\n"), "{status}");
}

fn history() -> Vec<Value> {
    serde_json::from_str(&sh(&format!("{} --json", told("memchargectl history"))).ok().out).unwrap()
}

/// A writer fills the target; history and explain tell of it, in words.
fn fills_it() {
    let _ = run(&["systemctl", "set-property", "--runtime", "models.slice", "MemoryMax=64M"]).ok();
    let words = ["write", &format!("{PLACE}/fill"), &(1u64 << 40).to_string()];
    let recorded = || until("it is recorded", || history().pop());
    let (written, event) = report_while(&Cg::make("/client"), &words, recorded);
    let Report { done, errno } = written;
    assert_eq!(errno, Some(28), "a full disk, as programs know it");
    assert!((32 * MIB..64 * MIB).contains(&done), "{done}");
    assert_eq!(fs::metadata(format!("{PLACE}/fill")).unwrap().len(), done, "what was written is there");
    let id = event["id"].as_str().unwrap();
    let shown = sh(told("memchargectl history")).ok().out;
    for part in [&id[..12], "enospc", "target /models.slice memory.max", "memcharge-probe["] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    let example = told("memchargectl explain").rsplit(' ').next().unwrap();
    let explained = sh(&told("memchargectl explain").replace(example, &id[..8])).ok().out;
    println!("{explained}");
    let explained = explained.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        &format!("Event {id}"),
        "What is in this mount is paid for by its target, models.slice.",
        "In the way was the target's own limit: memory.max of /models.slice.",
        "Nobody was killed, since the policy of the mount is on-full = \"enospc\".",
        "The charger got ENOSPC",
    ] {
        assert!(explained.contains(part), "{part} in {explained}");
    }
    let status = sh(told("memchargectl status")).ok().out;
    assert!(status.contains("\n   Denials: 1\n") && status.contains("Last: enospc "), "{status}");
}

fn properties(keys: &[&str]) -> Vec<String> {
    let shown = ctl(&["show", "models"]).ok().out;
    let line =
        |key: &&str| shown.lines().find(|line| line.starts_with(&format!("{key}="))).unwrap().to_owned();
    keys.iter().map(line).collect()
}

fn changes_the_policy() {
    let _ = sh(told("memchargectl set models")).ok();
    assert_eq!(properties(&["OnFull", "Reserve"]), ["OnFull=kill", "Reserve=67108864"]);
    let slip = ctl(&["set", "models", "reserv=64M"]).failed(2);
    assert_eq!(slip.err, "memchargectl: there is no key `reserv`; did you mean `reserve`?\n");
    let missing = ctl(&["set", "model", "reserve=64M"]).failed(5);
    assert_eq!(missing.err, "memchargectl: there is no mount model; `memchargectl list` shows all of them\n");
    let _ = ctl(&["revert", "models"]).ok();
    assert_eq!(properties(&["OnFull", "Reserve"]), ["OnFull=enospc", "Reserve=16777216"]);
}

/// A broken file changes nothing; a mended one is in force when the reload returns.
fn reloads() {
    let used = properties(&["UsedBytes", "Reserve"]);
    fs::write(FILE, configuration().replace("where ", "wher ")).unwrap();
    let _ = sh(told("systemctl reload")).failed(1);
    let said = ctl(&["reload"]).failed(1);
    assert_eq!(
        said.err,
        format!(
            "memchargectl: the configuration has 1 error(s), and nothing was changed:\n\
             {FILE}:1: unknown key `wher`; did you mean `where`?\n"
        )
    );
    assert_eq!(properties(&["UsedBytes", "Reserve"]), used);
    fs::write(FILE, configuration().replace("\"16M\"", "\"8M\"")).unwrap();
    let _ = sh(told("systemctl reload")).ok();
    assert_eq!(properties(&["Reserve"]), ["Reserve=8388608"]);
}

/// While there are data the target stays, unless old pages shall stay on the old bill.
fn retargets() {
    let used = properties(&["UsedBytes"]);
    let refused = ctl(&["retarget", "models", "other.slice"]).failed(1);
    assert!(refused.err.starts_with("memchargectl: models has "), "{}", refused.err);
    assert!(refused.err.contains("in its files, which models.slice pays for"), "{}", refused.err);
    assert_eq!(properties(&["Target"]), ["Target=models.slice"]);
    let _ = ctl(&["retarget", "models", "other.slice", "--mode", "future-only"]).ok();
    assert_eq!(properties(&["Target"]), ["Target=other.slice"]);
    assert_eq!(properties(&["UsedBytes"]), used, "the data stay");
    let status = ctl(&["status", "models"]).ok().out;
    assert!(status.contains("\n    Target: other.slice\n"), "{status}");
    assert!(
        status.contains("\n   Earlier: up to ") && status.contains(" paid by models.slice\n"),
        "{status}"
    );
}

fn unmounts() {
    let user = Waiting::start(&Cg::at("/client"), &["hold", &format!("{PLACE}/fill")]);
    let busy = ctl(&["unmount", "models"]).failed(1);
    let holder = format!("memcharge-probe (pid {})", user.pid());
    assert_eq!(busy.err, format!("memchargectl: models is in use by {holder}; end them, or use --lazy\n"));
    user.end();
    let _ = ctl(&["unmount", "models"]).ok();
    assert_eq!(ctl(&["list", "--no-legend"]).ok().out, "");
    assert!(!Path::new(PLACE).exists());
}

fn stops_and_purges() -> Said {
    let _ = run(&["systemctl", "stop", "memcharged"]).ok();
    assert_eq!(run(&["systemctl", "is-active", "memcharged"]).out.trim(), "inactive");
    assert_eq!(sh("pgrep -ax 'memcharge(d|-store|ctl)'").out, "");
    sh("DEBIAN_FRONTEND=noninteractive apt-get purge -y memcharge 2>&1").ok()
}

/// What memcharged and the stores have warned of is what the administrator has done, and nothing else.
fn warned_of() {
    let said = run(&[
        "journalctl",
        "-b",
        "-q",
        "-o",
        "cat",
        "-p",
        "warning",
        "SYSLOG_IDENTIFIER=memcharged",
        "SYSLOG_IDENTIFIER=memcharge-store",
    ]);
    let expected = ["unknown key `", "`enosp` is not", "the configuration has ", " got ENOSPC for a write "];
    let other = said.out.lines().filter(|line| !expected.iter().any(|part| line.contains(part)));
    assert_eq!(other.collect::<Vec<_>>(), Vec::<&str>::new());
    assert_eq!(said.out.matches(" got ENOSPC ").count(), 1, "{}", said.out);
}

/// Nothing is there that was not there before, and nothing has failed.
fn nothing_is_left(before: &BTreeSet<String>) {
    // The slices, one of them with a limit, and the writer's cgroup are the administrator's own.
    let _ = run(&["systemctl", "stop", "models.slice", "other.slice"]).ok();
    Cg::at("/client").remove().unwrap();
    let after = traces();
    assert_eq!(after.difference(before).collect::<Vec<_>>(), Vec::<&String>::new());
    assert_eq!(before.difference(&after).collect::<Vec<_>>(), Vec::<&String>::new());
    let processes = sh("pgrep -a memcharge").out;
    assert_eq!(
        processes.lines().filter(|line| !line.contains("memcharge-vm")).collect::<Vec<_>>(),
        Vec::<&str>::new()
    );
    for list in ["list-units --all --plain", "list-unit-files"] {
        let units =
            sh(&format!("systemctl {list} --no-legend --full | grep memcharge | grep -v memcharge-vm"));
        assert_eq!(units.out, "", "{list}");
    }
    assert_eq!(run(&["systemctl", "--failed", "--no-legend"]).ok().out, "");
    assert_eq!(sh("busctl --list --no-legend --activatable | grep -i memcharge").out, "");
}

fn first_hour() {
    let before = traces();
    installs();
    is_told_of_slips();
    starts();
    fills_it();
    changes_the_policy();
    reloads();
    retargets();
    unmounts();
    println!("{}", stops_and_purges().out);
    warned_of();
    nothing_is_left(&before);
}

vm_tests! { BARE;
    /// On Debian 13.
    fn an_administrator_s_first_hour_on_debian_13() {
        first_hour();
    }
}

mod bookworm {
    use super::{BARE_BOOKWORM, vm_tests};

    vm_tests! { BARE_BOOKWORM;
        /// On Debian 12.
        fn an_administrator_s_first_hour_on_debian_12() {
            super::first_hour();
        }
    }
}
