//! The list of behaviours, and the macro that makes a test of each.

/// One behaviour's area and name.
pub type Behaviour = (&'static str, &'static str);

/// Hands the list of behaviours, by area, to another macro. The one place that names them all.
#[doc(hidden)]
#[macro_export]
macro_rules! __store_behaviours {
    ($then:path $(, $argument:tt)*) => {
        $then! {
            ($($argument)*)
            sources: [
                a_first_message_is_written_and_remembered,
                a_known_message_is_a_duplicate_and_writes_nothing,
                one_message_at_two_endpoints_is_two_messages,
                a_row_is_accepted_by_deleting_it,
                a_row_under_an_old_epoch_is_a_duplicate_and_stays,
                a_row_that_is_gone_is_a_duplicate,
                a_unit_without_sources_is_written_every_time,
                a_merged_unit_takes_over_all_of_its_messages,
                a_merged_unit_of_known_messages_is_a_duplicate,
                a_merged_unit_that_is_partly_known_is_a_conflict_and_writes_nothing,
                a_merged_unit_that_names_a_message_twice_is_a_conflict_and_writes_nothing,
                resubmitting_a_group_answers_duplicate_for_its_own_units,
                outcomes_come_in_the_order_of_units,
                an_empty_group_is_answered,
            ]
            instances: [
                a_new_instance_starts_with_version_one,
                an_instance_moves_by_one_with_every_message,
                a_merged_unit_moves_its_instance_by_its_messages,
                an_instance_reads_back_as_it_was_written,
                a_version_miss_is_a_conflict_and_writes_nothing,
                creating_what_exists_is_a_conflict,
                moving_what_does_not_exist_is_a_conflict_and_creates_nothing,
                a_version_miss_inside_a_mixed_group_leaves_no_inbox_row,
                duplicate_is_decided_before_conflict,
                a_tombstone_goes_on_with_its_version,
                creating_over_a_tombstone_is_a_conflict,
                instances_of_two_kinds_share_no_key,
            ]
            load: [
                load_answers_in_the_order_of_its_questions,
                load_answers_only_what_is_asked,
                a_key_is_blocked_while_its_row_waits,
                a_parked_row_blocks_nothing,
                what_became_of_a_message_is_told_at_every_step,
            ]
            outgoing: [
                a_row_carries_identity_headers_and_bytes_unchanged,
                a_body_of_a_mebibyte_is_kept,
                a_row_born_leased_is_ours,
                a_row_born_leased_comes_back_when_its_lease_ends,
                a_row_born_available_is_for_whoever_comes_first,
                a_row_born_parked_is_claimed_by_nobody,
                a_message_that_is_not_due_is_not_born_leased,
                a_message_comes_when_it_is_due,
                a_due_time_in_the_past_is_now,
                an_event_becomes_one_row_per_place,
                leased_rows_are_named_at_their_placements,
                ids_grow_in_the_order_of_placements,
                a_unit_of_many_messages_is_written_whole,
                a_given_identity_is_written_once,
                a_given_identity_twice_in_one_group_is_written_once,
                a_given_identity_is_written_at_each_endpoint,
                a_given_identity_that_a_broker_brings_is_a_duplicate,
                a_given_identity_of_a_loser_is_new_again,
                failed_attempts_travel_with_a_row,
                stale_routes_write_nothing,
                an_event_that_nobody_took_is_placed_anew_when_routes_changed,
                a_refused_unit_writes_nothing_of_its_group,
            ]
            claims: [
                a_claimed_row_is_not_claimed_again,
                two_claims_never_return_the_same_row,
                a_claim_takes_what_it_asks_for_and_no_more,
                a_claim_of_nothing_is_answered,
                hot_and_cold_scans_find_what_is_due,
                what_waits_longest_is_claimed_first,
                a_lease_that_ends_lets_another_host_claim,
                extending_keeps_rows_ours,
                extending_counts_only_what_is_still_ours,
                expired_rows_are_marked,
                a_message_that_was_not_due_has_not_expired,
                transports_get_addresses_and_endpoints_get_rows,
                a_claim_for_transports_keeps_its_bounds,
                a_claim_for_a_transport_takes_its_rows_and_no_others,
                what_waits_is_measured,
            ]
            settles: [
                deleting_removes_the_row,
                a_settle_with_an_old_epoch_changes_nothing,
                a_released_row_comes_back_after_its_delay_with_its_attempts,
                a_release_replaces_attempts_or_leaves_them,
                tries_that_cost_no_attempt_are_kept_and_count_no_failure,
                a_start_can_be_given_back,
                settling_again_gives_back_no_second_start,
                a_parked_row_waits_for_an_operator,
                starting_alone_is_counted,
                a_start_alone_that_ended_with_a_word_is_forgotten,
                settles_hold_whatever_becomes_of_the_units,
                many_rows_are_settled_in_one_call,
            ]
            order: [
                an_ordered_row_waits_for_the_older_row_of_its_key,
                rows_of_one_unit_keep_their_order,
                rows_without_key_or_order_flow_freely,
                settling_the_head_pulls_the_next_of_its_key_forward,
                settling_many_heads_pulls_each_key_forward,
                a_released_head_still_goes_first,
                only_the_first_of_a_key_is_born_leased,
                a_head_settled_in_the_same_group_makes_way,
                a_unit_does_not_wait_behind_the_row_that_it_answers,
                pulling_forward_makes_no_row_early,
                a_row_born_parked_holds_back_nobody,
                disarming_the_head_pulls_the_next_of_its_key_forward,
                addresses_keep_order_per_key,
                whole_lines_come_in_the_order_in_which_they_were_written,
                a_blocked_key_with_many_followers_leaves_others_flowing,
            ]
            timers: [
                a_timer_carries_its_owner_name_and_generation,
                a_timer_armed_again_replaces_its_row,
                a_disarmed_timer_is_gone,
                a_claimed_timer_can_be_disarmed,
                a_timer_may_rearm_itself_in_the_unit_that_it_fires,
                timers_of_two_instances_share_no_name,
                a_conflict_leaves_timers_armed,
                units_of_one_group_disarm_and_arm_apart,
                operators_move_fire_and_cancel_timers,
                timers_are_found_by_the_instance_that_armed_them,
            ]
            labels: [
                an_instance_is_found_by_its_labels,
                labels_are_replaced_as_a_whole_or_left,
                a_label_of_a_running_instance_is_refused_to_others,
                a_tombstone_keeps_its_labels_until_another_takes_them,
                a_loser_changes_no_label,
                a_label_passes_from_one_instance_to_another,
                two_kinds_share_no_label,
                a_tombstone_that_is_swept_takes_its_labels_along,
                instances_are_found_by_key_and_label,
                instances_are_found_by_when_they_began,
                dead_letters_are_found_by_a_label_of_their_instance,
            ]
            dead_letters: [
                a_dead_letter_keeps_raw_bytes_headers_and_every_attempt,
                a_dead_letter_of_a_row_replaces_the_row,
                a_message_has_one_open_dead_letter,
                a_loser_leaves_no_dead_letter,
                what_tells_of_a_dead_letter_is_written_with_it,
                dead_letters_come_latest_first,
                a_redriven_message_is_a_row_again,
                a_dead_letter_is_redriven_once,
                redrive_after_the_inbox_was_swept_is_claimable_once,
                a_redriven_message_may_die_again,
                a_redriven_message_keeps_the_order_of_its_endpoint,
            ]
            held_keys: [
                a_dead_letter_holds_its_key_until_it_is_redriven,
                a_discarded_dead_letter_lets_its_key_go_on,
                what_a_broker_brought_holds_its_key_too,
                many_dead_letters_of_a_key_are_redriven_in_order,
                a_dead_letter_whose_key_goes_on_holds_nothing,
                a_stub_is_in_nobodys_hands,
                a_redriven_message_that_dies_again_holds_its_key_again,
                a_loser_holds_no_key,
                many_that_wait_behind_a_dead_letter_leave_others_flowing,
                an_operators_message_stands_in_no_line,
            ]
            operators: [
                a_store_says_which_it_is,
                dead_letters_are_found_by_what_is_known_of_them,
                dead_letters_come_in_pages,
                bodies_are_read_as_far_as_wanted,
                dead_letters_are_grouped_by_endpoint_and_fingerprint,
                what_is_redriven_or_discarded_stays_readable,
                many_are_redriven_in_the_order_in_which_they_died,
                a_discarded_dead_letter_can_be_restored_once,
                changes_are_found_by_who_what_and_when,
                every_change_leaves_one_audit_entry_and_none_when_nothing_changed,
                a_change_of_too_much_is_refused_and_changes_nothing,
                two_operators_redrive_each_message_once,
            ]
            operations: [
                an_operation_changes_what_was_found_and_nothing_later,
                an_operation_of_nothing_is_not_begun,
                an_operation_that_cannot_be_stored_is_refused,
                one_process_at_a_time_drives_an_operation,
                a_paused_operation_stands_still_until_it_is_resumed,
                a_cancelled_operation_leaves_the_rest,
                what_was_dealt_with_meanwhile_is_passed_over,
                dead_letters_are_redriven_to_another_endpoint,
                what_became_of_redriven_messages_is_counted,
                operations_come_in_pages,
                steps_at_once_change_each_dead_letter_once,
            ]
            editing: [
                a_dead_letter_is_redriven_with_another_body,
                an_edited_dead_letter_comes_in_its_place,
                what_an_operator_did_not_see_is_not_edited,
                a_body_of_too_many_bytes_is_refused,
                an_altered_instance_moves_by_one_version,
                a_completed_instance_is_a_tombstone_without_timers,
                what_came_of_a_move_stands_in_the_entry_of_who_asked,
                what_came_of_a_cancel_stands_in_the_entry_of_who_asked,
            ]
            inspection: [
                a_released_row_is_tried_as_if_it_were_new,
                a_released_command_goes_to_the_endpoint_that_takes_it_by_now,
                a_released_row_takes_its_place_in_line_again,
                only_parked_rows_are_released_or_discarded,
                destinations_are_summed_up,
                instances_are_listed_by_kind_and_state,
                instances_with_data_of_an_older_version_are_found,
                history_tells_of_instance_message_and_conversation,
                what_sent_a_message_is_found,
                the_inbox_tells_what_was_taken_over_and_handled,
                hosts_are_listed_and_swept_when_they_are_long_gone,
                a_removed_subscription_gets_no_more_messages,
                an_endpoint_is_removed_when_nothing_waits_for_it,
            ]
            searches: [
                rows_are_found_by_what_went_wrong_with_them,
                rows_are_changed_by_what_went_wrong_with_them,
                rows_are_found_by_their_ids,
                rows_are_found_by_their_key_and_their_age,
                what_no_row_has_is_not_searched_for,
            ]
            moved_rows: [
                a_row_that_waits_is_set_aside_until_it_is_released,
                what_a_host_has_in_hand_is_set_aside_under_it,
                those_behind_a_row_that_is_set_aside_go_on,
                timers_and_stubs_are_neither_set_aside_nor_hurried_on,
                a_row_that_waits_for_its_time_is_hurried_on,
                what_is_in_hand_or_parked_is_not_hurried_on,
                a_parked_row_is_sent_to_another_place,
                no_row_is_sent_where_nobody_takes_it,
                the_accounts_know_of_rows_that_operators_took_away,
            ]
            sent_rows: [
                a_sent_row_that_is_kept_is_gone_from_the_outbox,
                a_settle_that_comes_too_late_keeps_nothing,
                what_is_sent_again_is_what_was_sent,
                messages_of_a_key_are_sent_again_in_their_order,
                what_is_kept_is_found_by_when_and_where_it_went,
                what_was_kept_for_long_enough_is_swept,
                what_was_handled_is_not_kept,
            ]
            row_operations: [
                rows_are_changed_as_they_were_found_and_no_later_ones,
                every_verb_of_rows_can_be_an_operation,
                rows_are_purged_and_those_behind_them_go_on,
                rows_that_went_meanwhile_are_passed_over,
                an_operation_is_refused_what_its_verb_is_not_for,
                rows_are_counted_as_they_are_listed,
                what_was_sent_is_sent_again_in_steps,
            ]
            shapes: [
                running_instances_are_summed_up_by_what_reads_them,
                what_waits_is_summed_up_by_what_handles_it,
            ]
            accounts: [
                accounts_balance_whatever_becomes_of_a_message,
                a_message_that_vanished_is_named,
                a_redriven_message_is_followed_to_where_it_went,
                what_a_sweep_removed_is_not_missed,
                endpoints_are_left_out_of_the_accounts_where_asked,
            ]
            sweeps: [
                sweep_is_bounded_and_says_when_there_is_more,
                sweep_keeps_what_is_young,
                sweep_tells_old_from_young,
                dealt_with_dead_letters_and_the_audit_are_swept,
                sweep_leaves_what_is_not_finished,
                what_was_swept_is_new_again,
                history_has_one_entry_per_message_of_a_winner,
                counts_say_what_there_is,
            ]
            hosts: [
                attaching_answers_ids_and_routes,
                attaching_twice_is_harmless,
                two_endpoints_of_two_hosts_share_routes,
                subscriptions_stay_when_a_host_attaches_with_less,
                a_change_of_order_is_a_change_of_routes,
                a_second_owner_of_a_command_is_refused,
                commands_that_nobody_took_go_to_their_owner_when_it_comes,
                of_hosts_that_claim_one_command_at_once_one_is_taken,
                a_host_without_endpoints_is_taken,
                wakeups_tell_another_host_about_available_rows,
            ]
            races: [
                concurrent_creators_of_one_instance_converge,
                concurrent_copies_of_one_message_have_one_effect,
                concurrent_groups_of_mixed_size_lose_nothing_and_double_nothing,
                concurrent_hosts_keep_the_order_of_a_key,
            ]
        }
    };
}

