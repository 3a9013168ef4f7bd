//! What takes the service's own code: a live host is asked, and its answer awaited. To rehearse a
//! message is to have it handled and undone; an instance is moved by its machine.

use std::time::Duration;

use sagabus_core::admin::{
    ANSWERED, ASKED, Action, Alteration, Candidate, DeadLetterFilter, DeadLetterStatus, Errand,
    ErrandAnswer, Forced, Held, Page, Parcel, RowFilter, StoreAdmin, StoredDeadLetter, StoredRow,
    Task, Transitioned, Verdict, errand_id,
};
use sagabus_core::store::Instance;
use sagabus_core::{InstanceId, MessageId};
use tokio::time::Instant;

use crate::error::OpsError;
use crate::operator::Operator;
use crate::status::{has_endpoint, is_alive};
use crate::{dead_letters, instances, machines, migration};

/// How long a host may take to notice: it looks every second.
const NOTICE_MAX: Duration = Duration::from_secs(5);
/// The pause between two looks for the answer.
const POLL: Duration = Duration::from_millis(100);

/// A message that is to be rehearsed, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The endpoint that would handle it.
    pub endpoint: String,
    /// The message.
    pub parcel: Parcel,
}

/// Finds an open dead letter to rehearse. Changes nothing.
///
/// # Errors
/// [`OpsError::NotFound`] when there is none of this id; [`OpsError::Refused`] where it was dealt
/// with.
pub async fn of_dead_letter(admin: &dyn StoreAdmin, id: i64) -> Result<Subject, OpsError> {
    let found = dead_letters::stored(admin, id).await?;
    match found.status {
        DeadLetterStatus::Open => Ok(of_dead(&found)),
        status => Err(OpsError::Refused(format!(
            "dead letter {id} is {}; nothing to rehearse [SB0403]",
            status.as_str()
        ))),
    }
}

fn of_dead(found: &StoredDeadLetter) -> Subject {
    Subject {
        endpoint: found.endpoint.clone(),
        parcel: Parcel::new(&found.envelope, None),
    }
}

/// Finds a message to rehearse by its identity: its open dead letter, or its row that waits at an
/// endpoint. Changes nothing.
///
/// # Errors
/// [`OpsError::NotFound`] when it is neither; [`OpsError::Refused`] where it is so at several
/// endpoints and none is named.
pub async fn of_message(
    admin: &dyn StoreAdmin,
    message: MessageId,
    endpoint: Option<&str>,
) -> Result<Subject, OpsError> {
    /// One message at more endpoints than this is far from usual.
    const PLACES_MAX: u32 = 100;
    let dead = DeadLetterFilter {
        message: Some(message),
        ..DeadLetterFilter::default()
    };
    let rows = RowFilter {
        message: Some(message),
        ..RowFilter::default()
    };
    let page = Page::oldest(PLACES_MAX).as_stored();
    let dead = admin.find_dead_letters(&dead, page).await?;
    let rows = admin.rows(&rows, page).await?;
    let waiting = rows.iter().filter_map(of_row);
    let mut found: Vec<_> = dead.iter().map(of_dead).chain(waiting).collect();
    found.retain(|one| endpoint.is_none_or(|name| one.endpoint == name));
    found.dedup_by(|a, b| a.endpoint == b.endpoint);
    let names: Vec<_> = found.iter().map(|one| one.endpoint.as_str()).collect();
    if names.len() > 1 {
        return Err(OpsError::Refused(format!(
            "message {message} is at several endpoints ({}); name one with `--endpoint` [SB0304]",
            names.join(", ")
        )));
    }
    found.pop().ok_or_else(|| {
        OpsError::NotFound(format!(
            "message {message} is no open dead letter and waits at no endpoint; `sagabus messages \
             show` tells what became of it [SB0401]"
        ))
    })
}

/// A row that waits at an endpoint of this database. What is parked has none.
fn of_row(row: &StoredRow) -> Option<Subject> {
    let endpoint = row.destination.strip_prefix('@')?;
    (!row.is_stub()).then(|| Subject {
        endpoint: endpoint.to_owned(),
        parcel: Parcel::new(&row.envelope, row.timer.as_ref()),
    })
}

