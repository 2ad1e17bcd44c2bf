//! Places where a program may be killed: a test names one, and the program that comes there dies of SIGKILL, once.
//!
//! Only programs built with the feature `armed` know these places; in all others they are nothing.

/// Where a test puts a file with the name of a place.
pub const DIRECTORY: &str = "/run/memcharge-faults";

/// Dies here, if a test has asked for it.
#[cfg(feature = "armed")]
pub fn may_die(name: &str) {
    // Removed first: the next process that comes here lives.
    if std::fs::remove_file(format!("{DIRECTORY}/{name}")).is_ok() {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        loop {
            std::thread::park();
        }
    }
}

/// Dies here, if a test has asked for it: which it cannot, of a program that is built without the feature.
#[cfg(not(feature = "armed"))]
#[inline(always)]
pub fn may_die(_name: &str) {}
