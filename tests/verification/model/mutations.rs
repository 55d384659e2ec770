//! The protocol with a part of it left out: the model finds what that part is for.

use crate::rules::{Budget, Mutation, Rules, UserAction};
use crate::search::{mutation_breaks, steps};

const TWICE: &str = "A: nothing is accepted twice";
const OUT_OF_ORDER: &str = "H: no older import lands after a newer one";

#[test]
fn only_without_an_intent_is_an_import_made_twice() {
    mutation_breaks(
        "intent",
        TWICE,
        Mutation { no_intent: true, ..Mutation::default() },
        None,
        Rules { budget: Budget { crashes: 1, delays: 1, ..Budget::default() }, ..Rules::timely() },
    );
}

#[test]
fn only_without_a_look_before_the_create_is_an_import_made_twice() {
    mutation_breaks(
        "look",
        TWICE,
        Mutation { no_lookup: true, ..Mutation::default() },
        None,
        Rules { budget: Budget { ticks: 1, crashes: 1, ..Budget::default() }, ..Rules::timely() },
    );
}

#[test]
fn only_without_compare_and_swap_do_two_leaders_make_an_import_twice() {
    mutation_breaks(
        "compare-and-swap",
        TWICE,
        Mutation { no_compare_and_swap: true, ..Mutation::default() },
        steps(20),
        Rules { both_lead: true, ..Rules::timely() },
    );
}

#[test]
fn only_without_doubt_about_a_lost_answer_is_an_import_made_twice() {
    mutation_breaks(
        "doubt",
        TWICE,
        Mutation { no_indeterminate: true, ..Mutation::default() },
        None,
        Rules { budget: Budget { losses: 1, delays: 1, ..Budget::default() }, ..Rules::timely() },
    );
}

#[test]
fn only_without_proof_is_a_foreign_job_adopted() {
    mutation_breaks(
        "proof",
        "C: no foreign job is adopted",
        Mutation { no_ownership: true, ..Mutation::default() },
        steps(20),
        Rules {
            user_actions: &[UserAction::CreateForeignJob],
            budget: Budget { user_actions: 1, ..Budget::default() },
            ..Rules::untimely()
        },
    );
}

#[test]
fn only_without_a_record_of_what_was_granted_is_an_attempt_made_that_nobody_asked_for() {
    mutation_breaks(
        "record of wishes",
        "A: another attempt needs a failed one, and a person or a limit",
        Mutation { no_handled_retry: true, ..Mutation::default() },
        None,
        Rules {
            user_actions: &[UserAction::Retry],
            budget: Budget { failures: 2, user_actions: 1, ..Budget::default() },
            ..Rules::untimely()
        },
    );
}

#[test]
fn only_without_a_queue_does_an_older_import_land_after_a_newer_one() {
    mutation_breaks(
        "queue",
        OUT_OF_ORDER,
        Mutation { no_queue: true, ..Mutation::default() },
        None,
        Rules { resources: 2, ..Rules::timely() },
    );
}

/// The older import is held back while the newer one lands, and either resource may be deleted at any moment.
#[test]
fn only_without_its_age_on_the_job_does_an_older_import_land_after_a_newer_one_that_was_deleted() {
    mutation_breaks(
        "age",
        OUT_OF_ORDER,
        Mutation { no_requested_at: true, ..Mutation::default() },
        steps(32),
        Rules {
            resources: 2,
            suspended: true,
            user_actions: &[UserAction::Delete, UserAction::Suspend],
            budget: Budget { user_actions: 2, ..Budget::default() },
            ..Rules::timely()
        },
    );
}
