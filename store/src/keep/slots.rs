//! Each request has its effect once, though the store that runs it may be killed at any instant.
//!
//! The kernel keeps a request until it is answered, and gives it to the next store when that asks for it. What the dead
//! store did of it stands in a slot: nothing yet (then it is run), all of it (then the answer is given from the slot), or
//! that it had begun. For the last case an operation that must not be done twice notes beforehand, what it sees before
//! the effect (it is *armed*); whether it still sees that tells the next store, if the effect is there: the kernel holds
//! the locks of the directories and inodes that the request is about, so nobody else can have changed them.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::ThreadId,
};

use rustix::io::Errno;

use super::state::{SLOTS, Slot, State};

/// The kernel's mark in the number of a request that it gives out again (`FUSE_UNIQUE_RESEND`).
const RESENT: u64 = 1 << 63;

/// Phases of a slot. Nothing is remembered.
const FREE: u32 = 0;
/// The request is known, and has had no effect that matters.
const BEGUN: u32 = 1;
/// It may have had its effect: the evidence tells.
const ARMED: u32 = 2;
/// The opens of an inode are being counted.
const COUNTING: u32 = 3;
/// It is done, and its result is known.
const DONE: u32 = 4;

/// All slots of a mount.
pub(crate) struct Slots {
    state: &'static State,
    threads: usize,
    book: Mutex<Book>,
    /// Whether this store has answered a request.
    served: AtomicBool,
}

struct Book {
    /// Whether a thread of this process has the slot.
    held: [bool; SLOTS],
    /// Threads that have begun a request that was not resent.
    fresh: Vec<ThreadId>,
    /// Whether no resent request can come any more.
    settled: bool,
}

/// What an earlier store has done of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Earlier {
    Nothing,
    Armed(u64),
    Done(Result<u64, Errno>),
}

/// One request in hand. Its slot is freed when this is dropped: after the answer is out.
pub(crate) struct Run {
    slots: Option<(&'static Slots, usize)>,
    earlier: Earlier,
}

impl Slots {
    /// The slots in `state`, for so many serving threads. What a dead store was just about to count is as if it had not
    /// begun to. Returns them with the backing ids that it was about to close, which are noted until [`Slots::closed`].
    pub(crate) fn take_over(state: &'static State, threads: usize) -> (Self, Vec<u32>) {
        let mut closing = Vec::new();
        for slot in state.slots() {
            let phase = slot.phase.load(Ordering::SeqCst);
            if phase == COUNTING {
                let record = slot.record.load(Ordering::SeqCst);
                if record < state.record_count() {
                    let before = slot.before.load(Ordering::SeqCst);
                    state.record(record).opens.store(before, Ordering::SeqCst);
                }
                let armed = slot.armed.load(Ordering::SeqCst) != 0;
                slot.phase.store(if armed { ARMED } else { BEGUN }, Ordering::SeqCst);
            }
            let id = slot.closing.load(Ordering::SeqCst);
            if phase == DONE && id != 0 {
                closing.push(id);
            }
        }
        let book = Book { held: [false; SLOTS], fresh: Vec::with_capacity(threads), settled: false };
        (Self { state, threads, book: Mutex::new(book), served: AtomicBool::new(false) }, closing)
    }

    /// What [`Slots::take_over`] has returned is closed.
    pub(crate) fn closed(&self) {
        self.state.slots().iter().for_each(|slot| slot.closing.store(0, Ordering::SeqCst));
    }

    /// A request was answered, of whatever kind: stores of this mount can serve.
    pub(crate) fn note_served(&self) {
        if !self.served.load(Ordering::Relaxed) && !self.served.swap(true, Ordering::Relaxed) {
            self.state.header().unserved.store(0, Ordering::SeqCst);
        }
    }

    /// Begins a request, which the kernel calls `unique`.
    pub(crate) fn begin(&'static self, unique: u64) -> Run {
        let (resent, unique) = (unique & RESENT != 0, unique & !RESENT);
        let slots = self.state.slots();
        let mut book = self.lock();
        if resent {
            let known = |at: &usize| !book.held[*at] && slots[*at].unique.load(Ordering::SeqCst) == unique;
            let known = (0..SLOTS).filter(known).find(|at| slots[*at].phase.load(Ordering::SeqCst) != FREE);
            if let Some(at) = known {
                book.held[at] = true;
                return Run { earlier: slots[at].earlier(), slots: Some((self, at)) };
            }
        } else if !book.settled {
            self.settle(&mut book);
        }
        let Some(at) = book.free_slot(slots) else {
            // More requests than threads cannot be. Were it so, this one would not be remembered.
            return Run::unremembered();
        };
        book.held[at] = true;
        slots[at].begin(unique);
        Run { slots: Some((self, at)), earlier: Earlier::Nothing }
    }

