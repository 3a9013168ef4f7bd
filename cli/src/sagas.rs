//! `sagabus sagas`.

use sagabus_core::admin::{HistoryOf, InstanceFilter, Page, StoreAdmin};
use sagabus_core::unit_of_work::InstanceStatus;
use sagabus_core::{InstanceId, Timestamp};
use sagabus_ops::{OpsError, shape};
use serde_json::json;

use crate::arguments::SagasVerb;
use crate::failure::Failure;
use crate::filter::before;
use crate::messages::{self, history_table};
use crate::output::Output;
use crate::text::ago;

pub(crate) async fn run(
    admin: &dyn StoreAdmin,
    now: Timestamp,
    verb: &SagasVerb,
    out: &Output,
) -> Result<(), Failure> {
    match verb {
        SagasVerb::List {
            kind,
            state,
            completed,
            idle_for,
            limit,
            after_kind,
            after_key,
        } => {
            let filter = InstanceFilter {
                kind: kind.clone(),
                state: state.clone(),
                status: (!completed).then_some(InstanceStatus::Running),
                idle_since: idle_for.map(|age| before(now, age)),
                after: after_kind
                    .as_ref()
                    .zip(after_key.as_ref())
                    .map(|(kind, key)| id(kind, key)),
            };
            list(admin, now, &filter, *limit, out).await
        }
        SagasVerb::Show { kind, key, history } => {
            show(admin, now, id(kind, key), *history, out).await
        }
    }
}

fn id(kind: &str, key: &str) -> InstanceId {
    InstanceId {
        kind: kind.to_owned().into(),
        key: key.to_owned(),
    }
}

async fn list(
    admin: &dyn StoreAdmin,
    now: Timestamp,
    filter: &InstanceFilter,
    limit: u32,
    out: &Output,
) -> Result<(), Failure> {
    let found = admin.instances(filter, limit).await?;
    let next = (found.len() == limit as usize)
        .then(|| found.last().map(|one| &one.id))
        .flatten();
    let document = || {
        let all = found.iter().map(shape::overview);
        json!({ "instances": all.collect::<Vec<_>>(), "next": next })
    };
    if out.json(document)? {
        return Ok(());
    }
    let rows: Vec<_> = found
        .iter()
        .map(|one| {
            let state = match one.status {
                InstanceStatus::Running => one.state.clone().unwrap_or_default(),
                InstanceStatus::Completed => "(completed)".to_owned(),
            };
            vec![
                one.id.kind.to_string(),
                state,
                one.version.to_string(),
                ago(now, one.updated_at),
                one.id.key.clone(),
            ]
        })
        .collect();
    let columns = ["kind", "state", "version", "moved", "key"];
    out.table(&columns, &rows, "no such instances")?;
    if let Some(next) = next {
        out.note(&format!(
            "there may be more: go on with --after-kind {} --after-key {}",
            next.kind, next.key
        ));
    }
    Ok(())
}

async fn show(
    admin: &dyn StoreAdmin,
    now: Timestamp,
    id: InstanceId,
    entries: u32,
    out: &Output,
) -> Result<(), Failure> {
    let Some(one) = admin.instance(&id).await? else {
        return Err(OpsError::NotFound(format!(
            "there is no instance `{}` of kind `{}`; `sagabus sagas list --completed` shows those \
             there are",
            id.key, id.kind
        ))
        .into());
    };
    let of = HistoryOf::Instance(id);
    let history = admin.history(&of, Page::latest(entries)).await?;
    if out.json(|| shape::instance(&one, &history))? {
        return Ok(());
    }
    let status = match one.status {
        InstanceStatus::Running => "running",
        InstanceStatus::Completed => "completed",
    };
    out.line(&format!("{} {} ({status})", one.id.kind, one.id.key))?;
    out.field("state", one.state.as_deref())?;
    out.field("version", Some(&one.version.to_string()))?;
    let names: Vec<_> = one.timers.keys().map(String::as_str).collect();
    let timers = (!names.is_empty()).then(|| names.join(", "));
    out.field("timers", timers.as_deref())?;
    let request = one.origin.map(|origin| origin.message_id.to_string());
    out.field("started by", request.as_deref())?;
    out.line("")?;
    messages::body(&one.data, one.data.len() as u64, out)?;
    out.line("")?;
    history_table(now, &history, out)
}
