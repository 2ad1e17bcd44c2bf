//! The daemon's connection to a store: questions and answers, one JSON value a line. Its end is the store's end.

use std::{collections::VecDeque, io, time::Duration};

use memcharge_policy::{
    MountName,
    link::{
        BACKING_FDS, LINE_FDS, MAX_MESSAGE, MountRecord, Notice, Reply, Request, StoreLimits, StoreStatus,
    },
};
use tokio::{net::UnixStream, time::timeout};

use crate::error::{DaemonError, Result};

/// A store that serves accepts within this time.
pub(crate) const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// A store that serves answers within this time.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// A store has no more to tell at once: its reports, a count for each limit, and a question.
const MAX_NOTICES: usize = 256;

/// How much is read at once.
const CHUNK: usize = 4096;

/// A connection to the store of a mount.
#[derive(Debug)]
pub(crate) struct Link {
    name: MountName,
    stream: UnixStream,
    buffer: Vec<u8>,
    /// Answers to questions that nobody waits for any more.
    late: usize,
    /// What the store told while an answer was waited for.
    notices: VecDeque<Notice>,
}

impl Link {
    /// Connects to the socket of the mount's store.
    pub(crate) async fn connect(name: &MountName) -> Result<Self> {
        let path = MountRecord::socket_path(name);
        let stream = timeout(CONNECT_LIMIT, UnixStream::connect(&path))
            .await
            .map_err(|_| late(name, CONNECT_LIMIT))?;
        let stream = stream.map_err(DaemonError::io("connect to", path))?;
        Ok(Self { name: name.clone(), stream, buffer: Vec::new(), late: 0, notices: VecDeque::new() })
    }

    /// Asks how the store is. `limit` is how long to wait.
    pub(crate) async fn status(&mut self, limit: Duration) -> Result<StoreStatus> {
        match self.ask(&Request::Status, limit).await? {
            Reply::Status(status) => Ok(status),
            Reply::Error(what) => Err(self.error(format!("answers: {what}"))),
            other => Err(self.error(format!("answers beside the question: {other:?}"))),
        }
    }

    /// Asks the store to tell what happens, and gives it its limits.
    pub(crate) async fn subscribe(&mut self, limits: StoreLimits) -> Result<()> {
        self.order(&Request::Limits(limits)).await?;
        self.order(&Request::Subscribe).await
    }

    /// Tells the store to do something, and waits until it is done.
    pub(crate) async fn order(&mut self, request: &Request) -> Result<()> {
        match self.ask(request, ANSWER_LIMIT).await? {
            Reply::Done => Ok(()),
            Reply::Error(what) => Err(DaemonError::Refused { name: self.name.to_string(), what }),
            other => Err(self.error(format!("answers beside the question: {other:?}"))),
        }
    }

    /// Has the store tell all that it owes. It is there to be taken then.
    pub(crate) async fn tell_all(&mut self) -> Result<()> {
        self.order(&Request::TellAll).await?;
        // What is told comes before this answer.
        self.status(ANSWER_LIMIT).await.map(drop)
    }

    /// The numbers of the descriptors that hold the data, in the store's process.
    pub(crate) async fn descriptors(&mut self) -> Result<[i32; BACKING_FDS.len()]> {
        match self.ask(&Request::Descriptors, ANSWER_LIMIT).await? {
            Reply::Descriptors(numbers) => Ok(numbers),
            other => Err(self.error(format!("answers beside the question: {other:?}"))),
        }
    }

    /// The numbers of the descriptors that another store would need, in the store's process.
    pub(crate) async fn lifeline(&mut self) -> Result<[i32; LINE_FDS.len()]> {
        match self.ask(&Request::Line, ANSWER_LIMIT).await? {
            Reply::Line(numbers) => Ok(numbers),
            other => Err(self.error(format!("answers beside the question: {other:?}"))),
        }
    }

    /// Tells the store something that it does not answer.
    pub(crate) async fn tell(&mut self, request: &Request) -> Result<()> {
        let mut line = serde_json::to_vec(request).map_err(|error| self.error(error.to_string()))?;
        line.push(b'\n');
        let sent = timeout(ANSWER_LIMIT, self.send(&line)).await;
        sent.map_err(|_| late(&self.name, ANSWER_LIMIT))?.map_err(|error| self.error(error.to_string()))
    }

    /// What happens in the store; `None`: it has closed the connection. Answers that come too late are dropped here.
    pub(crate) async fn next(&mut self) -> Option<Notice> {
        loop {
            if let Some(notice) = self.notices.pop_front() {
                return Some(notice);
            }
            let line = self.line().await.ok().flatten()?;
            match serde_json::from_slice(&line) {
                Ok(Reply::Notice(notice)) => return Some(notice),
                _ => self.late = self.late.saturating_sub(1),
            }
        }
    }

