//! The gateway as a process of its own: one JSON line per call and one per answer, over loopback.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use sagabus::Lifecycle;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::{Answer, Ask, Till};

/// Above any call that the demo makes.
const LINE_BYTES_MAX: u64 = 4096;

/// How long a call may take: a hundred times what writing its line takes.
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers calls until the process ends.
///
/// # Errors
/// When no connection can be accepted any more.
pub(crate) async fn serve(sockets: TcpListener, till: Till, lifecycle: &Lifecycle) -> Result<()> {
    loop {
        let (socket, _) = sockets
            .accept()
            .await
            .context("cannot accept connections")?;
        let till = till.clone();
        lifecycle.spawn(async move {
            if let Err(error) = answer(socket, till).await {
                // The caller asks again; here it is only worth a line.
                eprintln!("a call went unanswered: {error:#}");
            }
        });
    }
}

async fn answer(mut socket: TcpStream, till: Till) -> Result<()> {
    let (reading, mut writing) = socket.split();
    let mut text = String::new();
    BufReader::new(reading.take(LINE_BYTES_MAX))
        .read_line(&mut text)
        .await?;
    if text.is_empty() {
        return Ok(());
    }
    let ask = serde_json::from_str(&text).context("not a call")?;
    let mut answer = serde_json::to_vec(&till.ask(ask).await?)?;
    answer.push(b'\n');
    writing.write_all(&answer).await?;
    Ok(())
}

/// Makes one call to a gateway in another process. One that cannot be reached is down.
///
/// # Errors
/// When the connection broke or nothing came in time: the call may or may not have been decided.
pub(crate) async fn send(address: SocketAddr, ask: &Ask) -> Result<Answer> {
    let Ok(socket) = TcpStream::connect(address).await else {
        return Ok(Answer::Down);
    };
    let lost = || anyhow!("gateway did not answer in {} s", PATIENCE.as_secs());
    tokio::time::timeout(PATIENCE, exchange(socket, ask))
        .await
        .map_err(|_| lost())?
}

async fn exchange(mut socket: TcpStream, ask: &Ask) -> Result<Answer> {
    let mut text = serde_json::to_vec(ask)?;
    text.push(b'\n');
    socket.write_all(&text).await?;
    let mut answer = String::new();
    BufReader::new(socket.take(LINE_BYTES_MAX))
        .read_line(&mut answer)
        .await?;
    serde_json::from_str(&answer).context("gateway hung up before it answered")
}
