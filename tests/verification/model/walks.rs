//! Random walks, far longer than the paths that can all be searched.

use crate::checker::{from_env, print_line, print_path};
use crate::config::{Budget, Config, UserAction};
use crate::executor::Fault;
use crate::protocol::{Action, ProtocolModel};
use crate::state::ModelState;
use personalize_operator::personalize::CREATE_FAILED;
use stateright::Model;
use std::time::Instant;

/// The random numbers of a seed (splitmix64).
struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % u64::try_from(bound).unwrap()).unwrap()
    }
}

/// Whether the action is not part of an undisturbed import.
fn is_disturbance(action: &Action) -> bool {
    match action {
        Action::Watch(..) | Action::Start(..) | Action::Arrive(_) | Action::BecomeVisible(_) => false,
        Action::Step(_, _, fault) => *fault != Fault::None,
        Action::End(_, status) => *status == CREATE_FAILED,
        _ => true,
    }
}

fn initial_state(model: &ProtocolModel) -> ModelState {
    model.init_states().swap_remove(0)
}

/// The first property that does not hold in this state.
fn broken_property(model: &ProtocolModel, state: &ModelState) -> Option<&'static str> {
    model.properties().iter().find(|property| !(property.condition)(model, state)).map(|property| property.name)
}

/// Walks up to this many steps, and returns the property that breaks. Every eighth step is a disturbance, so that they
/// are spread over the whole walk.
fn walk(model: &ProtocolModel, rng: &mut Rng, steps: usize, path: &mut Vec<Action>) -> Option<&'static str> {
    let mut state = initial_state(model);
    while path.len() < steps {
        let mut actions = Vec::new();
        model.actions(&state, &mut actions);
        let disturb = rng.below(8) == 0;
        let (mut preferred, mut others): (Vec<_>, Vec<_>) =
            actions.into_iter().partition(|action| is_disturbance(action) == disturb);
        let (action, next) = loop {
            let choices = if preferred.is_empty() { &mut others } else { &mut preferred };
            if choices.is_empty() {
                return None;
            }
            let action = choices.swap_remove(rng.below(choices.len()));
            if let Some(next) = model.next_state(&state, action.clone()) {
                break (action, next);
            }
        };
        path.push(action);
        state = next;
        let broken = broken_property(model, &state);
        if broken.is_some() {
            return broken;
        }
    }
    None
}

/// Whether these actions, without the ones that are impossible, break the property.
fn breaks(model: &ProtocolModel, path: &[Action], property: &str) -> bool {
    let mut state = initial_state(model);
    path.iter().any(|action| {
        let mut actions = Vec::new();
        model.actions(&state, &mut actions);
        if actions.contains(action)
            && let Some(next) = model.next_state(&state, action.clone())
        {
            state = next;
        }
        broken_property(model, &state) == Some(property)
    })
}

/// The path without actions that are not needed to break the property.
fn shortened(model: &ProtocolModel, mut path: Vec<Action>, property: &str) -> Vec<Action> {
    for chunk in [32, 16, 8, 4, 2, 1, 1] {
        for at in (0..path.len()).rev() {
            let mut shorter = path.clone();
            shorter.drain(at..path.len().min(at + chunk));
            if at < path.len() && breaks(model, &shorter, property) {
                path = shorter;
            }
        }
    }
    path
}

/// Checks all properties on 800 walks.
#[track_caller]
fn walks_hold(name: &str, steps: usize, config: Config) {
    let model = ProtocolModel::new(Config { budget: config.budget.deepened(), ..config });
    let (walks, first) = (from_env("MODEL_WALKS").unwrap_or(800), from_env("MODEL_SEED").unwrap_or(0));
    let steps = from_env("MODEL_STEPS").unwrap_or(steps);
    let (began, mut total) = (Instant::now(), 0);
    for seed in first..first + walks {
        let mut path = Vec::new();
        let broken = walk(&model, &mut Rng(seed), steps, &mut path);
        total += path.len();
        if let Some(property) = broken {
            print_path(&shortened(&model, path, property));
            panic!("{name}: {property} is broken with seed {seed}");
        }
    }
    print_line(&format!("{name}: {walks} walks, {total} steps, {:?}", began.elapsed()));
}

fn two_of_each() -> Config {
    Config { backoff_limit: 1, user_actions: UserAction::ALL, budget: Budget::of_each(2), ..Config::unique_names() }
}

fn two_of_each_with_duplicate_names() -> Config {
    let user_actions = &[UserAction::Suspend, UserAction::Retry];
    Config { backoff_limit: 1, user_actions, budget: Budget::of_each(2), ..Config::bounded_delays() }
}

#[test]
fn one_import_keeps_invariants_on_random_walks() {
    walks_hold("walks, one import", 150, two_of_each());
}

#[test]
fn one_import_with_two_leaders_keeps_invariants_on_random_walks() {
    walks_hold("walks, two leaders", 150, Config { two_leaders: true, ..two_of_each() });
}

#[test]
fn one_import_with_duplicate_names_keeps_invariants_on_random_walks() {
    walks_hold("walks, duplicate names", 150, two_of_each_with_duplicate_names());
}

#[test]
fn two_imports_beside_data_deletions_keep_invariants_on_random_walks() {
    let disturbed = two_of_each_with_duplicate_names();
    let budget = Budget { data_deletions: 3, crashes: 3, ..disturbed.budget };
    walks_hold("walks, data deletions", 150, Config { resources: 2, budget, ..disturbed });
}

#[test]
fn three_imports_into_one_dataset_keep_invariants_on_random_walks() {
    walks_hold("walks, three imports", 250, Config { resources: 3, ..two_of_each_with_duplicate_names() });
}
