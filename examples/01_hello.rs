//! One handler: a message goes into a SQLite file and is handled once. Needs nothing else.
//!
//! ```text
//! hello, world
//! ```

use sagabus::prelude::*;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

#[derive(Command, Serialize, Deserialize)]
#[message("hello.greet")]
struct Greet(String);

async fn greet(command: Greet, said: State<mpsc::Sender<String>>) -> Result {
    said.send(format!("hello, {}", command.0)).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("sagabus-hello-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let store = SqliteStore::open(folder.join("hello.db")).await?;
    store.migrate().await?;
    let (sender, mut said) = mpsc::channel::<String>(1);
    let host = Host::builder("hello")
        .store(store)
        .state(sender)
        .endpoint("greeter", |e| e.handle(greet))
        .build()?;
    let host = host.start().await?;

    host.bus().send(Greet("world".to_owned())).await?;
    let line = said.recv().await.unwrap_or_default();
    println!("{line}");

    host.stop(5.secs()).await;
    std::fs::remove_dir_all(&folder)?;
    assert_eq!(line, "hello, world");
    Ok(())
}
