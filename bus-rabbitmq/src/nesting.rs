//! Headers that nest deep are cut out of a message before the driver reads them.
//!
//! The driver reads tables by a function that calls itself, on a thread with a stack of 2 MiB: a
//! message that anybody may publish would end the process, again and again. A header stands for what
//! is cut whose name no header may have, so that the message becomes a dead letter which says why.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures_util::io::{AsyncRead, AsyncWrite};
use futures_util::stream::Stream;
use lapin::AsyncTcpStream;

/// Levels of tables and lists that the driver gets to read. It takes some hundred bytes of stack for
/// each, some thousand without optimisation, and nobody nests headers as deep.
const LEVELS_MAX: usize = 64;
/// The name of the header that stands for those that were cut.
const CUT: &str = "nests more than 64 deep, and was cut with all others";

/// A frame's type, channel and size; what ends it comes behind its content.
const HEAD: usize = 7;
const OF_HEADERS: u8 = 2;
/// A connection that the broker refuses begins with `AMQP` and has no frames.
const NO_FRAME: u8 = b'A';
/// A level takes five bytes at least, so that shorter frames need no look.
const DEEP_MIN: usize = 5 * LEVELS_MAX;
/// What is longer is no frame that was agreed on, and the driver's to refuse.
const FRAME_MAX: usize = 16 * 1024 * 1024;
/// What is read at once.
const CHUNK: usize = 64 * 1024;

/// The driver's runtime, with streams of ours.
pub(crate) type Kit = RuntimeParts<Tokio, Sieved>;
/// What carries a connection, with TLS where it has that.
type Carried = AsyncTcpStream<<Tokio as Reactor>::TcpStream>;

/// Makes the runtime of this task the driver's.
pub(crate) fn runtime() -> Runtime<Kit> {
    Runtime::new(RuntimeParts::new(
        Tokio::current(),
        Sieved(Tokio::current()),
    ))
}

/// Has what comes looked through.
pub(crate) fn sieved(stream: Carried) -> AsyncTcpStream<Sieve> {
    AsyncTcpStream::Plain(Sieve {
        stream,
        frames: Frames::default(),
        chunk: vec![0; CHUNK],
        passed: Vec::new(),
        read: 0,
    })
}

/// tokio's timers and sockets, whose streams are looked through.
#[derive(Clone, Debug)]
pub(crate) struct Sieved(Tokio);

impl Reactor for Sieved {
    type TcpStream = Sieve;
    type Sleep = <Tokio as Reactor>::Sleep;

    /// The driver has no sockets of its own.
    fn register<H: io::Read + io::Write + Send + 'static>(
        &self,
        _: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        Err::<Sieve, _>(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, time: Duration) -> Self::Sleep {
        self.0.sleep(time)
    }

    fn interval(&self, time: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(time)
    }

    /// The driver connects through the closure that it is given, and not by this.
    fn tcp_connect_addr(
        &self,
        _: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        std::future::ready(Err(io::ErrorKind::Unsupported.into()))
    }
}

/// A stream that cuts deep headers out of what it reads.
pub(crate) struct Sieve {
    stream: Carried,
    frames: Frames,
    chunk: Vec<u8>,
    /// What may be read, and how much of it was.
    passed: Vec<u8>,
    read: usize,
}

impl AsyncRead for Sieve {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        loop {
            let open = &this.passed[this.read..];
            if !open.is_empty() {
                let count = open.len().min(buffer.len());
                buffer[..count].copy_from_slice(&open[..count]);
                this.read += count;
                return Poll::Ready(Ok(count));
            }
            this.passed.clear();
            this.read = 0;
            let count = ready!(Pin::new(&mut this.stream).poll_read(cx, &mut this.chunk))?;
            if count == 0 {
                return Poll::Ready(Ok(0));
            }
            this.frames.pass(&this.chunk[..count], &mut this.passed);
        }
    }
}

impl AsyncWrite for Sieve {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

/// The frames of a connection, in whatever pieces they come.
#[derive(Debug)]
struct Frames {
    stage: Stage,
    /// The beginning of a frame, or all of one that is looked at.
    held: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Head,
    /// So many bytes are passed on as they come.
    Pass(usize),
    /// So many bytes are missing of what is held.
    Hold(usize),
    /// These are no frames.
    Anything,
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            stage: Stage::Head,
            held: Vec::new(),
        }
    }
}

