//! What was seen at store and broker, for following a run through the models.

use std::sync::Arc;

use sagabus_core::store::{ClaimedRow, CommitReport, Group};
use sagabus_core::{EndpointName, MessageId};
use sagabus_model::{Held, Published};

/// One thing that was seen. A process is known by its name.
#[derive(Clone, Debug)]
pub(crate) enum Seen {
    /// A broker's message came into a process's hands.
    Got {
        process: String,
        held: Held,
        endpoint: EndpointName,
        id: MessageId,
    },
    /// It was answered for.
    Answered {
        process: String,
        held: Held,
        how: Answer,
    },
    /// The store was called.
    Called {
        process: String,
        group: Arc<Group>,
        ended: Ended,
    },
    /// Rows were claimed, by the call of this number.
    Claimed {
        process: String,
        number: Held,
        rows: Vec<ClaimedRow>,
    },
    /// The answer to that call did not come, whether there was one or not.
    ClaimLost(Held),
    /// A process had a message published.
    Published {
        process: String,
        id: MessageId,
        how: Published,
    },
    /// A process is gone.
    Gone { process: String },
}

/// How a delivery was answered for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Acked,
    /// Acked, and the broker did not hear it.
    AckedUnheard,
    GivenBack,
}

/// How a call of the store ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Heard(CommitReport),
    Unheard(CommitReport),
    Unmade,
    /// It will be carried out.
    Later,
    /// It was carried out, and whoever made it knows nothing of it.
    Landed(CommitReport),
}
