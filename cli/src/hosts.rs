//! `sagabus hosts` and `sagabus describe`.

use sagabus_core::Timestamp;
use sagabus_core::admin::StoreAdmin;
use sagabus_ops::hosts::MachineSkew;
use sagabus_ops::status::is_alive;
use sagabus_ops::{OpsError, hosts, shape};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output::Output;
use crate::text::ago;

/// Lists hosts.
pub(crate) async fn list(
    admin: &dyn StoreAdmin,
    now: Timestamp,
    out: &Output,
) -> Result<(), Failure> {
    let found = admin.hosts().await?;
    let skews = hosts::skews(&found, now);
    let machine_skews = hosts::machine_skews(&found, now);
    let document = || {
        let all = found.iter().map(|one| shape::host(one, now));
        let skew: Vec<_> = skews.iter().map(shape::skew).collect();
        let machines: Vec<_> = machine_skews.iter().map(shape::machine_skew).collect();
        json!({ "hosts": all.collect::<Vec<_>>(), "skew": skew, "machine_skew": machines })
    };
    if out.json(document)? {
        return Ok(());
    }
    let rows: Vec<_> = found
        .iter()
        .map(|one| {
            let state = match one.stopped_at {
                Some(_) => "stopped",
                None if is_alive(one, now) => "alive",
                None => "gone",
            };
            let endpoints = one.definitions["endpoints"].as_array();
            let names = endpoints.into_iter().flatten();
            let names: Vec<_> = names.filter_map(|one| one["endpoint"].as_str()).collect();
            vec![
                one.name.clone(),
                state.to_owned(),
                ago(now, one.heartbeat_at),
                ago(now, one.started_at),
                one.definitions["version"].as_str().unwrap_or("").to_owned(),
                one.id.to_string(),
                names.join(", "),
            ]
        })
        .collect();
    let columns = [
        "name",
        "state",
        "heard",
        "started",
        "version",
        "id",
        "endpoints",
    ];
    out.table(&columns, &rows, "no host was ever here")?;
    for skew in &skews {
        out.line(&format!(
            "! live hosts of endpoint `{}` know `{}` in different versions",
            skew.endpoint, skew.message_type
        ))?;
        for (host, version) in &skew.known {
            let known = match version {
                Some(version) => format!("version {version}"),
                None => "does not take it".to_owned(),
            };
            out.line(&format!("  {host}: {known}"))?;
        }
    }
    machine_skews.iter().try_for_each(|skew| differs(skew, out))
}

fn differs(skew: &MachineSkew, out: &Output) -> Result<(), Failure> {
    out.line(&format!(
        "! live hosts of endpoint `{}` run `{}` in different versions",
        skew.endpoint, skew.machine
    ))?;
    for (host, known) in &skew.known {
        let known = match known {
            Some(known) => format!(
                "definition {}, {} states, {} transitions, data of version {}",
                known.digest, known.states, known.transitions, known.schema_version
            ),
            None => "does not have it".to_owned(),
        };
        out.line(&format!("  {host}: {known}"))?;
    }
    Ok(())
}

/// Shows what hosts said of themselves: the latest of each name.
pub(crate) async fn describe(
    admin: &dyn StoreAdmin,
    name: Option<&str>,
    out: &Output,
) -> Result<(), Failure> {
    let mut found = admin.hosts().await?;
    let mut seen = std::collections::HashSet::new();
    found
        .retain(|host| name.is_none_or(|name| host.name == name) && seen.insert(host.name.clone()));
    if found.is_empty() {
        return Err(OpsError::NotFound(match name {
            Some(name) => {
                format!("no host `{name}` was ever here; `sagabus hosts` shows who was [SB0401]")
            }
            None => "no host was ever here [SB0401]".to_owned(),
        })
        .into());
    }
    let said: Vec<_> = found.iter().map(|one| &one.definitions).collect();
    show(&said, out)
}

/// Shows what hosts say of themselves.
pub(crate) fn show(hosts: &[&Value], out: &Output) -> Result<(), Failure> {
    if out.json(|| json!({ "hosts": hosts }))? {
        return Ok(());
    }
    for host in hosts {
        out.line(&format!("host {}", host["host"].as_str().unwrap_or("")))?;
        for transport in host["transports"].as_array().into_iter().flatten() {
            describe_transport(transport, out)?;
        }
        for endpoint in host["endpoints"].as_array().into_iter().flatten() {
            describe_endpoint(endpoint, out)?;
        }
    }
    Ok(())
}

/// Shows by what a host sends and receives, and the names of what it declares there.
fn describe_transport(transport: &Value, out: &Output) -> Result<(), Failure> {
    out.line(&format!(
        "  transport {} ({}, order {}, bodies of {} bytes at most)",
        text(&transport["transport"]),
        text(&transport["broker"]),
        text(&transport["order"]),
        text(&transport["body_bytes_max"]),
    ))?;
    let topology = transport["topology"].as_object().into_iter().flatten();
    for (kind, pieces) in topology {
        for piece in pieces.as_array().into_iter().flatten() {
            let kind = kind.strip_suffix('s').unwrap_or(kind);
            out.line(&format!("    {kind} {}", text(&piece["name"])))?;
        }
    }
    Ok(())
}

fn text(value: &Value) -> String {
    match value.as_str() {
        Some(text) => text.to_owned(),
        None => value.to_string(),
    }
}

fn describe_endpoint(endpoint: &Value, out: &Output) -> Result<(), Failure> {
    let tries = |retry: &Value| {
        let (now, later) = (&retry["immediate"], &retry["delayed"]);
        format!("retry {now} at once and {later} later")
    };
    out.line(&format!(
        "  endpoint {} (order {}, {})",
        text(&endpoint["endpoint"]),
        text(&endpoint["order"]),
        tries(&endpoint["retry"])
    ))?;
    for handler in endpoint["handlers"].as_array().into_iter().flatten() {
        let said = Some(&handler["retry"]).filter(|retry| retry.is_object());
        let said = said.map(|retry| format!(" ({})", tries(retry)));
        out.line(&format!(
            "    {} {} -> {}{}",
            text(&handler["kind"]),
            text(&handler["type"]),
            text(&handler["handler"]),
            said.unwrap_or_default()
        ))?;
    }
    Ok(())
}
