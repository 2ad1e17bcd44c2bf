//! Mistakes in the file of one mount.

use crate::{GOOD, assert_mount, assert_third_line};

#[test]
fn a_good_mount_has_no_errors() {
    for line in [
        "",
        "swap = false",
        "backend = \"redirect\"",
        "size = 4096",
        "size = \"50%\"",
        "size = 0x1000",
        "reserve = 0",
        "size = 1_000",
        "uid = \"ann\"",
        "uid = \"12\"",
        "gid = \"staff\"",
        "gid = 0",
        "mode = \"750\"",
        "options = []",
        "deadline = \"60s\"",
        "deadline = \"1us\"",
        "kill = { cooldown = \"0\", protect = [\"*\"] }",
        "kill.victim = \"oom-score\"",
    ] {
        assert_mount(&format!("{GOOD}{line}\n"), &[]);
    }
}

#[test]
fn unknown_keys_and_tables() {
    let all = "the keys here are where, target, backend, options, size, inodes, mode, uid, gid, on-full, reserve, \
               reclaim, sparse, deadline, swap";
    for (line, message) in [
        ("on_full = \"enospc\"", "unknown key `on_full`; did you mean `on-full`?"),
        ("optoins = []", "unknown key `optoins`; did you mean `options`?"),
        ("colour = 1", &format!("unknown key `colour`; {all}")),
        ("\"a\\nb\" = 1", &format!("unknown key `a\\nb`; {all}")),
        ("victim = \"largest\"", "unknown key `victim`; it belongs below `[kill]`"),
        ("[kil]", "unknown table `[kil]`; did you mean `[kill]`?"),
        ("[history]", "unknown table `[history]`; the tables here are [kill]"),
        ("[[kill]]", "`kill` must be a table, with its keys below a line `[kill]`, not an array"),
        ("kill.victm = 1", "unknown key `victm`; did you mean `victim`?"),
        ("kill.x.y = 1", "unknown table `[x]`; there are no tables here"),
    ] {
        assert_third_line(line, message);
    }
    let below = "[kill]\ncooldown = \"1s\"\ndeadline = \"1s\"\n";
    let message = "5: unknown key `deadline`; it belongs at the top of the file, above the first table";
    assert_mount(&format!("{GOOD}{below}"), &[message]);
}

#[test]
fn a_misspelt_key_is_not_missing_too() {
    assert_mount(
        "where = \"/srv/m\"\n# Who pays.\ntargt = \"m.slice\"\n",
        &["3: unknown key `targt`; did you mean `target`?"],
    );
    assert_mount(
        "where = 5\ntarget = \"m.slice\"\n",
        &["1: `where` must be a string such as \"/run/shared/models\", not an integer"],
    );
}

#[test]
fn wrong_types() {
    for (line, message) in [
        ("size = 1.5", "`size` must be a string such as \"2G\" or a number of bytes, not a float"),
        ("reserve = true", "`reserve` must be a string such as \"16M\" or a number of bytes, not a boolean"),
        ("inodes = \"many\"", "`inodes` must be an integer such as 100000, not a string"),
        ("mode = 1777", "`mode` must be octal digits in quotes, such as \"1777\", not an integer"),
        ("mode = []", "`mode` must be a string such as \"1777\", not an array"),
        ("uid = 1979-05-27", "`uid` must be a name or a number, not a date or time"),
        ("reclaim = \"yes\"", "`reclaim` must be true or false, not a string"),
        ("on-full = true", "`on-full` must be a string such as \"enospc\", not a boolean"),
        ("sparse = {}", "`sparse` must be a string such as \"reserve\", not a table"),
        ("deadline = 5", "`deadline` must be a string such as \"200ms\", not an integer"),
        ("backend = 1", "`backend` must be a string such as \"redirect\", not an integer"),
        (
            "options = \"ro\"",
            "`options` must be an array of strings such as [\"nosuid\", \"nodev\"], not a string",
        ),
        (
            "options = [1]",
            "`options` must be an array of strings such as [\"nosuid\", \"nodev\"], not an integer",
        ),
        ("swap = \"no\"", "`swap` must be true or false, not a string"),
        ("kill = 1", "`kill` must be a table, with its keys below a line `[kill]`, not an integer"),
        ("kill.victim = 1", "`victim` must be a string such as \"largest\", not an integer"),
        ("kill.scope = 1", "`scope` must be a string such as \"process\", not an integer"),
        (
            "kill.protect = \"a\"",
            "`protect` must be an array of strings such as [\"db-*.service\"], not a string",
        ),
        (
            "kill.protect = [1]",
            "`protect` must be an array of strings such as [\"db-*.service\"], not an integer",
        ),
        ("kill.cooldown = 1", "`cooldown` must be a string such as \"15s\", not an integer"),
    ] {
        assert_third_line(line, message);
    }
}

#[test]
fn wrong_words() {
    for (line, message) in [
        (
            "on-full = \"Enospc\"",
            "`Enospc` is not a value of on-full; give \"enospc\" or \"kill\"; did you mean `enospc`?",
        ),
        ("on-full = \"wait\"", "`wait` is not a value of on-full; give \"enospc\" or \"kill\""),
        (
            "sparse = \"sigbuss\"",
            "`sigbuss` is not a value of sparse; give \"reserve\" or \"sigbus\"; did you mean `sigbus`?",
        ),
        (
            "kill.victim = \"larger\"",
            "`larger` is not a value of victim; give \"largest\", \"newest\" or \"oom-score\"; did you mean `largest`?",
        ),
        ("kill.scope = \"all\"", "`all` is not a value of scope; give \"process\" or \"cgroup\""),
        (
            "backend = \"redirct\"",
            "`redirct` is not a value of backend; give \"redirect\"; did you mean `redirect`?",
        ),
        ("backend = \"nfs\"", "`nfs` is not a value of backend; give \"redirect\""),
    ] {
        assert_third_line(line, message);
    }
    assert_mount(
        &format!("{GOOD}options = [\n  \"ro\",\n  \"nosiud\",\n]\n"),
        &[
            "5: `nosiud` is not a mount option; give nosuid, suid, nodev, dev, noexec, exec, ro, rw, relatime or noatime; \
         did you mean `nosuid`?",
        ],
    );
}

