//! The socket on which memcharged asks and is told what happens: one JSON value a line.
//!
//! One thread waits for all connections; it never waits for a peer that does not read. A peer that is not root, that
//! sends a line that is too long, or that does not take its answer is disconnected.

use std::{
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd, RawFd},
        unix::net::{UnixListener, UnixStream},
    },
    sync::Arc,
    time::{Duration, Instant},
};

use memcharge_policy::link::{LINE_FDS, Reply, Request};
use rustix::{
    event::{PollFd, PollFlags},
    net::sockopt::socket_peercred,
};

use crate::{fs::Fs, gate::Voice, liveness::Liveness, memory, serve::Seat};

/// memcharged holds one connection; a second one may come before the first is seen to end.
const MAX_PEERS: usize = 4;

/// The longest request, in bytes.
const MAX_LINE: usize = 4096;

/// Answers that wait for room, for one peer and in bytes. memcharged asks one question at a time.
const MAX_WAITING: usize = 8 << 10;

/// How long nothing is accepted after a failure, and nothing is accepted or said while there is no room for it.
const PAUSE: Duration = Duration::from_millis(200);

/// What this thread may need of its stack, in bytes.
const STACK_IN_USE: usize = 32 << 10;

struct Peer {
    stream: UnixStream,
    line: Vec<u8>,
    /// Answers that are not sent yet.
    answers: Vec<u8>,
    /// Whether it is told what happens. One peer at most is.
    subscribed: bool,
}

/// What requests are about.
pub(crate) struct Served {
    /// The mount.
    pub(crate) fs: Arc<Fs>,
    /// The store's place.
    pub(crate) seat: Seat,
    /// The requests in hand.
    pub(crate) liveness: &'static Liveness,
    /// What another store would need to go on, in the order of [`LINE_FDS`].
    pub(crate) line: [RawFd; LINE_FDS.len()],
}

/// Serves until the process ends.
pub(crate) fn serve(socket: OwnedFd, served: &mut Served) -> io::Result<()> {
    memory::touch_stack::<STACK_IN_USE>();
    let listener = UnixListener::from(socket);
    listener.set_nonblocking(true)?;
    let fs = Arc::clone(&served.fs);
    let fs = &*fs;
    let mut watchdog = Watchdog::new();
    let mut peers: Vec<Peer> = Vec::with_capacity(MAX_PEERS);
    let mut quiet = None;
    let mut open = true;
    loop {
        let patience = watchdog.ping(served.liveness).into_iter().chain(quiet).min();
        let ready = wait(&listener, open, fs.gate().reports().wake_fd(), &peers, patience)?;
        let mut index = FIXED - 1;
        let mut newly = false;
        retain(&mut peers, fs, |peer| {
            index += 1;
            let before = peer.subscribed;
            let stays = !ready[index] || peer.take(served).is_ok();
            newly |= peer.subscribed && !before;
            stays
        });
        // A socket is charged to the target. With that at its limit the kernel would kill a process of the target for it;
        // who wants to connect waits.
        open = open && !ready[0] || fs.gate().voice(fs.backing()) == Voice::Full;
        if ready[0] && open {
            accept(&listener, &mut peers);
        }
        if newly {
            subscribe(&mut peers, fs);
        }
        let answered = answer(&mut peers, fs);
        quiet = tell(&mut peers, fs);
        if !open || !answered {
            quiet = Some(quiet.map_or(PAUSE, |quiet| quiet.min(PAUSE)));
        }
    }
}

/// Tells the service manager that the store is alive, while no request is stuck.
struct Watchdog {
    /// `None`: nobody wants to know.
    period: Option<Duration>,
    next: Instant,
}

impl Watchdog {
    fn new() -> Self {
        // Four looks in the time after which the service manager loses its patience.
        Self { period: sd_notify::watchdog_enabled().map(|limit| limit / 4), next: Instant::now() }
    }

