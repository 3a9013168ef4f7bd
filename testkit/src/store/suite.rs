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
        }
    };
}

/// Makes one test per behaviour of the store contract, in one module per area.
///
/// `factory` is a path to an `async fn() -> Option<StoreUnderTest>` that returns a fresh, migrated,
/// empty store; or [`unavailable`](crate::store::unavailable) with the reason why there is none.
/// What the backend lacks must be allowed here:
///
/// ```ignore
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
