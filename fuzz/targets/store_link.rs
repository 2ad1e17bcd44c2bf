//! What the daemon and a store say to each other, a line each, and what is written down of a mount.
#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use memcharge_policy::{
    MountPolicy, PolicyPatch,
    link::{Handover, MountRecord, Reply, Request},
    outcome::Event,
};
use serde::{Serialize, de::DeserializeOwned};

fuzz_target!(|bytes: &[u8]| {
    for line in bytes.split(|byte| *byte == b'\n') {
        let _ = read_back::<Request>(line);
        let _ = read_back::<Reply>(line);
        let _ = read_back::<Event>(line);
        if let Some(handover) = read_back::<Handover>(line) {
            let _ = handover.home.is_shared();
        }
        if let Some(record) = read_back::<MountRecord>(line) {
            changed(&record.policy, record.base.as_ref());
        }
    }
});

/// A message that is understood is written as one line, which means the same.
fn read_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(line: &[u8]) -> Option<T> {
    let message: T = serde_json::from_slice(line).ok()?;
    let written = serde_json::to_vec(&message).expect("it was read");
    assert!(!written.contains(&b'\n'));
    assert_eq!(serde_json::from_slice::<T>(&written).as_ref().ok(), Some(&message));
    Some(message)
}

/// What was set at run time stays on top of the file's policy.
fn changed(policy: &MountPolicy, base: Option<&MountPolicy>) {
    let Some(base) = base else { return };
    let patch = PolicyPatch::between(base, policy);
    assert_eq!(PolicyPatch::between(policy, &base.patched(patch)), PolicyPatch::default());
    let (same, _) = policy.rebased(base, base);
    assert_eq!(same, *policy);
}