#[test]
fn wrong_values() {
    let size = "is not a size; give bytes, or a number with K, M, G or T (powers of 1024), such as \"512M\"";
    let mode = "is not a file mode; give four octal digits, such as \"1777\"";
    let glob = "it takes globs of one cgroup's name, such as \"db-*.service\", without `/`";
    for (line, message) in [
        ("size = \"2GB\"", format!("`size`: `2GB` {size}")),
        (
            "size = \"0%\"",
            "`size`: `0%` is not a share of the target's limit; give \"1%\" to \"100%\"".into(),
        ),
        ("size = \"0\"", "`size` must be at least 1, not 0; leave it out for no cap".into()),
        ("size = 0", "`size` must be at least 1, not 0".into()),
        ("size = -1", "`size` must be at least 1, not -1".into()),
        (
            "size = 99999999999999999999",
            "`size` must be at most 18446744073709551615, not 99999999999999999999".into(),
        ),
        ("reserve = \"1.5M\"", format!("`reserve`: `1.5M` {size}")),
        ("reserve = -5", "`reserve` must be at least 0, not -5".into()),
        ("inodes = 0", "`inodes` must be at least 1, not 0".into()),
        ("mode = \"0o777\"", format!("`mode`: `0o777` {mode}")),
        ("mode = \"778\"", format!("`mode`: `778` {mode}")),
        ("mode = \"77\"", format!("`mode`: `77` {mode}")),
        ("mode = \"+777\"", format!("`mode`: `+777` {mode}")),
        (
            "uid = \"bob\"",
            "`uid` names the user `bob`, which /etc/passwd does not have; give one that it has, or a number"
                .into(),
        ),
        (
            "gid = \"\"",
            "`gid` names the group ``, which /etc/group does not have; give one that it has, or a number"
                .into(),
        ),
        ("uid = 4294967295", "`uid` must be at most 4294967294, not 4294967295".into()),
        ("uid = \"4294967295\"", "`uid` must be at most 4294967294, not 4294967295".into()),
        ("gid = \"4294967296\"", "`gid` must be at most 4294967294, not 4294967296".into()),
        (
            "deadline = \"soon\"",
            "`deadline`: `soon` is not a time span; give for example \"200ms\", \"5s\" or \"1min 30s\""
                .into(),
        ),
        ("deadline = \"0\"", "`deadline` must be more than 0 and at most 60s".into()),
        ("deadline = \"61s\"", "`deadline` must be more than 0 and at most 60s".into()),
        ("options = [\"ro\", \"ro\"]", "`options` has `ro` twice; keep one of them".into()),
        (
            "options = [\"ro\", \"rw\"]",
            "`options`: the mount options `ro` and `rw` exclude each other; keep one of them".into(),
        ),
        ("kill.protect = [\"\"]", format!("`protect` cannot have ``: {glob}")),
        ("kill.protect = [\"*\", \"a/b\"]", format!("`protect` cannot have `a/b`: {glob}")),
    ] {
        assert_third_line(line, &message);
    }
}

#[test]
fn what_is_not_built_yet() {
    let remove = "is not built yet; remove it";
    for (line, message) in [
        ("swap = true", "`swap = true` is not built yet; leave it out, or give false".into()),
        ("allow-cgroups = []", format!("`allow-cgroups` {remove}")),
        ("client-quota = \"1G\"", format!("`client-quota` {remove}")),
        ("[on-target-exit]", format!("`on-target-exit` {remove}")),
        (
            "backend = \"guard\"",
            "`backend = \"guard\"` is not built yet; leave it out, or give \"redirect\"".into(),
        ),
    ] {
        assert_third_line(line, &message);
    }
}

#[test]
fn where_a_mount_cannot_be() {
    let hang = "a mount there can hang the machine; give a directory such as \"/run/shared/models\"";
    let long = format!("/{}", "x".repeat(4095));
    for (place, message) in [
        ("srv/m", "`where` must be an absolute path such as \"/run/shared/models\", not `srv/m`".into()),
        ("", "`where` must be an absolute path such as \"/run/shared/models\", not ``".into()),
        ("/srv/../m", "`where` must not contain `..`; write `/srv/../m` without it".into()),
        ("/", format!("`where` cannot be `/`: {hang}")),
        ("//run/.", format!("`where` cannot be `//run/.`: {hang}")),
        ("/proc/1/m", format!("`where` cannot be `/proc/1/m`: {hang}")),
        ("/srv/\\u0000", "`where` must be a path of at most 4095 bytes without control characters".into()),
        (&long, "`where` must be a path of at most 4095 bytes without control characters".into()),
    ] {
        assert_mount(&format!("where = \"{place}\"\ntarget = \"m.slice\"\n"), &[&format!("1: {message}")]);
    }
    let message = "2: `target`: `m` is not a target: it is neither a unit name nor a path";
    assert_mount("where = \"/srv/m\"\ntarget = \"m\"\n", &[message]);
}

#[test]
fn what_a_mount_needs() {
    assert_mount(
        "# nothing\n",
        &[
            " `where` is missing; give the mount point, such as where = \"/run/shared/models\"",
            " `target` is missing; give the cgroup that pays, such as target = \"models.slice\"",
        ],
    );
}