/// Has a live host handle a message and undo it, and returns what it would have done.
///
/// # Errors
/// As the other requests to a host.
pub async fn rehearse(
    admin: &dyn StoreAdmin,
    operator: &Operator,
    subject: Subject,
    patience: Duration,
) -> Result<ErrandAnswer, OpsError> {
    let task = Task::Rehearse(Box::new(subject.parcel));
    ask(admin, operator, subject.endpoint, task, patience).await
}

/// A move of an instance that its machine is to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedMove {
    /// The endpoint of the machine.
    pub endpoint: String,
    /// The instance, the version that was seen, and where it goes.
    pub forced: Forced,
}

/// Says what an instance would be moved from, and by which endpoint's hosts. Changes nothing; whether
/// the machine has the state is for a live host to say.
///
/// # Errors
/// [`OpsError::NotFound`] where there is no such instance or no host described its machine;
/// [`OpsError::Refused`] where it is over, has no states, or is in that state.
pub async fn plan_move(
    admin: &dyn StoreAdmin,
    operator: &Operator,
    id: &InstanceId,
    to: &str,
) -> Result<PlannedMove, OpsError> {
    let refused = |fact: String| Err(OpsError::Refused(fact));
    let instance = instances::running(admin, id).await?;
    match instance.state.as_deref() {
        None => return refused(format!("{id} has no states [SB0403]")),
        Some(state) if state == to => {
            return refused(format!("{id} is in state `{to}` already [SB0403]"));
        }
        Some(_) => {}
    }
    // What live hosts run comes first.
    let mut described = machines::find(admin, &id.kind).await?;
    let endpoint = described.swap_remove(0).endpoint;
    let to = Some(to.to_owned());
    Ok(PlannedMove::new(endpoint, instance, to, operator))
}

/// Says what instance would be cancelled, and by which endpoint's hosts. Changes nothing.
///
/// # Errors
/// [`OpsError::NotFound`] where there is no such instance; [`OpsError::Refused`] where it is over, or
/// no live host described its saga or machine.
pub async fn plan_cancel(
    admin: &dyn StoreAdmin,
    operator: &Operator,
    id: &InstanceId,
) -> Result<PlannedMove, OpsError> {
    let instance = instances::running(admin, id).await?;
    let Some(endpoint) = live_endpoint(admin, &id.kind).await? else {
        let kind = &id.kind;
        return Err(OpsError::Refused(format!(
            "no live host described a saga or machine `{kind}`; start one and ask again [SB0404]"
        )));
    };
    Ok(PlannedMove::new(endpoint, instance, None, operator))
}

/// Finds an endpoint whose live hosts described a saga or machine.
async fn live_endpoint(admin: &dyn StoreAdmin, kind: &str) -> Result<Option<String>, OpsError> {
    let now = admin.about().await?.now;
    let hosts = admin.hosts().await?;
    let alive = hosts.iter().filter(|host| is_alive(host, now));
    let mut known = alive.flat_map(|host| migration::described(host, kind));
    Ok(known.next().map(|(endpoint, _)| endpoint))
}

/// Has a live host read what an instance is to be, and returns the host's name; `None` where none
/// lives that could.
///
/// # Errors
/// [`OpsError::Refused`] where its saga or machine cannot read it; as the other requests to a host.
pub async fn check_alteration(
    admin: &dyn StoreAdmin,
    operator: &Operator,
    alteration: &Alteration,
    patience: Duration,
) -> Result<Option<String>, OpsError> {
    let id = &alteration.instance;
    let Some(endpoint) = live_endpoint(admin, &id.kind).await? else {
        return Ok(None);
    };
    let now = instances::running(admin, id).await?;
    let candidate = Candidate {
        instance: id.clone(),
        schema_version: now.schema_version,
        state: alteration.after.state.clone(),
        data: String::from_utf8_lossy(&alteration.after.data).into_owned(),
    };
    let task = Task::Read(Box::new(candidate));
    let answer = ask(admin, operator, endpoint, task, patience).await?;
    let error = match answer.report.verdict {
        Verdict::Well => return Ok(Some(answer.host)),
        Verdict::Refused { error, .. } | Verdict::Failed { error, .. } => error,
        Verdict::Skipped { why } => why,
    };
    Err(OpsError::Refused(format!(
        "`{}` cannot read it, says {}: {error} [SB0407]",
        id.kind, answer.host
    )))
}

