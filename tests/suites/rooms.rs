//! Dependencies between the rooms point one way.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

/// The direct dependencies of each workspace crate, without those for tests.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages
        .map(|package| {
            let dependencies = package["dependencies"].as_array().unwrap().iter();
            let names = dependencies
                .filter(|dependency| dependency["kind"].is_null())
                .map(|dependency| dependency["name"].as_str().unwrap().to_owned());
            (package["name"].as_str().unwrap().to_owned(), names.collect())
        })
        .collect()
}

#[test]
fn dependencies_point_one_way() {
    let dependencies = dependencies();
    let own = |name: &str| -> Vec<&str> {
        dependencies[name].iter().map(String::as_str).filter(|name| name.starts_with("memcharge")).collect()
    };
    let none: [&str; 0] = [];
    assert_eq!(own("memcharge-policy"), none);
    assert_eq!(own("memcharge-cgroup"), ["memcharge-policy"]);
    assert_eq!(own("memcharge-store"), ["memcharge-cgroup", "memcharge-faults", "memcharge-policy"]);
    assert_eq!(own("memcharge-faults"), none);
    assert_eq!(own("memcharge-config"), ["memcharge-policy"]);
    assert_eq!(own("memcharge-dbus"), ["memcharge-policy"]);
    assert_eq!(own("memchargectl"), ["memcharge-dbus", "memcharge-policy"]);
    assert_eq!(own("memcharge-vm"), none);
    let users = |of: &str| -> BTreeSet<&str> {
        dependencies.iter().filter(|(_, used)| used.contains(of)).map(|(name, _)| name.as_str()).collect()
    };
    for program in ["memcharged", "memchargectl", "memcharge-store"] {
        assert!(users(program).is_empty(), "nobody depends on {program}");
    }
    assert_eq!(users("fuser"), BTreeSet::from(["memcharge-store"]));
    assert_eq!(users("zbus"), BTreeSet::from(["memcharge-dbus", "memcharged", "memchargectl"]));
    for heavy in ["tokio", "zbus", "tracing"] {
        assert!(
            !dependencies["memcharge-store"].contains(heavy),
            "the store's heap is on the tenant's bill: {heavy}"
        );
    }
}
