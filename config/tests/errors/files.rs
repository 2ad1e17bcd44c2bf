//! Mistakes in several files, in the main file, and in files as such.

use std::fs;

use tempfile::TempDir;

use crate::{GOOD, assert_mount, errors, errors_in};

#[test]
fn all_errors_of_all_files_are_sorted() {
    let shown = errors(&[
        ("memcharged.toml", b"log-level = \"loud\"\n[defaults]\nwhere = \"/srv\"\nmode = 5\ncolour = 1\n"),
        (
            "memcharged.toml.d/10.toml",
            b"[history]\nmax-entries = 0\nmax-size = \"0\"\nmax = 1\n\n[defaults]\ndeadline = \"2min\"\n",
        ),
        ("mounts.d/a.toml", b"where = \"/srv/m\"\ntarget = \"m.slice\"\nszie = 1\nmode = 3\n"),
        ("mounts.d/a.toml.d/10.toml", b"size = []\nwhere = \"m\"\n"),
        ("mounts.d/b.toml", b"where = \"/srv/b\"\ntarget = \"b.slice\"\n"),
    ]);
    let defaults = "the keys here are backend, options, size, inodes, mode, uid, gid, on-full, reserve, reclaim, sparse, \
                    deadline, swap";
    assert_eq!(
        shown,
        [
            "memcharged.toml:1: `loud` is not a value of log-level; give \"error\", \"warn\", \"info\", \"debug\" or \"trace\"",
            "memcharged.toml:3: `where` cannot have a default; give it in the file of each mount",
            "memcharged.toml:4: `mode` must be octal digits in quotes, such as \"1777\", not an integer",
            &format!("memcharged.toml:5: unknown key `colour`; {defaults}"),
            "memcharged.toml.d/10.toml:2: `max-entries` must be at least 1, not 0",
            "memcharged.toml.d/10.toml:3: `max-size` must be at least 1, not 0",
            "memcharged.toml.d/10.toml:4: unknown key `max`; the keys here are max-entries, max-size",
            "memcharged.toml.d/10.toml:7: `deadline` must be more than 0 and at most 60s",
            "mounts.d/a.toml:3: unknown key `szie`; did you mean `size`?",
            "mounts.d/a.toml:4: `mode` must be octal digits in quotes, such as \"1777\", not an integer",
            "mounts.d/a.toml.d/10.toml:1: `size` must be a string such as \"2G\" or a number of bytes, not an array",
            "mounts.d/a.toml.d/10.toml:2: `where` must be an absolute path such as \"/run/shared/models\", not `m`",
        ]
    );
}

#[test]
fn the_main_file_s_own_mistakes() {
    for (text, message) in [
        ("size = \"1G\"", "unknown key `size`; it belongs below `[defaults]`"),
        ("log_level = \"info\"", "unknown key `log_level`; did you mean `log-level`?"),
        ("[default]", "unknown table `[default]`; did you mean `[defaults]`?"),
        ("[defaults.kil]", "unknown table `[kil]`; did you mean `[kill]`?"),
        ("[mounts]", "unknown table `[mounts]`; the tables here are [history], [defaults]"),
        (
            "defaults.log-level = \"info\"",
            "unknown key `log-level`; it belongs at the top of the file, above the first table",
        ),
        (
            "defaults = 1",
            "`defaults` must be a table, with its keys below a line with its name in brackets, not an integer",
        ),
        ("log-level = 3", "`log-level` must be a string such as \"info\", not an integer"),
        (
            "history.max-size = false",
            "`max-size` must be a string such as \"16M\" or a number of bytes, not a boolean",
        ),
    ] {
        assert_eq!(
            errors(&[("memcharged.toml", text.as_bytes())]),
            [format!("memcharged.toml:1: {message}")],
            "{text}"
        );
    }
}

#[test]
fn two_mounts_at_one_place() {
    let shown = errors(&[
        ("mounts.d/a.toml", GOOD.as_bytes()),
        ("mounts.d/b.toml", b"target = \"b.slice\"\nwhere = \"/srv/b\"\n"),
        ("mounts.d/b.toml.d/10.toml", b"\nwhere = \"/srv//./m/\"\n"),
        ("mounts.d/c.toml", b"target = \"b.slice\"\nwhere = \"/srv/m\"\n"),
    ]);
    let [first, second] = &shown[..] else { panic!("{shown:?}") };
    let message = "`where` is `/srv/m` in mounts.d/a.toml too; give each mount a place of its own";
    assert_eq!(first, &format!("mounts.d/b.toml.d/10.toml:2: {message}"));
    assert_eq!(second, &format!("mounts.d/c.toml:2: {message}"));
}

#[test]
fn what_is_not_toml() {
    for (text, expected) in [
        (
            "where = \"/srv/m\"\ntarget = m.slice\n",
            "2: not valid TOML: string values must be quoted, at `m.slice`",
        ),
        ("where = \"/srv/m\"\nwhere = \"/srv/n\"\n", "2: not valid TOML: duplicate key, at `where`"),
        ("\n\nwhere\n", "3: not valid TOML: key with no value, expected `=`"),
        ("where = \"/srv/m\n", "1: not valid TOML: invalid basic string, expected `\"`"),
        ("mode = 0755", "1: not valid TOML: unexpected leading zero, at `0`"),
        (
            "options = [\"ro\"\nsize = 1",
            "2: not valid TOML: missing comma between array elements, expected `,`",
        ),
        ("[kill\n", "1: not valid TOML: unclosed table, expected `]`"),
    ] {
        assert_mount(text, &[expected]);
    }
    let both = "size = 2G\nreserve = 16M\n";
    assert_mount(
        both,
        &[
            "1: not valid TOML: string values must be quoted, at `2G`",
            "2: not valid TOML: string values must be quoted, at `16M`",
        ],
    );
}

#[test]
fn files_that_cannot_be_read() {
    let dir = TempDir::new().unwrap();
    let mounts = dir.path().join("mounts.d");
    fs::create_dir_all(mounts.join("dir.toml")).unwrap();
    fs::write(mounts.join("big.toml"), " ".repeat((1 << 20) + 1)).unwrap();
    fs::write(mounts.join("latin.toml"), b"# ok\n# caf\xe9\n").unwrap();
    fs::write(mounts.join("bad name.toml"), GOOD).unwrap();
    fs::write(mounts.join("ok.toml.d"), "a file where drop-ins would be").unwrap();
    fs::write(mounts.join("ok.toml"), GOOD.replace("/srv/m", "/srv/ok")).unwrap();
    std::os::unix::fs::symlink("nowhere", mounts.join("dangling.toml")).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(mounts.join("socket.toml")).unwrap();
    assert_eq!(
        errors_in(&dir),
        [
            "mounts.d/bad name.toml: the name of the file is that of the mount, but `bad name` is not a mount name; it has \
         1 to 63 letters, digits, `_`, `.` or `-`, and begins with a letter or a digit",
            "mounts.d/big.toml: is larger than 1 MiB; it cannot be a configuration file",
            "mounts.d/dangling.toml: cannot be read: No such file or directory (os error 2)",
            "mounts.d/dir.toml: is a directory; a file is expected here",
            "mounts.d/latin.toml:2: not UTF-8; save the file as UTF-8",
            "mounts.d/ok.toml.d: cannot be listed: Not a directory (os error 20)",
            "mounts.d/socket.toml: is not a regular file; a file is expected here",
        ]
    );
    drop(socket);
}
