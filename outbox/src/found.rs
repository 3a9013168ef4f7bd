//! Rows that were found, as what they are for operators: the same in every engine.

use bytes::Bytes;
use sagabus_core::admin::{
    Accounts, AuditEntry, DeadLetterGroup, DeadLetterStatus, DestinationOverview, End,
    InstanceOverview, InstanceShape, MissingMessage, OperationState, Origin, Pace,
    StoredDeadLetter, StoredHistory, StoredHost, StoredOperation, StoredRow, StoredSent, TakenOver,
    Tally, Verb, WaitingShape, version_from_header,
};
use sagabus_core::endpoint::EndpointId;
use sagabus_core::envelope::{Envelope, Timer};
use sagabus_core::unit_of_work::{HistoryEntry, InstanceStatus, Label};
use sagabus_core::{CorrelationId, HostId, InstanceId, MessageId, Timestamp};
use serde_json::Value;
use sqlx::Row;
use uuid::Uuid;

use crate::row;

/// Declares how columns are read, by their places, and does so for each engine's rows.
macro_rules! columns {
    ($($name:ident: $type:ty,)*) => {
        /// A row that was found; columns are read by their places.
        pub(crate) trait Found {
            $(fn $name(&self, at: usize) -> Result<$type, sqlx::Error>;)*
            fn uuid(&self, at: usize) -> Result<Uuid, sqlx::Error>;
            /// A list, in the order of its words.
            fn texts(&self, at: usize) -> Result<Vec<String>, sqlx::Error>;
        }

        #[cfg(feature = "postgres")]
        impl Found for sqlx::postgres::PgRow {
            $(fn $name(&self, at: usize) -> Result<$type, sqlx::Error> {
                self.try_get(at)
            })*

            fn uuid(&self, at: usize) -> Result<Uuid, sqlx::Error> {
                self.try_get(at)
            }

            // Written by `array_agg(distinct ..)`, which sorts.
            fn texts(&self, at: usize) -> Result<Vec<String>, sqlx::Error> {
                self.try_get(at)
            }
        }

        #[cfg(feature = "sqlite")]
        impl Found for sqlx::sqlite::SqliteRow {
            $(fn $name(&self, at: usize) -> Result<$type, sqlx::Error> {
                self.try_get(at)
            })*

            fn uuid(&self, at: usize) -> Result<Uuid, sqlx::Error> {
                Ok(row::uuid_from_bytes(self.try_get(at)?))
            }

            fn texts(&self, at: usize) -> Result<Vec<String>, sqlx::Error> {
                let stored: String = self.try_get(at)?;
                let mut texts: Vec<String> = serde_json::from_str(&stored).unwrap_or_default();
                texts.sort();
                Ok(texts)
            }
        }
    };
}

columns! {
    flag: bool,
    small: i32,
    int: i64,
    maybe_int: Option<i64>,
    text: String,
    maybe_text: Option<String>,
    bytes: Vec<u8>,
    maybe_bytes: Option<Vec<u8>>,
}

/// Reads a row of the outbox.
pub(crate) fn row(found: &impl Found) -> Result<StoredRow, sqlx::Error> {
    let at = |column: usize| -> Result<Option<Timestamp>, sqlx::Error> {
        let micros: Option<i64> = found.maybe_int(column)?;
        Ok(micros.map(Timestamp::from_micros))
    };
    let attempts: Option<Vec<u8>> = found.maybe_bytes(13)?;
    Ok(StoredRow {
        id: found.int(0)?,
        destination: found.text(1)?,
        envelope: Envelope {
            id: MessageId::from_uuid(found.uuid(2)?),
            message_type: found.text(3)?.into(),
            headers: row::headers_from_json(&found.bytes(4)?),
            body: Bytes::from(found.bytes(5)?),
        },
        body_bytes: found.int(6)?.cast_unsigned(),
        key: found.maybe_text(7)?,
        available_at: Timestamp::from_micros(found.int(8)?),
        due_at: at(9)?,
        expires_at: at(10)?,
        epoch: found.small(11)?,
        failures: found.small(12)?,
        attempts: row::attempts_from_json(attempts.as_deref()),
        parked: found.maybe_text(14)?,
        timer: timer(found)?,
        created_at: Timestamp::from_micros(found.int(19)?),
    })
}

/// Reads a message that a broker took.
pub(crate) fn sent(found: &impl Found) -> Result<StoredSent, sqlx::Error> {
    Ok(StoredSent {
        id: found.int(0)?,
        message: MessageId::from_uuid(found.uuid(1)?),
        message_type: found.text(2)?,
        destination: found.text(3)?,
        key: found.maybe_text(4)?,
        sent_at: Timestamp::from_micros(found.int(5)?),
        kept_until: Timestamp::from_micros(found.int(6)?),
    })
}

