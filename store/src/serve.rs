//! Serving: from the handover, or from where a store that was killed has left off, to the end of the mount.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::Arc,
};

use fuser::{Config, Session, SessionACL};
use memcharge_cgroup::{CgroupError, Ledger};
use memcharge_faults::may_die;
use memcharge_policy::{
    MountName,
    link::{Handover, Home, StoreLimits},
};
use rustix::event::{PollFd, PollFlags};

use crate::{
    backing::Backing,
    control::{self, Served},
    error::{StoreError, io as io_error},
    fs::Fs,
    fuse::{self, Adapter},
    gate::{Gate, Target},
    handover::{self, Descriptors, Received},
    home,
    inodes::Inodes,
    keep::{self, Slots, State},
    liveness::Liveness,
    memory,
    passthrough::Passthrough,
    reclaim::Reclaimer,
    reports::Reports,
    who::Processes,
};

/// The largest write, in bytes; the kernel splits larger ones. Each serving thread has a buffer of this size on the
/// target's bill. Larger requests gain little: 1 MiB wins about 5 % on large writes.
const MAX_WRITE: u32 = 512 << 10;

/// Serving threads. Two keep a client busy; a third lets a request that waits leave others alone. More only cost
/// memory and wake-ups.
const THREADS: (usize, usize) = (2, 3);

/// The stack of the thread that answers memcharged. JSON in, JSON out.
const CONTROL_STACK: usize = 128 << 10;

/// What this process begins with.
struct Begin {
    handover: Handover,
    descriptors: Descriptors,
    /// Kept for as long as the process lives.
    state: &'static State,
    generation: u64,
    /// Whether the mount has had a store before this one.
    resumed: bool,
    /// Whether systemd keeps for this unit what the next store needs.
    kept: bool,
}

/// Serves the mount `name` until its file system is unmounted everywhere, or the process is told to end.
pub(crate) fn serve(name: &MountName) -> Result<(), StoreError> {
    memory::settle()?;
    let Begin { handover, descriptors, state, generation, resumed, kept } = begin()?;
    let threads =
        std::thread::available_parallelism().map_or(THREADS.0, usize::from).clamp(THREADS.0, THREADS.1);
    let ledger = Ledger::map(&descriptors.ledger).map_err(io_error("map the ledger"))?;
    let seat = Seat { ledger: Arc::new(ledger), slot: handover.slot, home: handover.home, state };
    let (slots, closing) = Slots::take_over(state, threads);
    let slots: &'static Slots = Box::leak(Box::new(slots));
    let passthrough = Passthrough::new(descriptors.fuse.as_fd()).map_err(io_error("copy a descriptor"))?;
    let inodes = Inodes::take_over(state, passthrough, &closing);
    slots.closed();
    may_die("start.table");
    let target = seat.open()?;
    let reclaimer = Reclaimer::start(target.open_reclaim()?)?;
    if !kept {
        keep::keep(&descriptors, state)?;
    }
    let Descriptors { fuse, backing_mount, backing_root, backing_ballast, socket, ledger: _, proc } =
        descriptors;
    let reports = Reports::new(state.counters(), Processes::new(proc))?;
    let gate = Gate::new(handover.limits, target, reclaimer, reports, threads - 1)?;
    let backing = Backing::new(backing_mount, backing_root, backing_ballast);
    let fs = Arc::new(Fs::new(backing, gate, inodes, threads, generation));
    // A store that was killed may have left more free than was granted.
    fs.gate().trim(fs.backing());
    let liveness: &'static Liveness = Box::leak(Box::new(Liveness::new()));
    let adapter = Adapter::new(Arc::clone(&fs), slots, liveness, MAX_WRITE);
    let session = open_session(adapter, fuse, threads, resumed)?;
    state.set_agreed();
    may_die("start.session");
    memory::lock_future(MAX_WRITE as usize)?;
    // Here: a store that found no memory to start with says nothing of whether the mount can be served.
    state.count_unserved();
    if resumed {
        fuse::ask_again(session.as_fd()).map_err(io_error("have the kernel ask again"))?;
        may_die("resume.asked");
        note_idle(&session, state)?;
    }
    let line = [session.as_fd().as_raw_fd(), socket.as_raw_fd(), state.file().as_raw_fd()];
    let mut served = Served { fs, seat, liveness, line };
    std::thread::Builder::new()
        .name("control".to_owned())
        .stack_size(CONTROL_STACK)
        .spawn(move || control::serve(socket, &mut served))
        .map_err(io_error("start the control thread"))?;
    sd_notify::notify(&[
        sd_notify::NotifyState::Ready,
        sd_notify::NotifyState::Status(&format!("serving the mount {name}")),
    ])
    .map_err(io_error("notify the service manager"))?;
    may_die("start.ready");
    session.run().map_err(|e| match e.raw_os_error() {
        Some(libc::ECONNABORTED) => StoreError::Aborted,
        _ => io_error("serve requests")(e),
    })
}

