//! The socket: reads what may come in, and sees each reply go out.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    task::yield_now,
};
use zbus::{
    Message, Result,
    connection::socket::{ReadHalf, Socket, Split, WriteHalf},
    fdo::ConnectionCredentials,
    message::Type,
};

use super::{
    LIMITS_EXCEEDED, Refusal, Traffic, UNREAD,
    flight::{Call, Entry},
    unread::Answer,
};

/// No call is longer, in bytes. The longest that makes sense has a few paths and lists of names.
const MAX_CALL: usize = 128 << 10;

/// The part of a header that says how long all of it is.
const START: usize = 16;

/// What is too long is read in pieces of this size, and forgotten.
const PIECE: usize = 16 << 10;

/// Flag of a call whose sender wants no reply.
const NO_REPLY_EXPECTED: u8 = 1;

/// What the library calls errors of its own: no client should have to know it.
const LIBRARY_ERROR: &str = "org.freedesktop.zbus.Error";

const TOO_LONG: &str = "the call is too long; give at most 128 KiB";

/// A connection whose halves share what is in hand.
#[derive(Debug)]
pub(super) struct GatedSocket {
    stream: UnixStream,
    traffic: Arc<Traffic>,
    refuse: mpsc::Sender<Refusal>,
}

impl GatedSocket {
    /// Lets calls in on this stream, and hands over to `refuse` which are not.
    pub(super) fn new(stream: UnixStream, traffic: Arc<Traffic>, refuse: mpsc::Sender<Refusal>) -> Self {
        Self { stream, traffic, refuse }
    }
}

impl Socket for GatedSocket {
    type ReadHalf = Reader;
    type WriteHalf = Writer;

    fn split(self) -> Split<Reader, Writer> {
        let (read, write) = self.stream.into_split();
        let reader = Reader { inner: read, traffic: Arc::clone(&self.traffic), refuse: self.refuse };
        Split::new(reader, Writer { inner: write, traffic: self.traffic })
    }
}

/// What comes in.
#[derive(Debug)]
pub(super) struct Reader {
    inner: OwnedReadHalf,
    traffic: Arc<Traffic>,
    refuse: mpsc::Sender<Refusal>,
}

/// The start of a message.
struct Start {
    is_call: bool,
    is_quiet: bool,
    /// With its padding, in bytes.
    header: usize,
    body: usize,
}

impl Start {
    /// `bytes`: [`START`] of them. What is not sound in them is found by who reads the message.
    fn parse(bytes: &[u8]) -> Self {
        let number = |at: usize| {
            let word = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
            let number = if bytes[0] == b'B' { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) };
            number as usize
        };
        Self {
            is_call: bytes[1] == Type::MethodCall as u8,
            is_quiet: bytes[2] & NO_REPLY_EXPECTED != 0,
            header: START + number(12).next_multiple_of(8),
            body: number(4),
        }
    }
}

impl Reader {
    /// Reads until there are so many bytes.
    async fn fill(&mut self, bytes: &mut Vec<u8>, fds: &mut Vec<OwnedFd>, length: usize) -> Result<()> {
        let mut at = bytes.len();
        if at < length {
            bytes.resize(length, 0);
        }
        while at < length {
            let (count, more) = self.inner.recvmsg(&mut bytes[at..]).await?;
            if count == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            fds.extend(more);
            at += count;
        }
        Ok(())
    }

    /// Reads so many bytes, and forgets them.
    async fn skip(&mut self, bytes: &mut Vec<u8>, mut length: usize) -> Result<()> {
        let known = bytes.len().min(length);
        bytes.drain(..known);
        length -= known;
        while length > 0 {
            let mut piece = Vec::new();
            self.fill(&mut piece, &mut Vec::new(), length.min(PIECE)).await?;
            length -= piece.len();
            // There may always be something to read, and others want to run.
            yield_now().await;
        }
        Ok(())
    }

    /// Whether a call is let in.
    fn judge(&self, call: &Message, start: &Start, is_long: bool) -> Entry {
        let header = call.header();
        let serial = header.primary().serial_num().get();
        let sender = header.sender().filter(|_| !start.is_quiet);
        let answer = sender.map_or(Answer::Given, |sender| lock(&self.traffic.unread).answer(sender, serial));
        if answer != Answer::Given {
            self.traffic.wake.notify_one();
        }
        match answer {
            Answer::Held => Entry::Invalid,
            Answer::Refused => Entry::Full(UNREAD),
            Answer::Given if is_long => Entry::Full(TOO_LONG),
            Answer::Given => lock(&self.traffic.flight).enter(call, start.is_quiet),
        }
    }

    /// A call that is too long, as if it had no body: enough to answer it. `None`: not even that.
    async fn cut(
        &mut self,
        seq: u64,
        start: &Start,
        bytes: &mut Vec<u8>,
        fds: &mut Vec<OwnedFd>,
    ) -> Result<Option<Message>> {
        if start.header > MAX_CALL {
            self.skip(bytes, start.header + start.body).await?;
            return Ok(None);
        }
        self.fill(bytes, fds, start.header).await?;
        bytes[4..8].fill(0);
        let message = self.inner.receive_message(seq, bytes, &mut Vec::new()).await?;
        self.skip(bytes, start.body).await?;
        Ok(Some(message))
    }
}