impl Frames {
    /// Takes what has come, and adds what may be read.
    fn pass(&mut self, mut input: &[u8], passed: &mut Vec<u8>) {
        while !input.is_empty() {
            let wanted = match self.stage {
                Stage::Head => HEAD - self.held.len(),
                Stage::Pass(left) | Stage::Hold(left) => left,
                Stage::Anything => input.len(),
            };
            let (taken, rest) = input.split_at(wanted.min(input.len()));
            input = rest;
            match self.stage {
                Stage::Anything => passed.extend_from_slice(taken),
                Stage::Pass(left) => {
                    passed.extend_from_slice(taken);
                    self.stage = match left - taken.len() {
                        0 => Stage::Head,
                        left => Stage::Pass(left),
                    };
                }
                Stage::Head => {
                    self.held.extend_from_slice(taken);
                    if self.held.len() == HEAD || self.held.first() == Some(&NO_FRAME) {
                        self.begin(passed);
                    }
                }
                Stage::Hold(left) => {
                    self.held.extend_from_slice(taken);
                    self.stage = Stage::Hold(left - taken.len());
                    if left == taken.len() {
                        cut(&self.held, passed);
                        self.held.clear();
                        self.stage = Stage::Head;
                    }
                }
            }
        }
    }

    /// Decides about a frame by its head.
    fn begin(&mut self, passed: &mut Vec<u8>) {
        let size = match self.held[..] {
            [kind, _, _, a, b, c, d] if kind != NO_FRAME => {
                Some(u32::from_be_bytes([a, b, c, d]) as usize)
            }
            _ => None,
        };
        self.stage = match size {
            Some(size) if self.held[0] == OF_HEADERS && (DEEP_MIN..FRAME_MAX).contains(&size) => {
                return self.stage = Stage::Hold(size + 1);
            }
            Some(size) => Stage::Pass(size + 1),
            None => Stage::Anything,
        };
        passed.append(&mut self.held);
    }
}

/// Passes a frame of headers on, without those that nest deep.
fn cut(frame: &[u8], passed: &mut Vec<u8>) {
    let table = table(&frame[HEAD..frame.len() - 1]);
    let deep = table.filter(|(from, to)| is_deep(&frame[HEAD + from + 4..HEAD + to]));
    let Some((from, to)) = deep else {
        return passed.extend_from_slice(frame);
    };
    tracing::warn!("headers that nest more than {LEVELS_MAX} deep are cut");
    let mut content = frame[HEAD..HEAD + from].to_vec();
    content.extend_from_slice(&instead());
    content.extend_from_slice(&frame[HEAD + to..frame.len() - 1]);
    passed.extend_from_slice(&frame[..3]);
    passed.extend_from_slice(&length(content.len()));
    passed.append(&mut content);
    passed.extend(frame.last());
}

/// Lengths are those of frames, which fit.
fn length(of: usize) -> [u8; 4] {
    u32::try_from(of).unwrap_or(u32::MAX).to_be_bytes()
}

/// A table with one header.
fn instead() -> Vec<u8> {
    let mut entry = vec![u8::try_from(CUT.len()).unwrap_or(u8::MAX)];
    entry.extend_from_slice(CUT.as_bytes());
    entry.push(b'V');
    let mut table = length(entry.len()).to_vec();
    table.append(&mut entry);
    table
}

/// Where the headers are in a content header: their length and they.
fn table(content: &[u8]) -> Option<(usize, usize)> {
    const FLAGS: usize = 12;
    const CONTENT_TYPE: u16 = 1 << 15;
    const CONTENT_ENCODING: u16 = 1 << 14;
    const HEADERS: u16 = 1 << 13;
    const MORE_FLAGS: u16 = 1;
    let word = |at: usize| {
        Some(u16::from_be_bytes([
            *content.get(at)?,
            *content.get(at + 1)?,
        ]))
    };
    let flags = word(FLAGS)?;
    let mut at = FLAGS + 2;
    let mut last = flags;
    while last & MORE_FLAGS > 0 {
        last = word(at)?;
        at += 2;
    }
    for before in [CONTENT_TYPE, CONTENT_ENCODING] {
        if flags & before > 0 {
            at += 1 + usize::from(*content.get(at)?);
        }
    }
    let end = at + 4 + size(content, at)?;
    (flags & HEADERS > 0 && end <= content.len()).then_some((at, end))
}

/// The length that stands at a place.
fn size(bytes: &[u8], at: usize) -> Option<usize> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(four.try_into().ok()?) as usize)
}

/// Says whether a table's content nests deeper than the driver may read. What is malformed ends the
/// driver's reading there, too.
fn is_deep(table: &[u8]) -> bool {
    // Where each open table or list ends, and whether its values have names.
    let mut open = vec![(table.len(), true)];
    let mut at = 0;
    while let Some(&(end, is_named)) = open.last() {
        if at >= end {
            open.pop();
            continue;
        }
        let Some((value, kind)) = value(table, at, is_named) else {
            return false;
        };
        let Some(length) = extent(table, value, kind) else {
            return false;
        };
        if !matches!(kind, b'F' | b'A') {
            at = value + length;
            continue;
        }
        open.push((value + length, kind == b'F'));
        at = value + 4;
        if open.len() > LEVELS_MAX || value + length > end {
            return open.len() > LEVELS_MAX;
        }
    }
    false
}