    /// Says so, if it is time. Returns how long until the next time.
    fn ping(&mut self, liveness: &Liveness) -> Option<Duration> {
        let period = self.period?;
        let now = Instant::now();
        if now >= self.next {
            if !liveness.look() {
                // The next store gets the request again; this one would never answer it.
                eprintln!(
                    "memcharge-store: a request does not come to an end; this store gives up its place"
                );
                std::process::abort();
            }
            // Without it the service manager restarts this store, which loses nothing.
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
            self.next = now + period;
        }
        Some(self.next.saturating_duration_since(now))
    }
}

/// Keeps the peers that are to be kept. Without the one that was told what happens, nobody is there to be asked.
fn retain(peers: &mut Vec<Peer>, fs: &Fs, mut keep: impl FnMut(&mut Peer) -> bool) {
    let mut lost = false;
    peers.retain_mut(|peer| {
        let kept = keep(peer);
        lost |= !kept && peer.subscribed;
        kept
    });
    if lost && !peers.iter().any(|peer| peer.subscribed) {
        fs.gate().reports().connect(false);
    }
}

/// The newest subscriber alone is told: an older one belongs to a daemon that is gone.
fn subscribe(peers: &mut [Peer], fs: &Fs) {
    let newest = peers.iter().rposition(|peer| peer.subscribed);
    for (index, peer) in peers.iter_mut().enumerate() {
        peer.subscribed = Some(index) == newest;
    }
    fs.gate().reports().connect(newest.is_some());
}

/// Sends the answers. `false`: there is no room for them.
fn answer(peers: &mut Vec<Peer>, fs: &Fs) -> bool {
    if peers.iter().all(|peer| peer.answers.is_empty()) {
        return true;
    }
    let has_room = fs.gate().voice(fs.backing()) == Voice::Full;
    if has_room {
        retain(peers, fs, |peer| peer.send_answers().is_ok());
    }
    has_room
}

/// Tells what there is to tell and there is room for: the rest stays with the reports. Returns how long until there may be
/// something else; `None`: until somebody wakes us.
fn tell(peers: &mut Vec<Peer>, fs: &Fs) -> Option<Duration> {
    let reports = fs.gate().reports();
    reports.heard();
    loop {
        let needed = reports.waits().map_or(Voice::None, Voice::for_question);
        if needed > Voice::None && fs.gate().voice(fs.backing()) < needed {
            return Some(PAUSE);
        }
        let (notice, quiet) = reports.next_notice();
        let Some(notice) = notice else { return quiet };
        retain(peers, fs, |peer| !peer.subscribed || peer.send(&Reply::Notice(notice.clone())).is_ok());
    }
}

/// What is waited for beside the peers: the listener, and the reports.
const FIXED: usize = 2;

/// Waits until something can be read, or for `quiet`. `open`: whether new connections are waited for. Entry 0 is the listener, entry 1 the reports, then the peers.
fn wait(
    listener: &UnixListener,
    open: bool,
    reports: BorrowedFd<'_>,
    peers: &[Peer],
    quiet: Option<Duration>,
) -> io::Result<[bool; MAX_PEERS + FIXED]> {
    let mut polls: Vec<PollFd<'_>> = Vec::with_capacity(MAX_PEERS + FIXED);
    polls.push(PollFd::from_borrowed_fd(
        listener.as_fd(),
        if open { PollFlags::IN } else { PollFlags::empty() },
    ));
    polls.push(PollFd::from_borrowed_fd(reports, PollFlags::IN));
    polls.extend(peers.iter().map(|peer| PollFd::from_borrowed_fd(peer.stream.as_fd(), PollFlags::IN)));
    let timeout = quiet.and_then(|quiet| quiet.try_into().ok());
    loop {
        match rustix::event::poll(&mut polls, timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            result => break result.map(drop)?,
        }
    }
    let mut ready = [false; MAX_PEERS + FIXED];
    for (ready, poll) in ready.iter_mut().zip(&polls) {
        *ready = !poll.revents().is_empty();
    }
    Ok(ready)
}

