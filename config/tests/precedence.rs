//! Which files count: roots, masking, drop-ins.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use memcharge_config::{Accounts, Loaded, LogLevel, MainSettings, Roots, load};
use memcharge_policy::{Bytes, SizeCap, Target};
use tempfile::TempDir;

struct Tree {
    dir: TempDir,
}

impl Tree {
    fn new() -> Self {
        Self { dir: TempDir::new().unwrap() }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn mask(&self, path: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink("/dev/null", path).unwrap();
    }

    fn load(&self) -> Loaded {
        let roots = Roots::new(["etc", "run", "lib"].map(|root| self.path(root)));
        load(&roots, Accounts::system()).unwrap()
    }
}

fn mount(place: &str) -> String {
    format!("where = \"/srv/{place}\"\ntarget = \"models.slice\"\n")
}

fn places(loaded: &Loaded) -> Vec<&str> {
    loaded.mounts.iter().map(|mount| mount.policy.place.as_str()).collect()
}

#[test]
fn no_file_at_all_is_every_default() {
    assert_eq!(Tree::new().load(), Loaded::default());
    let defaults = MainSettings::default();
    assert_eq!(defaults.log_level, LogLevel::Info);
    assert_eq!((defaults.history.max_entries, defaults.history.max_size), (10_000, Bytes::mib(16)));
}

#[test]
fn an_earlier_root_hides_a_later_one() {
    let tree = Tree::new();
    tree.write("etc/mounts.d/a.toml", &mount("etc-a"));
    tree.write("run/mounts.d/a.toml", &mount("run-a"));
    tree.write("run/mounts.d/b.toml", &mount("run-b"));
    tree.write("lib/mounts.d/b.toml", "nothing of this is read");
    tree.write("lib/mounts.d/c.toml", &mount("lib-c"));
    let loaded = tree.load();
    assert_eq!(places(&loaded), ["/srv/etc-a", "/srv/run-b", "/srv/lib-c"]);
    let fragments: Vec<&Path> = loaded.mounts.iter().map(|mount| mount.fragment.as_path()).collect();
    let expected = ["etc/mounts.d/a.toml", "run/mounts.d/b.toml", "lib/mounts.d/c.toml"];
    assert_eq!(fragments, expected.map(|path| tree.path(path)));
}

#[test]
fn an_empty_file_and_a_link_to_null_mask() {
    let tree = Tree::new();
    tree.write("etc/mounts.d/a.toml", "");
    tree.mask("etc/mounts.d/b.toml");
    tree.write("etc/mounts.d/c.toml", &mount("c"));
    tree.mask("etc/mounts.d/c.toml.d/10.toml");
    for (path, text) in
        [("a.toml", mount("a")), ("b.toml", mount("b")), ("c.toml.d/10.toml", "mode = 1".into())]
    {
        tree.write(&format!("lib/mounts.d/{path}"), &text);
    }
    tree.write("lib/mounts.d/a.toml.d/10.toml", "drop-ins of a masked mount are not read");
    tree.write("lib/mounts.d/gone.toml.d/10.toml", "and those of no mount neither");
    tree.mask("etc/memcharged.toml");
    tree.write("lib/memcharged.toml", "log-level = \"debug\"\n");
    let loaded = tree.load();
    assert_eq!(places(&loaded), ["/srv/c"]);
    assert_eq!(loaded.mounts[0].drop_ins, Vec::<PathBuf>::new());
    assert_eq!(loaded.main, MainSettings::default());
    assert_eq!(loaded.main_files, Vec::<PathBuf>::new());
}

#[test]
fn drop_ins_are_sorted_by_name_over_all_roots() {
    let tree = Tree::new();
    tree.write("etc/mounts.d/a.toml", &(mount("a") + "size = \"1M\"\nmode = \"700\"\ninodes = 1\n"));
    tree.write("lib/mounts.d/a.toml.d/10-x.toml", "size = \"2M\"\ninodes = 2\n");
    tree.write("etc/mounts.d/a.toml.d/20-x.toml", "size = \"3M\"\ninodes = 3\n");
    tree.write("run/mounts.d/a.toml.d/30-x.toml", "size = \"4M\"\n");
    tree.write("lib/mounts.d/a.toml.d/30-x.toml", "size = \"5M\"\n");
    tree.write("etc/mounts.d/a.toml.d/40-x.conf", "not TOML");
    let loaded = tree.load();
    let policy = &loaded.mounts[0].policy;
    assert_eq!(policy.size, Some(SizeCap::Bytes(Bytes::mib(4))));
    assert_eq!(policy.inodes, Some(3));
    assert_eq!(policy.mode, 0o700);
    let expected = [
        "lib/mounts.d/a.toml.d/10-x.toml",
        "etc/mounts.d/a.toml.d/20-x.toml",
        "run/mounts.d/a.toml.d/30-x.toml",
    ];
    assert_eq!(loaded.mounts[0].drop_ins, expected.map(|path| tree.path(path)));
}

#[test]
fn defaults_are_below_a_mount_s_own_files() {
    let tree = Tree::new();
    tree.write(
        "lib/memcharged.toml",
        "log-level = \"warn\"\n[defaults]\nmode = \"700\"\nuid = 7\nreserve = 4096\n",
    );
    tree.write(
        "etc/memcharged.toml.d/10.toml",
        "[defaults]\nuid = 8\n[defaults.kill]\ncooldown = \"1min\"\n",
    );
    tree.write("etc/mounts.d/a.toml", &(mount("a") + "reserve = \"8K\"\n"));
    tree.write("etc/mounts.d/b.toml", "where = \"/srv/b\"\n");
    tree.write("run/mounts.d/b.toml.d/target.toml", "target = \"/a/b\"\n");
    let loaded = tree.load();
    assert_eq!(loaded.main.log_level, LogLevel::Warn);
    assert_eq!(
        loaded.main_files,
        ["lib/memcharged.toml", "etc/memcharged.toml.d/10.toml"].map(|path| tree.path(path))
    );
    let [a, b] = &loaded.mounts[..] else { panic!("{loaded:?}") };
    assert_eq!((a.policy.mode, a.policy.uid, a.policy.reserve), (0o700, 8, Some(Bytes::kib(8))));
    assert_eq!(a.policy.kill.cooldown.as_secs(), 60);
    assert_eq!((b.policy.reserve, &b.policy.target), (Some(Bytes::kib(4)), &Target::Path("/a/b".into())));
}

#[test]
fn other_files_are_ignored() {
    let tree = Tree::new();
    for name in [".a.toml", "a.toml~", "a.toml.dpkg-new", "README", ".toml"] {
        tree.write(&format!("etc/mounts.d/{name}"), "x");
    }
    tree.write("run/mounts/a.json", "{}");
    tree.write("run/mounts/a.toml", "x");
    assert_eq!(tree.load(), Loaded::default());
}

#[test]
fn a_link_to_a_file_is_that_file() {
    let tree = Tree::new();
    tree.write("elsewhere", &mount("a"));
    fs::create_dir_all(tree.path("etc/mounts.d")).unwrap();
    symlink(tree.path("elsewhere"), tree.path("etc/mounts.d/a.toml")).unwrap();
    assert_eq!(tree.load().mounts[0].fragment, tree.path("etc/mounts.d/a.toml"));
}

#[test]
fn one_directory_replaces_the_three() {
    let tree = Tree::new();
    tree.write("x/mounts.d/a.toml", &mount("a"));
    let loaded = load(&Roots::single(tree.path("x")), Accounts::system()).unwrap();
    assert_eq!(places(&loaded), ["/srv/a"]);
    let errors = load(&Roots::single("/nowhere/at/all"), Accounts::system()).unwrap_err();
    let shown: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let text = "is not a directory that can be read; give one that holds memcharged.toml or mounts.d";
    assert_eq!(shown, [format!("/nowhere/at/all: {text}")]);
    assert_eq!(
        Roots::system().dirs(),
        ["/etc/memcharge", "/run/memcharge", "/usr/lib/memcharge"].map(PathBuf::from)
    );
}
