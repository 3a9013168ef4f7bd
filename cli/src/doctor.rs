//! `sagabus doctor`.

use sagabus_core::admin::StoreAdmin;
use sagabus_ops::{doctor, shape};

use crate::failure::Failure;
use crate::output::Output;

pub(crate) async fn run(admin: &dyn StoreAdmin, out: &Output) -> Result<(), Failure> {
    let examination = doctor::examine(admin).await?;
    if !out.json(|| shape::examination(&examination))? {
        for check in &examination.checks {
            let mark = if check.findings.is_empty() {
                "ok"
            } else {
                "!!"
            };
            out.line(&format!("{mark}  {:<13} {}", check.name, check.about))?;
            for finding in &check.findings {
                out.line(&format!("      {}", finding.fact))?;
                out.line(&format!("      -> {}", finding.remedy))?;
            }
        }
    }
    match examination.findings().count() {
        0 => Ok(()),
        n => Err(Failure::Findings(n)),
    }
}
