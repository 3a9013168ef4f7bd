//! `sagabus plan`.

use clap::Args;
use sagabus_ops::{Guarded, Role, plan, shape};
use serde_json::Value;

use crate::confirm::read_file;
use crate::failure::Failure;
use crate::output::Output;
use crate::place::Place;

/// Which release, and with what it is compared.
#[derive(Debug, Args)]
pub(crate) struct PlanArguments {
    /// The database; that of `--store` where it is left out.
    #[arg(long, value_name = "URL")]
    against: Option<String>,
    /// What `describe --json` of the service's program printed; - is stdin.
    #[arg(long, value_name = "FILE")]
    release: Option<String>,
}

impl PlanArguments {
    /// Returns the database that is meant.
    pub(crate) fn against<'a>(&'a self, store: Option<&'a str>) -> Option<&'a str> {
        self.against.as_deref().or(store)
    }

    /// Reads what the release says of itself.
    ///
    /// # Errors
    /// [`Failure::Usage`] where no file is named, or it is not that of one host.
    pub(crate) fn release(&self) -> Result<Value, Failure> {
        let file = self.release.as_deref().ok_or_else(|| {
            Failure::Usage(
                "which release? a service's own program knows its own (`sagabus::cli::main`); this \
                 one reads what `describe --json` of it printed: `--release FILE` [SB0308]"
                    .to_owned(),
            )
        })?;
        let document: Value = serde_json::from_slice(&read_file(file)?)
            .map_err(|error| Failure::Usage(format!("`{file}` is no JSON: {error} [SB0308]")))?;
        match document["hosts"].as_array().map(Vec::as_slice) {
            Some([release]) if release["host"].is_string() => Ok(release.clone()),
            _ => Err(Failure::Usage(format!(
                "`{file}` does not describe one release; take what `describe --json` of the \
                 service's own program prints [SB0308]"
            ))),
        }
    }
}

/// Compares a release with what a database holds.
pub(crate) async fn run(
    against: Option<&str>,
    role: Role,
    release: &Value,
    out: &Output,
) -> Result<(), Failure> {
    let place = Place::open(against).await?;
    let plan = plan::plan(&Guarded::new(place.admin(), role), release).await?;
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
