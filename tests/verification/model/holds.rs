//! The protocol as it ships: everything holds.

use crate::rules::UserAction::{
    Apply, ClearStatus, CreateForeignJob, Delete, ForgeFailure, ForgeSuccess, Retry, Suspend,
};
use crate::rules::{Budget, Rules};
use crate::search::{holds, steps};

#[test]
fn one_import_with_two_leaders_at_once() {
    holds(
        "two leaders",
        steps(16),
        Rules { both_lead: true, budget: Budget { ticks: 1, ..Budget::default() }, ..Rules::untimely() },
    );
}

#[test]
fn one_import_through_crashes_and_lost_answers() {
    holds(
        "crashes",
        None,
        Rules { budget: Budget { ticks: 1, crashes: 1, losses: 1, ..Budget::default() }, ..Rules::untimely() },
    );
}

#[test]
fn one_import_through_refusals_failures_and_late_jobs() {
    holds(
        "rejections",
        None,
        Rules {
            budget: Budget { ticks: 1, rejections: 1, delays: 1, failures: 1, ..Budget::default() },
            ..Rules::untimely()
        },
    );
}

#[test]
fn one_import_through_reads_that_fail() {
    holds(
        "reads",
        steps(20),
        Rules {
            budget: Budget { ticks: 1, crashes: 1, reads: 1, delays: 1, ..Budget::default() },
            ..Rules::untimely()
        },
    );
}

#[test]
fn one_import_whose_resource_is_meddled_with() {
    holds(
        "user_actions",
        steps(26),
        Rules {
            user_actions: &[CreateForeignJob, Delete, Apply, Suspend, ClearStatus, ForgeSuccess, ForgeFailure, Retry],
            budget: Budget { crashes: 1, user_actions: 1, ..Budget::default() },
            ..Rules::untimely()
        },
    );
}

#[test]
fn one_import_that_fails_and_is_made_again_because_a_person_asks() {
    holds(
        "asked for again",
        None,
        Rules {
            user_actions: &[Retry],
            budget: Budget { crashes: 1, losses: 1, failures: 1, user_actions: 1, ..Budget::default() },
            ..Rules::untimely()
        },
    );
}

#[test]
fn one_import_that_fails_and_is_made_again_within_its_limit() {
    holds(
        "within the limit",
        steps(30),
        Rules {
            backoff_limit: 1,
            user_actions: &[Retry, CreateForeignJob, ForgeFailure],
            budget: Budget { failures: 2, user_actions: 1, ..Budget::default() },
            ..Rules::untimely()
        },
    );
}

#[test]
fn one_import_that_is_made_again_where_names_do_not_help_and_leadership_changes_hands() {
    holds(
        "made again, handover",
        steps(24),
        Rules {
            backoff_limit: 1,
            budget: Budget { ticks: 1, handovers: 1, failures: 1, delays: 1, ..Budget::default() },
            ..Rules::timely()
        },
    );
}

#[test]
fn one_import_where_names_do_not_help_and_leadership_changes_hands() {
    holds(
        "handovers",
        steps(22),
        Rules { budget: Budget { ticks: 1, handovers: 1, delays: 1, ..Budget::default() }, ..Rules::timely() },
    );
}

#[test]
fn one_import_where_names_do_not_help_and_two_lead_at_once() {
    holds(
        "two leaders, names that don't help",
        steps(18),
        Rules { both_lead: true, budget: Budget { ticks: 1, ..Budget::default() }, ..Rules::timely() },
    );
}

#[test]
fn two_imports_into_one_dataset_through_a_handover() {
    holds(
        "two imports",
        steps(22),
        Rules { resources: 2, budget: Budget { handovers: 1, ..Budget::default() }, ..Rules::timely() },
    );
}

#[test]
fn two_imports_the_older_of_which_fails_and_is_asked_for_again() {
    holds(
        "two imports, asked for again",
        steps(26),
        Rules {
            resources: 2,
            user_actions: &[Retry],
            budget: Budget { failures: 1, user_actions: 1, ..Budget::default() },
            ..Rules::timely()
        },
    );
}

#[test]
fn one_import_through_everything_at_once() {
    holds(
        "everything at once",
        steps(11),
        Rules {
            backoff_limit: 1,
            user_actions: &[CreateForeignJob, Delete, Apply, Suspend, ClearStatus, Retry],
            budget: Budget {
                ticks: 1,
                crashes: 1,
                handovers: 1,
                losses: 1,
                rejections: 1,
                reads: 1,
                delays: 1,
                failures: 1,
                user_actions: 1,
            },
            ..Rules::untimely()
        },
    );
}
