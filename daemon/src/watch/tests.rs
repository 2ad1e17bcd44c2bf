use std::{fs, path::Path, time::Duration};

use memcharge_cgroup::{Cgroup, Hierarchy};
use tokio::time::timeout;

use super::*;

const SOON: Duration = Duration::from_secs(5);
const A_MOMENT: Duration = Duration::from_millis(50);

fn tree() -> (tempfile::TempDir, Cgroup) {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path());
    let cgroup = Hierarchy::stand_in(dir.path()).open("/a").unwrap();
    (dir, cgroup)
}

fn make(root: &Path) {
    fs::create_dir(root.join("a")).unwrap();
    fs::write(root.join("a/memory.events"), "oom 0\n").unwrap();
    fs::write(root.join("a/cgroup.events"), "populated 0\n").unwrap();
}

async fn is_woken(wake: &Notify) -> bool {
    timeout(SOON, wake.notified()).await.is_ok()
}

async fn is_left_alone(wake: &Notify) -> bool {
    timeout(A_MOMENT, wake.notified()).await.is_err()
}

#[tokio::test]
async fn a_change_wakes_and_reading_does_not() {
    let (dir, a) = tree();
    let watcher = Watcher::start().unwrap();
    let wake = Arc::<Notify>::default();
    let watch = watcher.add(&a, &["memory.events", "cgroup.events"], &wake).unwrap();
    a.read("memory.events").unwrap();
    assert!(is_left_alone(&wake).await);
    fs::write(dir.path().join("a/memory.events"), "oom 1\n").unwrap();
    assert!(is_woken(&wake).await);
    fs::write(dir.path().join("a/cgroup.events"), "populated 1\n").unwrap();
    assert!(is_woken(&wake).await);
    drop(watch);
    while timeout(A_MOMENT, wake.notified()).await.is_ok() {}
    fs::write(dir.path().join("a/memory.events"), "oom 2\n").unwrap();
    assert!(is_left_alone(&wake).await, "dropped");
}

#[tokio::test]
async fn mounts_that_share_a_target_do_not_take_each_other_s_watch() {
    let (dir, a) = tree();
    let watcher = Watcher::start().unwrap();
    let (one, other) = (Arc::<Notify>::default(), Arc::<Notify>::default());
    let first = watcher.add(&a, &["memory.events"], &one).unwrap();
    let _second = watcher.add(&a, &["memory.events"], &other).unwrap();
    fs::write(dir.path().join("a/memory.events"), "oom 1\n").unwrap();
    assert!(is_woken(&one).await && is_woken(&other).await);
    drop(first);
    while timeout(A_MOMENT, other.notified()).await.is_ok() {}
    fs::write(dir.path().join("a/memory.events"), "oom 2\n").unwrap();
    assert!(is_woken(&other).await);
    assert!(is_left_alone(&one).await);
}

#[tokio::test]
async fn a_cgroup_that_goes_and_comes_back_is_seen_in_its_parent() {
    let (dir, _a) = tree();
    let top = Hierarchy::stand_in(dir.path()).open("/").unwrap();
    let watcher = Watcher::start().unwrap();
    let wake = Arc::<Notify>::default();
    let _watch = watcher.add_directory(&top, &wake).unwrap();
    fs::remove_dir_all(dir.path().join("a")).unwrap();
    assert!(is_woken(&wake).await);
    while timeout(A_MOMENT, wake.notified()).await.is_ok() {}
    make(dir.path());
    assert!(is_woken(&wake).await);
}

#[tokio::test]
async fn a_file_that_is_gone_wakes_and_is_forgotten() {
    let (dir, a) = tree();
    let watcher = Watcher::start().unwrap();
    let wake = Arc::<Notify>::default();
    let watch = watcher.add(&a, &["memory.events"], &wake).unwrap();
    fs::remove_file(dir.path().join("a/memory.events")).unwrap();
    assert!(is_woken(&wake).await);
    while timeout(A_MOMENT, wake.notified()).await.is_ok() {}
    assert!(watcher.running.shared.lock().is_empty());
    drop(watch);
    assert!(watcher.add(&a, &["memory.events"], &wake).is_err(), "it names what is missing");
}

#[tokio::test]
async fn half_a_watch_is_undone() {
    let (_dir, a) = tree();
    let watcher = Watcher::start().unwrap();
    let error = watcher.add(&a, &["memory.events", "none"], &Arc::default()).unwrap_err();
    assert!(error.to_string().contains("none"), "{error}");
    assert!(watcher.running.shared.lock().is_empty());
}

#[tokio::test]
async fn the_task_ends_with_the_last_watcher() {
    let watcher = Watcher::start().unwrap();
    let (shared, clone) = (Arc::downgrade(&watcher.running.shared), watcher.clone());
    drop(watcher);
    task::yield_now().await;
    assert!(shared.upgrade().is_some(), "there is a clone");
    drop(clone);
    timeout(SOON, async {
        while shared.upgrade().is_some() {
            task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn after_a_flood_of_events_the_next_one_still_wakes() {
    let (dir, _a) = tree();
    let top = Hierarchy::stand_in(dir.path()).open("/").unwrap();
    let watcher = Watcher::start().unwrap();
    let wake = Arc::<Notify>::default();
    let _watch = watcher.add_directory(&top, &wake).unwrap();
    (0..4 * BATCH).for_each(|i| fs::create_dir(dir.path().join(format!("{i}"))).unwrap());
    assert!(is_woken(&wake).await);
    while timeout(A_MOMENT, wake.notified()).await.is_ok() {}
    fs::create_dir(dir.path().join("last")).unwrap();
    assert!(is_woken(&wake).await);
}
