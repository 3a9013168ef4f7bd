//! A loan broker as a state machine: three banks are asked, two offers within a moment are enough,
//! one refusal ends it.
//!
//! ```text
//! Ada: granted at 3 %
//! Bob: too few answers
//! Eve: refused
//! ```

use sagabus::prelude::*;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

#[derive(Command, Clone, Serialize, Deserialize)]
#[message("loans.ask", correlate(Loan = applicant))]
struct AskForLoan {
    applicant: String,
}

#[derive(Command, Clone, Serialize, Deserialize)]
#[message("banks.check")]
struct CheckCredit {
    applicant: String,
    bank: u8,
}

#[derive(Event, Clone, Serialize, Deserialize)]
#[message("banks.checked", correlate(Loan = applicant))]
struct CreditChecked {
    applicant: String,
    rate: Option<u32>,
}

#[derive(Event, Clone, Serialize, Deserialize)]
#[message("loans.time-is-up", correlate(Loan = applicant))]
struct TimeIsUp {
    applicant: String,
}

#[derive(Event, Serialize, Deserialize)]
#[message("loans.decided")]
struct Decided(String);

#[derive(Serialize, Deserialize, Saga)]
#[saga(key = String, state = Stage)]
struct Loan {
    applicant: String,
    rates: Vec<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, State)]
enum Stage {
    Asking,
}

fn loan_broker() -> StateMachine<Loan> {
    let banks = |loan: &Loan, _: &AskForLoan| {
        let ask = |bank| CheckCredit {
            applicant: loan.applicant.clone(),
            bank,
        };
        (1..=3).map(ask).collect()
    };
    let decided = |loan: &Loan, what: &str| Decided(format!("{}: {what}", loan.applicant));
    StateMachine::named("loan")
        .initially(
            Loan::when::<AskForLoan>()
                .init(|m| Loan {
                    applicant: m.applicant.clone(),
                    rates: Vec::new(),
                })
                .send_each(banks)
                .schedule("patience", 1.secs(), |l, _| TimeIsUp {
                    applicant: l.applicant.clone(),
                })
                .transition_to(Stage::Asking),
        )
        .during(
            Stage::Asking,
            Loan::when_if::<CreditChecked>(|_, m| m.rate.is_none())
                .publish(move |l, _| decided(l, "refused"))
                .finalize(),
        )
        .during(
            Stage::Asking,
            Loan::when_if::<CreditChecked>(|l, _| l.rates.len() == 1)
                .then(|l, m| l.rates.extend(m.rate))
                .publish(move |l, _| {
                    let best = l.rates.iter().min().copied().unwrap_or_default();
                    decided(l, &format!("granted at {best} %"))
                })
                .finalize(),
        )
        .during(
            Stage::Asking,
            Loan::when_else::<CreditChecked>()
                .then(|l, m| l.rates.extend(m.rate))
                .stay(),
        )
        .during(
            Stage::Asking,
            Loan::when::<TimeIsUp>()
                .publish(move |l, _| decided(l, "too few answers"))
                .finalize(),
        )
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
    let folder = std::env::temp_dir().join(format!("sagabus-loans-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let store = SqliteStore::open(folder.join("loans.db")).await?;
    store.migrate().await?;
    let (sender, mut seen) = mpsc::channel::<String>(8);
    let host = Host::builder("broker")
        .store(store)
        .state(sender)
        .endpoint("loans", |e| e.machine(loan_broker()))
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
