//! Windows of messages out, with the broker's word on each.
//!
//! A window has its channels for itself until every confirm is there: a returned message comes with
//! *some* confirm of its channel (the driver cannot know which), so only the window as a whole can
//! tell which of its messages came back, by their identity and exchange.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::join_all;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ExchangeKind, PublisherConfirm};
use sagabus_core::codec::BODY_BYTES_MAX;
use sagabus_core::error::TransportError;
use sagabus_core::transport::Publication;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::config::RabbitMqConfig;
use crate::connection::Link;
use crate::error::{Refusal, refusal, unavailable};
use crate::headers;
use crate::topology::{Declarer, Route, hash};

/// Messages of one window on one channel, before another channel takes a part of it.
const SHARE_MIN: usize = 64;

/// What became of one message.
type Answer = Result<(), TransportError>;

/// Publishes on a connection of its own: one that the broker blocks must not stop acks.
#[derive(Debug)]
pub(crate) struct Publisher {
    link: Link,
    config: Arc<RabbitMqConfig>,
    /// Bounds the channels in use.
    permits: Semaphore,
    /// Channels that no window has, of the connection that there is now.
    idle: Mutex<Vec<Channel>>,
    /// Exchanges that are known to be there.
    known: Mutex<HashSet<ShortString>>,
}

/// A message that may go out.
struct Ready<'a> {
    /// Its place in the window.
    index: usize,
    publication: &'a Publication,
    route: Route,
    properties: BasicProperties,
}

impl Publisher {
    pub(crate) fn new(link: Link, config: &Arc<RabbitMqConfig>) -> Self {
        Self {
            link,
            config: Arc::clone(config),
            permits: Semaphore::new(config.publishing_channels),
            idle: Mutex::default(),
            known: Mutex::default(),
        }
    }

    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    /// Publishes a window.
    ///
    /// # Cancel safety
    /// The channels of a dropped call are closed; what it published is unknown.
    pub(crate) async fn publish(&self, window: &[Publication]) -> Vec<Answer> {
        if window.is_empty() {
            return Vec::new();
        }
        let connected = match self.link.blocked() {
            Some(blocked) => Err(blocked),
            None => self.link.connection().await,
        };
        let connection = match connected {
            Ok(connection) => connection,
            Err(error) => return window.iter().map(|_| Err(again(&error))).collect(),
        };
        let mut answers: Vec<Option<Answer>> = Vec::with_capacity(window.len());
        let mut ready = Vec::with_capacity(window.len());
        for (index, publication) in window.iter().enumerate() {
            match self.prepare(&connection, index, publication).await {
                Ok(one) => {
                    ready.push(one);
                    answers.push(None);
                }
                Err(error) => answers.push(Some(Err(error))),
            }
        }
        let shares = self.share_out(ready);
        let sent = join_all(shares.iter().map(|share| self.send(&connection, share))).await;
        for (share, results) in shares.iter().zip(sent) {
            for (one, result) in share.iter().zip(results) {
                answers[one.index] = Some(result);
            }
        }
        let unknown = || Err(TransportError::Unknown("no answer".into()));
        let answers = answers.into_iter();
        answers
            .map(|answer| answer.unwrap_or_else(unknown))
            .collect()
    }

