//! The user of [`Scenario::Obstructed`](super::Scenario): creates obstacles, and removes each one when the operator
//! has reported it, even if the operator crashes in between.

use super::call_trace::{CallTrace, FOREIGN_JOB};
use crate::env::{TestEnv, block_on, dataset_arn, ready_condition};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use std::sync::Mutex;

/// What the operator has to report next.
enum Expects {
    Queued,
    Rejected,
    Suspended,
    DatasetNotReady,
    Imported,
    Nothing,
}

pub struct UserScript<'a> {
    env: &'a TestEnv,
    expects: Expects,
}

impl<'a> UserScript<'a> {
    /// Another job runs in the dataset, and the service rejects every create.
    pub fn new(env: &'a TestEnv) -> Self {
        env.service.put_job(
            &json!({"name": FOREIGN_JOB, "datasetArn": dataset_arn("d0"), "status": "CREATE PENDING", "hold": true}),
        );
        let rejection = json!({"error": {"code": "InvalidInputException", "message": "not as it is"}});
        env.service.inject_fault(&json!({"operation": "CreateDatasetImportJob", "count": 0, "action": rejection}));
        Self { env, expects: Expects::Queued }
    }

    fn suspend(&self, suspend: bool) {
        let (api, patch) = (self.env.api(), json!({"spec": {"suspend": suspend}}));
        block_on(async move { api.patch("nightly", &PatchParams::default(), &Patch::Merge(&patch)).await }).unwrap();
    }

    /// Takes the next step if the operator has reported what the user expects.
    pub fn act(&mut self, trace: &Mutex<CallTrace>) {
        let status = self.env.status("nightly");
        let reason = ready_condition(&status).map(|ready| ready.reason.as_str()).unwrap_or_default();
        self.expects = match self.expects {
            Expects::Queued if reason == "Queued" => {
                self.env.service.finish_job(FOREIGN_JOB);
                Expects::Rejected
            }
            // Wait for a second rejection and its record.
            Expects::Rejected
                if reason == "InvalidInput"
                    && status.submission.is_none()
                    && trace.lock().unwrap().has("CreateDatasetImportJob [InvalidInput, attempt 1]") =>
            {
                self.suspend(true);
                Expects::Suspended
            }
            Expects::Suspended if reason == "Suspended" => {
                self.env.service.clear_faults();
                self.env.service.put_dataset("d0", "CREATE IN_PROGRESS");
                self.suspend(false);
                Expects::DatasetNotReady
            }
            Expects::DatasetNotReady if reason == "DatasetNotReady" => {
                self.env.service.put_dataset("d0", "ACTIVE");
                Expects::Imported
            }
            Expects::Imported if reason == "ImportSucceeded" && trace.lock().unwrap().has_reported_the_end() => {
                let api = self.env.api();
                block_on(async move { api.delete("nightly", &DeleteParams::default()).await }).unwrap();
                trace.lock().unwrap().resource_recreated();
                self.env.import("nightly", "d0", json!({}));
                Expects::Nothing
            }
            _ => return,
        };
    }
}