    /// The kernel gives out all resent requests before any other. A thread that has begun another one has begun all
    /// resent ones that it was given; when that holds for all threads, what is left in slots was answered long ago.
    fn settle(&self, book: &mut Book) {
        let thread = std::thread::current().id();
        if !book.fresh.contains(&thread) {
            book.fresh.push(thread);
        }
        if book.fresh.len() < self.threads {
            return;
        }
        book.settled = true;
        for (slot, _) in self.state.slots().iter().zip(book.held).filter(|(_, held)| !held) {
            slot.phase.store(FREE, Ordering::SeqCst);
        }
    }

    fn free(&self, at: usize) {
        let mut book = self.lock();
        self.state.slots()[at].phase.store(FREE, Ordering::SeqCst);
        book.held[at] = false;
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    /// A slot that nobody needs; without one the oldest that nobody has: its request was answered, or its client is gone.
    /// What may have been done half-way is given up last.
    fn free_slot(&self, slots: &[Slot]) -> Option<usize> {
        let idle = || (0..SLOTS).filter(|at| !self.held[*at]);
        idle().find(|at| slots[*at].phase.load(Ordering::SeqCst) == FREE).or_else(|| {
            idle().min_by_key(|at| {
                let half_way = slots[*at].phase.load(Ordering::SeqCst) == ARMED;
                (half_way, slots[*at].unique.load(Ordering::SeqCst))
            })
        })
    }
}

impl Slot {
    fn begin(&self, unique: u64) {
        // Freed first: a number never stands beside what belongs to another.
        self.phase.store(FREE, Ordering::SeqCst);
        self.unique.store(unique, Ordering::SeqCst);
        self.armed.store(0, Ordering::SeqCst);
        self.closing.store(0, Ordering::SeqCst);
        self.phase.store(BEGUN, Ordering::SeqCst);
    }

    fn earlier(&self) -> Earlier {
        match self.phase.load(Ordering::SeqCst) {
            ARMED => Earlier::Armed(self.evidence.load(Ordering::SeqCst)),
            DONE => Earlier::Done(match self.result.load(Ordering::SeqCst) {
                error @ ..0 => Err(Errno::from_raw_os_error(i32::try_from(-error).unwrap_or(libc::EIO))),
                value => Ok(value.unsigned_abs()),
            }),
            _ => Earlier::Nothing,
        }
    }
}

impl Run {
    /// A request that may be run twice without harm.
    pub(crate) fn unremembered() -> Self {
        Self { slots: None, earlier: Earlier::Nothing }
    }

    /// What an earlier store has come to, if it has run the request to its end.
    pub(crate) fn done(&self) -> Option<Result<u64, Errno>> {
        if let Earlier::Done(result) = self.earlier { Some(result) } else { None }
    }

    /// What an earlier store saw before it may have had an effect.
    pub(crate) fn armed(&self) -> Option<u64> {
        if let Earlier::Armed(evidence) = self.earlier { Some(evidence) } else { None }
    }

    /// From now on there may be an effect; `evidence` is what there was before.
    pub(crate) fn arm(&self, evidence: u64) {
        let Some(slot) = self.slot() else { return };
        slot.evidence.store(evidence, Ordering::SeqCst);
        slot.armed.store(1, Ordering::SeqCst);
        slot.phase.store(ARMED, Ordering::SeqCst);
    }

    /// The opens of a record, which are `before`, are about to change. Between this and [`Run::finish`] nobody else may
    /// change them.
    pub(crate) fn count(&self, record: u32, before: u32) {
        let Some(slot) = self.slot() else { return };
        slot.record.store(record, Ordering::SeqCst);
        slot.before.store(before, Ordering::SeqCst);
        slot.phase.store(COUNTING, Ordering::SeqCst);
    }

    /// A backing id has to be closed after the result is known; 0: it is closed.
    pub(crate) fn closing(&self, id: u32) {
        if let Some(slot) = self.slot() {
            slot.closing.store(id, Ordering::SeqCst);
        }
    }

    /// The request has had its effect, all of it.
    pub(crate) fn finish(&self, result: Result<u64, Errno>) {
        let Some(slot) = self.slot() else { return };
        let result = match result {
            Ok(value) => i64::try_from(value).unwrap_or(i64::MAX),
            Err(error) => -i64::from(error.raw_os_error()),
        };
        slot.result.store(result, Ordering::SeqCst);
        slot.phase.store(DONE, Ordering::SeqCst);
    }

