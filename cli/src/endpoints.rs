//! `sagabus endpoints`.

use sagabus_core::admin::StoreAdmin;
use sagabus_core::endpoint::Order;
use sagabus_ops::endpoints::{self, Verb};
use sagabus_ops::shape;
use serde_json::json;

use crate::arguments::{EndpointsVerb, OperatorArguments};
use crate::confirm::{Answer, confirm, operator};
use crate::failure::Failure;
use crate::output::Output;

pub(crate) async fn run(
    admin: &dyn StoreAdmin,
    verb: &EndpointsVerb,
    who: &OperatorArguments,
    out: &Output,
) -> Result<(), Failure> {
    match verb {
        EndpointsVerb::List => list(admin, out).await,
        EndpointsVerb::Pause { name } => hold(admin, Verb::Pause, name, who, out).await,
        EndpointsVerb::Resume { name } => hold(admin, Verb::Resume, name, who, out).await,
        EndpointsVerb::Remove { name, message_type } => {
            remove(admin, name, message_type.as_deref(), who, out).await
        }
    }
}

async fn list(admin: &dyn StoreAdmin, out: &Output) -> Result<(), Failure> {
    let found = admin.endpoints().await?;
    let paused = endpoints::paused(admin).await?;
    let is_paused = |name: &str| paused.iter().any(|(one, _)| one == name);
    let shape = |one| {
        let mut shaped = shape::endpoint(one);
        shaped["is_paused"] = is_paused(&one.name).into();
        shaped
    };
    let document = || json!({ "endpoints": found.iter().map(shape).collect::<Vec<_>>() });
    if out.json(document)? {
        return Ok(());
    }
    let mut rows = Vec::new();
    for one in &found {
        let order = match one.order {
            Order::PerKey => "per key",
            _ => "none",
        };
        let state = if is_paused(&one.name) { "paused" } else { "" };
        let mut cells = vec![one.name.clone(), state.to_owned(), order.to_owned()];
        for (message_type, kind) in &one.subscriptions {
            cells.push(kind.clone());
            cells.push(message_type.clone());
            rows.push(std::mem::replace(&mut cells, vec![String::new(); 3]));
        }
        if one.subscriptions.is_empty() {
            rows.push(cells);
        }
    }
    let columns = ["endpoint", "state", "order", "kind", "takes"];
    out.table(&columns, &rows, "no endpoint was ever here")
}

async fn hold(
    admin: &dyn StoreAdmin,
    verb: Verb,
    name: &str,
    who: &OperatorArguments,
    out: &Output,
) -> Result<(), Failure> {
    let (todo, done) = match verb {
        Verb::Pause => ("pause", "paused within a second"),
        Verb::Resume => ("resume", "goes on within a second"),
    };
    // What would be refused is said before anybody is asked.
    if !who.yes {
        endpoints::look(admin, verb, name).await?;
    }
    let what = format!("{todo} endpoint `{name}` in all its hosts");
    if confirm(who, &what)? == Answer::Preview {
        if out.json(|| json!({ "preview": { "count": 1 }, "what": what }))? {
            return Ok(());
        }
        return out.line(&what);
    }
    endpoints::hold(admin, &operator(who), verb, name).await?;
    if out.json(|| json!({ "changed": 1, "endpoint": name }))? {
        return Ok(());
    }
    out.line(done)
}

async fn remove(
    admin: &dyn StoreAdmin,
    name: &str,
    message_type: Option<&str>,
    who: &OperatorArguments,
    out: &Output,
) -> Result<(), Failure> {
    if !who.yes {
        endpoints::plan_removal(admin, name, message_type).await?;
    }
    let what = match message_type {
        Some(message_type) => format!("remove the subscription of `{name}` to `{message_type}`"),
        None => format!("remove endpoint `{name}` and its subscriptions"),
    };
    if confirm(who, &what)? == Answer::Preview {
        if out.json(|| json!({ "preview": { "count": 1 }, "what": what }))? {
            return Ok(());
        }
        return out.line(&what);
    }
    endpoints::remove(admin, &operator(who), name, message_type).await?;
    if out.json(|| json!({ "removed": name, "message_type": message_type }))? {
        return Ok(());
    }
    out.line("removed")
}
