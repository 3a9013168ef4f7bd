//! Bulk changes as operations: begun, driven, paused, resumed, cancelled.
//!
//! An operation is a row with what was selected when it began. Whoever drives it has it to itself
//! as long as its steps go on; when its process dies, another one goes on where it stood.

use std::fmt;
use std::time::Duration;

use sagabus_core::admin::{
    Command, NewOperation, OperationState, PAGE_MAX, Pace, Page, Redriven, RowVerb, Selected,
    StoreAdmin, StoredOperation, Told, Verb, Wheel,
};
use sagabus_core::{StoreError, Timestamp};
use tokio::time::{Instant, sleep, sleep_until};

use crate::endpoints;
use crate::error::OpsError;
use crate::operator::Operator;

/// How long whoever drives an operation has it to itself after each of its steps. Another process
/// may go on with what a killed one left after so long.
pub const LEASE: Duration = Duration::from_secs(10);
/// How often failures are counted, and how long a pause or a cancel may stay unnoticed.
const LOOK: Duration = Duration::from_millis(500);
/// Steps in a second where a rate is kept: a slow rate is even, a pause is quick.
const STEPS_PER_SECOND: u32 = 5;
/// A rate of failures is taken of so many at least, so that the first failure alone says nothing.
const SAMPLE_MIN: u64 = 20;
/// How often in a row a step may fail for reasons that pass, with [`LOOK`] in between.
const TRIES_MAX: u32 = 10;

/// Begins an operation. `Ok(None)`: nothing is meant.
///
/// # Errors
/// [`OpsError::Refused`] where the pace makes no sense for the verb; [`OpsError::NotFound`] where
/// the endpoint to which messages go is not known.
pub async fn begin(
    admin: &dyn StoreAdmin,
    operator: &Operator,
    verb: Verb,
    selected: Selected,
    pace: Pace,
) -> Result<Option<StoredOperation>, OpsError> {
    check_pace(&verb, &pace)?;
    demand_place(admin, &verb).await?;
    let new = NewOperation {
        who: operator.who.clone(),
        why: operator.why.clone(),
        verb,
        selected,
        pace,
    };
    Ok(admin.begin_operation(&new).await?)
}

/// Refuses a place that there is not.
///
/// # Errors
/// [`OpsError::NotFound`] where something is to go to an endpoint that no host ever had.
pub async fn demand_place(admin: &dyn StoreAdmin, verb: &Verb) -> Result<(), OpsError> {
    let endpoint = match verb {
        Verb::Redrive { to } => to.as_deref(),
        Verb::Rows(RowVerb::Readdress { to }) => to.strip_prefix('@'),
        _ => None,
    };
    match endpoint {
        Some(name) => endpoints::find(admin, name).await.map(|_| ()),
        None => Ok(()),
    }
}

fn check_pace(verb: &Verb, pace: &Pace) -> Result<(), OpsError> {
    let refused = |fact: &str| Err(OpsError::Refused(fact.to_owned()));
    let watches = pace.canary > 0 || pace.failures_percent_max.is_some();
    if watches && !matches!(verb, Verb::Redrive { .. }) {
        return refused("only what is retried can fail; leave the canary out [SB0308]");
    }
    if pace.failures_percent_max.is_some_and(|most| most > 100) {
        return refused("the failures that are allowed are 0 to 100 of a hundred [SB0308]");
    }
    if pace.rate == Some(0) {
        return refused("a rate of 0 never comes to an end; pause the operation instead [SB0308]");
    }
    Ok(())
}

/// An operation with what became of its messages.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// The operation.
    pub operation: StoredOperation,
    /// What became of what it redrove.
    pub redriven: Redriven,
}

/// Reads one operation.
///
/// # Errors
/// [`OpsError::NotFound`] when there is none of this id.
pub async fn show(admin: &dyn StoreAdmin, id: i64) -> Result<Progress, OpsError> {
    Ok(Progress {
        operation: find(admin, id).await?,
        redriven: admin.redriven(id).await?,
    })
}

async fn find(admin: &dyn StoreAdmin, id: i64) -> Result<StoredOperation, OpsError> {
    let found = admin.operations(Some(id), Page::latest(1)).await?;
    found.into_iter().next().ok_or_else(|| {
        OpsError::NotFound(format!(
            "there is no operation {id}; `sagabus operations list` shows those there are \
             [SB0401]"
        ))
    })
}