/// Where the next value begins, and its type.
fn value(table: &[u8], at: usize, is_named: bool) -> Option<(usize, u8)> {
    let name = match is_named {
        true => 1 + usize::from(*table.get(at)?),
        false => 0,
    };
    Some((at + name + 1, *table.get(at + name)?))
}

/// How many bytes a value takes.
fn extent(table: &[u8], at: usize, kind: u8) -> Option<usize> {
    let bytes = match kind {
        b'V' => 0,
        b't' | b'b' | b'B' => 1,
        b's' | b'U' | b'u' => 2,
        b'I' | b'i' | b'f' => 4,
        b'D' => 5,
        b'L' | b'l' | b'd' | b'T' => 8,
        b'S' | b'x' | b'F' | b'A' => 4 + size(table, at)?,
        _ => return None,
    };
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use lapin::protocol::basic::parse_properties;

    use super::*;

    /// A header frame whose one header nests so many tables, or lists, in each other.
    fn frame(levels: usize, kind: u8) -> Vec<u8> {
        let mut value = vec![b'V'];
        for _ in 0..levels {
            let name: &[u8] = if kind == b'F' { b"\x01n" } else { b"" };
            let mut outer = vec![kind];
            outer.extend_from_slice(&length(name.len() + value.len()));
            outer.extend_from_slice(name);
            outer.append(&mut value);
            value = outer;
        }
        let mut headers = b"\x01h".to_vec();
        headers.append(&mut value);
        // Content type, headers and, behind them, the identity.
        let flags = (1_u16 << 15) | (1 << 13) | (1 << 7);
        let mut content = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3];
        content.extend_from_slice(&flags.to_be_bytes());
        content.extend_from_slice(b"\x04text");
        content.extend_from_slice(&length(headers.len()));
        content.append(&mut headers);
        content.extend_from_slice(b"\x02id");
        of_type(OF_HEADERS, &content)
    }

    fn of_type(kind: u8, content: &[u8]) -> Vec<u8> {
        let mut frame = vec![kind, 0, 1];
        frame.extend_from_slice(&length(content.len()));
        frame.extend_from_slice(content);
        frame.push(0xce);
        frame
    }

    fn passed(input: &[u8], piece: usize) -> Vec<u8> {
        let (mut frames, mut passed) = (Frames::default(), Vec::new());
        for piece in input.chunks(piece) {
            frames.pass(piece, &mut passed);
        }
        passed
    }

    #[test]
    fn what_the_driver_may_read_passes_as_it_came_in_any_pieces() {
        let mut all = of_type(1, b"a method");
        for kind in [b'F', b'A'] {
            for levels in [0, 1, LEVELS_MAX - 1] {
                all.extend(frame(levels, kind));
                all.extend(of_type(3, &[7; 500]));
            }
        }
        for piece in [1, 2, 7, 64, all.len()] {
            assert_eq!(passed(&all, piece), all, "in pieces of {piece}");
        }
    }

    #[test]
    fn deep_headers_are_cut_and_the_rest_of_the_message_is_kept() {
        for (levels, kind) in [(LEVELS_MAX, b'F'), (LEVELS_MAX, b'A'), (24_000, b'A')] {
            let behind = of_type(3, b"body");
            let mut all = frame(levels, kind);
            all.extend_from_slice(&behind);
            for piece in [3, all.len()] {
                let passed = passed(&all, piece);
                assert!(passed.ends_with(&behind));
                let content = &passed[HEAD..passed.len() - behind.len() - 1];
                let size = size(&passed, 3).expect("it has a head");
                assert_eq!(size, content.len());
                let (_, properties) = parse_properties(&content[12..]).expect("it can be read");
                assert_eq!(
                    properties.content_type().as_ref().map(|it| it.as_str()),
                    Some("text")
                );
                assert_eq!(
                    properties.message_id().as_ref().map(|it| it.as_str()),
                    Some("id")
                );
                let headers = properties.headers().as_ref().expect("one is left");
                let names: Vec<_> = headers.inner().keys().map(|it| it.as_str()).collect();
                assert_eq!(names, [CUT]);
            }
        }
    }

    #[test]
    fn broken_frames_are_left_to_the_driver() {
        let whole = frame(LEVELS_MAX, b'A');
        for at in HEAD..whole.len() - 1 {
            let mut broken = whole.clone();
            broken[at] ^= 0x5a;
            let passed = passed(&broken, 100);
            assert!(passed.len() <= broken.len());
        }
        let refused = b"AMQP\x00\x00\x09\x01";
        for piece in [1, 8] {
            assert_eq!(passed(refused, piece), refused);
        }
    }
}
