//! What databases hold before a run.

use anyhow::Result;
use sqlx::{QueryBuilder, Sqlite};
use uuid::Uuid;

use crate::bare;
use crate::services::{Filling, Place};
use crate::source::{Raw, envelope};
use crate::workload::{ACCOUNTS, LABEL, NOTE};

/// Rows in one statement.
const PART: u64 = 1_000;

/// Accounts that exist, as the machine stores them.
pub(crate) fn accounts() -> Filling {
    let filling = so_many_accounts("accounts", ACCOUNTS, More::Nothing);
    let postgres = filling.postgres + bare::postgres::SETUP;
    Filling {
        postgres,
        ..filling
    }
}

/// What an account's data holds beyond what every account has.
#[derive(Clone, Copy, Debug)]
pub(crate) enum More {
    /// About 256 bytes in all.
    Nothing,
    /// So many lines of about 105 bytes, as orders have them: words that come again, numbers that
    /// do not.
    Lines(u64),
    /// So many times 32 hexadecimal digits by chance.
    Digits(u64),
}

impl More {
    /// An expression on PostgreSQL, in which `i` is the account.
    fn postgres(self) -> String {
        let (part, count) = match self {
            Self::Nothing => return "''".to_owned(),
            Self::Lines(count) => (
                "format('line %s: article %s of the spring catalogue, quantity %s, %s cents, not yet \
                 sent, parcel %s; ', j, 1000 + (i * 31 + j * 7919) % 9000, 1 + (i + j) % 7, \
                 (i * 17 + j * 101) % 50000, left(md5(i::text || '-' || j::text), 12))",
                count,
            ),
            Self::Digits(count) => ("md5(i::text || '-' || j::text)", count),
        };
        format!("(select string_agg({part}, '') from generate_series(1, {count}) j)")
    }

    /// An expression on SQLite, in which `i` is the account.
    fn sqlite(self) -> String {
        match self {
            Self::Nothing => "''".to_owned(),
            Self::Lines(count) => format!(
                "(with recursive l(j) as (select 1 union all select j + 1 from l where j < {count}) \
                 select group_concat(printf('line %d: article %d of the spring catalogue, quantity \
                 %d, %d cents, not yet sent, parcel %s; ', j, 1000 + (i * 31 + j * 7919) % 9000, \
                 1 + (i + j) % 7, (i * 17 + j * 101) % 50000, lower(hex(randomblob(6)))), '') from l)"
            ),
            Self::Digits(count) => format!("lower(hex(randomblob({})))", count * 16),
        }
    }
}

/// So many accounts.
pub(crate) fn so_many_accounts(name: &'static str, count: u64, more: More) -> Filling {
    let data = format!(
        "'{{\"account\":\"account-' || NUMBER || '\",\"balance\":0,\"changes\":0,\"note\":\"{NOTE}' \
         || MORE || '\"}}'"
    );
    let origin = "'{\"reply_to\":null,\
        \"correlation_id\":\"018bcfe5-6800-7000-8000-000000000000\",\
        \"message_id\":\"018bcfe5-6800-7000-8000-000000000000\"}'";
    let number = "lpad(i::text, 9, '0')";
    let postgres = format!(
        "insert into sagabus.instance (kind, key, version, completed, state, schema_version, data, \
         timers, origin, created_at, updated_at) \
         select 'account', 'account-' || {number}, 1, false, 'open', 1, \
         convert_to({}, 'UTF8'), '{{}}', convert_to({origin}, 'UTF8'), 1, 1 \
         from generate_series(0, {count}::bigint - 1) i; ",
        data.replace("NUMBER", number)
            .replace("MORE", &more.postgres()),
    );
    let number = "printf('%09d', i)";
    let sqlite = format!(
        "with recursive n(i) as (select 0 union all select i + 1 from n where i + 1 < {count}) \
         insert into sagabus_instance (kind, key, version, completed, state, schema_version, data, \
         timers, origin, created_at, updated_at) \
         select 'account', 'account-' || {number}, 1, 0, 'open', 1, cast({} as blob), x'7b7d', \
         cast({origin} as blob), 1, 1 from n",
        data.replace("NUMBER", number)
            .replace("MORE", &more.sqlite())
    );
    Filling {
        name: name.into(),
        postgres,
        sqlite,
    }
}

/// Messages for an endpoint that are due in an hour or later.
pub(crate) fn for_later(count: u64) -> Filling {
    let columns = "message_id, message_type, destination, headers, body, available_at, due_at, \
        created_at";
    let due = "3600000000 + i * 1000";
    let postgres = format!(
        "insert into sagabus.outbox ({columns}) \
         select gen_random_uuid(), 'bench.ping', '@accounts', '{{}}', '{{}}', n.now + {due}, \
         n.now + {due}, 1 from generate_series(1, {count}) i, \
         (select (extract(epoch from clock_timestamp()) * 1000000)::bigint as now) n"
    );
    let now = "unixepoch() * 1000000";
    let sqlite = format!(
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < {count}) \
         insert into sagabus_outbox ({columns}) \
         select randomblob(16), 'bench.ping', '@accounts', x'7b7d', x'7b7d', {now} + {due}, \
         {now} + {due}, 1 from n"
    );
    Filling {
        name: "for_later".into(),
        postgres,
        sqlite,
    }
}