/// Pauses or cancels an operation. Whoever drives it notices at the next step.
///
/// # Errors
/// [`OpsError::NotFound`] when there is none of this id; [`OpsError::Refused`] when the command
/// means nothing in its state.
pub async fn tell(
    admin: &dyn StoreAdmin,
    operator: &Operator,
    id: i64,
    command: Command,
) -> Result<StoredOperation, OpsError> {
    let told = Told {
        id,
        command,
        who: operator.who.clone(),
        why: operator.why.clone(),
    };
    if let Some(operation) = admin.tell(&told).await? {
        return Ok(operation);
    }
    Err(means_nothing(&find(admin, id).await?, command))
}

/// Reads the operation that a command would be for, and changes nothing.
///
/// # Errors
/// As those of [`tell`], and of [`Drive::take`] where it is to be resumed.
pub async fn look(
    admin: &dyn StoreAdmin,
    now: Timestamp,
    id: i64,
    command: Command,
) -> Result<StoredOperation, OpsError> {
    let operation = find(admin, id).await?;
    let state = operation.state;
    if command == Command::Resume && state == OperationState::Running {
        return match operation.is_driven(now) {
            true => Err(is_driven(&operation)),
            false => Ok(operation),
        };
    }
    match command.from_states().contains(&state.as_str()) {
        true => Ok(operation),
        false => Err(means_nothing(&operation, command)),
    }
}

fn means_nothing(operation: &StoredOperation, command: Command) -> OpsError {
    OpsError::Refused(format!(
        "operation {} is {}; it cannot {} [SB0403]",
        operation.id,
        operation.state.as_str(),
        match command {
            Command::Pause => "be paused",
            Command::Resume => "be resumed",
            Command::Cancel => "be cancelled",
        }
    ))
}

fn is_driven(operation: &StoredOperation) -> OpsError {
    let by = operation.driver.as_deref().unwrap_or("somebody");
    OpsError::Refused(format!(
        "operation {} is driven by {by}; pause it first, or wait {} seconds where that process was \
         killed [SB0406]",
        operation.id,
        LEASE.as_secs()
    ))
}

/// Drives an operation: one step per turn, at its pace, until it is not running any more.
///
/// Dropping it stops between two steps; after [`LEASE`] anybody may go on.
pub struct Drive<'a> {
    admin: &'a dyn StoreAdmin,
    operator: &'a Operator,
    wheel: Wheel,
    operation: StoredOperation,
    /// When the next step may be made, where a rate is kept.
    due: Instant,
    looked: Option<Instant>,
    redriven: Redriven,
    /// Failures that whoever resumed it knew of: they count no more, nor does the canary.
    forgiven: Option<(u64, u64)>,
    is_canary_handled: bool,
    failed_steps: u32,
}

impl fmt::Debug for Drive<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drive")
            .field("operation", &self.operation)
            .finish_non_exhaustive()
    }
}

impl<'a> Drive<'a> {
    /// Takes the wheel of an operation; one that is paused is resumed.
    ///
    /// # Errors
    /// [`OpsError::Refused`] where it is over, or somebody drives it; [`OpsError::NotFound`] where
    /// there is none.
    pub async fn take(
        admin: &'a dyn StoreAdmin,
        operator: &'a Operator,
        id: i64,
    ) -> Result<Self, OpsError> {
        let found = find(admin, id).await?;
        let mut forgiven = None;
        if found.state != OperationState::Running {
            let failed = failed(admin.redriven(id).await?);
            forgiven = Some((failed, found.taken));
            tell(admin, operator, id, Command::Resume).await?;
        }
        let driver = format!("{} (process {})", operator.who, std::process::id());
        let Some(operation) = admin.take_wheel(id, &driver, LEASE).await? else {
            return Err(is_driven(&find(admin, id).await?));
        };
        Ok(Self {
            admin,
            operator,
            wheel: Wheel {
                id,
                epoch: operation.epoch,
                lease: LEASE,
            },
            due: Instant::now(),
            looked: None,
            redriven: Redriven::default(),
            is_canary_handled: operation.taken > u64::from(operation.pace.canary)
                || forgiven.is_some_and(|(_, taken)| taken > 0),
            forgiven,
            failed_steps: 0,
            operation,
        })
    }

    /// Returns the operation as the last turn left it.
    pub fn operation(&self) -> &StoredOperation {
        &self.operation
    }

    /// Returns what became of what it redrove, when that was last looked at.
    pub fn redriven(&self) -> Redriven {
        self.redriven
    }

    /// Does what is next: waits for its time, looks at failures, or makes a step. Says whether the
    /// operation goes on.
    ///
    /// # Errors
    /// [`OpsError::Refused`] when somebody else took the wheel; [`OpsError::Store`] when the store
    /// does not answer for long: what was done is done, and resuming goes on.
    ///
    /// # Cancel safety
    /// A step is one transaction: whole or not at all.
    pub async fn turn(&mut self) -> Result<bool, OpsError> {
        match self.next().await {
            Ok(()) => self.failed_steps = 0,
            Err(OpsError::Store(error)) if error.is_transient() => {
                self.failed_steps += 1;
                if self.failed_steps == TRIES_MAX {
                    return Err(error.into());
                }
                sleep(LOOK).await;
            }
            Err(error) => return Err(error),
        }
        Ok(self.operation.state == OperationState::Running)
    }

