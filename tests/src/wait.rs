//! Waiting for what the kernel or systemd does in its own time: always with a deadline.

use std::time::{Duration, Instant};

/// How long anything may take. The VM's processor is emulated, up to 14 times slower than a real one.
const PATIENCE: Duration = Duration::from_secs(20);

/// Looks until `look` finds something.
///
/// # Panics
/// If it does not in 20 s.
#[allow(clippy::panic)]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "{what}: not within {} s", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(20));
    }
}