#[async_trait::async_trait]
impl ReadHalf for Reader {
    async fn receive_message(
        &mut self,
        seq: u64,
        bytes: &mut Vec<u8>,
        fds: &mut Vec<OwnedFd>,
    ) -> Result<Message> {
        loop {
            self.fill(bytes, fds, START).await?;
            let start = Start::parse(bytes);
            if !start.is_call {
                return self.inner.receive_message(seq, bytes, fds).await;
            }
            // No method takes descriptors: whoever sends some does not get them kept open.
            fds.clear();
            // Each call has an answer, so that its end is seen; those that nobody wants are not written.
            bytes[2] &= !NO_REPLY_EXPECTED;
            let is_long = start.header + start.body > MAX_CALL;
            let message = match is_long {
                true => self.cut(seq, &start, bytes, fds).await?,
                false => Some(self.inner.receive_message(seq, bytes, fds).await?),
            };
            if let Some(message) = message {
                match self.judge(&message, &start, is_long) {
                    Entry::Free => return Ok(message),
                    // Without a receiver the daemon is exiting.
                    Entry::Full(why) if !start.is_quiet => drop(self.refuse.send((message, why)).await),
                    Entry::Full(_) | Entry::Invalid => {}
                }
            }
            yield_now().await;
        }
    }

    async fn recvmsg(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        self.inner.recvmsg(buffer).await
    }

    fn can_pass_unix_fd(&self) -> bool {
        self.inner.can_pass_unix_fd()
    }

    async fn peer_credentials(&mut self) -> io::Result<ConnectionCredentials> {
        self.inner.peer_credentials().await
    }
}

/// What goes out.
#[derive(Debug)]
pub(super) struct Writer {
    inner: OwnedWriteHalf,
    traffic: Arc<Traffic>,
}

impl Writer {
    /// What is sent in place of a reply. `None`: the reply.
    fn instead(&self, call: &Call, reply: &Message) -> Result<Option<Message>> {
        let call_header = call.message.header();
        let fits = call_header
            .sender()
            .is_none_or(|sender| lock(&self.traffic.unread).fits(sender, reply.data().len() as u64));
        if !fits {
            self.traffic.wake.notify_one();
        }
        match fits {
            true => with_known_name(call, reply),
            false => Ok(Some(Message::error(&call_header, LIMITS_EXCEEDED)?.build(&UNREAD)?)),
        }
    }

    async fn send(&mut self, message: &Message) -> Result<()> {
        let is_reply = matches!(message.message_type(), Type::MethodReturn | Type::Error);
        if let Some(client) = message.header().destination().filter(|_| is_reply) {
            let is_due = lock(&self.traffic.unread).wrote(client.as_str(), message.data().len() as u64);
            if is_due {
                self.traffic.wake.notify_one();
            }
        }
        self.inner.send_message(message).await
    }
}

#[async_trait::async_trait]
impl WriteHalf for Writer {
    async fn send_message(&mut self, message: &Message) -> Result<()> {
        let call = match message.message_type() {
            Type::MethodReturn | Type::Error => lock(&self.traffic.flight).leave(&message.header()),
            Type::MethodCall | Type::Signal => None,
        };
        match call {
            Some(call) if call.is_quiet => Ok(()),
            Some(call) => match self.instead(&call, message)? {
                Some(other) => self.send(&other).await,
                None => self.send(message).await,
            },
            None => self.send(message).await,
        }
    }

    async fn sendmsg(&mut self, buffer: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        self.inner.sendmsg(buffer, fds).await
    }

    async fn close(&mut self) -> io::Result<()> {
        self.inner.close().await
    }

    fn can_pass_unix_fd(&self) -> bool {
        self.inner.can_pass_unix_fd()
    }

    async fn peer_credentials(&mut self) -> io::Result<ConnectionCredentials> {
        self.inner.peer_credentials().await
    }
}

/// An error of the library under a name that D-Bus has for it. `None`: it is none.
fn with_known_name(call: &Call, reply: &Message) -> Result<Option<Message>> {
    if reply.header().error_name().is_none_or(|name| name.as_str() != LIBRARY_ERROR) {
        return Ok(None);
    }
    let body = reply.body();
    let text: &str = body.deserialize()?;
    // Arguments that are sound, which the bus has looked at, can only be wrong by their types.
    let is_type = text.starts_with("Signature mismatch") || text == "incorrect type";
    let name = match is_type {
        true => "org.freedesktop.DBus.Error.InvalidArgs",
        false => "org.freedesktop.DBus.Error.Failed",
    };
    Ok(Some(Message::error(&call.message.header(), name)?.build(&text)?))
}

/// What both halves know.
pub(super) fn lock<T>(known: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing in there is half done at a panic.
    known.lock().unwrap_or_else(PoisonError::into_inner)
}
