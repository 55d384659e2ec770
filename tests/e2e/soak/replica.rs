//! A replica behind its proxy, and the faults of its calls.

use super::LEASE;
use crate::env::proxy::{Call, Fault, Proxy};
use crate::env::{OperatorProcess, SHORT_TIMEOUTS, TestEnv};
use crate::rng::Rng;
use serde_json::json;
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// One of the two replicas, behind its own proxy.
pub(super) struct Replica {
    pub(super) identity: &'static str,
    pub(super) proxy: Proxy,
    pub(super) operator: Option<OperatorProcess>,
    /// Paused until then.
    pub(super) paused: Option<Instant>,
    /// Stopped until then.
    pub(super) stopped: Option<Instant>,
    /// Its calls meet faults until then.
    pub(super) faulty: Option<Instant>,
    pub(super) denial: Denial,
}

/// The fault for status writes in a namespace.
pub(super) type Denial = Arc<Mutex<Option<(String, Fault)>>>;

impl Replica {
    pub(super) fn new(env: &TestEnv, identity: &'static str, denial: Denial) -> Self {
        let dir = env.dir().join(identity);
        fs::create_dir_all(&dir).unwrap();
        let proxy = env.start_proxy_in(&dir);
        let replica = Self { identity, proxy, operator: None, paused: None, stopped: None, faulty: None, denial };
        replica.inject(|_| Fault::None);
        replica
    }

    /// Sets what happens to calls other than denied status writes.
    pub(super) fn inject(&self, mut injector: impl FnMut(&Call) -> Fault + Send + 'static) {
        let denial = Arc::clone(&self.denial);
        self.proxy.inject(move |call| {
            let denied = |(namespace, fault): &(String, Fault)| {
                let is_denied = call.label == "PUT datasetimportjobs/status" && call.path.contains(namespace.as_str());
                is_denied.then(|| fault.clone())
            };
            let denied = denial.lock().unwrap().as_ref().and_then(denied);
            denied.unwrap_or_else(|| injector(call))
        });
    }

    pub(super) fn start(&mut self, env: &TestEnv) {
        let identity = format!("--identity={}", self.identity);
        self.operator = Some(env.spawn_operator_behind(
            &self.proxy,
            &[&[&*identity, LEASE, "--log-level=info"], &SHORT_TIMEOUTS[..]].concat(),
        ));
    }

    /// Ends the faults that are due, or all with `now`, and restarts an operator that has exited.
    pub(super) fn recover(&mut self, env: &TestEnv, now: bool) {
        let is_due = |until: &mut Option<Instant>| until.take_if(|at| now || *at <= Instant::now()).is_some();
        if is_due(&mut self.faulty) {
            self.inject(|_| Fault::None);
        }
        self.operator.iter().for_each(OperatorProcess::note_footprint);
        if is_due(&mut self.paused)
            && let Some(operator) = &self.operator
        {
            operator.signal("-CONT");
        }
        // A fault may have killed it.
        if self.paused.is_none() && self.operator.as_mut().is_some_and(OperatorProcess::has_exited) {
            self.operator = None;
        }
        if is_due(&mut self.stopped) || self.operator.is_none() && self.stopped.is_none() {
            self.start(env);
        }
    }
}

/// A random fault for a call.
pub(super) fn random_fault(rng: &mut Rng, call: &Call) -> Fault {
    let retry = || vec![("retry-after", "1".to_owned())];
    let status = |code: u16, reason: &str| {
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code}).to_string()
    };
    let kubernetes = call.is_kubernetes();
    match rng.below(12) {
        0 | 1 => Fault::DropRequest,
        2 | 3 => Fault::DropResponse,
        // Shorter than the grace period.
        4 | 5 => Fault::Delay(rng.millis(10, 700)),
        6 => Fault::HangRequest,
        7 => Fault::HangResponse,
        8 => Fault::HangBody,
        9 if kubernetes => Fault::Respond(429, retry(), status(429, "TooManyRequests")),
        10 if kubernetes => Fault::Respond(500, Vec::new(), status(500, "InternalError")),
        11 if rng.one_in(2) => Fault::KillBefore,
        11 => Fault::KillAfter,
        _ => Fault::None,
    }
}
