//! What a user may set, with the reason for each default.

use std::fmt;
use std::time::Duration;

use rdkafka::ClientConfig;
use sagabus_core::codec::BODY_BYTES_MAX;
use sagabus_core::error::TransportError;
use sagabus_core::reach::Plaintext;

use crate::security::{Secret, Security};

/// How to reach a cluster, and what is expected of it.
#[derive(Clone)]
pub struct KafkaConfig {
    /// Brokers to begin with: `kafka-1:9092,kafka-2:9092`.
    pub brokers: String,
    /// How to log in. Default: not at all.
    pub security: Security,
    /// Where connections may go without TLS, and passwords with them. Default: to this machine
    /// alone. What the cluster advertises is not looked at: it is told by a broker of this list.
    pub plaintext: Plaintext,
    /// Put before every name of a topic and a group, so that several environments can share a
    /// cluster: `staging.`. Default: empty.
    pub prefix: String,
    /// Topics that are created or checked.
    pub topics: Topics,
    /// Where an endpoint begins that has never received before. Default: at the oldest record, so
    /// that what was published before its first start is handled.
    pub start: Start,
    /// The name of this replica, the same after each restart, for static membership: a replica
    /// that is back within the session keeps its partitions and nobody rebalances. Default: none.
    pub instance: Option<String>,
    /// After this long without a sign of life a replica has lost its partitions. Default 15 s: as
    /// long as the lease on a row.
    pub session: Duration,
    /// How often a replica gives a sign of life, and so how soon it learns of a rebalance. Default
    /// 1 s, well under a third of the session.
    pub heartbeat: Duration,
    /// After this long without polling a replica has lost its partitions. Polling does not wait for
    /// handlers, so this notices a process that hangs as a whole. Default 60 s.
    pub poll_interval_max: Duration,
    /// How long partitions that go to another replica wait for deliveries in hand. Default 5 s,
    /// enough for handlers that are under way; what takes longer comes again elsewhere and is
    /// recognised.
    pub hand_over: Duration,
    /// After this long an unconfirmed publication is unknown. Default 30 s: longer than a broker
    /// needs to come back or to hand over its partitions.
    pub delivery_timeout: Duration,
    /// How long a question about topics and offsets may take. Default 10 s.
    pub request_timeout: Duration,
    /// The largest body in bytes. Default 1 MiB. Topics must take 64 KiB more, for key and headers.
    pub body_bytes_max: usize,
    /// Further options of librdkafka, by name; they go last and so win. Their values are never
    /// shown, because they may be secrets. Default: none.
    pub options: Vec<(String, Secret)>,
}

impl KafkaConfig {
    /// Starts from the defaults.
    pub fn new(brokers: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            security: Security::Plain,
            plaintext: Plaintext::default(),
            prefix: String::new(),
            topics: Topics::default(),
            start: Start::Oldest,
            instance: None,
            session: Duration::from_secs(15),
            heartbeat: Duration::from_secs(1),
            poll_interval_max: Duration::from_secs(60),
            hand_over: Duration::from_secs(5),
            delivery_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(10),
            body_bytes_max: BODY_BYTES_MAX,
            options: Vec::new(),
        }
    }

    /// Checks what can be known without the cluster.
    ///
    /// # Errors
    /// [`TransportError::Setup`], which names the setting and what to do.
    pub fn check(&self) -> Result<(), TransportError> {
        let refuse = |text: String| Err(TransportError::Setup(text));
        let brokers: Vec<_> = self.brokers.split(',').map(str::trim).collect();
        if let Some(wrong) = brokers.iter().find(|broker| !is_broker(broker)) {
            // What is wrong may be a URL with a password in it.
            let shown = if wrong.contains('@') { "***" } else { wrong };
            return refuse(format!(
                "`{shown}` is no Kafka broker; write `host:port`, several with commas between \
                 them, without scheme, user or password [SB0217]"
            ));
        }
        let beyond = brokers.iter().find(|broker| !self.may_reach(broker));
        if let Some(beyond) = beyond.filter(|_| !self.is_encrypted()) {
            return refuse(format!(
                "messages to `{beyond}` would be readable on the way; set `security` with `Tls`, or \
                 `plaintext` to `Plaintext::Everywhere` where the network itself is closed [SB0221]"
            ));
        }
        if self.heartbeat * 3 > self.session {
            return refuse(format!(
                "a heartbeat every {:?} is too slow for a session of {:?}; make it a third or less [SB0217]",
                self.heartbeat, self.session
            ));
        }
        if self.session > self.poll_interval_max {
            return refuse(format!(
                "a session of {:?} is longer than the {:?} within which a replica must poll; raise \
                 `poll_interval_max` or shorten `session` [SB0217]",
                self.session, self.poll_interval_max
            ));
        }
        if self.body_bytes_max > BODY_BYTES_MAX {
            return refuse(format!(
                "bodies of {} bytes are more than the {BODY_BYTES_MAX} that sagabus carries; lower \
                 `body_bytes_max` [SB0217]",
                self.body_bytes_max
            ));
        }
        self.security.check()
    }

    fn may_reach(&self, broker: &str) -> bool {
        let host = broker.rsplit_once(':').map_or(broker, |(host, _)| host);
        self.plaintext.reaches(host)
    }

    /// Whether connections have TLS. Who sets the protocol by its name has said it himself.
    fn is_encrypted(&self) -> bool {
        let is_named = |(name, _): &(String, Secret)| name == "security.protocol";
        self.security.tls().is_some() || self.options.iter().any(is_named)
    }

    /// What every client of ours is told.
    pub(crate) fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "sagabus")
            // Between two tries to reach a broker: soon back, and gentle to one that starts.
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000")
            .set("socket.nagle.disable", "true")
            .set("socket.keepalive.enable", "true");
        self.security.apply(&mut client);
        client
    }

    /// Adds the user's own options, which win.
    pub(crate) fn finish(&self, mut client: ClientConfig) -> ClientConfig {
        for (name, value) in &self.options {
            client.set(name, value.reveal());
        }
        client
    }
}

impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What somebody took for a URL may have a password in it.
        let brokers = if self.brokers.contains('@') {
            "***"
        } else {
            &self.brokers
        };
        f.debug_struct("KafkaConfig")
            .field("brokers", &brokers)
            .field("security", &self.security)
            .field("plaintext", &self.plaintext)
            .field("prefix", &self.prefix)
            .field("topics", &self.topics)
            .field("start", &self.start)
            .field("instance", &self.instance)
            .field("session", &self.session)
            .field("heartbeat", &self.heartbeat)
            .field("poll_interval_max", &self.poll_interval_max)
            .field("hand_over", &self.hand_over)
            .field("delivery_timeout", &self.delivery_timeout)
            .field("request_timeout", &self.request_timeout)
            .field("body_bytes_max", &self.body_bytes_max)
            .field("options", &self.options)
            .finish()
    }
}

fn is_broker(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let host_fits = |c: char| c.is_ascii_alphanumeric() || "-._[]:".contains(c);
    !host.is_empty() && host.chars().all(host_fits) && port.parse::<u16>().is_ok()
}

/// What is expected of topics.
#[derive(Clone, Debug)]
pub struct Topics {
    /// Whether missing topics are created. Default: yes.
    pub creation: Creation,
    /// Partitions of a topic that is created: how many replicas can share an endpoint's work.
    /// Default: what the broker makes by itself.
    pub partitions: Option<u32>,
    /// Copies of every record; a topic with fewer is refused. Default: what the broker makes by
    /// itself, and nothing is refused.
    pub replication: Option<u16>,
    /// How long records are kept, also when nobody has read them; a topic that keeps them shorter
    /// is refused. Default 7 days: as long as the inbox recognises a message, so that a group that
    /// begins again at the oldest record handles nothing twice.
    pub retention: Kept,
    /// Message types that share a topic, which keeps order between them: each type that begins
    /// with the first word goes to the topic of the second. Default: none, every type has its own.
    pub families: Vec<(String, String)>,
}

impl Default for Topics {
    fn default() -> Self {
        Self {
            creation: Creation::WhenMissing,
            partitions: None,
            replication: None,
            retention: Kept::For(Duration::from_secs(7 * 24 * 60 * 60)),
            families: Vec::new(),
        }
    }
}

/// Whether missing topics are created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Creation {
    /// By the host that needs them.
    WhenMissing,
    /// By an operator: a missing topic is an error.
    Never,
}

/// How long a topic keeps its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// This long.
    For(Duration),
    /// Until somebody deletes them.
    Forever,
}

impl Kept {
    /// As Kafka writes it: milliseconds, -1 for ever.
    pub(crate) fn millis(self) -> i64 {
        match self {
            Self::For(time) => i64::try_from(time.as_millis()).unwrap_or(i64::MAX),
            Self::Forever => -1,
        }
    }

