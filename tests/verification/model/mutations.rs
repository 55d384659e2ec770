//! Mutated protocols: the checker finds what goes wrong without a part of the protocol.

use crate::checker::{mutation_breaks, steps};
use crate::config::{Budget, Config, Mutation, UserAction};

const TWICE: &str = "A: no attempt is accepted twice";
const OUT_OF_ORDER: &str = "H: no older import finishes after a newer one";

#[test]
fn missing_intent_lets_import_be_created_twice() {
    mutation_breaks(
        TWICE,
        Mutation::SkipIntent,
        None,
        Config {
            budget: Budget { lost_responses: 1, invisible_jobs: 1, ..Budget::default() },
            ..Config::bounded_delays()
        },
    );
}

#[test]
fn missing_lookup_lets_import_be_created_twice() {
    mutation_breaks(
        TWICE,
        Mutation::SkipLookup,
        None,
        Config { budget: Budget { ticks: 1, crashes: 1, ..Budget::default() }, ..Config::bounded_delays() },
    );
}

#[test]
fn missing_compare_and_swap_lets_two_leaders_create_import_twice() {
    mutation_breaks(
        TWICE,
        Mutation::OverwriteStatus,
        steps(20),
        Config { two_leaders: true, ..Config::bounded_delays() },
    );
}

#[test]
fn lost_response_that_counts_as_rejection_lets_import_be_created_twice() {
    mutation_breaks(
        TWICE,
        Mutation::RejectLostResponse,
        None,
        Config {
            budget: Budget { lost_responses: 1, invisible_jobs: 1, ..Budget::default() },
            ..Config::bounded_delays()
        },
    );
}

#[test]
fn missing_ownership_check_lets_foreign_job_be_adopted() {
    mutation_breaks(
        "C: no foreign job is adopted",
        Mutation::SkipOwnershipCheck,
        steps(20),
        Config {
            user_actions: &[UserAction::CreateForeignJob],
            budget: Budget { user_actions: 1, ..Budget::default() },
            ..Config::unique_names()
        },
    );
}

#[test]
fn unrecorded_retry_request_lets_attempt_follow_that_no_user_requested() {
    mutation_breaks(
        "A: another attempt follows a failed one, within the limit or because a user requested it",
        Mutation::ForgetHandledRetry,
        None,
        Config {
            user_actions: &[UserAction::Retry],
            budget: Budget { failed_jobs: 2, user_actions: 1, ..Budget::default() },
            ..Config::unique_names()
        },
    );
}

#[test]
fn missing_queue_lets_older_import_finish_after_newer_one() {
    mutation_breaks(OUT_OF_ORDER, Mutation::BypassQueue, None, Config { resources: 2, ..Config::bounded_delays() });
}

/// The older import is suspended while the newer one succeeds, and users may delete either resource at any time.
#[test]
fn missing_requested_at_tag_lets_older_import_finish_after_newer_one_whose_resource_is_deleted() {
    mutation_breaks(
        OUT_OF_ORDER,
        Mutation::OmitRequestedAt,
        steps(32),
        Config {
            resources: 2,
            oldest_suspended: true,
            user_actions: &[UserAction::Delete, UserAction::Suspend],
            budget: Budget { user_actions: 2, ..Budget::default() },
            ..Config::bounded_delays()
        },
    );
}

#[test]
fn unlisted_data_deletion_lets_import_be_accepted_within_it() {
    mutation_breaks(
        "L: no import is accepted within a data deletion that had started when it was checked",
        Mutation::SkipDataDeletions,
        None,
        Config { budget: Budget { data_deletions: 1, ..Budget::default() }, ..Config::unique_names() },
    );
}

/// A create call of the former leader arrives after its resource is deleted and the newer one is submitted.
#[test]
fn missing_quarantine_lets_two_imports_into_one_dataset_overlap() {
    mutation_breaks(
        "H: a dataset has one import at a time",
        Mutation::SkipQuarantine,
        steps(20),
        Config {
            resources: 2,
            user_actions: &[UserAction::Delete],
            budget: Budget { handovers: 1, user_actions: 1, ..Budget::default() },
            ..Config::bounded_delays()
        },
    );
}