    fn slot(&self) -> Option<&Slot> {
        self.slots.map(|(slots, at)| &slots.state.slots()[at])
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if let Some((slots, at)) = self.slots {
            slots.free(at);
        }
    }
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("earlier", &self.earlier).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store that takes over, as it were: the state is the same, everything else is new.
    fn next(state: &'static State) -> (&'static Slots, Vec<u32>) {
        let (slots, closing) = Slots::take_over(state, 1);
        (Box::leak(Box::new(slots)), closing)
    }

    fn state() -> &'static State {
        Box::leak(Box::new(State::create().unwrap()))
    }

    fn killed(run: Run) {
        std::mem::forget(run);
    }

    #[test]
    fn what_was_done_is_answered_and_what_was_not_is_run() {
        for (what, earlier) in [
            (None, Earlier::Nothing),
            (Some(Ok(42)), Earlier::Done(Ok(42))),
            (Some(Err(Errno::NOSPC)), Earlier::Done(Err(Errno::NOSPC))),
        ] {
            let state = state();
            let run = next(state).0.begin(6);
            if let Some(result) = what {
                run.finish(result);
            }
            killed(run);
            let (slots, _) = next(state);
            assert_eq!(slots.begin(8 | RESENT).earlier, Earlier::Nothing, "another request");
            let again = slots.begin(6 | RESENT);
            assert_eq!(again.earlier, earlier);
            drop(again);
            assert_eq!(slots.begin(6 | RESENT).earlier, Earlier::Nothing, "it was answered");
        }
    }

    #[test]
    fn evidence_is_kept_over_several_kills() {
        let state = state();
        let run = next(state).0.begin(6);
        run.arm(77);
        killed(run);
        let run = next(state).0.begin(6 | RESENT);
        assert_eq!(run.armed(), Some(77));
        killed(run);
        assert_eq!(next(state).0.begin(6 | RESENT).armed(), Some(77));
    }

    #[test]
    fn what_was_answered_is_forgotten_once_no_request_can_come_again() {
        let state = state();
        for unique in 1..=3 {
            let run = next(state).0.begin(unique);
            run.finish(Ok(1));
            killed(run);
        }
        let (slots, _) = next(state);
        drop(slots.begin(10));
        assert!(state.slots().iter().all(|slot| slot.phase.load(Ordering::SeqCst) == FREE));
    }

    #[test]
    fn a_slot_is_always_found() {
        let state = state();
        for unique in 1..100 {
            killed(next(state).0.begin(unique | RESENT));
        }
        let (slots, _) = next(state);
        assert!((85..100).all(|unique| {
            let run = slots.begin(unique | RESENT);
            run.arm(0);
            let found = run.slots.is_some();
            killed(run);
            found
        }));
    }

    #[test]
    fn a_count_that_was_begun_is_taken_back() {
        let state = state();
        state.more_records().unwrap();
        let opens = &state.record(5).opens;
        opens.store(3, Ordering::SeqCst);
        let run = next(state).0.begin(6);
        run.arm(9);
        run.count(5, 3);
        opens.store(4, Ordering::SeqCst);
        killed(run);
        let (slots, closing) = next(state);
        assert_eq!((opens.load(Ordering::SeqCst), closing), (3, vec![]));
        let run = slots.begin(6 | RESENT);
        assert_eq!(run.armed(), Some(9), "what was armed before stays so");
        run.count(5, 3);
        opens.store(4, Ordering::SeqCst);
        run.finish(Ok(0));
        run.closing(12);
        killed(run);
        assert_eq!(next(state).1, [12]);
        let (slots, closing) = next(state);
        assert_eq!(closing, [12], "a store that is killed before it has closed it leaves it to the next");
        slots.closed();
        assert_eq!(next(state).1, [0; 0]);
        assert_eq!(opens.load(Ordering::SeqCst), 4, "what was counted stays so");
    }

    #[test]
    fn an_answer_ends_the_row_of_stores_that_did_not_serve() {
        let state = state();
        state.header().unserved.store(3, Ordering::SeqCst);
        let slots = next(state).0;
        drop(slots.begin(2));
        assert_eq!(state.header().unserved.load(Ordering::SeqCst), 3, "not answered, only over");
        slots.note_served();
        assert_eq!(state.header().unserved.load(Ordering::SeqCst), 0);
    }
}
