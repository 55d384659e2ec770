//! What happens outside the operators: the service accepts calls and ends jobs, and users act.

use crate::config::UserAction;
use crate::protocol::ProtocolModel;
use crate::state::{MAX_ATTEMPTS, ModelJob, ModelState, Snapshot, at, resource};
use kube::ResourceExt;
use personalize_operator::api::conditions::{self, Reason};
use personalize_operator::api::{DatasetImportJob, DatasetImportJobStatus, RETRY_REQUESTED_AT};
use personalize_operator::import::MANAGER;
use personalize_operator::personalize::{ACTIVE, CREATE_FAILED, CREATE_PENDING};

/// A changed copy of the live resource; `None` if it is deleted.
fn edited(state: &ModelState, r: usize, edit: impl FnOnce(&mut DatasetImportJob)) -> Option<DatasetImportJob> {
    let mut resource = state.live[r].as_ref()?.resource().clone();
    edit(&mut resource);
    Some(resource)
}

impl ProtocolModel {
    /// A user or another program acts. `None` if that is impossible in this state.
    pub(crate) fn user_action(&self, state: &mut ModelState, r: usize, user_action: UserAction) -> Option<()> {
        match user_action {
            UserAction::CreateForeignJob => {
                let attempt = (1..MAX_ATTEMPTS).find(|attempt| !state.has_job(r, *attempt))?;
                state.jobs.push(ModelJob { resource: r, attempt, foreign: true, status: ACTIVE, visible: true });
                state.sort_jobs();
            }
            UserAction::Delete => {
                state.live[r].take()?;
                state.pending_request[r] = 0;
            }
            UserAction::Apply if state.live[r].is_some() => return None,
            UserAction::Apply => {
                state.versions[r] += 1;
                let incarnation = u8::try_from(state.versions[r]).unwrap_or(u8::MAX);
                state.live[r] = Some(Snapshot::new(resource(&self.config, r, incarnation, state.versions[r])));
            }
            UserAction::Suspend => {
                let resource = edited(state, r, |resource| {
                    resource.spec.suspend = !resource.spec.suspend;
                    resource.metadata.generation = resource.metadata.generation.map(|g| g + 1);
                })?;
                state.write(r, resource, None);
            }
            UserAction::Retry => Self::request_retry(state, r)?,
            UserAction::ClearStatus => {
                let resource = edited(state, r, |resource| {
                    resource.status = Some(DatasetImportJobStatus::default());
                    resource.metadata.managed_fields = None;
                })?;
                state.write(r, resource, None);
                state.pending_request[r] = 0;
            }
            UserAction::ForgeSuccess => self.forge_status(state, r, ACTIVE, MANAGER)?,
            UserAction::ForgeFailure => self.forge_status(state, r, CREATE_FAILED, "another-manager")?,
        }
        Some(())
    }

    /// Sets the annotation to a new value. It allows the attempt after the one that the status reports as failed, or the
    /// attempt that a newer import superseded.
    fn request_retry(state: &mut ModelState, r: usize) -> Option<()> {
        let value = state.versions[r].to_string();
        let resource = edited(state, r, |resource| {
            resource.annotations_mut().insert(RETRY_REQUESTED_AT.into(), value);
        })?;
        let status = resource.status.clone().unwrap_or_default();
        if matches!(Reason::of(&status), Some(Reason::ImportFailed | Reason::Superseded)) {
            let attempt = status.attempts.unwrap_or(0) + 1;
            state.requested[r] = state.requested[r].max(attempt);
            state.pending_request[r] = attempt;
        }
        state.write(r, resource, None);
        Some(())
    }

    fn forge_status(&self, state: &mut ModelState, r: usize, job_status: &str, manager: &str) -> Option<()> {
        let arn = self.imports[r].request.job_arn(1).0;
        let resource = edited(state, r, |resource| {
            let mut status = DatasetImportJobStatus {
                status: Some(job_status.into()),
                attempts: Some(1),
                dataset_import_job_arn: Some(arn),
                ..DatasetImportJobStatus::default()
            };
            let reason = if job_status == ACTIVE { Reason::ImportSucceeded } else { Reason::ImportFailed };
            conditions::set(&mut status, 1, reason, "forged", at(0));
            resource.status = Some(status);
        })?;
        state.write(r, resource, Some(manager));
        state.pending_request[r] = 0;
        state.status_forged = true;
        Some(())
    }

    /// The service executes a create call. Returns false if it refuses the name.
    pub(crate) fn create_job(&self, state: &mut ModelState, r: usize, attempt: i32) -> bool {
        let exists = state.has_job(r, attempt);
        if self.config.unique_names && exists {
            return false;
        }
        state.disallowed_attempt |= !self.is_allowed(state, r, attempt);
        state.accepted.push((r, attempt));
        state.accepted.sort_unstable();
        state.overlapped |= state.jobs.iter().any(|job| job.resource != r && !job.foreign && !job.has_ended());
        if !exists {
            let visible = state.budget.invisible_jobs == 0;
            state.budget.invisible_jobs -= u8::from(!visible);
            state.jobs.push(ModelJob { resource: r, attempt, foreign: false, status: CREATE_PENDING, visible });
            state.sort_jobs();
        }
        true
    }

    /// Whether the attempt is the first, or the one before has failed and the limit or a user allows another.
    fn is_allowed(&self, state: &ModelState, r: usize, attempt: i32) -> bool {
        let previous = attempt - 1;
        let failed = |job: &ModelJob| (job.resource, job.attempt) == (r, previous) && job.status == CREATE_FAILED;
        attempt == 1
            || state.jobs.iter().any(failed) && (previous <= self.config.backoff_limit || attempt <= state.requested[r])
    }

    /// A job ends with this status.
    pub(crate) fn end_job(state: &mut ModelState, j: usize, status: &'static str) {
        state.jobs[j].status = status;
        let r = state.jobs[j].resource;
        let newer = |job: &ModelJob| job.resource > r && job.status == ACTIVE && !job.foreign;
        let requested = state.jobs[j].attempt <= state.requested[r];
        state.out_of_order |= status == ACTIVE && !requested && state.jobs.iter().any(newer);
    }
}
