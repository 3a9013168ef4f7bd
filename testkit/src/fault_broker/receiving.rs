//! Receiving from a fault broker: deliveries in, answers out, and a new connection when one is
//! lost.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::{self, BoxFuture, FutureExt};
use futures_util::stream::{self, BoxStream, StreamExt};
use sagabus_core::endpoint::EndpointName;
use sagabus_core::error::TransportError;
use sagabus_core::lifecycle::Lifecycle;
use sagabus_core::store::EndpointSpec;
use sagabus_core::transport::{Delivery, Settler, Verdict};
use tokio::sync::mpsc;

use super::client::Connection;
use super::wire::{self, Request, Response, WireMessage};

/// How long to wait between two tries to connect again.
const RECONNECT_PACE: Duration = Duration::from_millis(20);

/// Connects, subscribes, and starts the task that receives until its stream is dropped.
pub(super) async fn subscribe(
    address: SocketAddr,
    lifecycle: &Lifecycle,
    endpoint: &EndpointSpec,
    prefetch: u32,
) -> Result<BoxStream<'static, Delivery>, TransportError> {
    let receiver = Receiver {
        address,
        endpoint: endpoint.name.clone(),
        prefetch,
    };
    let connection = receiver.connect().await?;
    // Room for what a lost connection left behind and for what the next one brings.
    let room = (prefetch as usize).saturating_mul(2).max(1);
    let (deliveries, stream) = mpsc::channel(room);
    lifecycle.spawn(receiver.run(connection, deliveries));
    let stream = stream::unfold(stream, |mut stream| async move {
        let delivery = stream.recv().await?;
        Some((delivery, stream))
    });
    Ok(stream.boxed())
}

struct Receiver {
    address: SocketAddr,
    endpoint: EndpointName,
    prefetch: u32,
}

impl Receiver {
    async fn connect(&self) -> Result<Connection, TransportError> {
        let mut connection = Connection::open(self.address)
            .await
            .map_err(|error| TransportError::Unavailable(error.into()))?;
        let request = Request::Subscribe {
            endpoint: self.endpoint.clone(),
            prefetch: self.prefetch,
        };
        connection.ask(&request).await?;
        Ok(connection)
    }

    async fn run(self, connection: Connection, deliveries: mpsc::Sender<Delivery>) {
        let mut connection = Some(connection);
        while !deliveries.is_closed() || connection.is_some() {
            match connection.take() {
                Some(open) => self.receive(open, &deliveries).await,
                None => {
                    connection = self.connect().await.ok();
                    if connection.is_none() {
                        tokio::time::sleep(RECONNECT_PACE).await;
                    }
                }
            }
        }
    }

    /// Receives until the connection is lost; or, after the stream was dropped, until everything
    /// that was handed out is answered.
    async fn receive(&self, mut connection: Connection, deliveries: &mpsc::Sender<Delivery>) {
        // Holds at most one answer per delivery in hand, of which there are `prefetch`.
        let (answers, mut to_write) = mpsc::unbounded_channel();
        let mut answers = Some(answers);
        let mut is_leaving = false;
        loop {
            tokio::select! {
                response = connection.reader.next() => match (response, &answers) {
                    (Ok(Some(Response::Delivery { tag, redeliveries, message })), Some(answers)) => {
                        let settler = FaultSettler { tag, answers: Some(answers.clone()) };
                        self.hand_out(message, redeliveries, settler, deliveries).await;
                    }
                    (Ok(Some(Response::Unsubscribed)), _) => answers = None,
                    _ => return,
                },
                answer = to_write.recv() => match answer {
                    Some(answer) => {
                        if wire::write(&mut connection.writer, &answer).await.is_err() {
                            return;
                        }
                    }
                    None => return,
                },
                () = deliveries.closed(), if !is_leaving => {
                    is_leaving = true;
                    let asked = wire::write(&mut connection.writer, &Request::Unsubscribe);
                    if asked.await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn hand_out(
        &self,
        message: WireMessage,
        redeliveries: u32,
        settler: FaultSettler,
        deliveries: &mpsc::Sender<Delivery>,
    ) {
        // The broker gives back what we gave it, so this is always a message.
        let Ok(envelope) = message.into_envelope() else {
            return;
        };
        let delivery = Delivery::new(
            self.endpoint.clone(),
            envelope,
            redeliveries,
            Box::new(settler),
        );
        // A stream that is gone drops the delivery, which gives it back.
        let _ = deliveries.send(delivery).await;
    }
}

/// Answers one delivery; dropped unused, it gives the message back.
struct FaultSettler {
    tag: u64,
    answers: Option<mpsc::UnboundedSender<Request>>,
}

impl FaultSettler {
    fn answer(&mut self, request: Request) {
        if let Some(answers) = self.answers.take() {
            // On a lost connection the broker has taken the message back already.
            let _ = answers.send(request);
        }
    }
}

impl Settler for FaultSettler {
    fn settle(mut self: Box<Self>, verdict: Verdict) -> BoxFuture<'static, ()> {
        let tag = self.tag;
        let request = match verdict {
            Verdict::Ack => Request::Ack { tag },
            Verdict::RetryAfter(delay) => Request::Retry {
                tag,
                after_ms: u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
            },
        };
        self.answer(request);
        future::ready(()).boxed()
    }
}

impl Drop for FaultSettler {
    fn drop(&mut self) {
        let tag = self.tag;
        self.answer(Request::GiveBack { tag });
    }
}