fn timer(found: &impl Found) -> Result<Option<Timer>, sqlx::Error> {
    let kind: Option<String> = found.maybe_text(15)?;
    let key: Option<String> = found.maybe_text(16)?;
    let name: Option<String> = found.maybe_text(17)?;
    let generation: Option<i64> = found.maybe_int(18)?;
    let (Some(kind), Some(key), Some(name)) = (kind, key, name) else {
        return Ok(None);
    };
    Ok(Some(Timer {
        owner: InstanceId {
            kind: kind.into(),
            key: key.into(),
        },
        name,
        generation: generation.unwrap_or_default().cast_unsigned(),
    }))
}

/// Reads what waits for a destination.
pub(crate) fn destination(found: &impl Found) -> Result<DestinationOverview, sqlx::Error> {
    let at = |column: usize| -> Result<Option<Timestamp>, sqlx::Error> {
        let micros: Option<i64> = found.maybe_int(column)?;
        Ok(micros.map(Timestamp::from_micros))
    };
    Ok(DestinationOverview {
        destination: found.text(0)?,
        waiting: found.int(1)?.cast_unsigned(),
        due: found.int(2)?.cast_unsigned(),
        due_since: at(3)?,
        oldest_at: at(4)?,
        parked: found.int(5)?.cast_unsigned(),
    })
}

/// Reads a dead letter.
pub(crate) fn dead_letter(found: &impl Found) -> Result<StoredDeadLetter, sqlx::Error> {
    let kind: Option<String> = found.maybe_text(10)?;
    let instance_key: Option<String> = found.maybe_text(11)?;
    let attempts: Vec<u8> = found.bytes(13)?;
    Ok(StoredDeadLetter {
        id: found.int(0)?,
        status: DeadLetterStatus::from_stored(&found.text(1)?),
        endpoint: found.text(2)?,
        envelope: Envelope {
            id: MessageId::from_uuid(found.uuid(3)?),
            message_type: found.text(4)?.into(),
            headers: row::headers_from_json(&found.bytes(5)?),
            body: Bytes::from(found.bytes(6)?),
        },
        body_bytes: found.int(7)?.cast_unsigned(),
        reason: found.text(8)?,
        key: found.maybe_text(9)?,
        instance: kind.zip(instance_key).map(|(kind, key)| InstanceId {
            kind: kind.into(),
            key: key.into(),
        }),
        fingerprint: found.text(12)?,
        attempts: row::attempts_from_json(Some(&attempts)),
        at: Timestamp::from_micros(found.int(14)?),
    })
}

/// Reads a group of dead letters.
pub(crate) fn group(found: &impl Found) -> Result<DeadLetterGroup, sqlx::Error> {
    Ok(DeadLetterGroup {
        endpoint: found.text(0)?,
        fingerprint: found.text(1)?,
        count: found.int(2)?.cast_unsigned(),
        first_at: Timestamp::from_micros(found.int(3)?),
        last_at: Timestamp::from_micros(found.int(4)?),
        example: found.int(5)?,
    })
}

/// Reads how many dead letters there are.
pub(crate) fn tally(found: &impl Found) -> Result<Tally, sqlx::Error> {
    Ok(Tally {
        count: found.int(0)?.cast_unsigned(),
        first_at: found.maybe_int(1)?.map(Timestamp::from_micros),
        last_at: found.maybe_int(2)?.map(Timestamp::from_micros),
        id_max: found.maybe_int(3)?,
    })
}

/// Reads a host.
pub(crate) fn host(found: &impl Found) -> Result<StoredHost, sqlx::Error> {
    Ok(StoredHost {
        id: HostId::from_uuid(found.uuid(0)?),
        name: found.text(1)?,
        started_at: Timestamp::from_micros(found.int(2)?),
        heartbeat_at: Timestamp::from_micros(found.int(3)?),
        stopped_at: found.maybe_int(6)?.map(Timestamp::from_micros),
        behind: found.maybe_int(5)?,
        definitions: row::value_from_json(&found.bytes(4)?),
    })
}

/// Reads what a unit did.
pub(crate) fn history(found: &impl Found) -> Result<StoredHistory, sqlx::Error> {
    let kind: Option<String> = found.maybe_text(7)?;
    let key: Option<String> = found.maybe_text(8)?;
    let version: Option<i64> = found.maybe_int(9)?;
    let instance = kind.zip(key).map(|(kind, key)| InstanceId {
        kind: kind.into(),
        key: key.into(),
    });
    Ok(StoredHistory {
        id: found.int(0)?,
        at: Timestamp::from_micros(found.int(1)?),
        endpoint: found.maybe_text(2)?,
        entry: HistoryEntry {
            endpoint: EndpointId(found.small(3)?),
            message_id: MessageId::from_uuid(found.uuid(4)?),
            message_type: found.text(5)?.into(),
            correlation_id: CorrelationId::from_uuid(found.uuid(6)?),
            instance: instance.zip(version),
            detail: row::detail_from_json(&found.bytes(10)?),
        },
    })
}

/// Reads a label.
pub(crate) fn label(found: &impl Found) -> Result<Label, sqlx::Error> {
    Ok(Label {
        name: found.text(0)?.into(),
        value: found.text(1)?,
    })
}

