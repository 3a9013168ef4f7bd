//! A way to a broker that can be cut: for this client the broker is down, for others it is not.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Hands connections on while it is up.
pub(crate) struct Proxy {
    /// The broker's URL by way of this.
    pub(crate) url: String,
    is_up: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Listens in front of the broker of a URL.
    pub(crate) async fn open(url: &str) -> Result<Self> {
        let (before, place) = url.rsplit_once('@').context("the URL names no user")?;
        let (broker, rest) = place.split_at(place.find('/').unwrap_or(place.len()));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let here = listener.local_addr()?;
        let (is_up, watched) = watch::channel(true);
        let broker: Arc<str> = broker.into();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(hand_on(client, Arc::clone(&broker), watched.clone()));
            }
        });
        Ok(Self {
            url: format!("{before}@{here}{rest}"),
            is_up,
            accepting,
        })
    }

    /// Cuts every connection and takes no new one.
    pub(crate) fn cut(&self) {
        self.is_up.send_replace(false);
    }

    /// Takes connections again.
    pub(crate) fn restore(&self) {
        self.is_up.send_replace(true);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn hand_on(mut client: TcpStream, broker: Arc<str>, mut is_up: watch::Receiver<bool>) {
    if !*is_up.borrow_and_update() {
        return;
    }
    let Ok(mut server) = TcpStream::connect(&*broker).await else {
        return;
    };
    tokio::select! {
        // Whichever side ends: the other one hears it by the end of its connection.
        _ = copy_bidirectional(&mut client, &mut server) => {}
        _ = is_up.wait_for(|is_up| !is_up) => {}
    }
}