    async fn next(&mut self) -> Result<(), OpsError> {
        if self.watches() && self.looked.is_none_or(|at| at.elapsed() >= LOOK) {
            self.redriven = self.admin.redriven(self.wheel.id).await?;
            self.looked = Some(Instant::now());
            if let Some(note) = self.too_many_failures() {
                return self.pause(note).await;
            }
            let is_quiet = self.redriven.waiting == 0 && self.redriven.retrying == 0;
            self.is_canary_handled |= self.is_behind_canary() && is_quiet;
        }
        if self.is_behind_canary() && !self.is_canary_handled {
            sleep(LOOK).await;
            return self.step(0).await;
        }
        if self.due > Instant::now() + LOOK {
            sleep(LOOK).await;
            return self.step(0).await;
        }
        sleep_until(self.due).await;
        let taken_before = self.operation.taken;
        self.step(self.count()).await?;
        self.wait_for(self.operation.taken - taken_before);
        Ok(())
    }

    /// Says whether failures are of interest.
    fn watches(&self) -> bool {
        let has_begun = self.operation.taken > 0;
        let is_limited = self.operation.pace.failures_percent_max.is_some();
        has_begun && (is_limited || (self.is_behind_canary() && !self.is_canary_handled))
    }

    /// Says whether the canary went and the others did not.
    fn is_behind_canary(&self) -> bool {
        let canary = u64::from(self.operation.pace.canary);
        canary > 0 && self.operation.taken == canary.min(self.operation.total)
    }

    fn too_many_failures(&self) -> Option<String> {
        let (failed_before, taken_before) = self.forgiven.unwrap_or_default();
        let failed = failed(self.redriven).saturating_sub(failed_before);
        let taken = self.operation.taken - taken_before;
        let most = self.operation.pace.failures_percent_max;
        let of = match self.is_canary_handled || self.operation.pace.canary == 0 {
            true => taken.max(SAMPLE_MIN),
            false => taken,
        };
        let is_too_many = failed * 100 > u64::from(most.unwrap_or(0)) * of;
        is_too_many.then(|| format!("{failed} of {taken} failed again"))
    }

    /// Puts the next step off as long as the rate asks for so many. What was late by more than a
    /// step is not made up for: a pause must not end in a burst.
    fn wait_for(&mut self, count: u64) {
        if let Some(rate) = self.operation.pace.rate {
            let late_max = Duration::from_secs(1) / STEPS_PER_SECOND;
            let earliest = Instant::now() - late_max;
            let pause = Duration::from_secs_f64(count as f64 / f64::from(rate));
            self.due = self.due.max(earliest) + pause;
        }
    }

    /// Says how many the next step takes.
    fn count(&self) -> u32 {
        let rate = self.operation.pace.rate;
        let most = rate.map_or(PAGE_MAX, |rate| (rate / STEPS_PER_SECOND).max(1));
        let canary = u64::from(self.operation.pace.canary);
        let left = canary.saturating_sub(self.operation.taken);
        match u32::try_from(left) {
            Ok(left) if left > 0 => most.min(left),
            _ => most,
        }
    }

    async fn step(&mut self, count: u32) -> Result<(), OpsError> {
        if let Some(operation) = self.admin.step(self.wheel, count).await? {
            self.operation = operation;
            return Ok(());
        }
        self.operation = find(self.admin, self.wheel.id).await?;
        if self.operation.state == OperationState::Running {
            let by = self.operation.driver.as_deref().unwrap_or("somebody");
            return Err(OpsError::Refused(format!(
                "operation {} is driven by {by} now [SB0406]",
                self.wheel.id
            )));
        }
        Ok(())
    }

    /// Pauses by itself, unless somebody was faster.
    async fn pause(&mut self, note: String) -> Result<(), OpsError> {
        let told = Told {
            id: self.wheel.id,
            command: Command::Pause,
            who: self.operator.who.clone(),
            why: note,
        };
        let told: Result<_, StoreError> = self.admin.tell(&told).await;
        self.operation = match told? {
            Some(operation) => operation,
            None => find(self.admin, self.wheel.id).await?,
        };
        Ok(())
    }
}

/// Counts what failed again.
fn failed(redriven: Redriven) -> u64 {
    redriven.retrying + redriven.died_again
}
