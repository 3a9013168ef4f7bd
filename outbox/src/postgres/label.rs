//! Second names of instances: written in the statement of the commit call, read before the
//! loader's question.

use std::borrow::Cow;

use sagabus_core::store::{Group, Question};
use sagabus_core::{InstanceId, StoreError};
use sqlx::postgres::{PgArguments, PgConnection};
use sqlx::{Arguments, Row};

const FIND: &str = "select at, key from sagabus.find_labels_v1($1, $2, $3)";

/// Says whether a group changes labels.
pub(super) fn is_needed(group: &Group) -> bool {
    let changes = group.units.iter().filter_map(|unit| unit.instance.as_ref());
    changes.into_iter().any(|change| change.labels.is_some())
}

/// Appends the labels of a group, in the order of the function's arguments.
pub(super) fn add(group: &Group, arguments: &mut PgArguments) -> Result<(), StoreError> {
    let (mut units, mut kinds, mut keys) = (Vec::new(), Vec::new(), Vec::new());
    let mut given = Given::default();
    for (unit, number) in group.units.iter().zip(1_i32..) {
        let Some(change) = &unit.instance else {
            continue;
        };
        let Some(labels) = &change.labels else {
            continue;
        };
        units.push(number);
        kinds.push(change.id.kind.as_ref());
        keys.push(&*change.id.key);
        for label in labels {
            given.units.push(number);
            given.kinds.push(change.id.kind.as_ref());
            given.keys.push(&*change.id.key);
            given.names.push(label.name.as_ref());
            given.values.push(label.value.as_str());
        }
    }
    let refused = StoreError::Refused;
    arguments.add(units).map_err(refused)?;
    arguments.add(kinds).map_err(refused)?;
    arguments.add(keys).map_err(refused)?;
    arguments.add(given.units).map_err(refused)?;
    arguments.add(given.kinds).map_err(refused)?;
    arguments.add(given.keys).map_err(refused)?;
    arguments.add(given.names).map_err(refused)?;
    arguments.add(given.values).map_err(refused)
}

/// The columns of the labels that come.
#[derive(Default)]
struct Given<'a> {
    units: Vec<i32>,
    kinds: Vec<&'a str>,
    keys: Vec<&'a str>,
    names: Vec<&'a str>,
    values: Vec<&'a str>,
}

/// Asks for the instances that questions name by a label, and puts their names in place.
pub(super) async fn resolve<'a>(
    connection: &mut PgConnection,
    questions: &'a [Question],
) -> Result<Cow<'a, [Question]>, sqlx::Error> {
    let (mut places, mut kinds) = (Vec::new(), Vec::new());
    let (mut names, mut values) = (Vec::new(), Vec::new());
    for (place, question) in questions.iter().enumerate() {
        let label = question
            .label
            .as_ref()
            .filter(|_| question.instance.is_none());
        // No label has a name that no column can hold.
        let label = label.filter(|one| !one.label.value.contains('\0'));
        let Some(one) = label else {
            continue;
        };
        places.push(place);
        kinds.push(one.kind.as_ref());
        names.push(one.label.name.as_ref());
        values.push(one.label.value.as_str());
    }
    if places.is_empty() {
        return Ok(Cow::Borrowed(questions));
    }
    let query = sqlx::query(FIND).bind(&kinds).bind(names).bind(values);
    let rows = query.fetch_all(connection).await?;
    let mut resolved = questions.to_vec();
    for row in rows {
        let at = usize::try_from(row.try_get::<i64, _>(0)?).unwrap_or(0);
        let Some(place) = at.checked_sub(1).and_then(|at| places.get(at)) else {
            continue;
        };
        resolved[*place].instance = Some(InstanceId {
            kind: kinds[at - 1].to_owned().into(),
            key: row.try_get(1)?,
        });
    }
    Ok(Cow::Owned(resolved))
}
