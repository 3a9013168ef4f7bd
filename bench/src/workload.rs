//! The business of the bench: accounts that are charged and credited, and who is told about it.
//!
//! A charge sends one message, a credit two, so half of each makes one and a half per message.

use std::borrow::Cow;

use bytes::Bytes;
use sagabus_core::{Command, Event, Kind, Message, headers};
use sagabus_saga::{Correlate, Saga, SagaState, StateMachine};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::source::Raw;

/// The endpoint that takes the messages.
pub(crate) const ENDPOINT: &str = "accounts";
/// The name of a label.
pub(crate) const LABEL: &str = "number";
/// The name of the machine, which is the kind of its instances.
pub(crate) const MACHINE: &str = "account";
/// The endpoint, of another process, that is told about it where there is no broker.
pub(crate) const SINK: &str = "statements";
/// Charges of an account that goes step by step.
pub(crate) const STEPS: i64 = 10;
/// Accounts that exist before a run.
pub(crate) const ACCOUNTS: u64 = 100_000;
/// Makes a body of about 256 bytes, an instance of about the same size.
pub(crate) const NOTE: &str = "quarterly settlement of the standing order, booked by the clearing \
    desk after the usual review; see the attached statement for the details of every single line";

/// Declares a message about an account.
macro_rules! message {
    ($kind:ident $name:ident $type:literal) => {
        #[derive(Clone, Debug, Serialize, Deserialize)]
        pub(crate) struct $name {
            pub(crate) account: String,
            pub(crate) cents: i64,
            pub(crate) note: Cow<'static, str>,
        }

        impl Message for $name {
            const TYPE: &'static str = $type;
            const KIND: Kind = Kind::$kind;
        }
        impl $kind for $name {}

        impl Correlate<Account> for $name {
            fn key(&self) -> String {
                self.account.clone()
            }
        }
    };
}

message!(Command Charge "bench.charge");
message!(Command Credit "bench.credit");
message!(Command Close "bench.close");
message!(Event BalanceChanged "bench.balance-changed");
message!(Command SendStatement "bench.send-statement");

/// A message that says when it was sent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Ping {
    pub(crate) at: u64,
    pub(crate) note: Cow<'static, str>,
}

impl Message for Ping {
    const TYPE: &'static str = "bench.ping";
    const KIND: Kind = Kind::Command;
}
impl Command for Ping {}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    Open,
}

impl SagaState for Stage {
    const ALL: &'static [Self] = &[Self::Open];

    fn name(self) -> &'static str {
        "open"
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) account: String,
    pub(crate) balance: i64,
    pub(crate) changes: i64,
    pub(crate) note: Cow<'static, str>,
}

impl Saga for Account {
    type Key = String;
    type State = Stage;
}

impl Account {
    pub(crate) fn new(account: &str) -> Self {
        Self {
            account: account.to_owned(),
            balance: 0,
            changes: 0,
            note: NOTE.into(),
        }
    }

    pub(crate) fn apply(&mut self, cents: i64) {
        self.balance += cents;
        self.changes += 1;
    }

    pub(crate) fn balance_changed(&self) -> BalanceChanged {
        BalanceChanged {
            account: self.account.clone(),
            cents: self.balance,
            note: NOTE.into(),
        }
    }

    pub(crate) fn send_statement(&self) -> SendStatement {
        SendStatement {
            account: self.account.clone(),
            cents: self.balance,
            note: NOTE.into(),
        }
    }
}

/// The machine of an account.
pub(crate) fn accounts() -> StateMachine<Account> {
    StateMachine::named(MACHINE)
        .endless()
        .initially(
            Account::when::<Charge>()
                .init(|m| Account::new(&m.account))
                .then(|account, m| account.apply(-m.cents))
                .publish(|account, _| account.balance_changed())
                .transition_to(Stage::Open),
        )
        .initially(
            Account::when::<Credit>()
                .init(|m| Account::new(&m.account))
                .then(|account, m| account.apply(m.cents))
                .publish(|account, _| account.balance_changed())
                .send(|account, _| account.send_statement())
                .transition_to(Stage::Open),
        )
        .during(
            Stage::Open,
            Account::when::<Charge>()
                .then(|account, m| account.apply(-m.cents))
                .publish(|account, _| account.balance_changed())
                .stay(),
        )
        .during(
            Stage::Open,
            Account::when::<Credit>()
                .then(|account, m| account.apply(m.cents))
                .publish(|account, _| account.balance_changed())
                .send(|account, _| account.send_statement())
                .stay(),
        )
        .during(Stage::Open, Account::when::<Close>().finalize())
}