/// Takes over from the store before this one, or takes what memcharged hands over: a new mount, or one whose store was in
/// another target until now.
fn begin() -> Result<Begin, StoreError> {
    if let Some((descriptors, state)) = keep::take()? {
        may_die("resume.taken");
        let handover = keep::read_handover(state.as_fd())?;
        // Before anything is allocated that the target shall pay for.
        if let Err(error) = home::move_in(&handover.home, false) {
            eprintln!("memcharge-store: {error}; what exists can be used, and nothing can grow");
        }
        may_die("resume.home");
        // What is mapped after this is locked page by page: most of the state has no pages.
        memory::lock_present()?;
        let state = open_state(state)?;
        let generation = state.begin_generation()?;
        return Ok(Begin { handover, descriptors, state, generation, resumed: true, kept: true });
    }
    let Received { handover, descriptors, state } = handover::receive(rustix::stdio::stdin().as_fd())?;
    may_die("start.received");
    memory::lock_present()?;
    let resumed = state.is_some();
    let state = match state {
        Some(state) => open_state(state)?,
        None => Box::leak(Box::new(State::create()?)),
    };
    state.write_handover(&handover)?;
    let generation = state.begin_generation()?;
    Ok(Begin { handover, descriptors, state, generation, resumed, kept: false })
}

/// The state of a store that has served this mount.
fn open_state(file: OwnedFd) -> Result<&'static State, StoreError> {
    let state: &'static State = Box::leak(Box::new(State::open(file)?));
    if state.is_agreed() { Ok(state) } else { Err(StoreError::NothingToServe) }
}

fn open_session(
    adapter: Adapter,
    fuse: OwnedFd,
    threads: usize,
    resumed: bool,
) -> Result<Session<Adapter>, StoreError> {
    let mut config = Config::default();
    config.acl = SessionACL::All;
    config.n_threads = Some(threads);
    if !resumed {
        return Session::from_fd(adapter, fuse, SessionACL::All, config).map_err(negotiation);
    }
    // The kernel has agreed with the first store; fuser agrees with a socket, in whose place the connection is put.
    let (_kernel, stand_in) = fuse::request_again().map_err(io_error("prepare for going on"))?;
    let session = Session::from_fd(adapter, stand_in, SessionACL::All, config).map_err(negotiation)?;
    let at = session.as_fd().as_raw_fd();
    // SAFETY: both descriptors are open, and `at` belongs to the session, which uses it as what it is from now on.
    if unsafe { libc::dup3(fuse.as_raw_fd(), at, libc::O_CLOEXEC) } < 0 {
        return Err(io_error("take the connection over")(io::Error::last_os_error()));
    }
    Ok(session)
}

/// Nothing waits: then there is nothing that this store could fail at.
fn note_idle(session: &Session<Adapter>, state: &State) -> Result<(), StoreError> {
    let connection = session.as_fd();
    let mut polls = [PollFd::new(&connection, PollFlags::IN)];
    let none = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    if rustix::event::poll(&mut polls, Some(&none)).map_err(io_error("look for requests"))? == 0 {
        state.is_idle();
    }
    Ok(())
}

/// Where this store belongs, where it writes down what it holds, and what the next one will need.
pub(crate) struct Seat {
    ledger: Arc<Ledger>,
    slot: u32,
    home: Home,
    state: &'static State,
}

impl Seat {
    /// Opens the files of the cgroup that this process is in.
    fn open(&self) -> Result<Target, CgroupError> {
        Target::open(Arc::clone(&self.ledger), self.slot, &self.home)
    }

    /// Moves where the store belongs, if it is not there, and opens the files of that cgroup.
    pub(crate) fn enter(&self) -> Result<Target, CgroupError> {
        home::move_in(&self.home, false)?;
        self.open()
    }

    /// Moves where the store belongs from now on, and opens the files of that cgroup.
    pub(crate) fn enter_new(&mut self, home: Home) -> Result<Target, StoreError> {
        self.state.write_home(&home)?;
        self.home = home;
        home::move_in(&self.home, true)?;
        Ok(self.open()?)
    }

    /// Writes limits down for the next store.
    pub(crate) fn keep_limits(&self, limits: StoreLimits) -> Result<(), StoreError> {
        self.state.write_limits(limits)
    }
}

fn negotiation(e: io::Error) -> StoreError {
    match e.kind() {
        io::ErrorKind::Unsupported => StoreError::KernelTooOld("passthrough or no resending of requests"),
        _ => io_error("negotiate with the kernel's FUSE")(e),
    }
}
