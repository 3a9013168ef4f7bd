//! What operators and tests read and change: questions with bounded answers, and one call for
//! every change, which leaves its audit entry in the same transaction.

mod contract;
mod page;
mod dead_letter;
mod row;
mod running;
mod vitals;
mod shape;
mod change;

pub use change::{Action, AuditEntry, Change, TEXT_BYTES_MAX};
pub use contract::StoreAdmin;
pub use dead_letter::{
    DeadLetterFilter, DeadLetterGroup, DeadLetterStatus, StoredDeadLetter, Tally,
};
pub(crate) use page::cut;
pub use page::{About, Counts, First, PAGE_MAX, Page};
pub use row::{DestinationOverview, RowFilter, RowState, StoredRow};
pub use running::{
    HistoryOf, InstanceFilter, InstanceOverview, StoredEndpoint, StoredHistory, StoredHost,
    TakenOver,
};
pub use shape::{InstanceShape, SHAPES_MAX, WaitingShape, version_from_header};
pub use vitals::{TableVitals, Vitals};
