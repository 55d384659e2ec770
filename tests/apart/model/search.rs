//! Looking through a model: breadth first, to a bound or to its end.

use crate::checker::{Action, Checked};
use crate::rules::{Breaks, Budget, Rules};
use stateright::{Checker, HasDiscoveries, Model};
use std::io::Write;
use std::time::Instant;

/// A number from the environment, by which to look further by hand than `make test` does.
pub(crate) fn by_hand<T: std::str::FromStr>(variable: &str) -> Option<T> {
    std::env::var(variable).ok()?.parse().ok()
}

pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// With `MODEL_DEPTH=1`, one more of everything that may happen.
pub(crate) fn deeper(budget: &Budget) -> Budget {
    let more: u8 = by_hand("MODEL_DEPTH").unwrap_or(0);
    let add = |n: u8| if n == 0 { 0 } else { n + more };
    let Budget { ticks, crashes, handovers, losses, refusals, reads, lags, failures, deeds } = budget;
    Budget {
        ticks: add(*ticks),
        crashes: add(*crashes),
        handovers: add(*handovers),
        losses: add(*losses),
        refusals: add(*refusals),
        reads: add(*reads),
        lags: add(*lags),
        failures: add(*failures),
        deeds: add(*deeds),
    }
}

/// All properties hold in every state, or in every state that is reached in so many steps.
#[track_caller]
pub(crate) fn holds(name: &str, steps: Option<usize>, rules: Rules) {
    assert_eq!(rules.breaks, Breaks::default(), "nothing is left out");
    let rules = Rules { budget: deeper(&rules.budget), ..rules };
    let began = Instant::now();
    let mut builder = Checked::new(rules).checker().threads(2).finish_when(HasDiscoveries::Any);
    if let Some(steps) = steps {
        // It counts states, and takes no look at the last.
        builder = builder.target_max_depth(steps + 2);
    }
    let checker = builder.spawn_bfs().join();
    let bound = steps.map_or("to the end".to_owned(), |steps| format!("{steps} steps"));
    let (states, took) = (checker.unique_state_count(), began.elapsed());
    say(&format!("{name}: {states} unique states, {bound}, depth {}, {took:?}", checker.max_depth()));
    if let Some((property, path)) = checker.discoveries().into_iter().next() {
        tell(&path.into_actions());
        panic!("{name}: {property} is broken");
    }
    assert!(checker.is_done());
}

/// How many steps to look, where they are bounded.
pub(crate) fn steps(usual: usize) -> Option<usize> {
    by_hand("MODEL_STEPS").or(Some(usual))
}

/// With this left out the property is broken; with nothing left out it holds under the same rules, and is looked at
/// further than the way to where it broke.
#[track_caller]
pub(crate) fn needed(name: &str, property: &'static str, left_out: Breaks, steps: Option<usize>, rules: Rules) {
    let broken = Checked::new(Rules { breaks: left_out, ..rules.clone() });
    let wanted = HasDiscoveries::AnyOf([property].into());
    let checker = broken.checker().threads(2).finish_when(wanted).spawn_bfs().join();
    let path = checker.discovery(property).unwrap_or_else(|| panic!("no {name}: no way was found to break {property}"));
    let actions = path.into_actions();
    say(&format!("no {name} breaks {property}, in {} steps:", actions.len()));
    tell(&actions);
    assert!(steps.is_none_or(|steps| steps > actions.len()), "{name}: {steps:?} steps prove little");
    holds(name, steps, rules);
}

pub(crate) fn tell(actions: &[Action]) {
    actions.iter().for_each(|action| say(&format!("    {action:?}")));
}
