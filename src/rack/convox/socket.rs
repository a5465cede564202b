//! Log streams over websockets, read byte by byte.
//!
//! A rack cuts its output where a read ended, so a text message may hold half a character; a library that holds text
//! messages to UTF-8 would end the connection there. Frames are therefore read here, with tungstenite's header parser.
//! The end of a stream is an empty binary message; the rack closes nothing after it. It answers no ping either: one is sent
//! every few seconds only to keep balancers from closing the connection.

use super::failure::CallError;
use super::http::Http;
use reqwest::Upgraded;
use std::io::Cursor;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// How often a ping is sent; what the convox CLI does.
const PING: Duration = Duration::from_secs(5);
/// No rack sends longer frames (its buffer has 10 KiB); a longer one is no websocket.
const LONGEST_FRAME: u64 = 16 << 20;
/// A line of output longer than this, in bytes, is cut.
const LONGEST_LINE: usize = 64 << 10;

/// A log stream.
pub(super) struct LogStream {
    io: Upgraded,
    buffer: Vec<u8>,
    ping: tokio::time::Interval,
    /// The message under way is binary (continuation frames do not repeat it).
    binary: bool,
    started: bool,
    over: bool,
}

/// A piece of a log stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Output, cut anywhere.
    Output(Vec<u8>),
    /// The stream's first message is an error: the rack's refusal rather than output, though a log may begin like that too.
    Refused(Vec<u8>),
}

impl LogStream {
    /// Opens the stream at `path`; `options` are header names and values (`Follow`, `Since`, …).
    pub(super) async fn open(http: &Http, path: &[&str], options: &[(&str, String)]) -> Result<Self, CallError> {
        let io = http.upgrade(path, options).await?;
        let ping = tokio::time::interval_at(tokio::time::Instant::now() + PING, PING);
        Ok(Self { io, buffer: Vec::new(), ping, binary: false, started: false, over: false })
    }

    /// The next piece; `None` at the end of the stream, however it ended. Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Option<Piece> {
        loop {
            while let Some((opcode, payload)) = self.frame() {
                if let Some(piece) = self.take(opcode, payload) {
                    return Some(piece);
                }
            }
            if self.over {
                return None;
            }
            tokio::select! {
                read = self.io.read_buf(&mut self.buffer) => {
                    if !matches!(read, Ok(1..)) {
                        self.over = true;
                    }
                }
                _ = self.ping.tick() => {
                    // An empty masked ping: with no payload any mask will do.
                    if self.io.write_all(&[0x89, 0x80, 0, 0, 0, 0]).await.is_err() || self.io.flush().await.is_err() {
                        self.over = true;
                    }
                }
            }
        }
    }

    /// Takes a whole frame out of the buffer.
    fn frame(&mut self) -> Option<(OpCode, Vec<u8>)> {
        if self.over {
            return None;
        }
        let mut cursor = Cursor::new(self.buffer.as_slice());
        let (header, length) = match FrameHeader::parse(&mut cursor) {
            Ok(Some(parsed)) => parsed,
            Ok(None) => return None,
            Err(_) => {
                self.over = true;
                return None;
            }
        };
        let start = usize::try_from(cursor.position()).unwrap_or(usize::MAX);
        if length > LONGEST_FRAME || header.mask.is_some() {
            self.over = true;
            return None;
        }
        let end = start.saturating_add(usize::try_from(length).unwrap_or(usize::MAX));
        let payload = self.buffer.get(start..end)?.to_vec();
        self.buffer.drain(..end);
        Some((header.opcode, payload))
    }

    fn take(&mut self, opcode: OpCode, payload: Vec<u8>) -> Option<Piece> {
        match opcode {
            OpCode::Data(Data::Text) => self.binary = false,
            OpCode::Data(Data::Binary) => self.binary = true,
            OpCode::Data(Data::Continue) => {}
            OpCode::Control(Control::Close) => {
                self.over = true;
                return None;
            }
            _ => return None,
        }
        if payload.is_empty() {
            self.over = self.binary;
            return None;
        }
        let first = !std::mem::replace(&mut self.started, true);
        Some(if first && payload.starts_with(b"ERROR: ") { Piece::Refused(payload) } else { Piece::Output(payload) })
    }
}

/// Puts lines together from pieces of bytes.
#[derive(Debug, Default)]
pub(super) struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// Takes a piece and gives the lines it completes, without their ends; what is no UTF-8 is replaced.
    pub(super) fn push(&mut self, piece: &[u8]) -> Vec<String> {
        self.rest.extend_from_slice(piece);
        let mut lines = Vec::new();
        let mut start = 0;
        while let Some(length) = self.rest[start..].iter().position(|byte| *byte == b'\n') {
            lines.push(text(&self.rest[start..start + length]));
            start += length + 1;
        }
        self.rest.drain(..start);
        if self.rest.len() > LONGEST_LINE {
            lines.extend(self.finish());
        }
        lines
    }

    /// The line without an end, when there is one.
    pub(super) fn finish(&mut self) -> Option<String> {
        let rest = std::mem::take(&mut self.rest);
        (!rest.is_empty()).then(|| text(&rest))
    }
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_cut_in_two_is_whole_again() {
        let mut lines = Lines::default();
        let bytes = "gr\u{fc}n\r\nrest".as_bytes();
        let mut found = lines.push(&bytes[..3]);
        found.extend(lines.push(&bytes[3..]));
        assert_eq!(found, ["gr\u{fc}n"]);
        assert_eq!(lines.finish().as_deref(), Some("rest"));
        assert_eq!(lines.finish(), None);
    }

    #[test]
    fn a_line_without_an_end_does_not_grow_for_ever() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(&vec![b'x'; LONGEST_LINE + 1]).len(), 1);
        assert_eq!(lines.push(b"y\n"), ["y"]);
    }
}
