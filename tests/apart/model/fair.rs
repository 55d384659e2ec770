//! What is to come true from any state on, once nothing goes wrong any more.

use crate::carry::Fate;
use crate::checker::Checked;
use crate::rules::{Breaks, Budget, Deed};
use crate::world::{Made, World, over};
use personalize_operator::api::conditions::Reason;
use personalize_operator::personalize::{ACTIVE, CREATE_FAILED};

impl Checked {
    /// The import of every resource comes to its end once nothing goes wrong any more.
    pub(crate) fn finishes(&self, world: &World) -> bool {
        let mut world = world.clone();
        let mut rules = self.rules.clone();
        rules.breaks = Breaks::default();
        let fair = Self { rules, names: self.names.clone() };
        world.left = Budget::default();
        if !world.operators.iter().any(|operator| operator.leads) {
            let started = world.started(&self.rules, true);
            *world.operator(0) = started;
        }
        for r in 0..world.live.len() {
            if world.live[r].as_ref().is_some_and(|live| live.job().spec.suspend) {
                let _ = fair.deed(&mut world, r, Deed::Suspend);
            }
        }
        for _ in 0..8 {
            if (0..world.live.len()).all(|r| self.finished(&world, r)) {
                return true;
            }
            fair.fair_round(&mut world);
        }
        false
    }

    fn fair_round(&self, world: &mut World) {
        let resources = world.live.len();
        for (o, r) in (0..2).flat_map(|o| (0..resources).map(move |r| (o, r))) {
            if !world.operators[o].leads {
                continue;
            }
            self.watch(world, o, r);
            self.begin(world, o, r);
            for _ in 0..100 {
                while !world.calls.is_empty() {
                    self.arrive(world, 0, false);
                }
                if self.step(world, o, r, Fate::Well).is_none() {
                    break;
                }
            }
        }
        world.jobs.iter_mut().for_each(|job| job.visible = true);
        for j in 0..world.jobs.len() {
            if !over(&world.jobs[j]) {
                Self::end(world, j, true);
            }
        }
        world.clock += 1;
    }

    fn finished(&self, world: &World, r: usize) -> bool {
        let Some(live) = &world.live[r] else { return true };
        let status = live.job().status.clone().unwrap_or_default();
        let has = |what: &str| {
            world.jobs.iter().any(|job| job.resource == r && job.status == what && !job.foreign && job.visible)
        };
        let attempts = status.attempts.unwrap_or(0);
        let taken_by_another = |job: &Made| job.resource == r && job.foreign;
        match Reason::of(&status) {
            // A job that somebody's status claimed is believed to be the one that was submitted.
            Some(Reason::ImportSucceeded) => has(ACTIVE) || world.meddled,
            // Neither the limit nor a person's wish for another attempt goes unused.
            Some(Reason::ImportFailed) => {
                has(CREATE_FAILED) && attempts > self.rules.backoff_limit && attempts >= world.owed[r]
            }
            Some(Reason::JobNameConflict) => world.jobs.iter().any(taken_by_another),
            Some(Reason::Superseded) => world.jobs.iter().any(|job| job.resource > r && job.status == ACTIVE),
            Some(Reason::JobNotFound) => world.meddled,
            _ => false,
        }
    }
}