    /// Refuses what would close a channel that others use, and finds the way of the rest.
    async fn prepare<'a>(
        &self,
        connection: &Arc<Connection>,
        index: usize,
        publication: &'a Publication,
    ) -> Result<Ready<'a>, TransportError> {
        let bytes = publication.envelope.body.len();
        if bytes > BODY_BYTES_MAX {
            return Err(TransportError::Refused(format!(
                "body of {bytes} bytes is larger than {BODY_BYTES_MAX}"
            )));
        }
        let properties = headers::write(publication).map_err(TransportError::Refused)?;
        let unroutable = || TransportError::Unroutable {
            address: publication.address.clone(),
        };
        let route = Route::of(publication, &self.config.namespace).ok_or_else(unroutable)?;
        if !self.is_known(&route) && !self.find(connection, publication, &route).await? {
            return Err(unroutable());
        }
        Ok(Ready {
            index,
            publication,
            route,
            properties,
        })
    }

    fn is_known(&self, route: &Route) -> bool {
        // The default exchange is always there.
        route.exchange.as_str().is_empty() || lock(&self.known).contains(&route.exchange)
    }

    /// Declares an event's exchange, or asks for another one, on a channel of its own: what is
    /// missing closes it. Returns whether it is there.
    async fn find(
        &self,
        connection: &Arc<Connection>,
        publication: &Publication,
        route: &Route,
    ) -> Result<bool, TransportError> {
        let find = async {
            let channel = connection.create_channel().await;
            let channel = channel.map_err(|error| unavailable(&error))?;
            let is_there = if route.is_declared_by_us {
                let declarer = Declarer {
                    channel: &channel,
                    config: &self.config,
                };
                match declarer.published(&publication.address).await {
                    Ok(()) => Ok(true),
                    // It concerns this message, not the broker.
                    Err(TransportError::Setup(fact)) => Err(TransportError::Refused(fact)),
                    Err(error) => Err(error),
                }
            } else {
                exists(&channel, route.exchange.clone()).await
            };
            if channel.status().connected() {
                // A channel that stays open costs the broker a process; its end is no news.
                let _ = channel.close(200, "OK".into()).await;
            }
            is_there
        };
        let is_there = tokio::select! {
            asked = timeout(self.config.connect_timeout, find) => {
                asked.unwrap_or_else(|_| Err(no_confirm()))?
            }
            lost = self.link.lost(connection) => return Err(lost),
        };
        if is_there {
            lock(&self.known).insert(route.exchange.clone());
        }
        Ok(is_there)
    }

    /// Splits a window over channels: equal keys stay together, in their order.
    fn share_out<'a>(&self, ready: Vec<Ready<'a>>) -> Vec<Vec<Ready<'a>>> {
        let count = ready.len().div_ceil(SHARE_MIN);
        let count = count.clamp(1, self.config.publishing_channels);
        let mut shares: Vec<Vec<Ready<'a>>> = Vec::new();
        shares.resize_with(count, Vec::new);
        for one in ready {
            let share = match &one.publication.key {
                Some(key) => hash(key.as_bytes()) as usize % count,
                None => one.index % count,
            };
            shares[share].push(one);
        }
        shares.retain(|share| !share.is_empty());
        shares
    }

    /// Publishes a share. Where one of it makes the broker close the channel (its exchange is gone,
    /// or may not be written, or a limit of the broker's is lower than ours), the others must not
    /// suffer from it for ever: then each goes out alone.
    async fn send(&self, connection: &Arc<Connection>, share: &[Ready<'_>]) -> Vec<Answer> {
        // Never closed, so this is a permit.
        let _permit = self.permits.acquire().await;
        let heard = match self.exchange(connection, share).await {
            Ok(heard) => heard,
            Err(error) => return share.iter().map(|_| Err(again(&error))).collect(),
        };
        let is_refused = |word: &lapin::Result<Confirmation>| {
            word.as_ref().is_err_and(lapin::Error::is_amqp_soft_error)
        };
        if !heard.iter().any(is_refused) {
            return answers(share, heard);
        }
        lock(&self.known).clear();
        let mut words = Vec::with_capacity(share.len());
        for one in share {
            let alone = std::slice::from_ref(one);
            words.push(match self.exchange(connection, alone).await {
                Ok(heard) => answers(alone, heard)
                    .pop()
                    .unwrap_or_else(|| Err(no_confirm())),
                Err(error) => Err(error),
            });
        }
        words
    }

    /// Publishes on one channel and waits for every confirm.
    async fn exchange(
        &self,
        connection: &Arc<Connection>,
        share: &[Ready<'_>],
    ) -> Result<Vec<lapin::Result<Confirmation>>, TransportError> {
        let exchange = async {
            let channel = self.channel(connection).await;
            let channel = channel.map_err(|error| unavailable(&error))?;
            let mut confirms = Vec::with_capacity(share.len());
            for one in share {
                confirms.push(publish(&channel, one).await);
            }
            let mut heard = Vec::with_capacity(share.len());
            for confirm in confirms {
                heard.push(match confirm {
                    Ok(confirm) => confirm.await,
                    Err(error) => Err(error),
                });
            }
            if heard.iter().all(Result::is_ok) && channel.status().connected() {
                lock(&self.idle).push(channel);
            }
            Ok(heard)
        };
        tokio::select! {
            exchanged = timeout(self.config.confirm_timeout, exchange) => {
                exchanged.unwrap_or_else(|_| Err(no_confirm()))
            }
            lost = self.link.lost(connection) => Err(TransportError::Unknown(Box::new(lost))),
        }
    }

    /// Takes an idle channel of the connection, or opens one.
    async fn channel(&self, connection: &Connection) -> lapin::Result<Channel> {
        loop {
            let idle = lock(&self.idle).pop();
            match idle {
                Some(channel) if channel.status().connected() => return Ok(channel),
                // Of a connection that is gone.
                Some(_) => {}
                None => break,
            }
        }
        let channel = connection.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        Ok(channel)
    }
}

async fn publish(channel: &Channel, one: &Ready<'_>) -> lapin::Result<PublisherConfirm> {
    let options = BasicPublishOptions {
        mandatory: one.route.is_mandatory,
        ..BasicPublishOptions::default()
    };
    let publishing = channel.basic_publish(
        one.route.exchange.clone(),
        one.route.routing_key.clone(),
        options,
        &one.publication.envelope.body,
        one.properties.clone(),
    );
    publishing.await
}

/// Reads the confirms of a share: taken is what was acked and not returned.
fn answers(share: &[Ready<'_>], heard: Vec<lapin::Result<Confirmation>>) -> Vec<Answer> {
    let mut returned = HashSet::new();
    let mut words: Vec<Answer> = Vec::with_capacity(heard.len());
    for confirmation in heard {
        let (word, message) = match confirmation {
            Ok(Confirmation::Ack(message)) => (Ok(()), message),
            Ok(Confirmation::Nack(message)) => {
                let fact = "the broker could not store it".to_owned();
                (Err(TransportError::Refused(fact)), message)
            }
            Ok(Confirmation::NotRequested) => (Err(no_confirm()), None),
            Err(error) => (Err(word_on(&error, share.len())), None),
        };
        if let Some(message) = message {
            let id = message.delivery.properties.message_id().clone();
            returned.insert((id, message.delivery.exchange.clone()));
        }
        words.push(word);
    }
    let each = share.iter().zip(words);
    each.map(|(one, word)| {
        let id = one.properties.message_id().clone();
        let is_returned = returned.contains(&(id, one.route.exchange.clone()));
        if is_returned {
            let address = one.publication.address.clone();
            return Err(TransportError::Unroutable { address });
        }
        word
    })
    .collect()
}

/// A message that was alone when the broker closed the channel is the reason for it.
fn word_on(error: &lapin::Error, count: usize) -> TransportError {
    match refusal(error) {
        (Refusal::Missing | Refusal::Different | Refusal::Forbidden, said) if count == 1 => {
            TransportError::Refused(format!("{said}; the broker closed the channel over it"))
        }
        _ => TransportError::Unknown(Box::new(error.clone())),
    }
}

/// Asks whether an exchange is there.
async fn exists(channel: &Channel, exchange: ShortString) -> Result<bool, TransportError> {
    let options = ExchangeDeclareOptions {
        passive: true,
        ..ExchangeDeclareOptions::default()
    };
    let kind = ExchangeKind::Fanout;
    let asked = channel.exchange_declare(exchange.clone(), kind, options, FieldTable::default());
    match asked.await {
        Ok(()) => Ok(true),
        Err(error) => match refusal(&error) {
            (Refusal::Missing, _) => Ok(false),
            (Refusal::Forbidden, said) => Err(TransportError::Refused(format!(
                "exchange `{exchange}` may not be used by this user ({said}); permit it"
            ))),
            _ => Err(unavailable(&error)),
        },
    }
}

fn no_confirm() -> TransportError {
    TransportError::Unknown("no confirm came in time".into())
}

/// Says the same of another message.
fn again(error: &TransportError) -> TransportError {
    match error {
        TransportError::Setup(fact) => TransportError::Unavailable(fact.clone().into()),
        TransportError::Unknown(source) => TransportError::Unknown(source.to_string().into()),
        TransportError::Unavailable(source) => {
            TransportError::Unavailable(source.to_string().into())
        }
        other => TransportError::Unavailable(other.to_string().into()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
