//! What the service manager is told. Without one nothing is said.

use std::time::Duration;

use sd_notify::NotifyState;

/// The daemon has started.
pub(crate) fn ready() {
    send(NotifyState::Ready);
}

/// The daemon is about to exit.
pub(crate) fn stopping() {
    send(NotifyState::Stopping);
}

/// What `systemctl status` shows.
pub(crate) fn status(text: &str) {
    send(NotifyState::Status(text));
}

/// The daemon is alive.
pub(crate) fn alive() {
    send(NotifyState::Watchdog);
}

/// How often to say [`alive`]; `None`: nobody waits for it.
pub(crate) fn watchdog_period() -> Option<Duration> {
    // Half the time, so that one that comes late is no harm.
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

fn send(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!("the service manager cannot be told how memcharged is: {error}");
    }
}
