//! The intact protocol: every property holds. docs/model.md has a row for each test.

use crate::checker::{holds, steps};
use crate::config::UserAction::{Apply, ClearStatus, CreateForeignJob, Delete, ForgeFailure, Retry, Suspend};
use crate::config::{Budget, Config, UserAction};

#[test]
fn one_import_with_crash_and_lost_response_keeps_invariants() {
    holds(
        "crashes and lost responses",
        None,
        Config {
            budget: Budget { ticks: 1, crashes: 1, lost_responses: 1, ..Budget::default() },
            ..Config::unique_names()
        },
    );
}

#[test]
fn one_import_with_rejection_failed_job_and_invisible_job_keeps_invariants() {
    holds(
        "rejections, failed and invisible jobs",
        None,
        Config {
            budget: Budget { ticks: 1, rejections: 1, invisible_jobs: 1, failed_jobs: 1, ..Budget::default() },
            ..Config::unique_names()
        },
    );
}

#[test]
fn one_import_with_failed_read_keeps_invariants() {
    holds(
        "failed reads",
        steps(20),
        Config {
            budget: Budget { ticks: 1, crashes: 1, failed_reads: 1, invisible_jobs: 1, ..Budget::default() },
            ..Config::unique_names()
        },
    );
}

#[test]
fn one_import_with_two_leaders_keeps_invariants() {
    holds(
        "two leaders",
        steps(16),
        Config { two_leaders: true, budget: Budget { ticks: 1, ..Budget::default() }, ..Config::unique_names() },
    );
}

#[test]
fn one_import_with_two_leaders_and_duplicate_names_keeps_invariants() {
    holds(
        "two leaders, duplicate names",
        steps(18),
        Config { two_leaders: true, budget: Budget { ticks: 1, ..Budget::default() }, ..Config::bounded_delays() },
    );
}

#[test]
fn one_import_with_user_action_keeps_invariants() {
    holds(
        "user actions",
        steps(26),
        Config {
            user_actions: UserAction::ALL,
            budget: Budget { crashes: 1, user_actions: 1, ..Budget::default() },
            ..Config::unique_names()
        },
    );
}

#[test]
fn two_imports_into_one_dataset_through_handover_keep_invariants() {
    holds(
        "two imports",
        steps(22),
        Config { resources: 2, budget: Budget { handovers: 1, ..Budget::default() }, ..Config::bounded_delays() },
    );
}

#[test]
fn one_import_through_handover_with_duplicate_names_keeps_invariants() {
    holds(
        "handover, duplicate names",
        steps(22),
        Config {
            budget: Budget { ticks: 1, handovers: 1, invisible_jobs: 1, ..Budget::default() },
            ..Config::bounded_delays()
        },
    );
}

#[test]
fn failed_import_that_user_retries_keeps_invariants() {
    holds(
        "retry by a user",
        None,
        Config {
            user_actions: &[Retry],
            budget: Budget { crashes: 1, lost_responses: 1, failed_jobs: 1, user_actions: 1, ..Budget::default() },
            ..Config::unique_names()
        },
    );
}

#[test]
fn failed_import_within_backoff_limit_keeps_invariants() {
    holds(
        "retry within the limit",
        steps(30),
        Config {
            backoff_limit: 1,
            user_actions: &[Retry, CreateForeignJob, ForgeFailure],
            budget: Budget { failed_jobs: 2, user_actions: 1, ..Budget::default() },
            ..Config::unique_names()
        },
    );
}

#[test]
fn failed_import_within_backoff_limit_through_handover_with_duplicate_names_keeps_invariants() {
    holds(
        "retry, handover, duplicate names",
        steps(24),
        Config {
            backoff_limit: 1,
            budget: Budget { ticks: 1, handovers: 1, failed_jobs: 1, invisible_jobs: 1, ..Budget::default() },
            ..Config::bounded_delays()
        },
    );
}

#[test]
fn two_imports_when_user_retries_the_older_keep_invariants() {
    holds(
        "two imports, retry of the older",
        steps(26),
        Config {
            resources: 2,
            user_actions: &[Retry],
            budget: Budget { failed_jobs: 1, user_actions: 1, ..Budget::default() },
            ..Config::bounded_delays()
        },
    );
}

#[test]
fn one_import_beside_data_deletions_keeps_invariants() {
    holds(
        "data deletions",
        steps(20),
        Config {
            budget: Budget { ticks: 1, crashes: 1, lost_responses: 1, data_deletions: 2, ..Budget::default() },
            ..Config::unique_names()
        },
    );
}

#[test]
fn one_import_with_one_event_of_each_kind_keeps_invariants() {
    holds(
        "one event of each kind",
        steps(11),
        Config {
            backoff_limit: 1,
            user_actions: &[CreateForeignJob, Delete, Apply, Suspend, ClearStatus, Retry],
            budget: Budget::of_each(1),
            ..Config::unique_names()
        },
    );
}