    async fn ask(&mut self, request: &Request, limit: Duration) -> Result<Reply> {
        if self.late > 0 {
            return Err(self.error("has not answered the question before this one".to_owned()));
        }
        let mut line = serde_json::to_vec(request).map_err(|error| self.error(error.to_string()))?;
        line.push(b'\n');
        self.late += 1;
        let answer = timeout(limit, async {
            self.send(&line).await?;
            self.answer().await
        });
        let answer = answer.await.map_err(|_| late(&self.name, limit))?;
        self.late -= 1;
        match answer {
            Ok(Some(Ok(reply))) => Ok(reply),
            Ok(Some(Err(error))) => Err(self.error(format!("answers nonsense: {error}"))),
            Ok(None) => Err(self.error("has closed its socket".to_owned())),
            Err(error) => Err(self.error(format!("cannot be asked: {error}"))),
        }
    }

    /// The next line that is an answer.
    async fn answer(&mut self) -> io::Result<Option<serde_json::Result<Reply>>> {
        loop {
            let Some(line) = self.line().await? else { return Ok(None) };
            match serde_json::from_slice(&line) {
                Ok(Reply::Notice(notice)) if self.notices.len() < MAX_NOTICES => {
                    self.notices.push_back(notice)
                }
                Ok(Reply::Notice(_)) => return Err(io::Error::other("too much is told")),
                answer => return Ok(Some(answer)),
            }
        }
    }

    async fn send(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.stream.writable().await?;
            match self.stream.try_write(bytes) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The next line; `None` at the end. Nothing is lost when the future is dropped half-way.
    async fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.drain(..=end).collect();
                return Ok(Some(line));
            }
            if self.buffer.len() > MAX_MESSAGE {
                return Err(io::Error::other("a message is too long"));
            }
            self.stream.readable().await?;
            let mut chunk = [0; CHUNK];
            match self.stream.try_read(&mut chunk) {
                Ok(0) => return Ok(None),
                Ok(length) => self.buffer.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn error(&self, what: String) -> DaemonError {
        DaemonError::Store { name: self.name.to_string(), what }
    }
}

fn late(name: &MountName, limit: Duration) -> DaemonError {
    DaemonError::Late { what: format!("an answer of the store of {name}"), limit }
}

#[cfg(test)]
mod tests {
    use memcharge_policy::Bytes;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn pair() -> (Link, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (
            Link {
                name: "m".parse().unwrap(),
                stream: ours,
                buffer: Vec::new(),
                late: 0,
                notices: VecDeque::new(),
            },
            theirs,
        )
    }

    fn status_line(used: u64) -> Vec<u8> {
        let (headroom, denials) = (Bytes(0), 0);
        let status = StoreStatus {
            used: Bytes(used),
            inodes_used: 1,
            inodes_max: 2,
            headroom,
            denials,
            kills: 0,
            unrecorded: 0,
        };
        let mut line = serde_json::to_vec(&Reply::Status(status)).unwrap();
        line.push(b'\n');
        line
    }

    #[tokio::test]
    async fn a_late_answer_is_not_taken_for_the_next() {
        let (mut link, mut store) = pair();
        let short = Duration::from_millis(10);
        assert!(matches!(link.status(short).await, Err(DaemonError::Late { .. })));
        assert!(
            matches!(link.status(short).await, Err(DaemonError::Store { .. })),
            "nothing is asked meanwhile"
        );
        store.write_all(&status_line(1)).await.unwrap();
        assert!(timeout(short, link.next()).await.is_err());
        store.write_all(&status_line(2)).await.unwrap();
        assert_eq!(link.status(ANSWER_LIMIT).await.unwrap().used, Bytes(2));
        let mut asked = vec![0; 64];
        let length = store.read(&mut asked).await.unwrap();
        assert_eq!(&asked[..length], b"\"status\"\n\"status\"\n");
    }

    #[tokio::test]
    async fn the_end_is_noticed() {
        let (mut link, store) = pair();
        drop(store);
        assert!(link.next().await.is_none());
        assert!(matches!(link.status(ANSWER_LIMIT).await, Err(DaemonError::Store { .. })));
    }

    #[tokio::test]
    async fn a_line_without_end_is_refused() {
        let (mut link, mut store) = pair();
        let flood = tokio::spawn(async move { store.write_all(&vec![b'x'; 4 * MAX_MESSAGE]).await });
        assert!(matches!(link.status(ANSWER_LIMIT).await, Err(DaemonError::Store { .. })));
        drop(link);
        assert!(flood.await.unwrap().is_err());
    }
}
