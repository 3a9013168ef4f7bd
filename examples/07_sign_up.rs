//! A sign-up that waits to be confirmed: a reminder a day, three at most, then welcome or farewell.
//! A day lasts half a second here.
//!
//! ```text
//! to ada: please confirm
//! to ada: reminder 1
//! to ada: welcome
//! to bob: please confirm
//! to bob: reminder 1
//! to bob: reminder 2
//! to bob: reminder 3
//! to bob: farewell
//! ```

use std::time::Duration;

use sagabus::prelude::*;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

const DAY: Duration = Duration::from_millis(500);
const REMINDERS: u32 = 3;

#[derive(Command, Clone, Serialize, Deserialize)]
#[message("accounts.sign-up", correlate(SignUp = name))]
struct Register {
    name: String,
}

#[derive(Command, Clone, Serialize, Deserialize)]
#[message("accounts.confirm", correlate(SignUp = name))]
struct Confirm {
    name: String,
}

#[derive(Event, Clone, Serialize, Deserialize)]
#[message("accounts.day-has-passed", correlate(SignUp = name))]
struct DayHasPassed {
    name: String,
}

#[derive(Command, Serialize, Deserialize)]
#[message("mail.send")]
struct SendMail {
    to: String,
    text: String,
}

#[derive(Serialize, Deserialize, Saga)]
#[saga(key = String, state = Stage)]
struct SignUp {
    name: String,
    reminders: u32,
}

impl SignUp {
    fn mail(&self, text: &str) -> SendMail {
        SendMail {
            to: self.name.clone(),
            text: text.to_owned(),
        }
    }

    fn day_has_passed(&self) -> DayHasPassed {
        DayHasPassed {
            name: self.name.clone(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, State)]
enum Stage {
    Unconfirmed,
}

fn sign_ups() -> StateMachine<SignUp> {
    let register = SignUp::when::<Register>()
        .init(|m| SignUp {
            name: m.name.clone(),
            reminders: 0,
        })
        .send(|s, _| s.mail("please confirm"))
        .schedule("day", DAY, |s, _| s.day_has_passed())
        .transition_to(Stage::Unconfirmed);
    let confirm = SignUp::when::<Confirm>()
        .send(|s, _| s.mail("welcome"))
        .finalize();
    let remind = SignUp::when_if::<DayHasPassed>(|s, _| s.reminders < REMINDERS)
        .then(|s, _| s.reminders += 1)
        .send(|s, _| s.mail(&format!("reminder {}", s.reminders)))
        .schedule("day", DAY, |s, _| s.day_has_passed())
        .stay();
    let give_up = SignUp::when_else::<DayHasPassed>()
        .send(|s, _| s.mail("farewell"))
        .finalize();
    StateMachine::named("sign-up")
        .initially(register)
        .during(Stage::Unconfirmed, confirm)
        .during(Stage::Unconfirmed, remind)
        .during(Stage::Unconfirmed, give_up)
}

async fn send_mail(command: SendMail, sent: State<mpsc::Sender<String>>) -> Result {
    let line = format!("to {}: {}", command.to, command.text);
    sent.send(line).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("sagabus-sign-up-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let store = SqliteStore::open(folder.join("accounts.db")).await?;
    store.migrate().await?;
    let (sender, mut sent) = mpsc::channel::<String>(8);
    let host = Host::builder("accounts")
        .store(store)
        .state(sender)
        .endpoint("sign-ups", |e| e.machine(sign_ups()))
        .endpoint("mail", |e| e.handle(send_mail))
        .build()?;
    let host = host.start().await?;

    for name in ["ada", "bob"] {
        let name = name.to_owned();
        host.bus().send(Register { name }).await?;
        while let Some(mail) = sent.recv().await {
            println!("{mail}");
            if mail == "to ada: reminder 1" {
                let name = "ada".to_owned();
                host.bus().send(Confirm { name }).await?;
            }
            if mail.ends_with("welcome") || mail.ends_with("farewell") {
                break;
            }
        }
    }

    host.stop(5.secs()).await;
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
