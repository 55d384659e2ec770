//! What happens without the operators: the service carries calls out and ends jobs, and people do things.

use crate::checker::Checked;
use crate::rules::Deed;
use crate::world::{MOST_ATTEMPTS, Made, Snapshot, World, over, resource};
use kube::ResourceExt;
use personalize_operator::api::conditions::Reason;
use personalize_operator::api::{DatasetImportJob, DatasetImportJobStatus, RETRY_REQUESTED_AT};
use personalize_operator::personalize::{ACTIVE, CREATE_FAILED, CREATE_PENDING};

/// The resource as it is, changed like this.
fn edited(world: &World, r: usize, change: impl FnOnce(&mut DatasetImportJob)) -> Option<DatasetImportJob> {
    let mut job = world.live[r].as_ref()?.job().clone();
    change(&mut job);
    Some(job)
}

impl Checked {
    /// A person or another program does something; nothing if it can't be done.
    pub(crate) fn deed(&self, world: &mut World, r: usize, deed: Deed) -> Option<()> {
        match deed {
            Deed::MakeJob => {
                let attempt = (1..MOST_ATTEMPTS).find(|attempt| !world.taken(r, *attempt))?;
                world.jobs.push(Made { resource: r, attempt, foreign: true, status: ACTIVE, visible: true });
                world.order_jobs();
            }
            Deed::Delete => {
                world.live[r].take()?;
                world.owed[r] = 0;
            }
            Deed::Apply if world.live[r].is_some() => return None,
            Deed::Apply => {
                world.versions[r] += 1;
                let incarnation = u8::try_from(world.versions[r]).unwrap_or(u8::MAX);
                let anew = resource(&self.rules, r, incarnation, world.versions[r]);
                world.live[r] = Some(Snapshot::new(anew));
            }
            Deed::Suspend => {
                let job = edited(world, r, |job| {
                    job.spec.suspend = !job.spec.suspend;
                    job.metadata.generation = job.metadata.generation.map(|g| g + 1);
                })?;
                world.write(r, job, None);
            }
            Deed::Retry => Self::ask_for_another(world, r)?,
            Deed::Wipe => {
                let job = edited(world, r, |job| {
                    job.status = Some(DatasetImportJobStatus::default());
                    job.metadata.managed_fields = None;
                })?;
                world.write(r, job, None);
                world.owed[r] = 0;
            }
            Deed::Forge => self.forge(world, r, ACTIVE)?,
            Deed::ForgeFailure => self.forge(world, r, CREATE_FAILED)?,
        }
        Some(())
    }

    /// A value that was never there before; what it grants goes by what the status tells then.
    fn ask_for_another(world: &mut World, r: usize) -> Option<()> {
        let value = world.versions[r].to_string();
        let job = edited(world, r, |job| {
            job.annotations_mut().insert(RETRY_REQUESTED_AT.into(), value);
        })?;
        let status = job.status.clone().unwrap_or_default();
        if Reason::of(&status) == Some(Reason::ImportFailed) {
            let attempt = status.attempts.unwrap_or(0) + 1;
            world.granted[r] = world.granted[r].max(attempt);
            world.owed[r] = attempt;
        }
        world.write(r, job, None);
        Some(())
    }

    fn forge(&self, world: &mut World, r: usize, claimed: &str) -> Option<()> {
        let arn = self.names.0[r].0.job_arn(1).0;
        let job = edited(world, r, |job| {
            job.status = Some(DatasetImportJobStatus {
                status: Some(claimed.into()),
                attempts: Some(1),
                dataset_import_job_arn: Some(arn),
                ..DatasetImportJobStatus::default()
            });
        })?;
        world.write(r, job, Some("somebody"));
        world.owed[r] = 0;
        world.meddled = true;
        Some(())
    }

    /// The service carries a create call out; true if it accepts.
    pub(crate) fn accept(&self, world: &mut World, r: usize, attempt: i32) -> bool {
        let taken = world.taken(r, attempt);
        if self.rules.unique_names && taken {
            return false;
        }
        world.unasked |= !self.is_due(world, r, attempt);
        world.accepted.push((r, attempt));
        world.accepted.sort_unstable();
        world.overlapped |= world.jobs.iter().any(|job| job.resource != r && !job.foreign && !over(job));
        if !taken {
            let lag = world.left.lags > 0;
            world.left.lags -= u8::from(lag);
            world.jobs.push(Made { resource: r, attempt, foreign: false, status: CREATE_PENDING, visible: !lag });
            world.order_jobs();
        }
        true
    }

    /// The first attempt is; another one is once the one before has failed, and the limit allows it or a person asked.
    fn is_due(&self, world: &World, r: usize, attempt: i32) -> bool {
        let before = attempt - 1;
        let failed = |job: &Made| (job.resource, job.attempt) == (r, before) && job.status == CREATE_FAILED;
        attempt == 1
            || world.jobs.iter().any(failed) && (before <= self.rules.backoff_limit || attempt <= world.granted[r])
    }

    /// A job ends.
    pub(crate) fn end(world: &mut World, j: usize, well: bool) {
        let r = world.jobs[j].resource;
        world.jobs[j].status = if well { ACTIVE } else { CREATE_FAILED };
        let newer = |job: &Made| job.resource > r && job.status == ACTIVE && !job.foreign;
        world.out_of_order |= well && world.jobs.iter().any(newer);
    }
}