    /// Whether a topic's setting keeps records at least as long.
    pub(crate) fn is_met_by(self, millis: i64) -> bool {
        millis == -1 || (self != Self::Forever && millis >= self.millis())
    }
}

/// Where an endpoint begins that has never received before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the oldest record that the topic still has, however old it is.
    Oldest,
    /// At what is published after the endpoint was declared for the first time.
    Declared,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::{ClientCertificate, Mechanism, Tls};

    fn refused(change: impl FnOnce(&mut KafkaConfig)) -> String {
        let mut config = KafkaConfig::new("localhost:9092");
        change(&mut config);
        config.check().unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_are_usable() {
        for brokers in [
            "localhost:9092",
            "127.0.0.1:9092, 127.0.0.2:1",
            "[::1]:9092",
        ] {
            KafkaConfig::new(brokers).check().unwrap();
        }
    }

    #[test]
    fn plaintext_beyond_this_machine_needs_a_word() {
        let sasl = |tls| Security::Sasl {
            mechanism: Mechanism::Plain,
            user: "orders".into(),
            password: "secret".into(),
            tls,
        };
        for brokers in [
            "kafka:9092",
            "localhost:9092,10.0.0.1:9092",
            "[2001:db8::1]:9092",
        ] {
            let check = |change: &dyn Fn(&mut KafkaConfig)| {
                let mut config = KafkaConfig::new(brokers);
                change(&mut config);
                config.check().map_err(|error| error.to_string())
            };
            for plain in [check(&|_| ()), check(&|c| c.security = sasl(None))] {
                let shown = plain.unwrap_err();
                assert!(shown.contains("Plaintext::Everywhere"), "{shown}");
            }
            check(&|c| c.plaintext = Plaintext::Everywhere).unwrap();
            let tls = Security::Tls(Tls::default());
            for encrypted in [tls, sasl(Some(Tls::default()))] {
                let checked = check(&|c| c.security = encrypted.clone());
                assert!(
                    checked
                        .err()
                        .is_none_or(|error| error.contains("`kafka-tls`"))
                );
            }
            check(&|c| c.options = vec![("security.protocol".into(), "ssl".into())]).unwrap();
        }
    }

    #[test]
    fn a_setting_that_cannot_work_is_named() {
        let cases = [
            (
                refused(|c| c.brokers = "kafka".into()),
                "`kafka` is no Kafka broker; write",
            ),
            (
                refused(|c| c.brokers = String::new()),
                "`` is no Kafka broker",
            ),
            (
                refused(|c| c.heartbeat = c.session),
                "make it a third or less",
            ),
            (refused(|c| c.session *= 10), "raise `poll_interval_max`"),
            (refused(|c| c.body_bytes_max *= 2), "lower `body_bytes_max`"),
        ];
        for (shown, expected) in cases {
            assert!(shown.contains(expected), "{shown}");
        }
    }

    #[test]
    fn secrets_are_never_shown() {
        const CANARY: &str = "hunter2-canary";
        let mut config = KafkaConfig::new("kafka:9092");
        let certificate = ClientCertificate {
            key_password: Some(CANARY.into()),
            ..ClientCertificate::new("orders.crt", "orders.key")
        };
        config.security = Security::Sasl {
            mechanism: Mechanism::Plain,
            user: "orders".into(),
            password: CANARY.into(),
            tls: Some(Tls {
                authorities: None,
                certificate: Some(certificate),
            }),
        };
        config.options = vec![("ssl.key.password".into(), CANARY.into())];
        let shown = format!("{config:?}");
        assert!(shown.contains("orders.key") && shown.contains("ssl.key.password"));
        assert!(!shown.contains(CANARY), "{shown}");
        config.brokers = format!("kafka://me:{CANARY}@host:9092");
        let url = config.check().unwrap_err().to_string() + &format!("{config:?}");
        assert!(!url.contains(CANARY), "{url}");
    }

    #[test]
    fn longer_and_endless_retention_meet_a_demand() {
        let day = Kept::For(Duration::from_secs(86_400));
        assert!(day.is_met_by(86_400_000) && day.is_met_by(-1));
        assert!(!day.is_met_by(86_399_999));
        assert!(Kept::Forever.is_met_by(-1) && !Kept::Forever.is_met_by(i64::MAX));
    }
}
