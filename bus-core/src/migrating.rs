//! Instances of an older release that an operator has written anew in the shape of this one: each is
//! a unit of its own, so who dies in between leaves each as it was or as it is to be.

use std::sync::Arc;

use crate::admin::{Batch, Migrated, Report, Verdict};
use crate::errands::{ByHand, Deed, Run, by_hand, commit, saga_of, unit_by_hand};
use crate::handler::Subscriber;
use crate::handling::Endpoint;
use crate::id::InstanceId;
use crate::store::Question;
use crate::unit_of_work::{InstanceStatus, Outcome};

/// How often an instance is tried that messages move meanwhile: they write it anew as well.
const TRIES: u32 = 5;

/// Writes instances anew, and says what became of each.
pub(crate) async fn migrate(endpoint: &Endpoint, batch: Batch) -> Report {
    let of = |verdict, migrated| Report {
        handler: Some(batch.kind.clone()),
        verdict,
        migrated,
        ..Report::default()
    };
    let (saga, version) = match saga_of(endpoint, &batch.kind) {
        Ok(found) => found,
        Err(error) => {
            let reason = None;
            return of(Verdict::Refused { reason, error }, None);
        }
    };
    let mut done = Migrated::default();
    for key in &batch.keys {
        let id = InstanceId {
            kind: batch.kind.clone().into(),
            key: key.as_str().into(),
        };
        match rewrite(endpoint, &saga, version, &id, &batch.who).await {
            Ok(true) => done.migrated += 1,
            Ok(false) => done.current += 1,
            Err(error) => done.failed.push((key.clone(), error)),
        }
    }
    of(Verdict::Well, Some(done))
}

/// Writes one anew. False: it is of this version already, or over.
async fn rewrite(
    endpoint: &Endpoint,
    saga: &Arc<dyn Subscriber>,
    version: i32,
    id: &InstanceId,
    who: &str,
) -> Result<bool, String> {
    let question = Question {
        instance: Some(id.clone()),
        ..Question::default()
    };
    for _ in 0..TRIES {
        let loaded = endpoint.loader.ask(&question).await;
        let loaded = loaded.ok_or("the host stops")?;
        let instance = loaded.answer.instance.clone();
        let Some(instance) = instance.filter(|one| one.status == InstanceStatus::Running) else {
            return Ok(false);
        };
        if instance.schema_version >= version {
            return Ok(false);
        }
        let run = Run {
            envelope: by_hand(&instance),
            timer: None,
            instance_id: Some(id.clone()),
            instance: Some(instance),
        };
        let envelope = run.envelope.clone();
        let rewriter = ByHand {
            subscriber: &**saga,
            deed: Deed::WriteAnew,
        };
        let (staged, transaction) = run
            .on(endpoint, &rewriter, Box::new(()))
            .await
            .map_err(|error| error.chain())?;
        let note = format!("migrated by {who}");
        let unit = unit_by_hand(endpoint, &envelope, staged, note);
        match commit(endpoint, unit, transaction).await? {
            Outcome::Committed | Outcome::Duplicate => return Ok(true),
            Outcome::Conflict => {}
        }
    }
    Err("messages move it all the time; they write it anew as well".to_owned())
}
