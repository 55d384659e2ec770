//! What the data of an import has to fulfil before it is submitted, and whether it stays the same meanwhile.

use super::plan::{Effect, Next, Plan, Planner, Requeue};
use super::timing::{Severity, after};
use crate::api::conditions::{self, Reason};
use crate::api::{DatasetImportJobStatus, Guard, ImportedData, RELEASE_GUARD};
use crate::personalize::{ErrorKind, JobSummary};

impl Planner<'_> {
    /// Checks that the data keeps the rules of the service, if that is enforced.
    pub(super) fn check_data(&self, status: &DatasetImportJobStatus) -> Plan<()> {
        let Some(check) = self.observations.data.as_ref().ok_or(Next::Perform(Effect::CheckData))? else {
            return Ok(());
        };
        match &check.report {
            Some(Ok(report)) if check.enforced && report.has_errors() => {
                let message = format!("not submitted, because the data is invalid: {}", report.summary());
                Err(self.refuse_data(status, Reason::DataInvalid, &message))
            }
            Some(Err(error)) if check.enforced => Err(self.obstacle(status.clone(), error, "checking the data in S3")),
            _ => Ok(()),
        }
    }

    /// Checks that the data is not smaller than the guard allows, unless a user has released exactly this data.
    pub(super) fn check_guard(&self, status: &DatasetImportJobStatus, jobs: &[&JobSummary]) -> Plan<()> {
        let Some((guard, check)) = self.guard.zip(self.observations.data_check()) else {
            return Ok(());
        };
        let data = match &check.data {
            Ok(data) => data,
            Err(error) => return Err(self.obstacle(status.clone(), error, "reading the size of the data in S3")),
        };
        if self.inputs.released_data.as_ref() == Some(&data.fingerprint) {
            return Ok(());
        }
        let last = if guard.max_shrink_percent.is_some() { self.last_import(status, jobs)? } else { None };
        let Some(why) = too_small(guard, data, last) else { return Ok(()) };
        let message = format!(
            "not submitted, because the data is too small: {why}; to import it all the same, set the annotation {RELEASE_GUARD} to {}",
            data.fingerprint
        );
        Err(self.refuse_data(status, Reason::GuardTripped, &message))
    }

    fn refuse_data(&self, status: &DatasetImportJobStatus, reason: Reason, message: &str) -> Next {
        let mut status = status.clone();
        self.set_data_checked(&mut status);
        self.finish(status, reason, message, Requeue::Backoff(Severity::NeedsUser))
    }

    /// The data of the last FULL import into the dataset; `None` if there is none, or if its job does not say.
    fn last_import(&self, status: &DatasetImportJobStatus, jobs: &[&JobSummary]) -> Plan<Option<&ImportedData>> {
        let successes = jobs.iter().filter(|job| job.is_full_success());
        let Some(last) = successes.max_by_key(|job| job.created) else { return Ok(None) };
        match self.observations.imported.get(&last.name) {
            None => Err(Next::Perform(Effect::ListTags { job_name: last.name.clone() })),
            Some(Ok(data)) => Ok(data.as_ref()),
            Some(Err(error)) if error.kind == ErrorKind::NotFound => Ok(None),
            Some(Err(error)) => Err(self.obstacle(status.clone(), error, "reading the tags of the last import")),
        }
    }

    /// Whether data that was not submitted is other data now. It is listed now and then, and only in a namespace that
    /// may still read it.
    pub(super) fn sees_other_data(&self) -> Plan<bool> {
        let Some(refused) = &self.local.refused_data else { return Ok(false) };
        match &self.observations.listed {
            Some(listed) => Ok(listed.as_ref().is_ok_and(|data| *data != refused.data)),
            None if after(refused.listed_at, self.timing.list_interval()) > self.now => Ok(false),
            None => {
                self.check_namespace(&self.recorded)?;
                Err(Next::Perform(Effect::ListData))
            }
        }
    }

    /// The data that this reconciliation has listed.
    pub(super) fn observed_data(&self) -> Option<&ImportedData> {
        self.observations.data_check()?.data.as_ref().ok()
    }

    /// Sets the condition DataChecked to what this reconciliation observed.
    pub(super) fn set_data_checked(&self, status: &mut DatasetImportJobStatus) {
        let Some(report) = self.observations.data_check().and_then(|check| check.report.as_ref()) else {
            return conditions::remove_data_checked(status);
        };
        let (is_valid, message) = match report {
            Ok(report) if report.findings.is_empty() => (Some(true), "no rule is broken in what was read".to_owned()),
            Ok(report) => (Some(!report.has_errors()), report.summary()),
            Err(error) => (None, format!("the data could not be checked: {error}")),
        };
        conditions::set_data_checked(status, self.inputs.generation, is_valid, &message, self.now);
    }
}

/// Why this data is smaller than the guard allows; `None` if it is not.
fn too_small(guard: Guard, data: &ImportedData, last: Option<&ImportedData>) -> Option<String> {
    if let Some(min) = guard.min_bytes.filter(|min| data.bytes < *min) {
        return Some(format!("{data}, and spec.guard.minBytes is {min}"));
    }
    let (max, last) = guard.max_shrink_percent.zip(last)?;
    let least = i128::from(last.bytes) * i128::from(100 - max);
    (i128::from(data.bytes) * 100 < least)
        .then(|| format!("{data}, the last import had {last}, and spec.guard.maxShrinkPercent is {max}"))
}
