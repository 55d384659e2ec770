//! What happens without the operators: the service carries calls out and ends jobs, and people do things.

use crate::checker::ProtocolModel;
use crate::rules::UserAction;
use crate::state::{MAX_ATTEMPTS, ModelJob, ModelState, Snapshot, has_ended, resource};
use kube::ResourceExt;
use personalize_operator::api::conditions::Reason;
use personalize_operator::api::{DatasetImportJob, DatasetImportJobStatus, RETRY_REQUESTED_AT};
use personalize_operator::personalize::{ACTIVE, CREATE_FAILED, CREATE_PENDING};

/// The resource as it is, changed like this.
fn edited(state: &ModelState, r: usize, change: impl FnOnce(&mut DatasetImportJob)) -> Option<DatasetImportJob> {
    let mut job = state.live[r].as_ref()?.resource().clone();
    change(&mut job);
    Some(job)
}

impl ProtocolModel {
    /// A person or another program does something; nothing if it can't be done.
    pub(crate) fn user_action(&self, state: &mut ModelState, r: usize, user_action: UserAction) -> Option<()> {
        match user_action {
            UserAction::CreateForeignJob => {
                let attempt = (1..MAX_ATTEMPTS).find(|attempt| !state.taken(r, *attempt))?;
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
                let anew = resource(&self.rules, r, incarnation, state.versions[r]);
                state.live[r] = Some(Snapshot::new(anew));
            }
            UserAction::Suspend => {
                let job = edited(state, r, |job| {
                    job.spec.suspend = !job.spec.suspend;
                    job.metadata.generation = job.metadata.generation.map(|g| g + 1);
                })?;
                state.write(r, job, None);
            }
            UserAction::Retry => Self::ask_for_another(state, r)?,
            UserAction::ClearStatus => {
                let job = edited(state, r, |job| {
                    job.status = Some(DatasetImportJobStatus::default());
                    job.metadata.managed_fields = None;
                })?;
                state.write(r, job, None);
                state.pending_request[r] = 0;
            }
            UserAction::ForgeSuccess => self.forge(state, r, ACTIVE)?,
            UserAction::ForgeFailure => self.forge(state, r, CREATE_FAILED)?,
        }
        Some(())
    }

    /// A value that was never there before; what it grants goes by what the status tells then.
    fn ask_for_another(state: &mut ModelState, r: usize) -> Option<()> {
        let value = state.versions[r].to_string();
        let job = edited(state, r, |job| {
            job.annotations_mut().insert(RETRY_REQUESTED_AT.into(), value);
        })?;
        let status = job.status.clone().unwrap_or_default();
        if Reason::of(&status) == Some(Reason::ImportFailed) {
            let attempt = status.attempts.unwrap_or(0) + 1;
            state.requested[r] = state.requested[r].max(attempt);
            state.pending_request[r] = attempt;
        }
        state.write(r, job, None);
        Some(())
    }

    fn forge(&self, state: &mut ModelState, r: usize, claimed: &str) -> Option<()> {
        let arn = self.names.0[r].0.job_arn(1).0;
        let job = edited(state, r, |job| {
            job.status = Some(DatasetImportJobStatus {
                status: Some(claimed.into()),
                attempts: Some(1),
                dataset_import_job_arn: Some(arn),
                ..DatasetImportJobStatus::default()
            });
        })?;
        state.write(r, job, Some("somebody"));
        state.pending_request[r] = 0;
        state.tampered = true;
        Some(())
    }

    /// The service carries a create call out; true if it accepts.
    pub(crate) fn accept(&self, state: &mut ModelState, r: usize, attempt: i32) -> bool {
        let taken = state.taken(r, attempt);
        if self.rules.unique_names && taken {
            return false;
        }
        state.unrequested |= !self.is_due(state, r, attempt);
        state.accepted.push((r, attempt));
        state.accepted.sort_unstable();
        state.overlapped |= state.jobs.iter().any(|job| job.resource != r && !job.foreign && !has_ended(job));
        if !taken {
            let lag = state.left.delays > 0;
            state.left.delays -= u8::from(lag);
            state.jobs.push(ModelJob { resource: r, attempt, foreign: false, status: CREATE_PENDING, visible: !lag });
            state.sort_jobs();
        }
        true
    }

    /// The first attempt is; another one is once the one before has failed, and the limit allows it or a person asked.
    fn is_due(&self, state: &ModelState, r: usize, attempt: i32) -> bool {
        let before = attempt - 1;
        let failed = |job: &ModelJob| (job.resource, job.attempt) == (r, before) && job.status == CREATE_FAILED;
        attempt == 1
            || state.jobs.iter().any(failed) && (before <= self.rules.backoff_limit || attempt <= state.requested[r])
    }

    /// A job ends.
    pub(crate) fn end_job(state: &mut ModelState, j: usize, well: bool) {
        let r = state.jobs[j].resource;
        state.jobs[j].status = if well { ACTIVE } else { CREATE_FAILED };
        let newer = |job: &ModelJob| job.resource > r && job.status == ACTIVE && !job.foreign;
        state.out_of_order |= well && state.jobs.iter().any(newer);
    }
}
