//! The right to allocate, and the backing's size that goes with it.

use memcharge_policy::{Bytes, Sparse};
use rustix::io::Errno;

use super::{Gate, State};
use crate::{backing::Backing, case::Case};

/// How often a size that a concurrent allocation made stale is tried again.
const FIT_TRIES: usize = 4;

/// The right to allocate `bytes`, until it is dropped.
#[must_use]
pub(crate) struct Permit<'a> {
    gate: &'a Gate,
    backing: &'a Backing,
    case: &'a Case,
    bytes: Bytes,
}

impl State {
    /// Makes a permit of what is granted.
    pub(super) fn hold<'a>(
        &mut self,
        gate: &'a Gate,
        backing: &'a Backing,
        bytes: Bytes,
        case: &'a Case,
    ) -> Permit<'a> {
        self.in_flight = self.in_flight.plus(bytes);
        case.held.set(case.held.get().plus(bytes));
        self.write_down();
        Permit { gate, backing, case, bytes }
    }
}

impl State {
    /// Pins the backing's size to what is granted, if it leaves more.
    pub(super) fn tighten(&self, backing: &Backing) {
        let granted = self.in_flight.plus(self.credit);
        if backing.usage().is_ok_and(|usage| usage.free > granted) {
            // Where it fails an allocation under a permit came between, and its end tightens again.
            let _ = fit(backing, granted);
        }
    }
}

impl Permit<'_> {
    /// How many bytes may be allocated.
    pub(crate) fn bytes(&self) -> Bytes {
        self.bytes
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        state.in_flight = state.in_flight.minus(self.bytes);
        self.case.held.set(self.case.held.get().minus(self.bytes));
        if self.gate.sparse == Sparse::Sigbus {
            let _ = fit(self.backing, state.in_flight);
        }
        state.write_down();
        drop(state);
        self.gate.settled.notify_all();
    }
}

/// Sets the backing's size to what is used and `granted`. A client that touches holes meanwhile makes that too small, and
/// refused: then again with what is used by now.
pub(super) fn fit(backing: &Backing, granted: Bytes) -> Result<(), Errno> {
    let mut result = Err(Errno::INVAL);
    for _ in 0..FIT_TRIES {
        result = backing.set_size(backing.usage()?.used.plus(granted));
        if result != Err(Errno::INVAL) {
            break;
        }
    }
    result
}
