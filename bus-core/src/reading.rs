//! What an operator would have an instance be, read by its saga or machine before it is written:
//! tools cannot see its type.

use std::collections::BTreeMap;

use crate::admin::{Candidate, Report, Verdict};
use crate::errands::{ByHand, Deed, Run, by_hand, saga_of};
use crate::handling::Endpoint;
use crate::store::Instance;
use crate::telling::failed;
use crate::unit_of_work::InstanceStatus;

/// Says whether it can be read. Nothing of it is kept.
pub(crate) async fn read(endpoint: &Endpoint, candidate: Candidate) -> Report {
    let id = candidate.instance;
    let of = |verdict| Report {
        handler: Some(id.kind.to_string()),
        verdict,
        ..Report::default()
    };
    let saga = match saga_of(endpoint, &id.kind) {
        Ok((saga, _)) => saga,
        Err(error) => {
            let reason = None;
            return of(Verdict::Refused { reason, error });
        }
    };
    let instance = Instance {
        id: id.clone(),
        version: 0,
        status: InstanceStatus::Running,
        state: candidate.state,
        schema_version: candidate.schema_version,
        data: candidate.data.into(),
        timers: BTreeMap::new(),
        origin: None,
    };
    let run = Run {
        envelope: by_hand(&instance),
        timer: None,
        instance_id: Some(id.clone()),
        instance: Some(instance),
    };
    let reader = ByHand {
        subscriber: &*saga,
        deed: Deed::WriteAnew,
    };
    match run.on(endpoint, &reader, Box::new(())).await {
        Ok((_, transaction)) => {
            if let Some(transaction) = transaction {
                transaction.rollback().await;
            }
            of(Verdict::Well)
        }
        Err(error) => of(failed(endpoint, &*saga, &error)),
    }
}
