//! Pauses of endpoints and transports: a row is there, or it is not.

use sagabus_core::StoreError;
use serde_json::json;

use super::super::clock::now;
use super::super::writer::Write;
use super::change::{Done, one_id, text_argument};

const PAUSE_ENDPOINT: &str = concat!(
    "insert into sagabus_instance (kind, key, version, completed, state, schema_version, data, ",
    "timers, created_at, updated_at) select '@endpoint', e.name, 1, 0, 'paused', 1, x'7b7d', ",
    "x'7b7d', ",
    now!(),
    ", ",
    now!(),
    " from sagabus_endpoint e where e.name = $1 on conflict do nothing ",
    "returning (select id from sagabus_endpoint where name = $1)"
);

const PAUSE_TRANSPORT: &str = concat!(
    "insert into sagabus_instance (kind, key, version, completed, state, schema_version, data, ",
    "timers, created_at, updated_at) values ('@transport', $1, 1, 0, 'paused', 1, x'7b7d', ",
    "x'7b7d', ",
    now!(),
    ", ",
    now!(),
    ") on conflict do nothing returning version"
);

const RESUME_TRANSPORT: &str = "delete from sagabus_instance where kind = '@transport' \
    and key = $1 returning version";

const RESUME_ENDPOINT: &str = "delete from sagabus_instance where kind = '@endpoint' and key = $1 \
    returning (select id from sagabus_endpoint where name = $1)";

/// Pauses an endpoint that is known.
pub(super) async fn pause_endpoint(write: &mut Write, name: &str) -> Result<Done, StoreError> {
    hold(write, PAUSE_ENDPOINT, "endpoint", name).await
}

/// Lets an endpoint go on.
pub(super) async fn resume_endpoint(write: &mut Write, name: &str) -> Result<Done, StoreError> {
    hold(write, RESUME_ENDPOINT, "endpoint", name).await
}

/// Pauses a transport, whoever has it.
pub(super) async fn pause_transport(write: &mut Write, name: &str) -> Result<Done, StoreError> {
    hold(write, PAUSE_TRANSPORT, "transport", name).await
}

/// Lets a transport go on.
pub(super) async fn resume_transport(write: &mut Write, name: &str) -> Result<Done, StoreError> {
    hold(write, RESUME_TRANSPORT, "transport", name).await
}

async fn hold(
    write: &mut Write,
    text: &'static str,
    what: &str,
    name: &str,
) -> Result<Done, StoreError> {
    let Some(id) = one_id(write, text, text_argument(name)?).await? else {
        return Ok(Done::default());
    };
    Ok((vec![id], vec![json!({ what: name })]))
}