/// An insert of messages for a broker, on PostgreSQL, to each address in turn; `count` is an
/// expression.
pub(crate) fn outgoing(addresses: &[String], count: &str, note: &str) -> String {
    let headers = "'{\"content-type\":\"application/json\",\"sagabus-kind\":\"command\",\
        \"sagabus-sent-at\":\"1700000000000000\",\"sagabus-correlation-id\":\"' || m.id || '\",\
        \"sagabus-causation-id\":\"' || m.id || '\"}'";
    let body = format!(
        "'{{\"account\":\"account-' || lpad(m.i::text, 9, '0') \
         || '\",\"cents\":100,\"note\":\"{note}\"}}'"
    );
    let (each, addresses) = (addresses.len(), addresses.join(","));
    format!(
        "insert into sagabus.outbox (message_id, message_type, destination, headers, body, \
         available_at, created_at) \
         select m.id, 'bench.send-statement', ('{{{addresses}}}'::text[])[(1 + m.i % {each})::int], \
         convert_to({headers}, 'UTF8'), convert_to({body}, 'UTF8'), \
         (extract(epoch from clock_timestamp()) * 1000000)::bigint, 1 \
         from (select i, gen_random_uuid() as id \
         from generate_series(0, ({count})::bigint - 1) i) m"
    )
}

/// The user's own table, empty, and what the programs without groups need.
pub(crate) fn payments() -> Filling {
    Filling {
        name: "payments".into(),
        postgres: bare::postgres_single::SETUP.to_owned(),
        sqlite: bare::sqlite_single::SETUP.to_owned(),
    }
}

/// An inbox that knows messages, with identities in the order of time as ours are.
pub(crate) fn inbox(count: u64) -> Filling {
    let postgres = format!(
        "insert into sagabus.inbox (message_id, endpoint_id, accepted_at) \
         select (lpad(to_hex(1700000000000 + i / 10), 12, '0') || '7' || substr(md5(i::text), 1, 3) \
         || '8' || substr(md5(i::text), 4, 15))::uuid, 1, \
         (extract(epoch from clock_timestamp()) * 1000000)::bigint \
         from generate_series(1, {count}) i"
    );
    let sqlite = format!(
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < {count}) \
         insert into sagabus_inbox (message_id, endpoint_id, accepted_at) \
         select unhex(printf('%012x', 1700000000000 + i / 10) || '7' \
         || substr(hex(randomblob(2)), 1, 3) || '8' || substr(hex(randomblob(8)), 1, 15)), 1, \
         unixepoch() * 1000000 from n"
    );
    Filling {
        name: "inbox".into(),
        postgres,
        sqlite,
    }
}

/// What units did with messages, an entry each.
pub(crate) fn history(count: u64) -> Filling {
    let columns = "at, endpoint_id, message_id, message_type, correlation_id, detail";
    let detail = r#"{"sent":[],"attempt":1,"micros":100}"#;
    let postgres = format!(
        "insert into sagabus.history ({columns}) \
         select (extract(epoch from clock_timestamp()) * 1000000)::bigint, 1, gen_random_uuid(), \
         'bench.charge', gen_random_uuid(), convert_to('{detail}', 'UTF8') \
         from generate_series(1, {count}) i"
    );
    let sqlite = format!(
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < {count}) \
         insert into sagabus_history ({columns}) \
         select unixepoch() * 1000000, 1, randomblob(16), 'bench.charge', randomblob(16), \
         cast('{detail}' as blob) from n"
    );
    Filling {
        name: "history".into(),
        postgres,
        sqlite,
    }
}

/// Instances with a label each.
pub(crate) fn labels(count: u64) -> Filling {
    let accounts = so_many_accounts("labels", count, More::Nothing);
    let insert = |table: &str, instance: &str| {
        format!(
            "; insert into {table} (kind, name, value, key) \
             select 'labelled', '{LABEL}', 'old-' || key, key from {instance}"
        )
    };
    Filling {
        postgres: accounts.postgres + &insert("sagabus.label", "sagabus.instance"),
        sqlite: accounts.sqlite + &insert("sagabus_label", "sagabus_instance"),
        ..accounts
    }
}