fn accept(listener: &UnixListener, peers: &mut Vec<Peer>) {
    let Ok((stream, _)) = listener.accept() else {
        // Out of descriptors, most likely: the listener stays ready, and asking again at once would only spin.
        std::thread::sleep(PAUSE);
        return;
    };
    let is_root = socket_peercred(&stream).is_ok_and(|peer| peer.uid.is_root());
    if is_root && peers.len() < MAX_PEERS && stream.set_nonblocking(true).is_ok() {
        peers.push(Peer { stream, line: Vec::new(), answers: Vec::new(), subscribed: false });
    }
}

impl Peer {
    /// Takes the requests that have arrived, and keeps the answers. An error ends the connection.
    fn take(&mut self, served: &mut Served) -> io::Result<()> {
        let mut chunk = [0; 512];
        loop {
            let length = match self.stream.read(&mut chunk) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => length,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            };
            self.line.extend_from_slice(&chunk[..length]);
            while let Some(end) = self.line.iter().position(|b| *b == b'\n') {
                let request = serde_json::from_slice(&self.line[..end]);
                self.line.drain(..=end);
                self.subscribed |= matches!(request, Ok(Request::Subscribe));
                if let Some(reply) = served.reply_to(request) {
                    self.answers.extend_from_slice(&line_of(&reply)?);
                }
            }
            if self.line.len() > MAX_LINE || self.answers.len() > MAX_WAITING {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    }

    /// A peer that does not take it is disconnected.
    fn send(&mut self, reply: &Reply) -> io::Result<()> {
        self.stream.write_all(&line_of(reply)?)
    }

    fn send_answers(&mut self) -> io::Result<()> {
        let answers = std::mem::take(&mut self.answers);
        self.stream.write_all(&answers)
    }
}

fn line_of(reply: &Reply) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    Ok(line)
}

impl Served {
    /// Does what is asked. `None`: there is no answer to it.
    fn reply_to(&mut self, request: serde_json::Result<Request>) -> Option<Reply> {
        let (gate, backing) = (self.fs.gate(), self.fs.backing());
        let done = |result: Result<(), String>| Some(result.map_or_else(Reply::Error, |()| Reply::Done));
        match request {
            Ok(Request::Status) => Some(match gate.status(backing) {
                Ok(status) => Reply::Status(status),
                Err(e) => Reply::Error(format!("the mount cannot be looked at: {e}")),
            }),
            Ok(Request::Subscribe) => Some(Reply::Done),
            Ok(Request::Limits(limits)) => done(gate.set_limits(backing, limits).and_then(|()| {
                // So that the next store keeps them, too.
                self.seat.keep_limits(limits).map_err(|e| e.to_string())
            })),
            Ok(Request::Reopen) => {
                done(self.seat.enter().map_err(|e| e.to_string()).and_then(|target| gate.reopen(target)))
            }
            Ok(Request::Enter(home)) => {
                let entered = self.seat.enter_new(home).map_err(|e| e.to_string());
                done(entered.and_then(|target| gate.reopen(target)))
            }
            Ok(Request::TellAll) => {
                gate.reports().hurry();
                Some(Reply::Done)
            }
            Ok(Request::Descriptors) => Some(Reply::Descriptors(backing.descriptors())),
            Ok(Request::Line) => Some(Reply::Line(self.line)),
            Ok(Request::Verdict(verdict)) => {
                gate.reports().judge(verdict);
                None
            }
            Ok(Request::Recorded(id)) => {
                gate.reports().recorded(id);
                None
            }
            Ok(Request::Trim) => {
                gate.trim(backing);
                None
            }
            Err(e) => Some(Reply::Error(format!("not a request: {e}"))),
        }
    }
}
