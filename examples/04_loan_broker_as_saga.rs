//! The loan broker of `04_loan_broker` once more, as a handler-per-message saga: three banks are
//! asked, two offers within a moment are enough, one refusal ends it.
//!
//! ```text
//! Ada: granted at 3 %
//! Bob: too few answers
//! Eve: refused
//! ```

use sagabus::prelude::*;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

#[derive(Command, Serialize, Deserialize)]
#[message("loans.ask", correlate(Loan = applicant))]
struct AskForLoan {
    applicant: String,
}

#[derive(Command, Serialize, Deserialize)]
#[message("banks.check")]
struct CheckCredit {
    applicant: String,
    bank: u8,
}

#[derive(Event, Serialize, Deserialize)]
#[message("banks.checked", correlate(Loan = applicant))]
struct CreditChecked {
    applicant: String,
    rate: Option<u32>,
}

#[derive(Event, Serialize, Deserialize)]
#[message("loans.time-is-up", correlate(Loan = applicant))]
struct TimeIsUp {
    applicant: String,
}

#[derive(Event, Serialize, Deserialize)]
#[message("loans.decided")]
struct Decided(String);

#[derive(Serialize, Deserialize, Saga)]
#[saga("loan", key = String)]
struct Loan {
    applicant: String,
    rates: Vec<u32>,
}

impl Loan {
    fn decide(&self, what: &str, cx: &mut SagaCtx) -> Result {
        cx.publish(Decided(format!("{}: {what}", self.applicant)))?;
        cx.complete();
        Ok(())
    }
}

impl Starts<AskForLoan> for Loan {
    fn start(message: &AskForLoan) -> Self {
        Self {
            applicant: message.applicant.clone(),
            rates: Vec::new(),
        }
    }
}

impl Handles<AskForLoan> for Loan {
    async fn handle(&mut self, message: AskForLoan, cx: &mut SagaCtx) -> Result {
        for bank in 1..=3 {
            let applicant = message.applicant.clone();
            cx.send(CheckCredit { applicant, bank })?;
        }
        let applicant = message.applicant;
        cx.timeout("patience", 1.secs(), TimeIsUp { applicant })
    }
}

impl Handles<CreditChecked> for Loan {
    async fn handle(&mut self, message: CreditChecked, cx: &mut SagaCtx) -> Result {
        let Some(rate) = message.rate else {
            return self.decide("refused", cx);
        };
        self.rates.push(rate);
        match self.rates[..] {
            [one, other] => self.decide(&format!("granted at {} %", one.min(other)), cx),
            _ => Ok(()),
        }
    }
}

impl Handles<TimeIsUp> for Loan {
    async fn handle(&mut self, _: TimeIsUp, cx: &mut SagaCtx) -> Result {
        self.decide("too few answers", cx)
    }
}

/// Bank 3 never answers Ada, all are silent about Bob but one, and bank 1 refuses Eve.
async fn check_credit(command: CheckCredit) -> Option<CreditChecked> {
    let rate = match (command.applicant.as_str(), command.bank) {
        ("Ada", 1) => Some(4),
        ("Ada", 2) | ("Bob", 2) => Some(3),
        ("Eve", 1) => None,
        _ => return None,
    };
    let applicant = command.applicant;
    Some(CreditChecked { applicant, rate })
}

async fn show(event: Decided, seen: State<mpsc::Sender<String>>) -> Result {
    println!("{}", event.0);
    seen.send(event.0).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("sagabus-loans-saga-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let store = SqliteStore::open(folder.join("loans.db")).await?;
    store.migrate().await?;
    let (sender, mut seen) = mpsc::channel::<String>(8);
    let loans = saga::<Loan>()
        .starts_with::<AskForLoan>()
        .on::<CreditChecked>()
        .on::<TimeIsUp>();
    let host = Host::builder("broker")
        .store(store)
        .state(sender)
        .endpoint("loans", |e| e.saga(loans))
        .endpoint("banks", |e| e.handle(check_credit))
        .endpoint("show", |e| e.handle(show))
        .build()?;
    let host = host.start().await?;
    let mut next = async || seen.recv().await.unwrap_or_default();
    for (applicant, decision) in [
        ("Ada", "Ada: granted at 3 %"),
        ("Bob", "Bob: too few answers"),
        ("Eve", "Eve: refused"),
    ] {
        let applicant = applicant.to_owned();
        host.bus().send(AskForLoan { applicant }).await?;
        assert_eq!(next().await, decision);
    }
    host.stop(5.secs()).await;
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
