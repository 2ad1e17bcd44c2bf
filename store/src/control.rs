//! The socket on which memcharged asks: one JSON value a line in, one out.
//!
//! One thread waits for all connections; it never waits for a peer that does not read. A peer that is not root, that
//! sends a line that is too long, or that does not take its answer is disconnected.

use std::{
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    sync::Arc,
    time::Duration,
};

use memcharge_policy::link::{Reply, Request};
use rustix::{
    event::{PollFd, PollFlags},
    net::sockopt::socket_peercred,
};

use crate::{fs::Fs, memory};

/// memcharged holds one connection; a second one may come before the first is seen to end.
const MAX_PEERS: usize = 4;

/// The longest request, in bytes.
const MAX_LINE: usize = 4096;

/// How long nothing is accepted after a failure.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What this thread may need of its stack, in bytes.
const STACK_IN_USE: usize = 32 << 10;

struct Peer {
    stream: UnixStream,
    line: Vec<u8>,
}

/// Serves until the process ends.
pub(crate) fn serve(socket: OwnedFd, fs: &Arc<Fs>) -> io::Result<()> {
    memory::touch_stack::<STACK_IN_USE>();
    let listener = UnixListener::from(socket);
    listener.set_nonblocking(true)?;
    let mut peers: Vec<Peer> = Vec::with_capacity(MAX_PEERS);
    loop {
        let ready = wait(&listener, &peers)?;
        let mut index = 0;
        peers.retain_mut(|peer| {
            index += 1;
            !ready[index] || peer.answer(fs).is_ok()
        });
        if ready[0] {
            accept(&listener, &mut peers);
        }
    }
}

/// Waits until something can be read. Entry 0 is the listener, then the peers.
fn wait(listener: &UnixListener, peers: &[Peer]) -> io::Result<[bool; MAX_PEERS + 1]> {
    let mut polls: Vec<PollFd<'_>> = Vec::with_capacity(MAX_PEERS + 1);
    polls.push(PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN));
    polls.extend(peers.iter().map(|peer| PollFd::from_borrowed_fd(peer.stream.as_fd(), PollFlags::IN)));
    loop {
        match rustix::event::poll(&mut polls, None) {
            Err(rustix::io::Errno::INTR) => {}
            result => break result.map(drop)?,
        }
    }
    let mut ready = [false; MAX_PEERS + 1];
    for (ready, poll) in ready.iter_mut().zip(&polls) {
        *ready = !poll.revents().is_empty();
    }
    Ok(ready)
}

fn accept(listener: &UnixListener, peers: &mut Vec<Peer>) {
    let Ok((stream, _)) = listener.accept() else {
        // Out of descriptors, most likely: the listener stays ready, and asking again at once would only spin.
        std::thread::sleep(ACCEPT_PAUSE);
        return;
    };
    let is_root = socket_peercred(&stream).is_ok_and(|peer| peer.uid.is_root());
    if is_root && peers.len() < MAX_PEERS && stream.set_nonblocking(true).is_ok() {
        peers.push(Peer { stream, line: Vec::new() });
    }
}

impl Peer {
    /// Answers the requests that have arrived. An error ends the connection.
    fn answer(&mut self, fs: &Fs) -> io::Result<()> {
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
                let mut reply = serde_json::to_vec(&reply_to(&self.line[..end], fs))?;
                reply.push(b'\n');
                self.stream.write_all(&reply)?;
                self.line.drain(..=end);
            }
            if self.line.len() > MAX_LINE {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    }
}

fn reply_to(line: &[u8], fs: &Fs) -> Reply {
    match serde_json::from_slice(line) {
        Ok(Request::Status) => match fs.gate().status(fs.backing()) {
            Ok(status) => Reply::Status(status),
            Err(e) => Reply::Error(format!("the target cannot be read: {e}")),
        },
        Err(e) => Reply::Error(format!("not a request: {e}")),
    }
}