/// Reads an instance without its data.
pub(crate) fn overview(found: &impl Found) -> Result<InstanceOverview, sqlx::Error> {
    Ok(InstanceOverview {
        id: InstanceId {
            kind: found.text(0)?.into(),
            key: found.text(1)?.into(),
        },
        version: found.int(2)?,
        status: match found.flag(3)? {
            true => InstanceStatus::Completed,
            false => InstanceStatus::Running,
        },
        state: found.maybe_text(4)?,
        created_at: Timestamp::from_micros(found.int(5)?),
        updated_at: Timestamp::from_micros(found.int(6)?),
    })
}

/// Reads where a message was taken over.
pub(crate) fn taken_over(found: &impl Found) -> Result<TakenOver, sqlx::Error> {
    let handled = found.maybe_int(0)?.map(|_| history(found)).transpose()?;
    Ok(TakenOver {
        message: MessageId::from_uuid(found.uuid(11)?),
        endpoint: found.maybe_text(12)?,
        at: Timestamp::from_micros(found.int(13)?),
        handled,
    })
}

/// Reads what an operator changed.
pub(crate) fn audit(found: &impl Found) -> Result<AuditEntry, sqlx::Error> {
    let mut detail = row::value_from_json(&found.bytes(5)?);
    // What came of it later stands beside what was asked for.
    if let (Some(outcome), Some(asked)) = (found.maybe_bytes(7)?, detail.get_mut(0))
        && let (Some(asked), Value::Object(outcome)) =
            (asked.as_object_mut(), row::value_from_json(&outcome))
    {
        asked.extend(outcome);
    }
    Ok(AuditEntry {
        id: found.int(0)?,
        at: Timestamp::from_micros(found.int(1)?),
        who: found.text(2)?,
        action: found.text(3)?,
        why: found.text(4)?,
        operation: found.maybe_int(6)?,
        detail,
    })
}

/// Reads a sum of instances.
pub(crate) fn instance_shape(found: &impl Found) -> Result<InstanceShape, sqlx::Error> {
    Ok(InstanceShape {
        kind: found.text(0)?,
        state: found.maybe_text(1)?,
        schema_version: found.small(2)?,
        count: found.int(3)?.cast_unsigned(),
        key: found.text(4)?,
    })
}

/// Reads a sum of what waits at an endpoint.
pub(crate) fn waiting_shape(found: &impl Found) -> Result<WaitingShape, sqlx::Error> {
    Ok(WaitingShape {
        endpoint: found.text(0)?.trim_start_matches('@').to_owned(),
        message_type: found.text(1)?,
        version: version_from_header(found.maybe_text(2)?.as_deref()),
        timer_of: found.maybe_text(3)?,
        count: found.int(4)?.cast_unsigned(),
    })
}

/// Reads a bulk change.
pub(crate) fn operation(found: &impl Found) -> Result<StoredOperation, sqlx::Error> {
    let unsigned = |at: usize| found.int(at).map(i64::cast_unsigned);
    let (rate, percent) = (found.maybe_int(4)?, found.maybe_int(6)?);
    Ok(StoredOperation {
        id: found.int(0)?,
        state: OperationState::from_stored(&found.text(1)?),
        verb: Verb::from_stored(&found.text(2)?, found.maybe_text(3)?),
        pace: Pace {
            rate: rate.and_then(|rate| u32::try_from(rate).ok()),
            canary: u32::try_from(found.int(5)?).unwrap_or(u32::MAX),
            failures_percent_max: percent.and_then(|percent| u8::try_from(percent).ok()),
        },
        who: found.text(7)?,
        why: found.text(8)?,
        selection: row::value_from_json(&found.bytes(9)?),
        endpoints: found.texts(10)?,
        total: unsigned(11)?,
        taken: unsigned(12)?,
        changed: unsigned(13)?,
        note: found.maybe_text(14)?,
        driver: found.maybe_text(15)?,
        lease_until: found.maybe_int(16)?.map(Timestamp::from_micros),
        epoch: found.small(17)?,
        created_at: Timestamp::from_micros(found.int(18)?),
        updated_at: Timestamp::from_micros(found.int(19)?),
    })
}

/// Reads the accounts: first since when, then the lines in their order, then what is missing.
pub(crate) fn accounts(all: &[impl Found]) -> Result<Accounts, sqlx::Error> {
    let mut accounts = Accounts::since(Timestamp::from_micros(0));
    for found in all {
        match found.small(0)? {
            0 => accounts.since = Timestamp::from_micros(found.int(7)?),
            1 => {
                let origin = Origin {
                    is_accepted: found.flag(3)?,
                    end: End::from_stored(&found.text(4)?),
                };
                let (name, message_type) = (found.text(1)?, found.maybe_text(2)?);
                let count = found.int(5)?.cast_unsigned();
                accounts.add(&name, message_type.as_deref(), origin, count);
            }
            _ => accounts.missing.push(MissingMessage {
                endpoint: found.text(1)?,
                message: MessageId::from_uuid(found.uuid(6)?),
                message_type: found.maybe_text(2)?,
                at: Timestamp::from_micros(found.int(7)?),
            }),
        }
    }
    accounts.missing.sort_by_key(|one| (one.at, one.message));
    Ok(accounts)
}
