//! The transport to a fault broker: declares and publishes, and connects again by itself.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use sagabus_core::clock;
use sagabus_core::error::TransportError;
use sagabus_core::id::StoreId;
use sagabus_core::lifecycle::Lifecycle;
use sagabus_core::memory::MemoryTransport;
use sagabus_core::store::EndpointSpec;
use sagabus_core::transport::{Capabilities, Delivery, Health, Publication, Transport};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::{Mutex, watch};

use super::receiving;
use super::wire::{self, FrameReader, Request, Response, Verdict, WireMessage};

/// How long a confirm may take; without one the outcome is unknown.
const CONFIRM_MAX: Duration = Duration::from_secs(2);

/// A connection to a fault broker, as a host uses it. Clones share the publishing connection.
#[derive(Clone, Debug)]
pub struct FaultTransport {
    address: SocketAddr,
    publishing: Arc<Mutex<Option<Connection>>>,
    /// As the last window found it.
    health: Arc<watch::Sender<Health>>,
    /// Owns the tasks that receive.
    lifecycle: Lifecycle,
    /// Says what the broker behind the socket can do.
    broker: MemoryTransport,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) reader: FrameReader,
    pub(super) writer: OwnedWriteHalf,
}

impl Connection {
    pub(super) async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        Ok(Self {
            reader: FrameReader::new(reader),
            writer,
        })
    }

    /// Asks and waits for the one answer.
    pub(super) async fn ask(&mut self, request: &Request) -> Result<(), TransportError> {
        let answer = async {
            wire::write(&mut self.writer, request).await?;
            self.reader.next().await
        };
        match answer.await {
            Ok(Some(Response::Done)) => Ok(()),
            Ok(Some(Response::Failed { text })) => Err(TransportError::Setup(text)),
            Ok(other) => Err(TransportError::Unavailable(
                format!("the broker said {other:?}").into(),
            )),
            Err(error) => Err(TransportError::Unavailable(error.into())),
        }
    }
}

impl FaultTransport {
    /// Uses the broker that listens here. Connects when it is needed.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            publishing: Arc::default(),
            health: Arc::new(watch::Sender::new(Health::Connected)),
            lifecycle: Lifecycle::new(),
            broker: MemoryTransport::new(),
        }
    }

    /// Publishes on the connection that there is, or on a new one. A connection whose window was
    /// not answered whole is not used again: its confirms would be taken for another window's.
    async fn publish_window(&self, window: &[Publication]) -> Vec<Result<(), TransportError>> {
        let mut slot = self.publishing.lock().await;
        let open = slot.take().and_then(|mut connection| {
            let is_closed = connection.reader.is_closed();
            (!is_closed).then_some(connection)
        });
        let mut connection = match open {
            Some(connection) => connection,
            None => match Connection::open(self.address).await {
                Ok(connection) => connection,
                Err(error) => {
                    self.note(Some(error.to_string()));
                    return window.iter().map(|_| Err(unavailable(&error))).collect();
                }
            },
        };
        let mut answers = self.refuse_too_large(window);
        let wanted = answers.iter().filter(|answer| answer.is_none()).count();
        let asked = encode(window, &answers);
        let exchange = async {
            // Both at once: a broker whose confirms nobody reads stops reading, too.
            let write = connection.writer.write_all(&asked);
            let read = read_confirms(&mut connection.reader, window, &mut answers, wanted);
            let (written, read) = tokio::join!(write, read);
            written.and(read)
        };
        let exchanged = tokio::time::timeout(CONFIRM_MAX, exchange).await;
        self.note(match exchanged {
            Ok(Ok(())) => {
                *slot = Some(connection);
                None
            }
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("no confirm came".to_owned()),
        });
        let unknown = || Err(TransportError::Unknown("no confirm came".into()));
        let answers = answers.into_iter();
        answers
            .map(|answer| answer.unwrap_or_else(unknown))
            .collect()
    }

    /// Keeps the beginning of an outage, and its last error.
    fn note(&self, error: Option<String>) {
        self.health.send_modify(|health| {
            let since = match health {
                Health::Reconnecting { since, .. } => *since,
                Health::Connected | Health::Blocked { .. } => clock::now(),
            };
            *health = error.map_or(Health::Connected, |error| Health::Reconnecting {
                since,
                error,
            });
        });
    }

    /// Answers for what is never sent.
    fn refuse_too_large(&self, window: &[Publication]) -> Vec<Option<Result<(), TransportError>>> {
        let most = self.capabilities().body_bytes_max;
        let refuse = |one: &Publication| {
            let bytes = one.envelope.body.len();
            let text = format!("body of {bytes} bytes is larger than {most}");
            (bytes > most).then(|| Err(TransportError::Refused(text)))
        };
        window.iter().map(refuse).collect()
    }
}

fn unavailable(error: &io::Error) -> TransportError {
    TransportError::Unavailable(io::Error::new(error.kind(), error.to_string()).into())
}

/// Encodes what has no answer yet.
fn encode(window: &[Publication], answers: &[Option<Result<(), TransportError>>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, (one, answer)) in window.iter().zip(answers).enumerate() {
        if answer.is_none() {
            let message = WireMessage::of(one);
            let request = Request::Publish { number, message };
            bytes.extend(wire::encode(&request).expect("a publication is always JSON"));
        }
    }
    bytes
}

async fn read_confirms(
    reader: &mut FrameReader,
    window: &[Publication],
    answers: &mut [Option<Result<(), TransportError>>],
    wanted: usize,
) -> io::Result<()> {
    for _ in 0..wanted {
        let Some(Response::Confirm { number, verdict }) = reader.next().await? else {
            return Err(io::ErrorKind::ConnectionReset.into());
        };
        let (Some(answer), Some(one)) = (answers.get_mut(number), window.get(number)) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        *answer = Some(match verdict {
            Verdict::Taken => Ok(()),
            Verdict::Nacked { text } => Err(TransportError::Refused(text)),
            Verdict::Unroutable => Err(TransportError::Unroutable {
                address: one.address.clone(),
            }),
        });
    }
    Ok(())
}

impl Transport for FaultTransport {
    fn capabilities(&self) -> Capabilities {
        self.broker.capabilities()
    }

    fn declare<'a>(
        &'a self,
        store: StoreId,
        endpoints: &'a [EndpointSpec],
    ) -> BoxFuture<'a, Result<(), TransportError>> {
        async move {
            let mut connection = Connection::open(self.address)
                .await
                .map_err(|error| unavailable(&error))?;
            let endpoints = endpoints.iter().map(Into::into).collect();
            connection.ask(&Request::Declare { store, endpoints }).await
        }
        .boxed()
    }

    fn publish<'a>(
        &'a self,
        window: &'a [Publication],
    ) -> BoxFuture<'a, Vec<Result<(), TransportError>>> {
        if window.is_empty() {
            return futures_util::future::ready(Vec::new()).boxed();
        }
        self.publish_window(window).boxed()
    }

    fn subscribe<'a>(
        &'a self,
        endpoint: &'a EndpointSpec,
        prefetch: u32,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Delivery>, TransportError>> {
        receiving::subscribe(self.address, &self.lifecycle, endpoint, prefetch).boxed()
    }

    fn health(&self) -> Health {
        self.health.borrow().clone()
    }
}