/// One key whose first row is in somebody's hands and whose others are due, older than what other
/// keys have.
pub(crate) fn long_line(followers: u64, others: u64) -> Filling {
    let columns = "message_id, message_type, destination, key, per_key, headers, body, \
        available_at, created_at";
    let postgres = format!(
        "insert into sagabus.outbox ({columns}) \
         select gen_random_uuid(), 'bench.charge', '@accounts', \
         case when i <= {followers} then 'blocked' else 'key-' || i end, true, '{{}}', '{{}}', \
         case when i = 0 then 9000000000000000 else 1 + i end, 1 \
         from generate_series(0, {followers} + {others}) i"
    );
    let sqlite = format!(
        "with recursive n(i) as (select 0 union all select i + 1 from n \
         where i < {followers} + {others}) insert into sagabus_outbox ({columns}) \
         select randomblob(16), 'bench.charge', '@accounts', \
         iif(i <= {followers}, 'blocked', 'key-' || i), 1, x'7b7d', x'7b7d', \
         iif(i = 0, 9000000000000000, 1 + i), 1 from n"
    );
    Filling {
        name: "line".into(),
        postgres,
        sqlite,
    }
}

/// Dead letters of one endpoint, each with a key of its own, in forty kinds of failure.
pub(crate) fn dead_letters(count: u64) -> Filling {
    let columns = "at, endpoint, message_id, message_type, reason, key, headers, body, attempts, \
        fingerprint";
    let attempts = r#"[{"at":1,"host":"bench","error":"the gateway answered 503"}]"#;
    let postgres = format!(
        "insert into sagabus.dead_letter ({columns}) \
         select i, 'payments', gen_random_uuid(), 'bench.charge', 'attempts_exhausted', \
         'key-' || i, '{{}}', convert_to(repeat('x', 200), 'UTF8'), \
         convert_to('{attempts}', 'UTF8'), \
         'attempts_exhausted: gateway ' || (i % 40) || ' answered #' \
         from generate_series(1, {count}) i"
    );
    let sqlite = format!(
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < {count}) \
         insert into sagabus_dead_letter ({columns}) \
         select i, 'payments', randomblob(16), 'bench.charge', 'attempts_exhausted', \
         'key-' || i, x'7b7d', cast(printf('%0200d', 0) as blob), cast('{attempts}' as blob), \
         'attempts_exhausted: gateway ' || (i % 40) || ' answered #' from n"
    );
    Filling {
        name: "letters".into(),
        postgres,
        sqlite,
    }
}

/// Messages for an endpoint, as rows that wait.
pub(crate) async fn own_rows(
    place: &Place,
    endpoint: &str,
    count: u64,
    make: fn(u64) -> Raw,
) -> Result<()> {
    let destination = format!("@{endpoint}");
    let mut at = 0;
    while at < count {
        let end = count.min(at + PART);
        let raws: Vec<Raw> = (at..end).map(make).collect();
        match place {
            Place::Postgres { .. } => insert_postgres(place, &destination, raws).await?,
            Place::Sqlite { .. } => insert_sqlite(place, &destination, raws).await?,
        }
        at = end;
    }
    place.run("analyze").await?;
    place.settle().await
}

async fn insert_postgres(place: &Place, destination: &str, raws: Vec<Raw>) -> Result<()> {
    const INSERT: &str = "insert into sagabus.outbox (message_id, message_type, destination, \
        headers, body, available_at, created_at) \
        select m.id, m.type, $1, m.headers, m.body, \
        (extract(epoch from clock_timestamp()) * 1000000)::bigint, 1 \
        from unnest($2, $3, $4, $5) as m(id, type, headers, body)";
    let ids: Vec<Uuid> = raws.iter().map(|raw| raw.id).collect();
    let types: Vec<&str> = raws.iter().map(|raw| raw.message_type).collect();
    let bodies: Vec<Vec<u8>> = raws.iter().map(|raw| raw.body.to_vec()).collect();
    let headers = raws.into_iter().map(|raw| envelope(raw).headers.to_json());
    let headers: Vec<Vec<u8>> = headers.collect();
    let mut connection = place.postgres().await?;
    sqlx::query(INSERT)
        .bind(destination)
        .bind(ids)
        .bind(types)
        .bind(headers)
        .bind(bodies)
        .execute(&mut connection)
        .await?;
    Ok(())
}

async fn insert_sqlite(place: &Place, destination: &str, raws: Vec<Raw>) -> Result<()> {
    let now = sagabus_core::clock::now().as_micros();
    let mut connection = place.sqlite().await?;
    let mut insert = QueryBuilder::<Sqlite>::new(
        "insert into sagabus_outbox (message_id, message_type, destination, headers, body, \
        available_at, created_at) ",
    );
    insert.push_values(raws, |mut row, raw| {
        let (id, message_type, body) = (raw.id, raw.message_type, raw.body.to_vec());
        row.push_bind(id)
            .push_bind(message_type)
            .push_bind(destination)
            .push_bind(envelope(raw).headers.to_json())
            .push_bind(body)
            .push_bind(now)
            .push_bind(1);
    });
    insert.build().execute(&mut connection).await?;
    Ok(())
}
