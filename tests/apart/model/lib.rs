//! Every interleaving, to a bound, of two operators, an API server, the service and a person.
//!
//! The operators are the real ones: [`personalize_operator::pass`], `decide` and `queue`, as they ship. What
//! is modelled is everything around them. docs/model.md tells what is covered, to which bound.

#![cfg(test)]

mod carry;
mod checker;
mod rules;
mod world;

use checker::Checked;
use rules::{Breaks, Budget, Deed, Rules};
use stateright::{Checker, HasDiscoveries, Model};
use std::io::Write;
use std::time::Instant;

/// How much deeper to look than `make test` does; `MODEL_DEPTH=1` adds one to each budget that is used.
fn deeper(budget: &Budget) -> Budget {
    let more: u8 = std::env::var("MODEL_DEPTH").ok().and_then(|d| d.parse().ok()).unwrap_or(0);
    let add = |n: u8| if n == 0 { 0 } else { n + more };
    let Budget { ticks, crashes, handovers, losses, refusals, lags, failures, deeds } = budget;
    Budget {
        ticks: add(*ticks),
        crashes: add(*crashes),
        handovers: add(*handovers),
        losses: add(*losses),
        refusals: add(*refusals),
        lags: add(*lags),
        failures: add(*failures),
        deeds: add(*deeds),
    }
}

fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// All of these hold in every state, or in every state that is reached in so many steps.
#[track_caller]
fn holds(name: &str, steps: Option<usize>, rules: Rules) {
    let rules = Rules { budget: deeper(&rules.budget), ..rules };
    let began = Instant::now();
    let mut builder = Checked::new(rules).checker().threads(2).finish_when(HasDiscoveries::Any);
    if let Some(depth) = steps {
        builder =
            builder.target_max_depth(std::env::var("MODEL_STEPS").ok().and_then(|s| s.parse().ok()).unwrap_or(depth));
    }
    let checker = builder.spawn_bfs().join();
    say(&format!(
        "{name}: {} unique states, {} in all, depth {}, {:?}",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        began.elapsed()
    ));
    if let Some((property, path)) = checker.discoveries().into_iter().next() {
        panic!("{name}: {property} is broken by {:#?}", path.into_actions());
    }
    assert!(checker.is_done());
}

/// The model finds how this property is broken.
#[track_caller]
fn breaks(name: &str, property: &'static str, rules: Rules) {
    let wanted = HasDiscoveries::AnyOf([property].into());
    let checker = Checked::new(rules).checker().threads(2).finish_when(wanted).spawn_bfs().join();
    let discoveries = checker.discoveries();
    let path = discoveries.get(property).unwrap_or_else(|| panic!("{name}: no way was found to break {property}"));
    say(&format!("{name} breaks {property}:"));
    path.clone().into_actions().iter().for_each(|action| say(&format!("    {action:?}")));
}

const TWICE: &str = "A: nothing is accepted twice";

#[test]
fn one_import_with_two_leaders_at_once() {
    holds(
        "two leaders",
        Some(18),
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
        "refusals",
        None,
        Rules {
            budget: Budget { ticks: 1, refusals: 1, lags: 1, failures: 1, ..Budget::default() },
            ..Rules::untimely()
        },
    );
}

#[test]
fn one_import_whose_resource_is_meddled_with() {
    use Deed::{Apply, Delete, Forge, MakeJob, Retry, Suspend, Wipe};
    holds(
        "deeds",
        Some(28),
        Rules {
            deeds: &[MakeJob, Delete, Apply, Suspend, Wipe, Forge, Retry],
            budget: Budget { crashes: 1, deeds: 1, ..Budget::default() },
            ..Rules::untimely()
        },
    );
}

#[test]
fn one_import_where_names_do_not_help_and_leadership_changes_hands() {
    holds(
        "handovers",
        Some(24),
        Rules { budget: Budget { ticks: 1, handovers: 1, lags: 1, ..Budget::default() }, ..Rules::timely() },
    );
}

#[test]
fn one_import_where_names_do_not_help_and_two_lead_at_once() {
    holds(
        "two leaders, names that don't help",
        Some(20),
        Rules { both_lead: true, budget: Budget { ticks: 1, ..Budget::default() }, ..Rules::timely() },
    );
}

#[test]
fn two_imports_into_one_dataset_through_a_handover() {
    holds(
        "two imports",
        Some(24),
        Rules { resources: 2, budget: Budget { handovers: 1, ..Budget::default() }, ..Rules::timely() },
    );
}

/// An older import is held back while a newer one lands, and the newer resource may be deleted at any moment.
fn held_back_and_deleted() -> Rules {
    Rules {
        resources: 2,
        suspended: true,
        deeds: &[Deed::Delete, Deed::Suspend],
        budget: Budget { deeds: 2, ..Budget::default() },
        ..Rules::timely()
    }
}

#[test]
fn two_imports_the_older_held_back_and_the_newer_deleted() {
    holds("held back, deleted", Some(30), held_back_and_deleted());
}

#[test]
fn without_its_age_on_the_job_an_older_import_lands_after_a_newer_one_that_was_deleted() {
    breaks(
        "no age",
        "H: no older import lands after a newer one",
        Rules { breaks: Breaks { no_age: true, ..Breaks::default() }, ..held_back_and_deleted() },
    );
}

#[test]
fn without_an_intent_an_import_is_made_twice() {
    breaks(
        "no intent",
        TWICE,
        Rules {
            budget: Budget { crashes: 1, lags: 1, ..Budget::default() },
            breaks: Breaks { no_intent: true, ..Breaks::default() },
            ..Rules::timely()
        },
    );
}

#[test]
fn without_a_look_before_the_create_an_import_is_made_twice() {
    breaks(
        "no look",
        TWICE,
        Rules {
            budget: Budget { ticks: 1, crashes: 1, ..Budget::default() },
            breaks: Breaks { no_look: true, ..Breaks::default() },
            ..Rules::timely()
        },
    );
}

#[test]
fn without_compare_and_swap_two_leaders_make_an_import_twice() {
    breaks(
        "no compare-and-swap",
        TWICE,
        Rules { both_lead: true, breaks: Breaks { no_swap: true, ..Breaks::default() }, ..Rules::timely() },
    );
}

#[test]
fn without_doubt_about_a_lost_answer_an_import_is_made_twice() {
    breaks(
        "no doubt",
        TWICE,
        Rules {
            budget: Budget { losses: 1, lags: 1, ..Budget::default() },
            breaks: Breaks { no_doubt: true, ..Breaks::default() },
            ..Rules::timely()
        },
    );
}

#[test]
fn without_proof_a_foreign_job_is_adopted() {
    breaks(
        "no proof",
        "C: no foreign job is adopted",
        Rules {
            deeds: &[Deed::MakeJob],
            budget: Budget { deeds: 1, ..Budget::default() },
            breaks: Breaks { no_proof: true, ..Breaks::default() },
            ..Rules::untimely()
        },
    );
}

#[test]
fn without_a_queue_an_older_import_lands_after_a_newer_one() {
    breaks(
        "no queue",
        "H: no older import lands after a newer one",
        Rules { resources: 2, breaks: Breaks { no_queue: true, ..Breaks::default() }, ..Rules::timely() },
    );
}
