//! What brokers took, copied in the statement of the commit call before that one removes it.

use sagabus_core::StoreError;
use sagabus_core::clock::micros;
use sagabus_core::store::Group;
use sagabus_core::unit_of_work::Settle;
use sqlx::Arguments;
use sqlx::postgres::PgArguments;

/// Says whether a row of a group is kept.
pub(super) fn is_needed(group: &Group) -> bool {
    let mut settles = group.settles.iter();
    settles.any(|settle| matches!(settle, Settle::Keep { .. }))
}

/// Appends the kept rows of a group, in the order of the function's arguments.
pub(super) fn add(group: &Group, arguments: &mut PgArguments) -> Result<(), StoreError> {
    let (mut ids, mut epochs, mut times) = (Vec::new(), Vec::new(), Vec::new());
    for settle in &group.settles {
        if let Settle::Keep { row, kept_for } = settle {
            ids.push(row.id);
            epochs.push(row.epoch);
            times.push(micros(*kept_for));
        }
    }
    let refused = StoreError::Refused;
    arguments.add(ids).map_err(refused)?;
    arguments.add(epochs).map_err(refused)?;
    arguments.add(times).map_err(refused)
}
