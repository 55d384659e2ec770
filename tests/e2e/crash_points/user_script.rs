//! Whoever puts obstacles in the way of a hindered life, and takes each away once the operator has told of
//! it: also an operator that died in between.

use super::call_trace::{ELSEWHERE, Story};
use crate::env::{Bed, block_on, dataset_arn};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use std::sync::Mutex;

/// What the person waits for.
enum Waits {
    Queued,
    Refused,
    Suspended,
    NotReady,
    Imported,
    Nothing,
}

pub struct Person<'a> {
    bed: &'a Bed,
    waits: Waits,
}

impl<'a> Person<'a> {
    /// Another job runs in the dataset, and no job is taken.
    pub fn new(bed: &'a Bed) -> Self {
        bed.service.put_job(
            &json!({"name": ELSEWHERE, "datasetArn": dataset_arn("d0"), "status": "CREATE PENDING", "hold": true}),
        );
        let refusal = json!({"error": {"code": "InvalidInputException", "message": "not as it is"}});
        bed.service.fault(&json!({"operation": "CreateDatasetImportJob", "count": 0, "action": refusal}));
        Self { bed, waits: Waits::Queued }
    }

    fn suspend(&self, suspend: bool) {
        let (api, patch) = (self.bed.api(), json!({"spec": {"suspend": suspend}}));
        block_on(async move { api.patch("nightly", &PatchParams::default(), &Patch::Merge(&patch)).await }).unwrap();
    }

    /// Goes on if what is awaited is told.
    pub fn tend(&mut self, story: &Mutex<Story>) {
        let status = self.bed.status("nightly");
        let told = status.conditions.iter().find(|c| c.type_ == "Ready").map(|c| c.reason.as_str()).unwrap_or_default();
        self.waits = match self.waits {
            Waits::Queued if told == "Queued" => {
                self.bed.service.finish(ELSEWHERE);
                Waits::Refused
            }
            // It has been tried again, was refused again, and this is recorded.
            Waits::Refused
                if told == "InvalidInput"
                    && status.submission.is_none()
                    && story.lock().unwrap().has_heard("CreateDatasetImportJob [InvalidInput, attempt 1]") =>
            {
                self.suspend(true);
                Waits::Suspended
            }
            Waits::Suspended if told == "Suspended" => {
                self.bed.service.clear_faults();
                self.bed.service.put_dataset("d0", "CREATE IN_PROGRESS");
                self.suspend(false);
                Waits::NotReady
            }
            Waits::NotReady if told == "DatasetNotReady" => {
                self.bed.service.put_dataset("d0", "ACTIVE");
                Waits::Imported
            }
            Waits::Imported if told == "ImportSucceeded" && story.lock().unwrap().end_was_told() => {
                let api = self.bed.api();
                block_on(async move { api.delete("nightly", &DeleteParams::default()).await }).unwrap();
                story.lock().unwrap().begins_anew();
                self.bed.import("nightly", "d0", json!({}));
                Waits::Nothing
            }
            _ => return,
        };
    }
}
