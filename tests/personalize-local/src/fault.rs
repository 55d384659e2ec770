//! Faults on demand: which request they hit and what they do to it.

use serde::{Deserialize, Serialize};

use crate::Operation;

/// The members of a request that a fault's `name` is looked for in.
pub(crate) const NAMING: [&str; 6] =
    ["jobName", "datasetImportJobArn", "datasetArn", "resourceArn", "schemaArn", "datasetGroupArn"];

/// A fault. Faults are tried in the order added; the first that matches fires.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fault {
    /// The operation it hits; any when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// The account it hits; any when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Part of the job name or of an ARN in the request; any when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Matching requests that pass unharmed first.
    #[serde(default)]
    pub skip: u32,
    /// How often it fires; 0 is for ever. Once unless given.
    #[serde(default = "once")]
    pub count: u32,
    /// What it does.
    pub action: Action,
}

/// What a fault does. `effect` says whether the request is carried out before the answer is spoilt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Action {
    /// An error instead of the effect.
    Error {
        /// For example `ThrottlingException`.
        code: String,
        /// The message.
        #[serde(default)]
        message: String,
        /// The HTTP status; 400 unless given.
        #[serde(default = "bad_request")]
        status: u16,
    },
    /// The effect happens, and an error is answered (500 unless given).
    ErrorAfter {
        /// `InternalServerException` unless given.
        #[serde(default = "internal")]
        code: String,
        /// The message.
        #[serde(default)]
        message: String,
        /// The HTTP status; 500 unless given.
        #[serde(default = "internal_status")]
        status: u16,
    },
    /// The effect happens at once, the answer comes later.
    Delay {
        /// Milliseconds.
        ms: u64,
    },
    /// Nothing comes back, and the connection stays open.
    SilenceBeforeHeaders {
        /// Whether the request is carried out.
        #[serde(default = "yes")]
        effect: bool,
    },
    /// Status and headers come back, then nothing.
    SilenceAfterHeaders {
        /// Whether the request is carried out.
        #[serde(default = "yes")]
        effect: bool,
    },
    /// Half of the body comes back, then the connection closes. The request is carried out.
    CutBody,
    /// A body that is not JSON. The request is carried out.
    Garbage,
    /// The connection is reset and nothing else happens.
    ResetBefore,
    /// The request is carried out, then the connection is reset.
    ResetAfter,
    /// The request is carried out and answered with `{}`.
    NoArn,
    /// The job can't be found for a while: on a create, from now on.
    NotFoundFor {
        /// For so many milliseconds.
        #[serde(default)]
        ms: u64,
        /// For so many lookups.
        #[serde(default)]
        lookups: u32,
    },
    /// A describe or list shows this status for the job.
    Status(String),
    /// A describe of a finished job shows `CREATE IN_PROGRESS`.
    StatusGoesBack,
    /// The job fails now with this failureReason: `text`, repeated up to `length` characters if given.
    FailureReason {
        /// The text; `x` unless given.
        #[serde(default = "filler")]
        text: String,
        /// The length in characters.
        #[serde(default)]
        length: Option<usize>,
    },
    /// The job is gone for good, as if it had never been.
    Vanish,
}

fn once() -> u32 {
    1
}

fn yes() -> bool {
    true
}

fn bad_request() -> u16 {
    400
}

fn internal_status() -> u16 {
    500
}

fn internal() -> String {
    "InternalServerException".to_owned()
}

fn filler() -> String {
    "x".to_owned()
}

impl Fault {
    /// A fault that hits the next request of this operation, once.
    pub fn on(operation: &str, action: Action) -> Self {
        Self { operation: Some(operation.to_owned()), account: None, name: None, skip: 0, count: 1, action }
    }

    /// The same fault, for requests whose job name or ARN contains this.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// The same fault, so many times (0 is for ever).
    #[must_use]
    pub fn times(mut self, count: u32) -> Self {
        self.count = count;
        self
    }