/// The machine of an account that has a number of charges ahead of it: each that is handled sends the
/// next one to the account itself, until there were so many.
pub(crate) fn step_by_step() -> StateMachine<Account> {
    let charged = |account: &mut Account, m: &Charge| account.apply(-m.cents);
    let next = |account: &Account, m: &Charge| -> Vec<Charge> {
        let has_more = account.changes < STEPS;
        has_more.then(|| m.clone()).into_iter().collect()
    };
    StateMachine::named(MACHINE)
        .endless()
        .initially(
            Account::when::<Charge>()
                .init(|m| Account::new(&m.account))
                .then(charged)
                .send_each(next)
                .transition_to(Stage::Open),
        )
        .during(
            Stage::Open,
            Account::when::<Charge>()
                .then(charged)
                .send_each(next)
                .stay(),
        )
}

/// An account that is found by its number as well.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Labelled(Account);

impl Saga for Labelled {
    type Key = String;
    type State = Stage;

    fn labels(&self) -> Vec<(&'static str, String)> {
        vec![(LABEL, self.0.account.clone())]
    }
}

impl Correlate<Labelled> for Charge {
    fn key(&self) -> String {
        self.account.clone()
    }
}

/// The machine of accounts with a label.
pub(crate) fn labelled() -> StateMachine<Labelled> {
    StateMachine::named("labelled")
        .endless()
        .initially(
            Labelled::when::<Charge>()
                .init(|m| Labelled(Account::new(&m.account)))
                .transition_to(Stage::Open),
        )
        .during(Stage::Open, Labelled::when::<Charge>().stay())
}

/// Names the account of a number, as the prefilled rows do.
pub(crate) fn account_name(number: u64) -> String {
    format!("account-{number:09}")
}

/// Makes the n-th message of a run: every tenth opens an account, the others go to one of those
/// that exist; half are credits.
pub(crate) fn nth_message(n: u64) -> Raw {
    let is_credit = (n / 10 + n) % 2 == 1;
    let account = account_of(n);
    let cents = i64::try_from(n % 1000).unwrap_or_default();
    let (message_type, body) = if is_credit {
        (Credit::TYPE, encode(&account, cents))
    } else {
        (Charge::TYPE, encode(&account, cents))
    };
    raw(message_type, body)
}

/// Makes the n-th message of a run, for this account; half are credits.
pub(crate) fn message_for(n: u64, account: u64) -> Raw {
    let cents = i64::try_from(n % 1000).unwrap_or_default();
    let body = encode(&account_name(account), cents);
    let message_type = if n % 2 == 1 {
        Credit::TYPE
    } else {
        Charge::TYPE
    };
    raw(message_type, body)
}

/// Names the account of the n-th message.
pub(crate) fn account_of(n: u64) -> String {
    account_name(if n % 10 == 9 {
        ACCOUNTS + n
    } else {
        scatter(n) % ACCOUNTS
    })
}

/// Makes the n-th message of a run whose handler keeps no instance.
pub(crate) fn nth_charge(n: u64) -> Raw {
    let account = account_name(scatter(n) % ACCOUNTS);
    raw(Charge::TYPE, encode(&account, 100))
}

/// Makes the n-th message of a run in which every account gets one.
pub(crate) fn nth_new_charge(n: u64) -> Raw {
    raw(Charge::TYPE, encode(&account_name(n), 100))
}

fn encode(account: &str, cents: i64) -> Bytes {
    let message = Charge {
        account: account.to_owned(),
        cents,
        note: NOTE.into(),
    };
    // Both kinds have one shape.
    serde_json::to_vec(&message)
        .expect("texts and numbers are always JSON")
        .into()
}

/// Makes a body of so many bytes, a few for the names of its fields included.
pub(crate) fn of_size(bytes: usize) -> Bytes {
    let empty = Charge {
        account: account_name(0),
        cents: 100,
        note: "".into(),
    };
    let around = serde_json::to_vec(&empty).map_or(0, |body| body.len());
    let message = Charge {
        note: "x".repeat(bytes.saturating_sub(around)).into(),
        ..empty
    };
    serde_json::to_vec(&message)
        .expect("texts and numbers are always JSON")
        .into()
}

fn raw(message_type: &'static str, body: Bytes) -> Raw {
    let id = Uuid::now_v7();
    Raw {
        id,
        message_type,
        headers: vec![
            (headers::CONTENT_TYPE, "application/json".to_owned()),
            (headers::KIND, "command".to_owned()),
            (headers::SENT_AT, "1700000000000000".to_owned()),
            (headers::CORRELATION_ID, id.to_string()),
        ],
        body,
    }
}

/// Spreads numbers evenly and always in the same way (splitmix64).
pub(crate) fn scatter(n: u64) -> u64 {
    let mut z = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
