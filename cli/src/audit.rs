//! `sagabus audit`.

use sagabus_core::Timestamp;
use sagabus_core::admin::StoreAdmin;
use sagabus_ops::shape;
use serde_json::json;

use crate::arguments::PageArguments;
use crate::dead_letters::page;
use crate::failure::Failure;
use crate::output::Output;
use crate::text::ago;

pub(crate) async fn run(
    admin: &dyn StoreAdmin,
    now: Timestamp,
    arguments: &PageArguments,
    out: &Output,
) -> Result<(), Failure> {
    let found = admin.audit(page(arguments)).await?;
    let next = (found.len() == arguments.limit as usize)
        .then(|| found.last().map(|one| one.id))
        .flatten();
    let document = || {
        let all = found.iter().map(shape::audit);
        json!({ "audit": all.collect::<Vec<_>>(), "next": next })
    };
    if out.json(document)? {
        return Ok(());
    }
    let rows: Vec<_> = found
        .iter()
        .map(|one| {
            let count = one.detail.as_array().map_or(1, Vec::len);
            vec![
                one.id.to_string(),
                ago(now, one.at),
                one.who.clone(),
                one.action.clone(),
                count.to_string(),
                one.why.clone(),
            ]
        })
        .collect();
    let columns = ["id", "when", "who", "action", "rows", "why"];
    out.table(&columns, &rows, "no operator changed anything")?;
    if let Some(next) = next {
        out.note(&format!("there may be more: go on with --after {next}"));
    }
    Ok(())
}