    /// Why it would never fire, or fire and do nothing.
    pub(crate) fn problem(&self) -> Option<String> {
        match &self.action {
            Action::Error { status, .. } | Action::ErrorAfter { status, .. }
                // These have no body, and a client never sees those below.
                if !(200..600).contains(status) || [204, 205, 304].contains(status) =>
            {
                return Some(format!("an error can't have the HTTP status {status}"));
            }
            _ => {}
        }
        let name = self.operation.as_deref()?;
        let Some(operation) = Operation::named(name) else {
            return Some(format!("{name} is no operation of this service"));
        };
        if !self.action.works_on(name) {
            return Some(format!("{} does nothing to {name}", self.action.label()));
        }
        let named = operation.input.iter().any(|member| NAMING.contains(&member.name));
        (self.name.is_some() && !named).then(|| format!("a request of {name} has no name to match"))
    }

    fn matches(&self, request: &Subject<'_>) -> bool {
        self.operation.as_ref().is_none_or(|operation| operation == request.operation)
            && self.action.works_on(request.operation)
            && self.account.as_ref().is_none_or(|account| Some(account.as_str()) == request.account)
            && self.name.as_ref().is_none_or(|name| request.names.iter().any(|known| known.contains(name)))
            && (self.action != Action::StatusGoesBack || request.finished)
    }
}

impl Action {
    /// Its name in the ledger.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Error { .. } => "error",
            Self::ErrorAfter { .. } => "errorAfter",
            Self::Delay { .. } => "delay",
            Self::SilenceBeforeHeaders { .. } => "silenceBeforeHeaders",
            Self::SilenceAfterHeaders { .. } => "silenceAfterHeaders",
            Self::CutBody => "cutBody",
            Self::Garbage => "garbage",
            Self::ResetBefore => "resetBefore",
            Self::ResetAfter => "resetAfter",
            Self::NoArn => "noArn",
            Self::NotFoundFor { .. } => "notFoundFor",
            Self::Status(_) => "status",
            Self::StatusGoesBack => "statusGoesBack",
            Self::FailureReason { .. } => "failureReason",
            Self::Vanish => "vanish",
        }
    }

    /// Whether it makes a difference to this operation.
    fn works_on(&self, operation: &str) -> bool {
        match self {
            // About a job, which the request names or makes.
            Self::NotFoundFor { .. } | Self::FailureReason { .. } | Self::Vanish => [
                "CreateDatasetImportJob",
                "DescribeDatasetImportJob",
                "TagResource",
                "UntagResource",
                "ListTagsForResource",
            ]
            .contains(&operation),
            Self::Status(_) => ["DescribeDatasetImportJob", "ListDatasetImportJobs"].contains(&operation),
            Self::StatusGoesBack => operation == "DescribeDatasetImportJob",
            Self::NoArn => Operation::named(operation).is_some_and(|operation| !operation.output.is_empty()),
            _ => true,
        }
    }

    /// Whether the request is carried out all the same.
    pub(crate) fn keeps_effect(&self) -> bool {
        match self {
            Self::Error { .. } | Self::ResetBefore => false,
            Self::SilenceBeforeHeaders { effect } | Self::SilenceAfterHeaders { effect } => *effect,
            _ => true,
        }
    }
}

/// What a request is matched by.
pub(crate) struct Subject<'a> {
    pub(crate) operation: &'a str,
    pub(crate) account: Option<&'a str>,
    /// The job name and the ARNs in the request.
    pub(crate) names: Vec<&'a str>,
    /// The job it is about has finished.
    pub(crate) finished: bool,
}

/// Takes the action of the first fault that matches, and counts it.
pub(crate) fn take(faults: &mut Vec<Fault>, request: &Subject<'_>) -> Option<Action> {
    let mut fired = None;
    for (index, fault) in faults.iter_mut().enumerate() {
        if !fault.matches(request) {
            continue;
        }
        if fault.skip > 0 {
            fault.skip -= 1;
            continue;
        }
        fired = Some((index, fault.count == 1, fault.action.clone()));
        fault.count = fault.count.saturating_sub(1);
        break;
    }
    let (index, spent, action) = fired?;
    if spent {
        faults.remove(index);
    }
    Some(action)
}

