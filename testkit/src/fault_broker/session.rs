//! One client's connection, from the broker's side. What it holds when it ends is given back.

use std::collections::HashMap;
use std::io;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use sagabus_core::endpoint::{EndpointName, Order};
use sagabus_core::store::EndpointSpec;
use sagabus_core::transport::{Delivery, Transport};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::task::JoinSet;

use super::server::{Next, State};
use super::wire::{self, FrameReader, Request, Response, WireMessage};

/// Deliveries that the client has not answered.
type Held = Arc<Mutex<HashMap<u64, Delivery>>>;

/// Serves one client until it goes or is cut off.
pub(super) async fn serve(state: Arc<State>, stream: TcpStream) {
    let (reader, writer) = stream.into_split();
    let mut cuts = state.cuts();
    let mut reader = FrameReader::new(reader);
    let mut session = Session {
        state,
        writer: Arc::new(AsyncMutex::new(writer)),
        held: Held::default(),
        pump: JoinSet::new(),
        is_leaving: watch::Sender::new(false),
    };
    loop {
        let step = tokio::select! {
            request = reader.next::<Request>() => session.step(request).await,
            _ = cuts.changed() => ControlFlow::Break(()),
        };
        if step.is_break() {
            break;
        }
    }
    // First nobody may take more, then everything that is held is given back.
    session.pump.shutdown().await;
}

struct Session {
    state: Arc<State>,
    writer: Arc<AsyncMutex<OwnedWriteHalf>>,
    held: Held,
    pump: JoinSet<()>,
    is_leaving: watch::Sender<bool>,
}

impl Session {
    async fn step(&mut self, request: io::Result<Option<Request>>) -> ControlFlow<()> {
        // A client that is gone and one that talks nonsense are treated alike: no more of it.
        let Ok(Some(request)) = request else {
            return ControlFlow::Break(());
        };
        let is_control = matches!(request, Request::Control { .. });
        if !is_control && self.state.is_cut_now() {
            return ControlFlow::Break(());
        }
        match self.answer(request).await {
            Ok(step) => step,
            Err(_) => ControlFlow::Break(()),
        }
    }

    async fn answer(&mut self, request: Request) -> io::Result<ControlFlow<()>> {
        match request {
            Request::Declare { store, endpoints } => {
                let specs: Vec<EndpointSpec> = endpoints.into_iter().map(Into::into).collect();
                let declared = self.state.broker.declare(store, &specs).await;
                self.say(&done(declared.map_err(|error| error.to_string())))
                    .await?;
            }
            Request::Publish { number, message } => return self.publish(number, message).await,
            Request::Subscribe { endpoint, prefetch } => {
                let subscribed = self.subscribe(endpoint, prefetch).await;
                let answer = subscribed.as_ref().map(|_| ()).map_err(Clone::clone);
                self.say(&done(answer)).await?;
                if let Ok(deliveries) = subscribed {
                    self.pump.spawn(pump(
                        deliveries,
                        Arc::clone(&self.held),
                        Arc::clone(&self.writer),
                        self.is_leaving.subscribe(),
                    ));
                }
            }
            Request::Unsubscribe => {
                // Waits for it: a frame cut in the middle would take the client's acks with it.
                self.is_leaving.send_replace(true);
                while self.pump.join_next().await.is_some() {}
                self.say(&Response::Unsubscribed).await?;
            }
            Request::Ack { tag } => {
                if let Some(delivery) = self.release(tag) {
                    delivery.ack().await;
                }
            }
            Request::Retry { tag, after_ms } => {
                if let Some(delivery) = self.release(tag) {
                    let after = Duration::from_millis(after_ms);
                    delivery.retry_after(after).await;
                }
            }
            Request::GiveBack { tag } => drop(self.release(tag)),
            Request::Control { command } => {
                let answer = self.state.command(command);
                self.say(&answer).await?;
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    async fn publish(&self, number: usize, message: WireMessage) -> io::Result<ControlFlow<()>> {
        let next = self.state.publish(message.into_publication()?).await;
        let (verdict, step) = match next {
            Next::Confirm(verdict) => (Some(verdict), ControlFlow::Continue(())),
            Next::ConfirmAndCut(verdict) => (Some(verdict), ControlFlow::Break(())),
            Next::Cut => (None, ControlFlow::Break(())),
            Next::Silence => (None, ControlFlow::Continue(())),
        };
        if let Some(verdict) = verdict {
            self.say(&Response::Confirm { number, verdict }).await?;
        }
        Ok(step)
    }

    async fn subscribe(
        &self,
        name: EndpointName,
        prefetch: u32,
    ) -> Result<BoxStream<'static, Delivery>, String> {
        // What it takes and its order are declared already.
        let spec = EndpointSpec {
            name,
            order: Order::Unordered,
            subscriptions: Vec::new(),
        };
        let subscribed = self.state.broker.subscribe(&spec, prefetch).await;
        subscribed.map_err(|error| error.to_string())
    }

    fn release(&self, tag: u64) -> Option<Delivery> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.remove(&tag)
    }

    async fn say(&self, response: &Response) -> io::Result<()> {
        wire::write(&mut *self.writer.lock().await, response).await
    }
}

fn done(result: Result<(), String>) -> Response {
    match result {
        Ok(()) => Response::Done,
        Err(text) => Response::Failed { text },
    }
}

/// Hands deliveries to the client until it goes or wants no more.
async fn pump(
    mut deliveries: BoxStream<'static, Delivery>,
    held: Held,
    writer: Arc<AsyncMutex<OwnedWriteHalf>>,
    mut is_leaving: watch::Receiver<bool>,
) {
    let mut tag = 0;
    loop {
        let delivery = tokio::select! {
            _ = is_leaving.wait_for(|is_leaving| *is_leaving) => return,
            delivery = deliveries.next() => delivery,
        };
        let Some(delivery) = delivery else {
            return;
        };
        tag += 1;
        let frame = Response::Delivery {
            tag,
            redeliveries: delivery.redeliveries,
            message: WireMessage::new(&delivery.envelope),
        };
        held.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(tag, delivery);
        if wire::write(&mut *writer.lock().await, &frame)
            .await
            .is_err()
        {
            return;
        }
    }
}
