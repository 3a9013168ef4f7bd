//! Stubs of dead letters that hold their key: written in the statement of the commit call.

use sagabus_core::StoreError;
use sagabus_core::store::Group;
use sagabus_core::unit_of_work::Source;
use sqlx::Arguments;
use sqlx::postgres::PgArguments;

use crate::row;

/// Says whether a dead letter of a group holds its key.
pub(super) fn is_needed(group: &Group) -> bool {
    let dead = group.units.iter().filter_map(|unit| unit.failed.as_deref());
    dead.into_iter().any(|dead| dead.held_key().is_some())
}

/// Appends the stubs of a group, in the order of the function's arguments.
pub(super) fn add(group: &Group, arguments: &mut PgArguments) -> Result<(), StoreError> {
    let (mut units, mut rows, mut epochs) = (Vec::new(), Vec::new(), Vec::new());
    let (mut messages, mut types) = (Vec::new(), Vec::new());
    let (mut destinations, mut keys) = (Vec::new(), Vec::new());
    for (unit, number) in group.units.iter().zip(1_i32..) {
        let Some(dead) = unit.failed.as_deref() else {
            continue;
        };
        let Some(key) = dead.held_key() else {
            continue;
        };
        let source = unit.sources.iter().find_map(|source| match source {
            Source::Row(row) => Some(row),
            Source::Broker { .. } => None,
        });
        units.push(number);
        rows.push(source.map(|row| row.id));
        epochs.push(source.map(|row| row.epoch));
        messages.push(dead.envelope.id.as_uuid());
        types.push(dead.envelope.message_type.as_ref());
        destinations.push(row::endpoint_text(&dead.endpoint));
        keys.push(key);
    }
    let refused = StoreError::Refused;
    arguments.add(units).map_err(refused)?;
    arguments.add(rows).map_err(refused)?;
    arguments.add(epochs).map_err(refused)?;
    arguments.add(messages).map_err(refused)?;
    arguments.add(types).map_err(refused)?;
    arguments.add(destinations).map_err(refused)?;
    arguments.add(keys).map_err(refused)
}
