//! The sign-up of `07_sign_up` once more, as a handler-per-message saga: what a machine declares
//! (states, branches) is code here.
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

#[derive(Command, Serialize, Deserialize)]
#[message("accounts.sign-up", correlate(SignUp = name))]
struct Register {
    name: String,
}

#[derive(Command, Serialize, Deserialize)]
#[message("accounts.confirm", correlate(SignUp = name))]
struct Confirm {
    name: String,
}

#[derive(Event, Serialize, Deserialize)]
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
#[saga("sign-up", key = String)]
struct SignUp {
    name: String,
    reminders: u32,
}

impl SignUp {
    fn mail(&self, text: &str, cx: &SagaCtx) -> Result {
        let to = self.name.clone();
        let text = text.to_owned();
        cx.send(SendMail { to, text })?;
        Ok(())
    }

    fn wait_for_a_day(&self, cx: &mut SagaCtx) -> Result {
        let name = self.name.clone();
        cx.timeout("day", DAY, DayHasPassed { name })
    }
}

impl Starts<Register> for SignUp {
    fn start(message: &Register) -> Self {
        Self {
            name: message.name.clone(),
            reminders: 0,
        }
    }
}

impl Handles<Register> for SignUp {
    async fn handle(&mut self, _: Register, cx: &mut SagaCtx) -> Result {
        self.mail("please confirm", cx)?;
        self.wait_for_a_day(cx)
    }
}

impl Handles<Confirm> for SignUp {
    async fn handle(&mut self, _: Confirm, cx: &mut SagaCtx) -> Result {
        cx.complete();
        self.mail("welcome", cx)
    }
}

impl Handles<DayHasPassed> for SignUp {
    async fn handle(&mut self, _: DayHasPassed, cx: &mut SagaCtx) -> Result {
        if self.reminders == REMINDERS {
            cx.complete();
            return self.mail("farewell", cx);
        }
        self.reminders += 1;
        self.mail(&format!("reminder {}", self.reminders), cx)?;
        self.wait_for_a_day(cx)
    }
}

async fn send_mail(command: SendMail, sent: State<mpsc::Sender<String>>) -> Result {
    let line = format!("to {}: {}", command.to, command.text);
    sent.send(line).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("sagabus-sign-up-saga-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let store = SqliteStore::open(folder.join("accounts.db")).await?;
    store.migrate().await?;
    let (sender, mut sent) = mpsc::channel::<String>(8);
    let sign_ups = saga::<SignUp>()
        .starts_with::<Register>()
        .on::<Confirm>()
        .on::<DayHasPassed>();
    let host = Host::builder("accounts")
        .store(store)
        .state(sender)
        .endpoint("sign-ups", |e| e.saga(sign_ups))
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
