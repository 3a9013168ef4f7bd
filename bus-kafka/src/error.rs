//! What Kafka's errors mean for us.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use sagabus_core::error::TransportError;

/// Says what an error is without the values that it may quote: a setting that is refused may be a
/// password.
pub(crate) fn shown(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, fact, name, _) => {
            let fact = fact.split(" for configuration").next().unwrap_or(fact);
            // The library's sentence may quote the value.
            let fact = fact.split(" \"").next().unwrap_or(fact);
            format!("option `{name}` is refused: {fact}")
        }
        other => other.to_string(),
    }
}

/// What the broker's word on one record means.
pub(crate) fn of_record(error: &KafkaError, address: &str) -> TransportError {
    let Some(code) = error.rdkafka_error_code() else {
        return TransportError::Unknown(shown(error).into());
    };
    match code {
        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
            TransportError::Unroutable {
                address: address.to_owned(),
            }
        }
        Code::MessageSizeTooLarge => TransportError::Refused(format!(
            "topic `{address}` takes no record of this size; raise its `max.message.bytes`, or send \
             a smaller body"
        )),
        Code::TopicAuthorizationFailed => TransportError::Refused(format!(
            "no permission to write to topic `{address}`; allow WRITE and DESCRIBE on it"
        )),
        Code::ClusterAuthorizationFailed | Code::TransactionalIdAuthorizationFailed => {
            TransportError::Refused(
                "no permission for idempotent writes; allow IDEMPOTENT_WRITE on the cluster"
                    .to_owned(),
            )
        }
        Code::InvalidRecord | Code::PolicyViolation | Code::InvalidTimestamp => {
            TransportError::Refused(format!("topic `{address}` refuses the record: {code}"))
        }
        // Enough copies are missing now; the record was not written.
        Code::NotEnoughReplicas => TransportError::Unavailable(code.to_string().into()),
        // Never sent.
        Code::PurgeQueue => TransportError::Unavailable("the producer was closed".into()),
        _ => TransportError::Unknown(code.to_string().into()),
    }
}

/// Whether the producer that reported this must not be used again.
pub(crate) fn ends_the_producer(error: &TransportError) -> bool {
    matches!(error, TransportError::Unknown(_))
}

/// Whether a code says that the cluster was not reached, rather than that it said no.
pub(crate) fn is_away(code: Code) -> bool {
    matches!(
        code,
        Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::OperationTimedOut
            | Code::RequestTimedOut
            | Code::TimedOutQueue
            | Code::MessageTimedOut
            | Code::Resolve
            | Code::BrokerNotAvailable
            | Code::LeaderNotAvailable
            | Code::CoordinatorNotAvailable
            | Code::CoordinatorLoadInProgress
            | Code::NotCoordinator
            | Code::NotLeaderForPartition
            | Code::NetworkException
    )
}

/// Whether a code may say no more than that a topic was made a moment ago.
pub(crate) fn is_new(code: Code) -> bool {
    matches!(
        code,
        Code::UnknownPartition | Code::UnknownTopic | Code::UnknownTopicOrPartition
    )
}

#[cfg(test)]
mod tests {
    use rdkafka::ClientConfig;
    use rdkafka::consumer::BaseConsumer;

    use super::*;

    #[test]
    fn a_refused_option_is_named_and_its_value_is_not() {
        const CANARY: &str = "hunter2-canary";
        for (name, value) in [
            ("session.timeout.ms", CANARY),
            ("no.such.option", CANARY),
            ("security.protocol", CANARY),
        ] {
            let mut config = ClientConfig::new();
            let made = config.set(name, value).create::<BaseConsumer>();
            let error = made.err().expect("the option is refused");
            let text = shown(&error);
            assert!(text.contains(name), "{text}");
            assert!(!text.contains(CANARY), "{text}");
        }
    }

    #[test]
    fn the_brokers_word_on_a_record_tells_later_from_never() {
        let of = |code| of_record(&KafkaError::MessageProduction(code), "t");
        assert!(matches!(
            of(Code::UnknownTopicOrPartition),
            TransportError::Unroutable { .. }
        ));
        assert!(matches!(
            of(Code::MessageTimedOut),
            TransportError::Unknown(_)
        ));
        assert!(matches!(
            of(Code::PurgeInflight),
            TransportError::Unknown(_)
        ));
        assert!(matches!(
            of(Code::PurgeQueue),
            TransportError::Unavailable(_)
        ));
        let refused = of(Code::TopicAuthorizationFailed).to_string();
        assert!(refused.contains("allow WRITE"), "{refused}");
    }
}
