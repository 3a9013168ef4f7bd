//! What operators and tests read and change: questions with bounded answers, and one call for
//! every change, which leaves its audit entry in the same transaction.

mod contract;
mod page;
mod dead_letter;
mod row;
mod sent;
mod running;
mod vitals;
mod shape;
mod account;
mod audit;
mod change;
mod verb;
mod operation;
mod errand;

pub use account::{AccountLine, Accounts, End, MISSING_MAX, MissingMessage, Origin};
pub use audit::{AuditEntry, AuditFilter};
pub use change::{Action, Alteration, Change, Edit, Held, TEXT_BYTES_MAX};
pub use contract::StoreAdmin;
pub use dead_letter::{
    DeadLetterFilter, DeadLetterGroup, DeadLetterStatus, StoredDeadLetter, Tally,
};
pub use errand::{
    ANSWERED, ASKED, BATCH_MAX, Batch, CANCEL, Candidate, ERRAND_KIND, ERRAND_STALE_MICROS, Errand,
    ErrandAnswer, Forced, Migrated, Moved, Parcel, Report, SENT_BODY_CHARS_MAX, SENT_MAX, Sent,
    Standing, TAKEN, TRANSITION, Task, Transitioned, Verdict, errand_id,
};
pub use operation::{
    Command, NewOperation, OperationState, Operations, Pace, Redriven, SELECTED_MAX, Selected,
    StoredOperation, Told, Wheel,
};
pub(crate) use page::cut;
pub use page::{About, Bodies, Counts, First, PAGE_MAX, Page};
pub use row::{DestinationOverview, PARKED_BY_OPERATOR, RowFilter, RowState, RowVerb, StoredRow};
pub use running::{
    HistoryOf, InboxFilter, InstanceFilter, InstanceOverview, StoredEndpoint, StoredHistory,
    StoredHost, TakenOver,
};
pub use sent::{SentFilter, StoredSent};
pub use shape::{InstanceShape, SHAPES_MAX, WaitingShape, version_from_header};
pub use verb::{Subject, Verb};
pub use vitals::{TableVitals, Vitals};
