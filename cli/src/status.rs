//! `sagabus status`.

use sagabus_core::admin::StoreAdmin;
use sagabus_ops::{shape, status};

use crate::failure::Failure;
use crate::output::Output;
use crate::text::ago;

pub(crate) async fn run(admin: &dyn StoreAdmin, out: &Output) -> Result<(), Failure> {
    let status = status::status(admin).await?;
    if out.json(|| shape::status(&status))? {
        return Ok(());
    }
    let (about, counts) = (&status.about, &status.counts);
    let now = about.now;
    let alive = status
        .hosts
        .iter()
        .filter(|host| status::is_alive(host, now));
    out.line(&format!(
        "store {} ({}, schema {}), {} hosts alive",
        about.store,
        about.engine,
        about.schema_version,
        alive.count()
    ))?;
    out.line(&format!(
        "outbox {} waiting, {} parked; instances {} running, {} completed; dead letters {}; \
         inbox {}; history {}",
        counts.outbox,
        counts.parked,
        counts.running,
        counts.completed,
        counts.dead_letters,
        counts.inbox,
        counts.history
    ))?;
    if !status.groups.is_empty() {
        out.line("")?;
        let rows = status.groups.iter().map(|one| {
            vec![
                one.count.to_string(),
                one.endpoint.clone(),
                ago(now, one.last_at),
                one.fingerprint.clone(),
            ]
        });
        let rows: Vec<_> = rows.collect();
        out.table(&["dead", "endpoint", "last", "what"], &rows, "")?;
    }
    out.line("")?;
    if status.findings.is_empty() {
        return out.line("nothing to look at");
    }
    for finding in &status.findings {
        out.line(&format!("! {}", finding.fact))?;
        out.line(&format!("  {}", finding.remedy))?;
    }
    Ok(())
}
