//! The conformance suite: what every engine must do, verb by verb, against a clock that the test owns.

pub(super) mod answering;
pub(super) mod archiving;
pub(super) mod crowds;
pub(super) mod discovering;
pub(super) mod hinting;
pub(super) mod holding;
pub(super) mod lacking;
pub(super) mod lives;
pub(super) mod people;
pub(super) mod rebuilding;
pub(super) mod statements;
pub(super) mod telling;
pub(super) mod tending;
pub(super) mod watching;
pub(super) mod world;

/// Makes a test of each function of the suite, on the worlds that the expression opens.
macro_rules! suite {
    ($($module:ident: $($test:ident),+;)+) => {
        macro_rules! conformance {
            ($open:expr) => {
                $($(
                    #[tokio::test]
                    async fn $test() {
                        let world = $open.await;
                        $crate::manifest::conformance::$module::$test(&world).await;
                        world.manifest.close().await;
                    }
                )+)+
            };
        }
    };
}

suite! {
    crowds:
        of_a_backlog_the_most_urgent_go_first,
        of_a_backlog_of_assets_none_that_is_due_is_left_out,
        of_many_observations_one_that_fails_spoils_no_other;
    discovering:
        a_list_is_read_by_one_at_a_time_and_goes_on_where_it_was,
        a_list_that_is_wanted_from_further_back_begins_anew;
    watching:
        learning_again_changes_nothing_but_tags_that_lack,
        a_bare_link_is_a_completed_task_with_one_due_asset,
        tasks_are_claimed_by_deadline_when_their_time_has_come,
        two_claimers_never_get_one_row,
        a_lease_that_ran_out_is_claimed_anew_and_its_late_owner_changes_nothing,
        a_lease_that_ran_out_and_that_nobody_claimed_still_writes,
        a_settled_claim_is_over,
        renewing_tells_which_leases_are_lost,
        of_two_leases_on_one_row_the_older_is_lost,
        an_observation_is_written_whole,
        a_look_without_a_sighting_counts_attempts_and_misses,
        every_task_is_final_or_has_a_due_time;
    archiving:
        results_become_due_assets_with_an_object_for_each_destination,
        a_fresh_link_is_asked_for_and_given,
        a_lost_asset_with_a_new_link_is_due_again_and_archived_ones_stay,
        nobody_is_asked_for_a_fresh_bare_link,
        a_stale_lease_changes_nothing,
        an_upload_is_found_again_with_its_parts,
        no_key_is_given_twice,
        another_key_orphans_the_upload_under_the_old_one,
        archived_when_every_object_is,
        a_final_settlement_orphans_open_uploads,
        every_asset_is_final_or_has_a_due_time;
    answering:
        the_last_answer_about_what_is_over_is_kept;
    hinting:
        a_hint_makes_a_task_due_and_postpones_nothing,
        who_is_asked_for_is_claimed_first,
        a_hint_during_a_look_leaves_the_claim_and_brings_another_look,
        only_what_was_given_up_is_revived;
    holding:
        a_hold_outlasts_a_lease_and_no_renewal_shortens_it,
        who_holds_is_told_what_is_lost_and_what_was_heard_of,
        what_is_let_go_is_due_at_its_time_unless_it_is_lost;
    lacking:
        tasks_of_a_provider_that_a_daemon_lacks_are_left_to_others,
        objects_that_a_daemon_cannot_write_are_left_to_others;
    tending:
        orphans_are_claimed_until_they_are_aborted,
        uploads_that_no_row_has_become_orphans,
        an_alarm_is_raised_once_for_a_deadline,
        a_short_life_is_in_danger_in_its_last_third,
        the_next_due_time_minds_leases,
        what_is_due_later_than_any_wait_is_due_now;
    telling:
        a_task_without_a_file_is_told_of_as_archived_once,
        each_transition_appends_its_event,
        events_become_deliveries_for_whoever_wants_them,
        a_task_calls_back_when_it_ends,
        a_delivery_keeps_its_id_until_it_is_taken,
        a_slow_endpoint_holds_up_no_other,
        an_endpoint_that_works_again_gets_all_at_once,
        a_replay_tells_whom_it_names_and_nobody_else,
        a_disabled_endpoint_is_told_nothing_until_it_is_enabled,
        an_event_that_all_were_told_of_is_pruned_in_the_end;
    lives:
        random_lives_agree_with_the_model;
    rebuilding:
        what_a_bucket_holds_is_written_down_and_nothing_is_changed;
    people:
        retry_makes_everything_due_that_is_not_archived,
        forget_deletes_a_task_and_orphans_its_uploads,
        records_show_all_that_is_known,
        filters_and_pages,
        the_newest_come_first_and_ids_are_found_by_how_they_begin,
        what_waits_is_told_by_its_errors,
        the_tally_counts_everything,
        the_tally_follows_every_row;
}
pub(super) use conformance;