#[cfg(test)]
mod tests {
    use super::{Action, Fault, Subject, take};

    fn describe() -> Subject<'static> {
        Subject { operation: "DescribeDatasetImportJob", account: None, names: vec!["job-1"], finished: false }
    }

    #[test]
    fn faults_fire_in_order_and_are_spent() {
        let mut faults = vec![
            Fault::on("CreateDatasetImportJob", Action::Vanish),
            Fault::on("DescribeDatasetImportJob", Action::Garbage).times(2),
            Fault::on("DescribeDatasetImportJob", Action::CutBody).named("job-"),
        ];
        let fired: Vec<_> = (0..4).map(|_| take(&mut faults, &describe()).map(|action| action.label())).collect();
        assert_eq!(fired, [Some("garbage"), Some("garbage"), Some("cutBody"), None]);
        assert_eq!(faults.len(), 1);
    }

    #[test]
    fn a_fault_without_end_keeps_firing() {
        let mut faults = vec![Fault::on("DescribeDatasetImportJob", Action::Garbage).times(0)];
        assert!((0..9).all(|_| take(&mut faults, &describe()).is_some()));
    }

    #[test]
    fn a_fault_that_would_do_nothing_is_told() {
        let error = |status| Action::Error { code: "X".to_owned(), message: String::new(), status };
        let lookups = Action::NotFoundFor { ms: 0, lookups: 1 };
        for (fault, problem) in [
            (Fault::on("CreateJob", Action::Garbage), "CreateJob is no operation of this service"),
            (Fault::on("ListSchemas", Action::Vanish), "vanish does nothing to ListSchemas"),
            (Fault::on("ListDatasetImportJobs", Action::StatusGoesBack), "statusGoesBack does nothing to"),
            (Fault::on("DescribeDataset", Action::Status("X".to_owned())), "status does nothing to DescribeDataset"),
            (Fault::on("ListDatasetImportJobs", lookups), "notFoundFor does nothing to ListDatasetImportJobs"),
            (Fault::on("TagResource", Action::NoArn), "noArn does nothing to TagResource"),
            (Fault::on("ListSchemas", Action::Garbage).named("a"), "a request of ListSchemas has no name to match"),
            (Fault::on("ListSchemas", error(99)), "can't have the HTTP status 99"),
            (Fault::on("ListSchemas", error(204)), "can't have the HTTP status 204"),
        ] {
            let told = fault.problem().unwrap_or_default();
            assert!(told.contains(problem), "{fault:?}: {told}");
        }
        assert_eq!(Fault::on("ListDatasetImportJobs", Action::Garbage).named("a").problem(), None);
        assert_eq!(Fault::on("ListSchemas", error(503)).problem(), None);
    }

    #[test]
    fn a_fault_of_any_operation_waits_for_one_that_it_makes_a_difference_to() {
        let fault = Fault { operation: None, ..Fault::on("", Action::Status("CREATE THINKING".to_owned())) };
        let mut faults = vec![fault];
        assert!(take(&mut faults, &Subject { operation: "ListSchemas", ..describe() }).is_none());
        assert!(take(&mut faults, &describe()).is_some());
    }

    #[test]
    fn a_fault_reads_as_the_readme_writes_it() {
        let text = r#"{"operation": "CreateDatasetImportJob", "count": 2, "action": {"error": {"code": "X"}}}"#;
        let fault: Fault = serde_json::from_str(text).unwrap();
        assert_eq!(fault.action, Action::Error { code: "X".into(), message: String::new(), status: 400 });
        let reset: Fault = serde_json::from_str(r#"{"action": "resetAfter"}"#).unwrap();
        assert_eq!((reset.count, reset.action), (1, Action::ResetAfter));
    }
}
