//! What tests of one broker send: parcels that are packed, by seven keys.

use sagabus_core::memory::MemoryStore;
use sagabus_core::store::StoreAdmin;
use sagabus_core::{Command, Event, Kind, Message, RunningHost, State};
use serde::{Deserialize, Serialize};

use super::scene::Log;
use crate::wait::eventually;

macro_rules! message {
    ($(#[$doc:meta])* $name:ident $type:literal $kind:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Serialize, Deserialize)]
        pub struct $name {
            /// The number, of which its key is made.
            pub n: u32,
        }

        impl Message for $name {
            const TYPE: &'static str = $type;
            const KIND: Kind = Kind::$kind;

            fn message_key(&self) -> Option<String> {
                Some((self.n % 7).to_string())
            }
        }
    };
}

message!(
    /// Asks for a parcel.
    Pack "parcels.pack" Command
);
impl Command for Pack {}
message!(
    /// Asks for an answer.
    Ask "parcels.ask" Command
);
impl Command for Ask {}
message!(
    /// Tells of a parcel.
    Packed "parcels.packed" Event
);
impl Event for Packed {}
message!(
    /// Answers.
    Answered "parcels.answered" Reply
);

/// Packs, and tells of it.
pub async fn pack(command: Pack, log: State<Log>) -> Packed {
    log.add(format!("pack {}", command.n));
    Packed { n: command.n }
}

/// Notes that something was packed.
pub async fn note(event: Packed, log: State<Log>) {
    log.add(format!("packed {}", event.n));
}

/// Waits until no row waits or is in hand.
///
/// # Panics
/// When that takes too long.
pub async fn quiet(store: &MemoryStore) {
    let counts = || async { store.counts().await.expect("rows can be counted") };
    let look = || async { (counts().await.outbox == 0).then_some(()) };
    eventually("an empty outbox", look).await;
}

/// Reads a counter of a host.
///
/// # Panics
/// When there is none of this name.
pub fn counted(host: &RunningHost, name: &str) -> u64 {
    let all = host.counters().snapshot();
    let found = all.into_iter().find(|(one, _)| *one == name);
    found.expect("there is such a counter").1
}
