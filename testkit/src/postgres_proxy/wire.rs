//! As much of PostgreSQL's protocol as it takes to know a commit call when it passes.

use std::collections::{BTreeSet, HashMap};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use uuid::Uuid;

/// By this the commit function for many units is known.
const MANY: &str = "sagabus.commit_v1(";
/// The one for a group in which nobody loses.
const SMOOTH: &str = "sagabus.commit_smooth_v1(";
/// And the one for a single unit.
const ONE: &str = "sagabus.commit_one_v1(";

/// What a client sends first that would like TLS.
pub(crate) const ASKS_FOR_TLS: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
/// The server's word that it has none.
pub(crate) const HAS_NO_TLS: &[u8] = b"N";

/// One direction of a connection, read frame by frame.
pub(crate) struct Frames {
    reader: OwnedReadHalf,
    bytes: Vec<u8>,
    /// The client's first frame says no type.
    is_first: bool,
}

impl Frames {
    pub(crate) fn of_client(reader: OwnedReadHalf) -> Self {
        Self {
            reader,
            bytes: Vec::new(),
            is_first: true,
        }
    }

    pub(crate) fn of_server(reader: OwnedReadHalf) -> Self {
        Self {
            reader,
            bytes: Vec::new(),
            is_first: false,
        }
    }

    /// Reads some bytes; `false` when there will be no more. Cancel safe.
    pub(crate) async fn fill(&mut self) -> bool {
        matches!(self.reader.read_buf(&mut self.bytes).await, Ok(n) if n > 0)
    }

    /// Takes a whole frame, if one is there.
    pub(crate) fn next(&mut self) -> Option<Vec<u8>> {
        let at = usize::from(!self.is_first);
        let length = self.bytes.get(at..at + 4)?;
        let length = u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
        if self.bytes.len() < at + length {
            return None;
        }
        let frame: Vec<u8> = self.bytes.drain(..at + length).collect();
        // Behind it comes another frame without a type.
        self.is_first &= frame == ASKS_FOR_TLS;
        Some(frame)
    }

    /// Reads until the server waits for the next command; `false` when it went away before.
    pub(crate) async fn until_ready(&mut self) -> bool {
        loop {
            while let Some(frame) = self.next() {
                if frame[0] == b'Z' {
                    return true;
                }
            }
            if !self.fill().await {
                return false;
            }
        }
    }
}

pub(crate) async fn write(writer: &mut OwnedWriteHalf, bytes: &[u8]) -> bool {
    writer.write_all(bytes).await.is_ok()
}

/// Who commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// The committer, for a group.
    Group,
    /// The transaction of a handler's own SQL.
    Tx,
}

/// A commit on its way.
#[derive(Clone, Debug)]
pub struct Call {
    /// Who commits.
    pub door: Door,
    /// The messages that it answers.
    pub handled: BTreeSet<Uuid>,
}

/// Which argument of each commit function holds the messages that are handled, counted from 0.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// An array of them.
    pub many: usize,
    /// An array of them, where nobody loses.
    pub smooth: usize,
    /// One, or null.
    pub one: usize,
}

/// Which commit function a statement calls.
#[derive(Clone, Copy, Debug)]
enum Function {
    Many,
    Smooth,
    One,
}

/// Follows what one client says.
pub(crate) struct Tracker {
    places: Places,
    /// Prepared statements that call the commit function.
    statements: HashMap<Vec<u8>, Function>,
    is_in_transaction: bool,
    /// What the function was last called with.
    handled: BTreeSet<Uuid>,
    call: Option<Call>,
}

impl Tracker {
    pub(crate) fn new(places: Places) -> Self {
        Self {
            places,
            statements: HashMap::new(),
            is_in_transaction: false,
            handled: BTreeSet::new(),
            call: None,
        }
    }

    /// Looks at a frame of the client's, and says whether the server answers after it.
    pub(crate) fn see(&mut self, frame: &[u8]) -> bool {
        match frame[0] {
            b'P' => self.prepare(&frame[5..]),
            b'B' => self.bind(&frame[5..]),
            b'Q' => self.query(&frame[5..]),
            _ => {}
        }
        !matches!(frame[0], b'P' | b'B' | b'D' | b'E' | b'C')
    }

    /// Returns the commit that the last frames are, if they are one.
    pub(crate) fn take_call(&mut self) -> Option<Call> {
        self.call.take().filter(|call| !call.handled.is_empty())
    }

    fn prepare(&mut self, rest: &[u8]) {
        let (name, rest) = string(rest);
        let (sql, _) = string(rest);
        let sql = String::from_utf8_lossy(sql);
        let functions = [
            (MANY, Function::Many),
            (SMOOTH, Function::Smooth),
            (ONE, Function::One),
        ];
        let called = functions.iter().find(|(begin, _)| sql.contains(begin));
        if let Some((_, function)) = called {
            self.statements.insert(name.to_vec(), *function);
        }
    }

    fn bind(&mut self, rest: &[u8]) {
        let (_, rest) = string(rest);
        let (statement, rest) = string(rest);
        let Some(function) = self.statements.get(statement) else {
            return;
        };
        self.handled = match function {
            Function::Many => uuids(argument(rest, self.places.many)),
            Function::Smooth => uuids(argument(rest, self.places.smooth)),
            Function::One => Uuid::from_slice(argument(rest, self.places.one))
                .into_iter()
                .collect(),
        };
        if !self.is_in_transaction {
            self.call = Some(Call {
                door: Door::Group,
                handled: std::mem::take(&mut self.handled),
            });
        }
    }

    fn query(&mut self, rest: &[u8]) {
        let sql = String::from_utf8_lossy(string(rest).0).to_lowercase();
        if sql.starts_with("begin") {
            self.is_in_transaction = true;
        }
        if sql.starts_with("commit") || sql.starts_with("rollback") {
            let handled = std::mem::take(&mut self.handled);
            self.is_in_transaction = sql.contains("; begin");
            let door = Door::Tx;
            self.call = sql.starts_with("commit").then_some(Call { door, handled });
        }
    }
}

/// Splits off a string that ends with a zero byte.
fn string(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| *byte == 0);
    let end = end.expect("the driver ends its strings");
    (&bytes[..end], &bytes[end + 1..])
}

fn number(bytes: &[u8]) -> (usize, &[u8]) {
    let (number, rest) = bytes.split_at(2);
    let number = u16::from_be_bytes([number[0], number[1]]);
    (usize::from(number), rest)
}

/// Finds one argument of a `Bind`, behind its names; empty where it is null.
fn argument(rest: &[u8], at: usize) -> &[u8] {
    let (formats, rest) = number(rest);
    let (count, mut rest) = number(&rest[2 * formats..]);
    assert!(at < count, "the call has {count} arguments");
    for n in 0..=at {
        let (length, more) = rest.split_at(4);
        let length = i32::from_be_bytes(length.try_into().expect("four bytes"));
        let length = usize::try_from(length).unwrap_or(0);
        if n == at {
            return &more[..length];
        }
        rest = &more[length..];
    }
    &[]
}

/// Reads an array of UUIDs in its binary form.
fn uuids(array: &[u8]) -> BTreeSet<Uuid> {
    /// Dimensions, flags, element type, length, lower bound: four bytes each.
    const HEAD: usize = 20;
    let elements = array.get(HEAD..).unwrap_or_default();
    let each = elements.chunks_exact(4 + 16);
    each.map(|one| Uuid::from_slice(&one[4..]).expect("sixteen bytes"))
        .collect()
}
