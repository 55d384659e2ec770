//! Looking through a model: breadth first, to a bound or to its end.

use crate::checker::{Action, ProtocolModel};
use crate::rules::{Budget, Mutation, Rules};
use stateright::{Checker, HasDiscoveries, Model};
use std::io::Write;
use std::time::Instant;

/// A number from the environment, by which to look further by hand than `make test` does.
pub(crate) fn from_env<T: std::str::FromStr>(variable: &str) -> Option<T> {
    std::env::var(variable).ok()?.parse().ok()
}

pub(crate) fn print_line(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// With `MODEL_DEPTH=1`, one more of everything that may happen.
pub(crate) fn deeper(budget: &Budget) -> Budget {
    let more: u8 = from_env("MODEL_DEPTH").unwrap_or(0);
    let add = |n: u8| if n == 0 { 0 } else { n + more };
    let Budget { ticks, crashes, handovers, losses, rejections, reads, delays, failures, user_actions } = budget;
    Budget {
        ticks: add(*ticks),
        crashes: add(*crashes),
        handovers: add(*handovers),
        losses: add(*losses),
        rejections: add(*rejections),
        reads: add(*reads),
        delays: add(*delays),
        failures: add(*failures),
        user_actions: add(*user_actions),
    }
}

/// All properties hold in every state, or in every state that is reached in so many steps.
#[track_caller]
pub(crate) fn holds(name: &str, steps: Option<usize>, rules: Rules) {
    assert_eq!(rules.mutation, Mutation::default(), "nothing is left out");
    let rules = Rules { budget: deeper(&rules.budget), ..rules };
    let began = Instant::now();
    let mut builder = ProtocolModel::new(rules).checker().threads(2).finish_when(HasDiscoveries::Any);
    if let Some(steps) = steps {
        // It counts states, and takes no look at the last.
        builder = builder.target_max_depth(steps + 2);
    }
    let checker = builder.spawn_bfs().join();
    let bound = steps.map_or("to the end".to_owned(), |steps| format!("{steps} steps"));
    let (states, elapsed) = (checker.unique_state_count(), began.elapsed());
    print_line(&format!("{name}: {states} unique states, {bound}, depth {}, {elapsed:?}", checker.max_depth()));
    if let Some((property, path)) = checker.discoveries().into_iter().next() {
        print_actions(&path.into_actions());
        panic!("{name}: {property} is broken");
    }
    assert!(checker.is_done());
}

/// How many steps to look, where they are bounded.
pub(crate) fn steps(usual: usize) -> Option<usize> {
    from_env("MODEL_STEPS").or(Some(usual))
}

/// With this left out the property is broken; with nothing left out it holds under the same rules, and is looked at
/// further than the way to where it broke.
#[track_caller]
pub(crate) fn mutation_breaks(
    name: &str,
    property: &'static str,
    left_out: Mutation,
    steps: Option<usize>,
    rules: Rules,
) {
    let broken = ProtocolModel::new(Rules { mutation: left_out, ..rules.clone() });
    let wanted = HasDiscoveries::AnyOf([property].into());
    let checker = broken.checker().threads(2).finish_when(wanted).spawn_bfs().join();
    let path = checker.discovery(property).unwrap_or_else(|| panic!("no {name}: no way was found to break {property}"));
    let actions = path.into_actions();
    print_line(&format!("no {name} mutation {property}, in {} steps:", actions.len()));
    print_actions(&actions);
    assert!(steps.is_none_or(|steps| steps > actions.len()), "{name}: {steps:?} steps prove little");
    holds(name, steps, rules);
}

pub(crate) fn print_actions(actions: &[Action]) {
    actions.iter().for_each(|action| print_line(&format!("    {action:?}")));
}