/// Makes one test per behaviour of the store contract, in one module per area.
///
/// `factory` is a path to an `async fn() -> Option<StoreUnderTest>` that returns a fresh, migrated,
/// empty store; or [`unavailable`](crate::store::unavailable) with the reason why there is none.
/// What the backend lacks must be allowed here:
///
/// ```text
/// sagabus_testkit::store_suite!(sqlite, may_skip: [RefusesNul]);
/// ```
#[macro_export]
macro_rules! store_suite {
    ($factory:ident) => {
        $crate::store_suite!($factory, may_skip: []);
    };
    ($factory:ident, may_skip: [$($skip:ident),* $(,)?]) => {
        $crate::__store_behaviours!($crate::__store_tests, $factory, [$($skip)*]);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __store_tests {
    (($factory:ident $skips:tt) $($area:ident: $names:tt)*) => {
        $($crate::__store_area! { $factory $skips $area $names })*
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __store_area {
    ($factory:ident [$($skip:ident)*] $area:ident [$($name:ident,)*]) => {
        mod $area {
            const MAY_SKIP: $crate::store::Allowed = &[$($crate::store::Skippable::$skip),*];
            $crate::__store_area_tests! { $factory $area [$($name,)*] }
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __store_area_tests {
    ($factory:ident $area:ident [$($name:ident,)*]) => {
        $(
            #[test]
            fn $name() {
                $crate::store::run(
                    stringify!($name),
                    MAY_SKIP,
                    super::$factory(),
                    $crate::store::$area::$name,
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
__store_behaviours!(list);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_behaviour_that_is_written_is_run() {
        let areas = [
            ("sources", include_str!("sources.rs")),
            ("instances", include_str!("instances.rs")),
            ("load", include_str!("load.rs")),
            ("outgoing", include_str!("outgoing.rs")),
            ("claims", include_str!("claims.rs")),
            ("settles", include_str!("settles.rs")),
            ("order", include_str!("order.rs")),
            ("timers", include_str!("timers.rs")),
            ("labels", include_str!("labels.rs")),
            ("dead_letters", include_str!("dead_letters.rs")),
            ("held_keys", include_str!("held_keys.rs")),
            ("operators", include_str!("operators.rs")),
            ("operations", include_str!("operations.rs")),
            ("editing", include_str!("editing.rs")),
            ("inspection", include_str!("inspection.rs")),
            ("searches", include_str!("searches.rs")),
            ("moved_rows", include_str!("moved_rows.rs")),
            ("sent_rows", include_str!("sent_rows.rs")),
            ("row_operations", include_str!("row_operations.rs")),
            ("shapes", include_str!("shapes.rs")),
            ("accounts", include_str!("accounts.rs")),
            ("sweeps", include_str!("sweeps.rs")),
            ("hosts", include_str!("hosts.rs")),
            ("races", include_str!("races.rs")),
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
