//! What is done about a report once the client has its answer.

use memcharge_policy::outcome::EventId;

use super::Reports;

/// Wakes the thread that talks to memcharged, if there is something to tell, when it is dropped: after the client has its
/// answer, which need not wait for that.
#[must_use]
pub(crate) struct Told<'a> {
    pub(super) reports: Option<&'a Reports>,
    /// Who is to be looked at, for which event, while they are still there.
    pub(super) who: Option<(EventId, u32, u32)>,
}

impl<'a> Told<'a> {
    /// There is nothing to tell.
    pub(crate) const NOTHING: Self = Self { reports: None, who: None };

    pub(super) fn soon(reports: &'a Reports) -> Self {
        Self { reports: Some(reports), who: None }
    }

    /// Whether somebody is looked at.
    pub(crate) fn looks(&self) -> bool {
        self.who.is_some()
    }

    /// Nobody is looked at: that would take memory, and there is none.
    pub(crate) fn unseen(mut self) -> Self {
        self.who = None;
        self
    }
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        let Some(reports) = self.reports else { return };
        if let Some((id, tid, uid)) = self.who
            && let Some(charger) = reports.processes.charger(tid, uid)
        {
            reports.lock().identify(id, &charger);
        }
        reports.waker.soon();
    }
}
