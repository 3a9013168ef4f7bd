//! Random plans: what is sent when, how often, to which host, and where hosts die.

use proptest::collection::vec;
use proptest::prelude::*;
use sagabus_testkit::saga::Point;

/// Keys of one plan: few, so that messages meet.
pub(super) const KEYS: u32 = 3;

/// Where hosts die: what is passed while messages are handled over rows of the database.
const POINTS: [Point; 8] = [
    Point::Received,
    Point::Decoded,
    Point::Loaded,
    Point::Handled,
    Point::BeforeCommit,
    Point::AfterCommit,
    Point::AfterClaim,
    Point::BeforeHandOver,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Add,
    Hold,
    Release,
    Poke,
    Close,
}

/// A message, and when copies of it come.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) key: u32,
    pub(super) word: Word,
    /// The host by which it is sent.
    pub(super) host: usize,
    /// The bursts in which it is sent again, modulo their number.
    pub(super) again: Vec<usize>,
}

/// What is sent at the same time.
#[derive(Clone, Debug)]
pub(super) struct Burst {
    pub(super) sent: Vec<Sent>,
    /// Where both hosts die meanwhile.
    pub(super) crash: Option<Point>,
    /// Milliseconds before the next one.
    pub(super) pause: u64,
}

pub(super) type Plan = Vec<Burst>;

pub(super) fn plans() -> impl Strategy<Value = Plan> {
    vec(burst(), 3..8)
}

fn burst() -> impl Strategy<Value = Burst> {
    let point = (0..POINTS.len()).prop_map(|at| POINTS[at]);
    let crash = proptest::option::weighted(0.3, point);
    (vec(sent(), 1..9), crash, 0u64..40).prop_map(|(sent, crash, pause)| Burst {
        sent,
        crash,
        pause,
    })
}

fn sent() -> impl Strategy<Value = Sent> {
    let word = prop_oneof![
        4 => Just(Word::Add),
        3 => Just(Word::Hold),
        2 => Just(Word::Release),
        2 => Just(Word::Poke),
        1 => Just(Word::Close),
    ];
    (0..KEYS, word, 0usize..2, vec(0usize..8, 0..3)).prop_map(|(key, word, host, again)| Sent {
        key,
        word,
        host,
        again,
    })
}
