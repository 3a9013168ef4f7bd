//! The list of behaviours, and the macro that makes a test of each.

/// One behaviour's area and name.
pub type Behaviour = (&'static str, &'static str);

/// Hands the list of behaviours, by area, to another macro. The one place that names them all.
#[doc(hidden)]
#[macro_export]
macro_rules! __bus_behaviours {
    ($then:path $(, $argument:tt)*) => {
        $then! {
            ($($argument)*)
            sending: [
                a_command_reaches_its_owner_once,
                an_event_reaches_every_subscribed_endpoint_once,
                what_a_handler_returns_is_sent_by_its_kind,
                a_reply_reaches_the_endpoint_that_asked,
                a_scheduled_message_arrives_when_its_time_has_come,
                a_message_for_next_month_waits_until_then,
                a_message_that_came_too_late_is_a_dead_letter,
                what_expired_before_it_left_is_parked_and_counted,
                a_command_without_owner_is_parked,
                an_event_without_subscriber_is_nobodys_business,
                a_resent_identity_is_handled_once,
                a_thousand_messages_are_handled_once_each,
                conversation_and_cause_travel_with_what_a_handler_sends,
                a_type_with_a_codec_of_its_own_travels_by_it,
                a_middleware_runs_around_every_handler_of_its_endpoint,
            ]
            failing: [
                an_error_is_tried_at_once_then_later_then_never,
                a_terminal_error_is_a_dead_letter_at_once,
                a_handler_that_sends_too_much_sends_nothing,
                a_panic_is_an_error_like_any_other,
                what_a_failed_attempt_staged_is_dropped,
                a_handler_beyond_its_deadline_has_failed,
                a_body_that_cannot_be_decoded_is_a_dead_letter,
                a_type_without_handler_is_a_dead_letter,
                a_message_of_a_newer_version_is_a_dead_letter,
                headers_out_of_bounds_are_refused_where_they_are_sent,
                a_redriven_dead_letter_is_handled_once,
                one_failing_message_does_not_hold_up_the_others,
                content_that_is_not_accepted_is_a_dead_letter,
                an_error_that_asks_for_time_costs_no_attempt,
                an_error_that_asks_for_time_gets_all_of_it,
                tries_that_cost_no_attempt_are_bounded_over_restarts,
                a_message_that_always_conflicts_is_a_dead_letter_in_the_end,
            ]
            misusing: [
                the_bus_refuses_to_be_used_inside_a_handler,
                a_context_refuses_to_be_used_after_its_handler,
            ]
            retrying: [
                a_type_is_tried_as_often_as_its_endpoint_says_for_it,
                a_try_for_later_is_a_row_with_a_time_of_its_own,
                what_comes_under_a_former_name_is_tried_as_often,
            ]
            fault_events: [
                a_fault_tells_of_a_dead_letter_once,
                a_fault_brings_the_message_as_it_came,
                a_fault_that_nobody_wants_is_not_written,
                whoever_subscribes_later_is_told_from_then_on,
                a_fault_that_dies_has_no_fault,
                a_dead_letter_is_published_where_its_endpoint_mirrors_them,
                a_dead_letter_that_cannot_be_read_is_published_as_it_came,
            ]
            ordering: [
                messages_of_one_key_are_handled_in_order,
                a_failing_message_holds_back_its_own_key_only,
                a_message_for_later_holds_back_nobody,
                a_dead_letter_holds_back_its_key_until_it_is_redriven,
                a_key_may_go_on_without_its_dead_letter,
            ]
            pausing: [
                an_outage_of_what_handlers_need_makes_no_dead_letter,
                an_outage_drains_no_broker_into_the_database,
                bad_messages_among_good_ones_pause_nothing,
                messages_that_are_bad_for_good_pause_nothing,
                bad_messages_that_waited_out_a_pause_are_dead_letters,
                what_waits_at_a_paused_endpoint_is_given_back,
                a_database_that_took_over_too_much_leaves_messages_with_the_broker,
                an_api_is_refused_while_its_outbox_is_too_old,
                handlers_run_no_more_often_than_their_rate,
                what_an_operator_paused_waits_until_it_goes_on,
                a_process_that_starts_into_a_pause_does_not_break_it,
            ]
            protecting: [
                what_is_sealed_reaches_its_handlers_and_is_stored_nowhere_in_plain,
                what_was_not_sealed_for_this_message_is_a_dead_letter,
                what_is_not_sealed_is_a_dead_letter_where_that_is_required,
                what_waits_is_opened_after_its_key_was_replaced,
                an_unknown_key_makes_a_dead_letter_that_can_be_redriven,
                who_asks_under_seal_gets_the_answer_under_seal,
                what_is_sent_on_recurs_or_is_announced_is_sealed,
                what_tells_of_a_sealed_dead_letter_is_sealed,
                a_dead_letter_may_be_stored_without_its_body,
                what_is_masked_is_in_no_error,
            ]
            rehearsing: [
                a_rehearsal_says_what_would_happen_and_leaves_nothing,
                what_may_touch_the_outside_is_not_rehearsed,
                an_errand_is_done_by_one_host_and_while_its_endpoint_is_paused,
                an_errand_that_nobody_waits_for_is_not_done,
            ]
            recurring: [
                what_recurs_is_fired_once_for_all_hosts,
                times_that_passed_without_a_host_are_made_up_for,
                operators_pause_resume_and_fire_what_recurs,
                what_is_paused_is_not_fired_and_not_made_up_for,
                what_is_declared_otherwise_is_taken_over,
                what_another_host_declared_is_refused,
                what_is_still_handled_is_not_fired_again,
            ]
            hosting: [
                two_hosts_share_the_work_and_handle_each_message_once,
                hosts_share_the_attempts_of_a_message_over_planned_stops,
                an_event_reaches_endpoints_of_other_hosts,
                what_a_lost_host_had_in_hand_is_taken_over,
                a_long_handler_keeps_its_lease,
                a_stopping_host_finishes_what_it_has_in_hand,
                a_host_that_stops_says_so_and_one_that_is_lost_does_not,
                a_stopped_host_gives_back_what_it_never_started,
                a_second_owner_of_a_command_is_refused,
                a_bus_without_a_running_host_says_so,
            ]
            announcing: [
                what_is_announced_is_applied_and_that_is_told,
                without_a_broker_what_is_announced_is_an_event_of_the_outbox,
                what_is_announced_and_cannot_be_applied_is_a_dead_letter,
                what_another_host_did_with_an_announcement_is_told,
                an_identity_that_is_announced_twice_is_applied_once,
                an_announcement_needs_no_database,
                an_event_that_was_not_declared_is_not_announced,
            ]
            asking: [
                who_asks_gets_the_answer,
                each_process_gets_the_answers_to_its_own_questions,
                who_asks_is_told_why_there_is_no_answer,
                an_answer_that_comes_too_late_is_counted,
                a_question_that_is_asked_twice_is_answered_once,
                a_question_whose_answers_nobody_takes_is_not_asked,
            ]
            transports: [
                each_type_goes_by_its_transport,
                a_broker_that_is_down_delays_no_other,
                what_was_sent_from_memory_is_not_looked_for,
                a_broker_that_is_away_at_the_start_is_joined_when_it_comes,
                a_broker_that_refuses_at_the_start_is_an_error,
                an_answer_comes_back_by_the_transport_of_its_question,
                a_named_broker_stands_beside_the_database,
                rows_wait_for_a_host_that_has_their_transport,
                an_endpoint_of_one_place_gets_its_own_rows,
                a_transport_that_an_operator_paused_sends_nothing_until_it_goes_on,
                a_process_that_starts_into_a_pause_of_a_transport_does_not_break_it,
            ]
            versions: [
                an_older_message_is_brought_to_the_shape_of_today,
                an_older_message_that_fits_no_shape_is_a_dead_letter,
                a_newer_message_waits_for_the_newer_host,
                a_renamed_message_answers_to_its_former_names,
                two_releases_share_an_endpoint_while_a_name_changes,
            ]
        }
    };
}

/// Makes one test per behaviour of a host.
///
/// `factory` is the same as for [`store_suite!`](crate::store_suite): then the database is the bus. Or
/// it makes a [`BusUnderTest`](crate::bus::BusUnderTest), whose hosts talk over a broker.
#[macro_export]
macro_rules! bus_suite {
    ($factory:ident) => {
        $crate::__bus_behaviours!($crate::__bus_tests, $factory);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __bus_tests {
    (($factory:ident) $($area:ident: $names:tt)*) => {
        $($crate::__bus_area! { $factory $area $names })*
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __bus_area {
    ($factory:ident $area:ident [$($name:ident,)*]) => {
        mod $area {
            $(
                #[test]
                fn $name() {
                    $crate::bus::run(
                        stringify!($name),
                        super::$factory(),
                        $crate::bus::$area::$name,
                    );
                }
            )*
        }
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
__bus_behaviours!(list);
