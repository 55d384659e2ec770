//! Faults of the service, of the network, and of the replicas.

use super::Soak;
use super::replica::random_fault;
use crate::env::REGION;
use crate::env::proxy::Fault;
use crate::rng::Rng;
use control_plane::Component;
use serde_json::json;
use std::time::Instant;

impl Soak {
    pub(super) fn inject_service_fault(&mut self) -> &'static str {
        let error = |code: &str, status: u16| json!({"error": {"code": code, "message": "injected", "status": status}});
        let quota = "More than 5 resources with PENDING or IN_PROGRESS status.";
        let action = self.rng.pick(&[
            error("ThrottlingException", 400),
            error("InternalServerException", 500),
            error("ServiceUnavailable", 503),
            error("ExpiredTokenException", 403),
            error("InvalidInputException", 400),
            error("AccessDeniedException", 400),
            error("ResourceInUseException", 400),
            json!({"error": {"code": "LimitExceededException", "message": quota}}),
            json!({"errorAfter": {}}),
            json!({"delay": {"ms": 700}}),
            json!({"silenceBeforeHeaders": {"effect": true}}),
            json!({"silenceBeforeHeaders": {"effect": false}}),
            json!({"silenceAfterHeaders": {"effect": true}}),
            json!("cutBody"),
            json!("garbage"),
            json!("resetBefore"),
            json!("resetAfter"),
            json!("noArn"),
            json!({"notFoundFor": {"lookups": 1}}),
        ]);
        let operation = self.rng.pick(&[
            "CreateDatasetImportJob",
            "CreateDatasetImportJob",
            "DescribeDatasetImportJob",
            "DescribeDataset",
            "ListDatasetImportJobs",
            "ListDataDeletionJobs",
            "ListTagsForResource",
        ]);
        // The service makes these two mistakes in creates only.
        let is_create = operation == "CreateDatasetImportJob";
        if is_create || !(action.to_string().contains("noArn") || action.to_string().contains("notFoundFor")) {
            let count = 1 + self.rng.below(3);
            let name = format!(":{REGION}:");
            let fault = json!({"operation": operation, "name": name, "count": count, "action": action});
            self.env.service.inject_fault(&fault);
        }
        if self.rng.one_in(4) {
            let (pending, running) = (self.rng.below(1500), self.rng.below(2500));
            self.env.service.set_durations(u64::try_from(pending).unwrap(), u64::try_from(running).unwrap());
        }
        "service faults"
    }

    pub(super) fn inject_call_faults(&mut self) -> &'static str {
        let mut rng = Rng::new(u64::try_from(self.rng.below(1 << 30)).unwrap());
        let one_in = 4 + self.rng.below(40);
        let time = self.rng.millis(300, 4000);
        let replica = &mut self.replicas[self.rng.below(2)];
        replica.inject(move |call| if rng.one_in(one_in) { random_fault(&mut rng, call) } else { Fault::None });
        replica.faulty = Some(Instant::now() + time);
        "faulty networks"
    }

    pub(super) fn kill(&mut self) -> &'static str {
        let time = self.rng.millis(0, 5000);
        let replica = &mut self.replicas[self.rng.below(2)];
        if let Some(operator) = replica.operator.take() {
            operator.kill();
        }
        (replica.paused, replica.stopped) = (None, Some(Instant::now() + time));
        "kills"
    }

    pub(super) fn pause(&mut self) -> &'static str {
        // Shorter and longer than the Lease.
        let time = self.rng.millis(500, 15_000);
        let replica = &mut self.replicas[self.rng.below(2)];
        if let Some(operator) = replica.operator.as_mut().filter(|_| replica.paused.is_none())
            && !operator.has_exited()
        {
            operator.signal("-STOP");
            replica.paused = Some(Instant::now() + time);
        }
        "pauses"
    }

    pub(super) fn stop(&mut self) -> &'static str {
        let time = self.rng.millis(0, 2000);
        let replica = &mut self.replicas[self.rng.below(2)];
        if replica.paused.is_none()
            && let Some(operator) = replica.operator.take()
        {
            // Its exit status does not matter: a fault may have killed it.
            operator.stop();
            replica.stopped = Some(Instant::now() + time);
        }
        "stops"
    }

    pub(super) fn restart_api_server(&mut self) -> &'static str {
        self.env.control_plane.stop_component(Component::ApiServer).unwrap();
        self.recover(false);
        std::thread::sleep(self.rng.millis(0, 5000));
        self.env.control_plane.start_component(Component::ApiServer).unwrap();
        "API server restarts"
    }
}
