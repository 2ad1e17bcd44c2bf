//! The agent's byte stream: what the command writes, with marker lines of the agent in between. A marker is the byte 0x1e, a
//! word that only this run knows, a blank, the message, and a line feed.

const MARK: u8 = 0x1e;
/// Longer than any message; a marker without an end in this many bytes is text.
const MAX_MESSAGE: usize = 64;

/// What comes next in the stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Output of the command.
    Text(Vec<u8>),
    /// A message of the agent.
    Message(String),
    /// Nothing until more bytes arrive.
    Incomplete,
}

/// Splits the stream at markers, however its bytes are cut into pieces.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    prefix: Vec<u8>,
    held: Vec<u8>,
}

impl Splitter {
    /// Listens to markers with this word from now on.
    pub(crate) fn listen(&mut self, word: &str) {
        self.prefix = [&[MARK], word.as_bytes(), b" "].concat();
    }

    /// Adds bytes that arrived.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// Takes the next piece out of what has arrived.
    pub(crate) fn next(&mut self) -> Piece {
        match self.held.iter().position(|b| *b == MARK) {
            _ if self.held.is_empty() => Piece::Incomplete,
            None => Piece::Text(std::mem::take(&mut self.held)),
            Some(0) => self.at_mark(),
            Some(n) => self.take_text(n),
        }
    }

    fn at_mark(&mut self) -> Piece {
        let common = self.held.len().min(self.prefix.len());
        if self.held[..common] != self.prefix[..common] {
            // A byte 0x1e of the command itself: text up to the next one.
            let next = self.held[1..].iter().position(|b| *b == MARK).map_or(self.held.len(), |n| n + 1);
            return self.take_text(next);
        }
        let message = &self.held[common..];
        match message.iter().take(MAX_MESSAGE).position(|b| *b == b'\n') {
            Some(end) => {
                let text = String::from_utf8_lossy(&message[..end]).into_owned();
                self.held.drain(..=common + end);
                Piece::Message(text)
            }
            None if message.len() < MAX_MESSAGE => Piece::Incomplete,
            None => self.take_text(common),
        }
    }

    fn take_text(&mut self, n: usize) -> Piece {
        Piece::Text(self.held.drain(..n).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(pieces: &[&[u8]]) -> (Vec<u8>, Vec<String>) {
        let (mut text, mut messages, mut splitter) = (Vec::new(), Vec::new(), Splitter::default());
        splitter.listen("w0rd");
        for bytes in pieces {
            splitter.push(bytes);
            loop {
                match splitter.next() {
                    Piece::Text(t) => text.extend(t),
                    Piece::Message(m) => messages.push(m),
                    Piece::Incomplete => break,
                }
            }
        }
        (text, messages)
    }

    #[test]
    fn markers_are_found_wherever_the_stream_is_cut() {
        let stream = b"before\x1ew0rd start\nmid\x1e\x1ew0r no\x1ew0rd end 17\nafter";
        for i in 0..=stream.len() {
            for j in i..=stream.len() {
                let (text, messages) = split(&[&stream[..i], &stream[i..j], &stream[j..]]);
                assert_eq!(text, b"beforemid\x1e\x1ew0r noafter");
                assert_eq!(messages, ["start", "end 17"]);
            }
        }
    }

    #[test]
    fn text_is_not_held_back() {
        let mut splitter = Splitter::default();
        splitter.listen("w0rd");
        splitter.push(b"no line feed\x1ew0rdy");
        assert_eq!(splitter.next(), Piece::Text(b"no line feed".to_vec()));
        assert_eq!(splitter.next(), Piece::Text(b"\x1ew0rdy".to_vec()));
        assert_eq!(splitter.next(), Piece::Incomplete);
    }

    #[test]
    fn an_endless_marker_is_text() {
        let stream = [b"\x1ew0rd ".as_slice(), &[b'x'; MAX_MESSAGE]].concat();
        assert_eq!(split(&[&stream]), (stream, Vec::new()));
    }
}
