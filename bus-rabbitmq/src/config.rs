//! What can be set, with the defaults and why they are so.

use std::fmt;
use std::time::Duration;

use lapin::uri::{AMQPScheme, AMQPUri};
use sagabus_core::error::TransportError;
use sagabus_core::reach::{Plaintext, is_this_machine};

/// What this process does about exchanges and queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TopologyMode {
    /// Declares what it needs; needs the permission to configure. The broker refuses what exists
    /// with other properties.
    #[default]
    Declare,
    /// Declares nothing: what is missing is an error. For users without the permission to
    /// configure; run the same host once with [`Declare`](Self::Declare) to provision.
    Verify,
}

/// Leaves room for an endpoint's or a type's name within the 255 bytes that AMQP can carry.
const NAMESPACE_BYTES_MAX: usize = 40;

/// How a broker is reached and used. Every value but the URL has a default.
#[derive(Clone)]
pub struct RabbitMqConfig {
    url: String,
    /// Shown beside the connections in the broker's tools. Default `sagabus`.
    pub connection_name: String,
    /// Put before the name of every exchange and queue, to keep environments apart that share a
    /// vhost, for example `staging.`. Default none. Hosts that are to talk to each other have the
    /// same.
    pub namespace: String,
    /// Who declares. Default [`TopologyMode::Declare`].
    pub topology: TopologyMode,
    /// Channels on which messages are published at once, 1 to 64. Default 4: one channel is one
    /// process of the broker, and more than a few gain nothing on one connection.
    pub publishing_channels: usize,
    /// How long a confirm may take before the outcome counts as unknown. Default 10 s.
    pub confirm_timeout: Duration,
    /// How long connecting and each question about the topology may take. Default 10 s.
    pub connect_timeout: Duration,
    /// The longest silence of a connection that is taken for alive, in whole seconds. A dead one
    /// is noticed after about two of these. Default 10 s.
    pub heartbeat: Duration,
    /// Queues of an endpoint that promises order per key, 1 to 64: one process receives from each
    /// at a time, so this is the most processes that share such an endpoint. Default 8. The broker
    /// refuses another number for an endpoint that exists.
    pub ordered_queues: usize,
    /// How often the broker may deliver one message before it sets it aside, at least 1,000.
    /// A lost connection counts for everything that it had in hand, so this must be out of reach of
    /// any crash loop; messages that kill the process are found by their redeliveries long before.
    /// Default 1,000,000. The broker refuses another number for a queue that exists.
    pub delivery_limit: u32,
    /// How long a queue of ours lives without a receiver, for tests and trial environments only:
    /// what waits in it is deleted with it. Default for ever.
    pub expires_unused: Option<Duration>,
    /// Certificates in PEM that `amqps` trusts beside those of the system. Default none.
    pub ca_certificates: Option<String>,
    /// Where `amqp` may go, which is without TLS, and the password with it. Default: to this machine
    /// alone.
    pub plaintext: Plaintext,
}

impl RabbitMqConfig {
    /// Takes a URL, `amqp://user:password@host:port/vhost` or `amqps://..`, and the defaults.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            connection_name: "sagabus".to_owned(),
            namespace: String::new(),
            topology: TopologyMode::Declare,
            publishing_channels: 4,
            confirm_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            heartbeat: Duration::from_secs(10),
            ordered_queues: 8,
            delivery_limit: 1_000_000,
            expires_unused: None,
            ca_certificates: None,
            plaintext: Plaintext::default(),
        }
    }

    /// Returns the URL without its password.
    pub fn masked_url(&self) -> String {
        mask(&self.url)
    }

    /// Checks the values and takes the URL apart.
    pub(crate) fn parse(&self) -> Result<AMQPUri, TransportError> {
        let refuse = |fact: String| Err(TransportError::Setup(fact));
        for (name, value, least, most) in [
            ("publishing_channels", self.publishing_channels, 1, 64),
            ("ordered_queues", self.ordered_queues, 1, 64),
            (
                "delivery_limit",
                usize::try_from(self.delivery_limit).unwrap_or(usize::MAX),
                1_000,
                usize::MAX,
            ),
        ] {
            if value < least || value > most {
                return refuse(format!(
                    "`{name}` of RabbitMqConfig is {value}; set it to {least} to {most} [SB0217]"
                ));
            }
        }
        if self.namespace.len() > NAMESPACE_BYTES_MAX {
            return refuse(format!(
                "`namespace` of RabbitMqConfig has more than {NAMESPACE_BYTES_MAX} bytes; choose a \
                 shorter one [SB0217]"
            ));
        }
        let Ok(mut uri) = self.url.parse::<AMQPUri>() else {
            // Not the parser's own words: they may quote the password.
            return refuse(format!(
                "the RabbitMQ URL `{}` cannot be read; write it as \
                 `amqp://user:password@host:5672/vhost`, with special characters percent-encoded [SB0217]",
                self.masked_url()
            ));
        };
        let authority = &uri.authority;
        if uri.scheme == AMQPScheme::AMQP && !self.plaintext.reaches(&authority.host) {
            return refuse(format!(
                "messages to `{}` would be readable on the way; write `amqps://`, or set `plaintext` \
                 of RabbitMqConfig to `Plaintext::Everywhere` where the network itself is closed",
                self.masked_url()
            ));
        }
        if authority.userinfo.username == "guest" && !is_this_machine(&authority.host) {
            return refuse(format!(
                "everybody knows the password of `guest`, so it is for this machine alone and not \
                 for `{}`; make a user of your own (`rabbitmqctl add_user`)",
                self.masked_url()
            ));
        }
        if uri.query.heartbeat.is_none() {
            let seconds = self.heartbeat.as_secs().max(1);
            uri.query.heartbeat = Some(u16::try_from(seconds).unwrap_or(u16::MAX));
        }
        Ok(uri)
    }
}