impl PlannedMove {
    fn new(endpoint: String, instance: Instance, to: Option<String>, operator: &Operator) -> Self {
        let Instance {
            id,
            version,
            state,
            data,
            ..
        } = instance;
        Self {
            endpoint,
            forced: Forced {
                instance: id,
                version,
                to,
                before: Some(Held { state, data }),
                who: operator.who.clone(),
            },
        }
    }
}

/// Has a live host move an instance to another state, or cancel it, with what its machine does on the
/// way, and writes what came of it into the audit entry that has what it was since the host was asked.
///
/// # Errors
/// As the other requests to a host. [`OpsError::Store`] also where the instance was moved, and only
/// what it is now was not written into the audit.
pub async fn move_instance(
    admin: &dyn StoreAdmin,
    operator: &Operator,
    planned: PlannedMove,
    patience: Duration,
) -> Result<ErrandAnswer, OpsError> {
    let (instance, version) = (planned.forced.instance.clone(), planned.forced.version);
    let task = Task::Transition(Box::new(planned.forced));
    let answer = ask(admin, operator, planned.endpoint, task, patience).await?;
    let moved = answer.report.instance.as_ref();
    let after = moved.and_then(|moved| moved.after.clone());
    if let (Verdict::Well, Some(after)) = (&answer.report.verdict, after) {
        let done = Action::NoteTransition(Box::new(Transitioned {
            instance,
            version,
            host: answer.host.clone(),
            after,
        }));
        admin.change(&operator.does(done)).await?;
    }
    Ok(answer)
}

/// Asks a live host of an endpoint, and waits for its answer: up to five seconds until one has
/// noticed, and up to `patience` in all.
///
/// # Errors
/// [`OpsError::Refused`] where no live host runs the endpoint, none took the errand in time (then none
/// will), another one is under way, or the host that took it did not answer in time.
pub(crate) async fn ask(
    admin: &dyn StoreAdmin,
    operator: &Operator,
    endpoint: String,
    task: Task,
    patience: Duration,
) -> Result<ErrandAnswer, OpsError> {
    let refused = |fact: String| Err(OpsError::Refused(fact));
    let about = admin.about().await?;
    let hosts = admin.hosts().await?;
    let mut runs = hosts.iter().filter(|host| has_endpoint(host, &endpoint));
    if !runs.any(|host| is_alive(host, about.now)) {
        return refused(format!(
            "no live host runs endpoint `{endpoint}`; start one and ask again [SB0404]"
        ));
    }
    let id = errand_id(&endpoint);
    let errand = Errand {
        endpoint,
        until: about.now.plus(NOTICE_MAX),
        task,
    };
    let endpoint = errand.endpoint.clone();
    let began = Instant::now();
    let action = Action::AskHost(Box::new(errand));
    let Some(version) = admin.change(&operator.does(action)).await?.pop() else {
        return refused(format!(
            "a host of endpoint `{endpoint}` is about another rehearsal; ask again in a moment \
             [SB0403]"
        ));
    };
    loop {
        tokio::time::sleep(POLL).await;
        let row = admin.instance(&id).await?;
        let row = row.filter(|row| (version..=version + 2).contains(&row.version));
        let Some(row) = row else {
            return refused(format!(
                "somebody else asked endpoint `{endpoint}` meanwhile; ask again [SB0403]"
            ));
        };
        match row.state.as_deref() {
            Some(ANSWERED) => return read(&row),
            // A host that looks at the very end may still take it.
            Some(ASKED) if began.elapsed() > NOTICE_MAX + Duration::from_secs(1) => {
                return refused(format!(
                    "no host of endpoint `{endpoint}` took it within {} s, and none will [SB0404]",
                    NOTICE_MAX.as_secs()
                ));
            }
            Some(ASKED) => {}
            _ if began.elapsed() > patience.max(NOTICE_MAX) => {
                return refused(format!(
                    "a host of endpoint `{endpoint}` took it and has not answered within {} s; it \
                     may still be about it [SB0404]",
                    began.elapsed().as_secs()
                ));
            }
            _ => {}
        }
    }
}

fn read(row: &Instance) -> Result<ErrandAnswer, OpsError> {
    serde_json::from_slice(&row.data).map_err(|error| {
        OpsError::Refused(format!(
            "the answer of the host cannot be read: {error}; use the command line of its release [SB0404]"
        ))
    })
}
