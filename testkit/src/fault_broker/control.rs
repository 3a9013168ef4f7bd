//! How a test tells the broker what to do wrong, and asks what happened.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sagabus_core::endpoint::EndpointName;
use tokio::net::TcpStream;

use super::faults::{Effect, Fault};
use super::log::PublishLog;
use super::wire::{self, Command, FrameReader, Request, Response};
use crate::transport::Breakable;

/// Commands a fault broker.
#[derive(Clone, Copy, Debug)]
pub struct Control {
    address: SocketAddr,
}

impl Control {
    /// Commands the broker that listens here.
    pub fn new(address: SocketAddr) -> Self {
        Self { address }
    }

    /// Lets something go wrong.
    ///
    /// # Panics
    /// As every command, when the broker does not answer: a test without its broker has failed.
    pub async fn inject(&self, fault: Fault) {
        self.call(Command::Inject { fault }).await;
    }

    /// Lets everything go well from now on.
    pub async fn clear(&self) {
        self.call(Command::Clear).await;
    }

    /// Cuts every connection that there is now, this one included.
    pub async fn cut_connections(&self) {
        self.call(Command::CutConnections).await;
    }

    /// Cuts the connection on which the `frame`-th frame of any client comes, counted from now and
    /// from 1; the frame is lost.
    pub async fn cut_at_frame(&self, frame: u64) {
        self.call(Command::CutAtFrame { frame }).await;
    }

    /// Cuts every connection, and for a while each new one at its first frame.
    pub async fn refuse_for(&self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.call(Command::RefuseFor { ms }).await;
    }

    /// Reads what was published since the broker started.
    pub async fn log(&self) -> PublishLog {
        match self.call(Command::Log).await {
            Some(Response::Log { published }) => PublishLog { published },
            other => panic!("asked for the log, the broker said {other:?}"),
        }
    }

    /// Reads how often each fault has happened.
    pub async fn fired(&self) -> BTreeMap<String, u64> {
        match self.call(Command::Fired).await {
            Some(Response::Fired { counts }) => counts,
            other => panic!("asked for its faults, the broker said {other:?}"),
        }
    }

    /// Reads how many messages of an endpoint wait, and how many are delivered and not acked.
    pub async fn depth(&self, endpoint: &EndpointName) -> (usize, usize) {
        let endpoint = endpoint.clone();
        match self.call(Command::Depth { endpoint }).await {
            Some(Response::Depth { waiting, in_hand }) => (waiting, in_hand),
            other => panic!("asked for its depth, the broker said {other:?}"),
        }
    }

    /// Gives one command on a connection of its own. A command that cuts connections may be
    /// answered by that.
    async fn call(&self, command: Command) -> Option<Response> {
        let call = async {
            let stream = TcpStream::connect(self.address).await?;
            let (reader, mut writer) = stream.into_split();
            wire::write(&mut writer, &Request::Control { command }).await?;
            FrameReader::new(reader).next().await
        };
        let answer: io::Result<Option<Response>> = call.await;
        answer.unwrap_or_else(|error| panic!("no fault broker at {}: {error}", self.address))
    }
}

impl Breakable for Control {
    fn cut_connections(&self) -> BoxFuture<'_, ()> {
        self.cut_connections().boxed()
    }

    fn nack<'a>(&'a self, address: &'a str, pass: u32, times: u32) -> BoxFuture<'a, bool> {
        let fault = Fault::times(Effect::Nack, times).at(address).after(pass);
        self.inject(fault).map(|()| true).boxed()
    }

    fn cut_before_confirm<'a>(&'a self, address: &'a str) -> BoxFuture<'a, bool> {
        let fault = Fault::once(Effect::CutBeforeConfirm).at(address);
        self.inject(fault).map(|()| true).boxed()
    }
}