impl fmt::Debug for RabbitMqConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMqConfig")
            .field("url", &self.masked_url())
            .field("connection_name", &self.connection_name)
            .field("namespace", &self.namespace)
            .field("topology", &self.topology)
            .field("publishing_channels", &self.publishing_channels)
            .field("ordered_queues", &self.ordered_queues)
            .field("delivery_limit", &self.delivery_limit)
            .finish_non_exhaustive()
    }
}

/// Names a broker for people: no password, no query.
pub(crate) fn place(uri: &AMQPUri) -> String {
    let scheme = match uri.scheme {
        AMQPScheme::AMQP => "amqp",
        AMQPScheme::AMQPS => "amqps",
    };
    let authority = &uri.authority;
    format!(
        "{scheme}://{}@{}:{}/{}",
        authority.userinfo.username, authority.host, authority.port, uri.vhost
    )
}

/// Hides everything that may be a password, also of a URL that cannot be parsed: what stands behind
/// a colon, up to the last `@`, or to the end where there is none.
fn mask(url: &str) -> String {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), url),
    };
    let place = rest.rsplit_once('@').map(|(_, place)| format!("@{place}"));
    let place = place.unwrap_or_default();
    let place = place.split('?').next().unwrap_or_default();
    let user = rest.rsplit_once('@').map_or(rest, |(user, _)| user);
    match user.split_once(':') {
        Some((name, _)) => format!("{scheme}{name}:***{place}"),
        None => format!("{scheme}{user}{place}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_never_shown() {
        for url in [
            "amqp://me:canary@host:1/v",
            "amqp://me:can@canary@host:1/v?heartbeat=1",
            "amqp://me:canary@",
            "me:canary@host",
            "me:canary",
            "amqps://me:canary@ho st/%zz",
        ] {
            let config = RabbitMqConfig::new(url);
            let error = config.parse().err();
            let shown = format!("{config:?} {} {error:?}", config.masked_url());
            assert!(!shown.contains("canary"), "{shown}");
        }
        assert_eq!(mask("amqp://me:pass@host:1/v"), "amqp://me:***@host:1/v");
        assert_eq!(mask("amqp://me@host:1/v?x=y"), "amqp://me@host:1/v");
    }

    #[test]
    fn plaintext_and_guest_beyond_this_machine_are_refused() {
        let parse = |url: &str, plaintext| {
            let mut config = RabbitMqConfig::new(url);
            config.plaintext = plaintext;
            config.parse().map(drop).map_err(|error| error.to_string())
        };
        let (here, everywhere) = (Plaintext::ToThisMachine, Plaintext::Everywhere);
        for url in [
            "amqp://localhost",
            "amqp://guest:guest@127.0.0.1:1/v",
            "amqp://me:x@[::1]:1",
        ] {
            assert_eq!(parse(url, here), Ok(()), "{url}");
        }
        for host in ["rabbit", "10.0.0.1", "broker.example.org:5672"] {
            let plain = parse(&format!("amqp://me:canary@{host}/v"), here).unwrap_err();
            assert!(plain.contains("amqps://"), "{plain}");
            assert!(!plain.contains("canary"), "{plain}");
            assert_eq!(parse(&format!("amqp://me:x@{host}/v"), everywhere), Ok(()));
            assert_eq!(parse(&format!("amqps://me:x@{host}/v"), here), Ok(()));
            for scheme in ["amqp", "amqps"] {
                // Without a user it is `guest`, too.
                for user in ["guest:guest@", ""] {
                    let guest = parse(&format!("{scheme}://{user}{host}/v"), everywhere);
                    assert!(guest.unwrap_err().contains("add_user"));
                }
            }
        }
    }

    #[test]
    fn values_out_of_range_are_named() {
        let set = |change: fn(&mut RabbitMqConfig)| {
            let mut config = RabbitMqConfig::new("amqp://localhost");
            change(&mut config);
            config.parse().map(drop).map_err(|error| error.to_string())
        };
        assert_eq!(set(|_| ()), Ok(()));
        for (name, result) in [
            ("ordered_queues", set(|config| config.ordered_queues = 0)),
            (
                "publishing_channels",
                set(|config| config.publishing_channels = 65),
            ),
            ("delivery_limit", set(|config| config.delivery_limit = 20)),
        ] {
            assert!(result.unwrap_err().contains(name));
        }
    }
}
