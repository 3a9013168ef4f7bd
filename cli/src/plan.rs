//! `plan`, in a service's own program.

use sagabus_core::admin::StoreAdmin;
use sagabus_ops::{plan, shape};
use serde_json::Value;

use crate::failure::Failure;
use crate::output::Output;

/// Compares a release with what a database holds.
pub(crate) async fn run(
    admin: &dyn StoreAdmin,
    release: &Value,
    out: &Output,
) -> Result<(), Failure> {
    let plan = plan::plan(admin, release).await?;
    if !out.json(|| shape::plan(&plan))? {
        for finding in &plan.findings {
            out.line(&format!("! {}", finding.fact))?;
            out.line(&format!("  {}", finding.remedy))?;
        }
        let (compared, others) = (plan.compared, plan.others);
        out.line(&format!(
            "compared {compared} running instances and waiting messages; {others} are of other \
             sagas and endpoints"
        ))?;
    }
    match plan.findings.len() {
        0 => Ok(()),
        count => Err(Failure::Findings(count)),
    }
}
