//! The protocol with a part of it left out: the model finds what that part is for.

use crate::rules::{Breaks, Budget, Deed, Rules};
use crate::search::{needed, steps};

const TWICE: &str = "A: nothing is accepted twice";
const OUT_OF_ORDER: &str = "H: no older import lands after a newer one";

#[test]
fn only_without_an_intent_is_an_import_made_twice() {
    needed(
        "intent",
        TWICE,
        Breaks { no_intent: true, ..Breaks::default() },
        None,
        Rules { budget: Budget { crashes: 1, lags: 1, ..Budget::default() }, ..Rules::timely() },
    );
}

#[test]
fn only_without_a_look_before_the_create_is_an_import_made_twice() {
    needed(
        "look",
        TWICE,
        Breaks { no_look: true, ..Breaks::default() },
        None,
        Rules { budget: Budget { ticks: 1, crashes: 1, ..Budget::default() }, ..Rules::timely() },
    );
}

#[test]
fn only_without_compare_and_swap_do_two_leaders_make_an_import_twice() {
    needed(
        "compare-and-swap",
        TWICE,
        Breaks { no_swap: true, ..Breaks::default() },
        steps(20),
        Rules { both_lead: true, ..Rules::timely() },
    );
}

#[test]
fn only_without_doubt_about_a_lost_answer_is_an_import_made_twice() {
    needed(
        "doubt",
        TWICE,
        Breaks { no_doubt: true, ..Breaks::default() },
        None,
        Rules { budget: Budget { losses: 1, lags: 1, ..Budget::default() }, ..Rules::timely() },
    );
}

#[test]
fn only_without_proof_is_a_foreign_job_adopted() {
    needed(
        "proof",
        "C: no foreign job is adopted",
        Breaks { no_proof: true, ..Breaks::default() },
        steps(20),
        Rules { deeds: &[Deed::MakeJob], budget: Budget { deeds: 1, ..Budget::default() }, ..Rules::untimely() },
    );
}

#[test]
fn only_without_a_record_of_what_was_granted_is_an_attempt_made_that_nobody_asked_for() {
    needed(
        "record of wishes",
        "A: another attempt needs a failed one, and a person or a limit",
        Breaks { no_record_of_wishes: true, ..Breaks::default() },
        None,
        Rules {
            deeds: &[Deed::Retry],
            budget: Budget { failures: 2, deeds: 1, ..Budget::default() },
            ..Rules::untimely()
        },
    );
}

#[test]
fn only_without_a_queue_does_an_older_import_land_after_a_newer_one() {
    needed(
        "queue",
        OUT_OF_ORDER,
        Breaks { no_queue: true, ..Breaks::default() },
        None,
        Rules { resources: 2, ..Rules::timely() },
    );
}

/// The older import is held back while the newer one lands, and either resource may be deleted at any moment.
#[test]
fn only_without_its_age_on_the_job_does_an_older_import_land_after_a_newer_one_that_was_deleted() {
    needed(
        "age",
        OUT_OF_ORDER,
        Breaks { no_age: true, ..Breaks::default() },
        steps(32),
        Rules {
            resources: 2,
            suspended: true,
            deeds: &[Deed::Delete, Deed::Suspend],
            budget: Budget { deeds: 2, ..Budget::default() },
            ..Rules::timely()
        },
    );
}
