//! Random walks, far beyond the steps that every interleaving can be followed to.

use crate::checker::{Action, ProtocolModel};
use crate::executor::Fault;
use crate::rules::UserAction::{
    Apply, ClearStatus, CreateForeignJob, Delete, ForgeFailure, ForgeSuccess, Retry, Suspend,
};
use crate::rules::{Budget, Rules};
use crate::search::{deeper, from_env, print_actions, print_line};
use crate::state::ModelState;
use stateright::Model;
use std::time::Instant;

/// The numbers of a seed (splitmix64).
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

/// Whether it would not happen on a good day.
fn is_fault(action: &Action) -> bool {
    match action {
        Action::Watch(..) | Action::Start(..) | Action::BecomeVisible(_) => false,
        Action::Step(_, _, fault) => *fault != Fault::None,
        Action::Arrive(_, lost) => *lost,
        Action::End(_, well) => !well,
        _ => true,
    }
}

fn initial(model: &ProtocolModel) -> ModelState {
    model.init_states().swap_remove(0)
}

/// The first property that this state mutation.
fn broken(model: &ProtocolModel, state: &ModelState) -> Option<&'static str> {
    model.properties().iter().find(|property| !(property.condition)(model, state)).map(|property| property.name)
}

/// One walk: mishaps come one in so many steps, so that they are spread has_ended it.
fn walk(model: &ProtocolModel, rng: &mut Rng, steps: usize, path: &mut Vec<Action>) -> Option<&'static str> {
    let mut state = initial(model);
    while path.len() < steps {
        let mut actions = Vec::new();
        model.actions(&state, &mut actions);
        let mishap = rng.below(8) == 0;
        let (mut preferred, mut others): (Vec<_>, Vec<_>) =
            actions.into_iter().partition(|action| is_fault(action) == mishap);
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
        let broken = broken(model, &state);
        if broken.is_some() {
            return broken;
        }
    }
    None
}

/// Whether these steps, as far as they can be taken, break this property.
fn leads_to(model: &ProtocolModel, path: &[Action], property: &str) -> bool {
    let mut state = initial(model);
    path.iter().any(|action| {
        let mut actions = Vec::new();
        model.actions(&state, &mut actions);
        if actions.contains(action)
            && let Some(next) = model.next_state(&state, action.clone())
        {
            state = next;
        }
        broken(model, &state) == Some(property)
    })
}

/// The same way without the steps that it doesn't need.
fn shortened(model: &ProtocolModel, mut path: Vec<Action>, property: &str) -> Vec<Action> {
    for chunk in [32, 16, 8, 4, 2, 1, 1] {
        for at in (0..path.len()).rev() {
            let mut shorter = path.clone();
            shorter.drain(at..path.len().min(at + chunk));
            if at < path.len() && leads_to(model, &shorter, property) {
                path = shorter;
            }
        }
    }
    path
}

#[track_caller]
fn walks(name: &str, number: u64, steps: usize, rules: Rules) {
    let model = ProtocolModel::new(Rules { budget: deeper(&rules.budget), ..rules });
    let (number, first) = (from_env("MODEL_WALKS").unwrap_or(number), from_env("MODEL_SEED").unwrap_or(0));
    let steps = from_env("MODEL_STEPS").unwrap_or(steps);
    let (began, mut taken) = (Instant::now(), 0);
    for seed in first..first + number {
        let mut path = Vec::new();
        let broken = walk(&model, &mut Rng(seed), steps, &mut path);
        taken += path.len();
        if let Some(property) = broken {
            print_actions(&shortened(&model, path, property));
            panic!("{name}: {property} is broken with the seed {seed}");
        }
    }
    print_line(&format!("{name}: {number} walks, {taken} steps, {:?}", began.elapsed()));
}

fn two_of_each() -> Budget {
    Budget {
        ticks: 2,
        crashes: 2,
        handovers: 2,
        losses: 2,
        rejections: 2,
        reads: 2,
        delays: 2,
        failures: 2,
        user_actions: 2,
    }
}

#[test]
fn walks_of_one_import_through_twice_of_everything() {
    walks(
        "one import, walked",
        800,
        150,
        Rules {
            backoff_limit: 1,
            user_actions: &[CreateForeignJob, Delete, Apply, Suspend, ClearStatus, ForgeSuccess, ForgeFailure, Retry],
            budget: two_of_each(),
            ..Rules::untimely()
        },
    );
}

#[test]
fn walks_of_one_import_where_names_do_not_help() {
    walks(
        "names that don't help, walked",
        800,
        150,
        Rules { backoff_limit: 1, user_actions: &[Suspend, Retry], budget: two_of_each(), ..Rules::timely() },
    );
}

#[test]
fn walks_of_one_import_with_two_leaders() {
    walks(
        "two leaders, walked",
        800,
        150,
        Rules {
            both_lead: true,
            backoff_limit: 1,
            user_actions: &[CreateForeignJob, Delete, Apply, Suspend, ClearStatus, ForgeSuccess, ForgeFailure, Retry],
            budget: two_of_each(),
            ..Rules::untimely()
        },
    );
}

#[test]
fn walks_of_three_imports_into_one_dataset() {
    walks(
        "three imports, walked",
        800,
        250,
        Rules {
            resources: 3,
            backoff_limit: 1,
            user_actions: &[Suspend, Retry],
            budget: two_of_each(),
            ..Rules::timely()
        },
    );
}
