//! Runs the model checker: breadth first, up to a bound or until no new state is found.

use crate::config::{Config, Mutation};
use crate::protocol::{Action, ProtocolModel};
use stateright::{Checker, CheckerBuilder, HasDiscoveries, Model};
use std::io::Write;
use std::time::Instant;

/// A number from the environment, to search further by hand than `make test` does.
pub(crate) fn from_env<T: std::str::FromStr>(variable: &str) -> Option<T> {
    std::env::var(variable).ok()?.parse().ok()
}

pub(crate) fn print_line(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

pub(crate) fn print_path(actions: &[Action]) {
    actions.iter().for_each(|action| print_line(&format!("    {action:?}")));
}

/// How many steps to search where they are bounded.
pub(crate) fn steps(usual: usize) -> Option<usize> {
    from_env("MODEL_STEPS").or(Some(usual))
}

/// One thread by default: a path is then the shortest, and a bounded search finds the same states in every run.
fn checker(config: Config) -> CheckerBuilder<ProtocolModel> {
    ProtocolModel::new(config).checker().threads(from_env("MODEL_THREADS").unwrap_or(1))
}

/// Checks that all properties hold in every state, or in every state within this number of steps.
#[track_caller]
pub(crate) fn holds(name: &str, steps: Option<usize>, config: Config) {
    assert_eq!(config.mutation, None, "the protocol is intact");
    let began = Instant::now();
    let config = Config { budget: config.budget.deepened(), ..config };
    let mut builder = checker(config).finish_when(HasDiscoveries::Any);
    if let Some(steps) = steps {
        // This depth counts states, and the properties of the deepest ones are not checked.
        builder = builder.target_max_depth(steps + 2);
    }
    let checker = builder.spawn_bfs().join();
    let bound = steps.map_or("all".to_owned(), |steps| steps.to_string());
    let (states, depth, elapsed) = (checker.unique_state_count(), checker.max_depth(), began.elapsed());
    print_line(&format!("{name}: {states} unique states, {bound} steps, depth {depth}, {elapsed:?}"));
    if let Some((property, path)) = checker.discoveries().into_iter().next() {
        print_path(&path.into_actions());
        panic!("{name}: {property} is broken");
    }
    assert!(checker.is_done());
}

/// Checks that the property is broken with this mutation, and that the intact protocol holds in the same model, within
/// more steps than the mutation needs.
#[track_caller]
pub(crate) fn mutation_breaks(property: &'static str, mutation: Mutation, steps: Option<usize>, config: Config) {
    let mutated = Config { mutation: Some(mutation), ..config.clone() };
    let checker = checker(mutated).finish_when(HasDiscoveries::AnyOf([property].into())).spawn_bfs().join();
    let path = checker.discovery(property).unwrap_or_else(|| panic!("{mutation:?} does not break {property}"));
    let actions = path.into_actions();
    print_line(&format!("{mutation:?} breaks {property}, in {} steps:", actions.len()));
    print_path(&actions);
    assert!(steps.is_none_or(|steps| steps > actions.len()), "{mutation:?}: {steps:?} steps prove little");
    holds(&format!("{mutation:?}, intact"), steps, config);
}
