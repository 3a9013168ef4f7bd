//! The list of behaviours, and the macro that makes a test of each.

/// One behaviour's area and name.
pub type Behaviour = (&'static str, &'static str);

/// Hands the list of behaviours, by area, to another macro. The one place that names them all.
#[doc(hidden)]
#[macro_export]
macro_rules! __transport_behaviours {
    ($then:path $(, $argument:tt)*) => {
        $then! {
            ($($argument)*)
            routing: [
                an_event_goes_to_every_subscribed_endpoint,
                an_event_without_subscriber_is_taken,
                a_command_goes_to_its_owner,
                a_command_without_owner_is_unroutable,
                an_answer_to_an_endpoint_that_is_not_there_is_unroutable,
                an_unroutable_message_fails_alone,
                declaring_again_loses_nothing,
                an_endpoint_that_nobody_declared_is_a_setup_error,
                an_endpoint_has_an_address_of_its_own,
            ]
            publishing: [
                what_is_published_is_delivered_unchanged,
                an_empty_window_is_answered,
                a_large_window_arrives_whole,
                messages_of_one_key_arrive_in_the_order_of_publishing,
                publishing_again_delivers_the_same_message_again,
                a_body_over_the_limit_fails_alone,
                windows_at_once_lose_nothing,
            ]
            deliveries: [
                an_acked_message_does_not_come_again,
                messages_wait_for_a_replica,
                a_dropped_delivery_is_delivered_again,
                redeliveries_are_counted,
                a_retried_delivery_comes_again_after_its_delay,
                deliveries_of_a_dropped_stream_are_delivered_again,
                a_delivery_can_be_acked_after_its_stream_is_dropped,
                prefetch_bounds_what_is_in_hand,
            ]
            replicas: [
                replicas_share_the_messages,
                what_a_lost_replica_held_goes_to_another,
                a_retried_message_holds_back_its_own_key_only,
                a_key_is_in_the_hands_of_one_replica_at_a_time,
                a_replica_that_goes_in_the_middle_loses_nothing,
            ]
            owners: [
                an_endpoint_of_another_store_is_refused,
                a_command_of_another_endpoint_is_refused,
                an_endpoint_that_takes_more_keeps_what_waits,
                a_broker_that_answers_is_healthy,
            ]
            traffic: [
                many_destinations_are_reached,
                month_old_messages_are_delivered_as_they_were,
                an_unroutable_message_fails_alone_at_every_place,
                many_keys_keep_their_order_each,
                content_types_stay_with_their_messages,
                unusual_type_names_are_carried,
                a_dropped_publish_can_be_done_again,
                acks_out_of_order_count_for_their_own,
                a_slow_delivery_does_not_stop_the_others,
                an_idle_stream_gets_what_comes_later,
                a_key_that_is_torn_keeps_its_order,
                a_transport_that_is_closed_has_told_its_answers,
                a_backlog_and_new_messages_come_once_each,
                strange_headers_and_keys_arrive,
                a_stuck_endpoint_does_not_hold_up_another,
                endpoints_of_similar_names_are_kept_apart,
            ]
            faults: [
                a_nack_is_an_error_for_exactly_that_message,
                a_connection_lost_before_the_confirm_is_unknown,
                publishing_goes_on_after_connections_were_cut,
                a_stream_goes_on_after_connections_were_cut,
            ]
        }
    };
}

/// Makes one test per behaviour of the transport contract, in one module per area.
///
/// `factory` names an `async fn() -> Option<TransportUnderTest>` that connects to a broker; or
/// returns [`unavailable`](crate::transport::unavailable) with the reason why there is none. What
/// the transport's capabilities lack must be allowed here:
///
/// ```text
/// sagabus_testkit::transport_suite!(memory, may_skip: [CutsConnections, Nacks]);
/// ```
#[macro_export]
macro_rules! transport_suite {
    ($factory:ident) => {
        $crate::transport_suite!($factory, may_skip: []);
    };
    ($factory:ident, may_skip: [$($skip:ident),* $(,)?]) => {
        $crate::__transport_behaviours!($crate::__transport_tests, $factory, [$($skip)*]);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __transport_tests {
    (($factory:ident $skips:tt) $($area:ident: $names:tt)*) => {
        $($crate::__transport_area! { $factory $skips $area $names })*
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __transport_area {
    ($factory:ident [$($skip:ident)*] $area:ident [$($name:ident,)*]) => {
        mod $area {
            const MAY_SKIP: $crate::transport::Allowed =
                &[$($crate::transport::Skippable::$skip),*];
            $crate::__transport_area_tests! { $factory $area [$($name,)*] }
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __transport_area_tests {
    ($factory:ident $area:ident [$($name:ident,)*]) => {
        $(
            #[test]
            fn $name() {
                $crate::transport::run(
                    stringify!($name),
                    MAY_SKIP,
                    super::$factory(),
                    $crate::transport::$area::$name,
                );
            }
        )*
    };
}

macro_rules! list {
    (() $($area:ident: [$($name:ident,)*])*) => {
        /// Every behaviour of the suite.
        pub const BEHAVIOURS: &[Behaviour] = &[
            $($((stringify!($area), stringify!($name)),)*)*
        ];
    };
}
__transport_behaviours!(list);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_behaviour_that_is_written_is_run() {
        let areas = [
            ("routing", include_str!("routing.rs")),
            ("publishing", include_str!("publishing.rs")),
            ("deliveries", include_str!("deliveries.rs")),
            ("replicas", include_str!("replicas.rs")),
            ("owners", include_str!("owners.rs")),
            ("traffic", include_str!("traffic.rs")),
            ("faults", include_str!("faults.rs")),
        ];
        let written: Vec<Behaviour> = areas
            .iter()
            .flat_map(|(area, text)| {
                let names = text.lines().filter_map(|line| {
                    let name = line.strip_prefix("pub async fn ")?;
                    name.split('(').next()
                });
                names.map(|name| (*area, name))
            })
            .collect();
        assert_eq!(written, BEHAVIOURS);
    }
}
