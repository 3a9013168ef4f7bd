//! A newsletter to 10,000 recipients, a page at a time; killed on the way, it goes on where it was.
//!
//! The program starts itself as a process of its own, kills that, and starts it again. A letter
//! that was on its way then may be handed to the mail server twice, with the same key.
//!
//! ```text
//! killed on the way
//! issue 7: sent to 10000 recipients
//! every recipient has one letter
//! ```

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use sagabus::prelude::*;
use serde::{Deserialize, Serialize};
use tokio::process::Command as Process;
use tokio::sync::mpsc;

const RECIPIENTS: u32 = 10_000;
const PAGE: u32 = 500;
const ISSUE: u32 = 7;

#[derive(Command, Clone, Serialize, Deserialize)]
#[message("news.publish", correlate(Newsletter = issue))]
struct PublishIssue {
    issue: u32,
}

#[derive(Command, Serialize, Deserialize)]
#[message("mail.letter")]
struct Letter {
    issue: u32,
    recipient: u32,
}

#[derive(Event, Clone, Serialize, Deserialize)]
#[message("mail.lettered", correlate(Newsletter = issue))]
struct Lettered {
    issue: u32,
}

#[derive(Event, Serialize, Deserialize)]
#[message("news.published")]
struct IssuePublished {
    issue: u32,
    recipients: u32,
}

#[derive(Serialize, Deserialize, Saga)]
#[saga(key = u32, state = Stage)]
struct Newsletter {
    issue: u32,
    sent: u32,
}

impl Newsletter {
    /// What follows what is sent.
    fn page(&self) -> Vec<Letter> {
        let issue = self.issue;
        let end = RECIPIENTS.min(self.sent + PAGE);
        let letters = (self.sent..end).map(|recipient| Letter { issue, recipient });
        letters.collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, State)]
enum Stage {
    Sending,
}

fn newsletters() -> StateMachine<Newsletter> {
    let first_page = Newsletter::when::<PublishIssue>()
        .init(|m| Newsletter {
            issue: m.issue,
            sent: 0,
        })
        .send_each(|n, _| n.page())
        .transition_to(Stage::Sending);
    let last_letter = Newsletter::when_if::<Lettered>(|n, _| n.sent + 1 == RECIPIENTS)
        .publish(|n, _| IssuePublished {
            issue: n.issue,
            recipients: n.sent + 1,
        })
        .finalize();
    let last_of_page = Newsletter::when_if::<Lettered>(|n, _| (n.sent + 1).is_multiple_of(PAGE))
        .then(|n, _| n.sent += 1)
        .send_each(|n, _| n.page())
        .stay();
    let letter = Newsletter::when_else::<Lettered>()
        .then(|n, _| n.sent += 1)
        .stay();
    StateMachine::named("newsletter")
        .initially(first_page)
        // The process was started again, and asks for what is under way.
        .during(Stage::Sending, Newsletter::ignore::<PublishIssue>())
        .during(Stage::Sending, last_letter)
        .during(Stage::Sending, last_of_page)
        .during(Stage::Sending, letter)
}

/// Hands a letter to the mail server, which is a file here: a line with the key and the recipient.
async fn send(letter: Letter, key: IdempotencyKey, server: State<File>) -> Result<Lettered> {
    let line = format!("{key} {}\n", letter.recipient);
    (&*server.0).write_all(line.as_bytes())?;
    Ok(Lettered {
        issue: letter.issue,
    })
}

async fn tell(event: IssuePublished, told: State<mpsc::Sender<IssuePublished>>) -> Result {
    told.send(event).await?;
    Ok(())
}

/// Runs the host until the newsletter is sent; started again, it goes on.
async fn publish(folder: &Path) -> anyhow::Result<()> {
    let store = SqliteStore::open(folder.join("news.db")).await?;
    store.migrate().await?;
    let mut server = OpenOptions::new();
    let server = server
        .create(true)
        .append(true)
        .open(folder.join("letters"))?;
    let (sender, mut told) = mpsc::channel::<IssuePublished>(1);
    let host = Host::builder("news")
        .store(store)
        .state(server)
        .state(sender)
        .lease(2.secs()) // What the killed process had in hand goes on after this.
        .endpoint("newsletters", |e| e.machine(newsletters()))
        .endpoint("mail", |e| e.handle(send))
        .endpoint("told", |e| e.handle(tell))
        .build()?;
    let host = host.start().await?;
    host.bus().send(PublishIssue { issue: ISSUE }).await?;
    if let Some(event) = told.recv().await {
        let IssuePublished { issue, recipients } = event;
        println!("issue {issue}: sent to {recipients} recipients");
    }
    host.stop(5.secs()).await;
    Ok(())
}

/// Reads what the mail server has: keys and recipients, each once.
fn letters(folder: &Path) -> (HashSet<String>, HashSet<String>) {
    // The file is not there before the first letter.
    let text = std::fs::read_to_string(folder.join("letters")).unwrap_or_default();
    let letters = text.lines().filter_map(|line| line.split_once(' '));
    letters
        .map(|(key, recipient)| (key.to_owned(), recipient.to_owned()))
        .unzip()
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    if let Some(folder) = std::env::args().nth(1) {
        return publish(folder.as_ref()).await;
    }
    let folder = std::env::temp_dir().join(format!("sagabus-newsletter-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let mut process = Process::new(std::env::current_exe()?);
    process.arg(&folder).kill_on_drop(true);

    let mut first = process.spawn()?;
    while letters(&folder).0.len() < 3 * RECIPIENTS as usize / 10 {
        anyhow::ensure!(first.try_wait()?.is_none(), "it ended too early");
        tokio::time::sleep(20.millis()).await;
    }
    first.kill().await?;
    println!("killed on the way");
    let status = process.status().await?;
    assert!(status.success(), "{status}");

    let (keys, recipients) = letters(&folder);
    assert_eq!(recipients.len(), RECIPIENTS as usize);
    assert_eq!(keys.len(), RECIPIENTS as usize);
    println!("every recipient has one letter");
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
