//! Fault injection: which request a fault matches, and what it does.

use serde::{Deserialize, Serialize};

use crate::Operation;

/// The members of a request that the `name` of a fault is matched against.
pub(crate) const NAME_MEMBERS: [&str; 7] = [
    "jobName",
    "datasetImportJobArn",
    "datasetArn",
    "resourceArn",
    "schemaArn",
    "datasetGroupArn",
    "dataDeletionJobArn",
];

/// A fault. Faults are matched in the order in which they were added; the first match fires.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fault {
    /// The operation; any if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// The account; any if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// A substring of the job name or of an ARN in the request; any if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How many matching requests to skip first.
    #[serde(default)]
    pub skip: u32,
    /// How often it fires; 0 is unlimited. Default: 1.
    #[serde(default = "default_count")]
    pub count: u32,
    /// What it does.
    pub action: Action,
}

/// What a fault does. `effect` says whether the request is executed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Action {
    /// The response is this error. The request is not executed.
    Error {
        /// The error code, for example `ThrottlingException`.
        code: String,
        /// The error message.
        #[serde(default)]
        message: String,
        /// The HTTP status. Default: 400.
        #[serde(default = "default_error_status")]
        status: u16,
    },
    /// The request is executed, but the response is this error.
    ErrorAfter {
        /// The error code. Default: `InternalServerException`.
        #[serde(default = "default_error_after_code")]
        code: String,
        /// The error message.
        #[serde(default)]
        message: String,
        /// The HTTP status. Default: 500.
        #[serde(default = "default_error_after_status")]
        status: u16,
    },
    /// The request is executed immediately, but the response is delayed.
    Delay {
        /// Milliseconds.
        ms: u64,
    },
    /// No response; the connection stays open.
    SilenceBeforeHeaders {
        /// Whether the request is executed. Default: true.
        #[serde(default = "default_effect")]
        effect: bool,
    },
    /// Status and headers, but no body; the connection stays open.
    SilenceAfterHeaders {
        /// Whether the request is executed. Default: true.
        #[serde(default = "default_effect")]
        effect: bool,
    },
    /// The request is executed. The connection closes after half of the body.
    CutBody,
    /// The request is executed. The body is not JSON.
    Garbage,
    /// The connection is reset. The request is not executed.
    ResetBefore,
    /// The request is executed, then the connection is reset.
    ResetAfter,
    /// The request is executed. The response is `{}`.
    NoArn,
    /// Lookups of the job return not found for a while. On a create, this starts with the new job.
    NotFoundFor {
        /// For this many milliseconds.
        #[serde(default)]
        ms: u64,
        /// For this many lookups.
        #[serde(default)]
        lookups: u32,
    },
    /// A describe or list returns this job status.
    Status(String),
    /// A describe of a finished job returns the status `CREATE IN_PROGRESS`.
    StatusGoesBack,
    /// The job fails now. Its `failureReason` is `text`, repeated up to `length` characters if given.
    FailureReason {
        /// The text. Default: `x`.
        #[serde(default = "default_reason")]
        text: String,
        /// The length in characters.
        #[serde(default)]
        length: Option<usize>,
    },
    /// The job is removed, as if it had never existed.
    Vanish,
}

fn default_count() -> u32 {
    1
}

fn default_effect() -> bool {
    true
}

fn default_error_status() -> u16 {
    400
}

fn default_error_after_status() -> u16 {
    500
}

fn default_error_after_code() -> String {
    "InternalServerException".to_owned()
}

fn default_reason() -> String {
    "x".to_owned()
}

impl Fault {
    /// A fault for the next request of an operation. It fires once.
    pub fn on(operation: &str, action: Action) -> Self {
        Self { operation: Some(operation.to_owned()), account: None, name: None, skip: 0, count: 1, action }
    }

    /// Limits the fault to requests whose job name or ARN contains `name`.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// Sets how often the fault fires; 0 is unlimited.
    #[must_use]
    pub fn times(mut self, count: u32) -> Self {
        self.count = count;
        self
    }

    /// Why the fault can never fire or has no effect; `None` if it is valid.
    pub(crate) fn validation_error(&self) -> Option<String> {
        match &self.action {
            Action::Error { status, .. } | Action::ErrorAfter { status, .. }
                // 204, 205 and 304 have no body, and clients skip 1xx.
                if !(200..600).contains(status) || [204, 205, 304].contains(status) =>
            {
                return Some(format!("an error can't have the HTTP status {status}"));
            }
            _ => {}
        }
        let name = self.operation.as_deref()?;
        let Some(operation) = Operation::find(name) else {
            return Some(format!("{name} is not an operation of this service"));
        };
        if !self.action.applies_to(name) {
            return Some(format!("{} has no effect on {name}", self.action.label()));
        }
        let has_name = operation.input.iter().any(|member| NAME_MEMBERS.contains(&member.name));
        (self.name.is_some() && !has_name).then(|| format!("a {name} request has no name to match"))
    }

    fn matches(&self, target: &FaultTarget<'_>) -> bool {
        self.operation.as_ref().is_none_or(|operation| operation == target.operation)
            && self.action.applies_to(target.operation)
            && self.account.as_ref().is_none_or(|account| Some(account.as_str()) == target.account)
            && self.name.as_ref().is_none_or(|name| target.names.iter().any(|known| known.contains(name)))
            && (self.action != Action::StatusGoesBack || target.job_finished)
    }
}

impl Action {
    /// The name in the ledger.
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

    /// Whether it has an effect on this operation.
    fn applies_to(&self, operation: &str) -> bool {
        match self {
            // These change a job, so the request must name or create one.
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
            Self::NoArn => Operation::find(operation).is_some_and(|operation| !operation.output.is_empty()),
            _ => true,
        }
    }

    /// Whether the request is executed.
    pub(crate) fn executes_request(&self) -> bool {
        match self {
            Self::Error { .. } | Self::ResetBefore => false,
            Self::SilenceBeforeHeaders { effect } | Self::SilenceAfterHeaders { effect } => *effect,
            _ => true,
        }
    }
}

/// The properties of a request that faults match.
pub(crate) struct FaultTarget<'a> {
    pub(crate) operation: &'a str,
    pub(crate) account: Option<&'a str>,
    /// The job name and the ARNs in the request.
    pub(crate) names: Vec<&'a str>,
    /// Whether the job in the request has finished.
    pub(crate) job_finished: bool,
}

/// Returns the action of the first fault that matches, and removes the fault after its last firing.
pub(crate) fn take_matching(faults: &mut Vec<Fault>, target: &FaultTarget<'_>) -> Option<Action> {
    let mut fired = None;
    for (index, fault) in faults.iter_mut().enumerate() {
        if !fault.matches(target) {
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
    let (index, is_last, action) = fired?;
    if is_last {
        faults.remove(index);
    }
    Some(action)
}

#[cfg(test)]
mod tests {
    use super::{Action, Fault, FaultTarget, take_matching};

    fn describe() -> FaultTarget<'static> {
        FaultTarget { operation: "DescribeDatasetImportJob", account: None, names: vec!["job-1"], job_finished: false }
    }

    #[test]
    fn matching_faults_fire_in_order_until_their_count_is_reached() {
        let mut faults = vec![
            Fault::on("CreateDatasetImportJob", Action::Vanish),
            Fault::on("DescribeDatasetImportJob", Action::Garbage).times(2),
            Fault::on("DescribeDatasetImportJob", Action::CutBody).named("job-"),
        ];
        let fired: Vec<_> =
            (0..4).map(|_| take_matching(&mut faults, &describe()).map(|action| action.label())).collect();
        assert_eq!(fired, [Some("garbage"), Some("garbage"), Some("cutBody"), None]);
        assert_eq!(faults.len(), 1);
    }

    #[test]
    fn fault_with_count_zero_keeps_firing() {
        let mut faults = vec![Fault::on("DescribeDatasetImportJob", Action::Garbage).times(0)];
        assert!((0..9).all(|_| take_matching(&mut faults, &describe()).is_some()));
    }

    #[test]
    fn fault_without_effect_is_invalid() {
        let error = |status| Action::Error { code: "X".to_owned(), message: String::new(), status };
        let lookups = Action::NotFoundFor { ms: 0, lookups: 1 };
        for (fault, expected) in [
            (Fault::on("CreateJob", Action::Garbage), "CreateJob is not an operation of this service"),
            (Fault::on("ListSchemas", Action::Vanish), "vanish has no effect on ListSchemas"),
            (Fault::on("ListDatasetImportJobs", Action::StatusGoesBack), "statusGoesBack has no effect on"),
            (Fault::on("DescribeDataset", Action::Status("X".to_owned())), "status has no effect on DescribeDataset"),
            (Fault::on("ListDatasetImportJobs", lookups), "notFoundFor has no effect on ListDatasetImportJobs"),
            (Fault::on("TagResource", Action::NoArn), "noArn has no effect on TagResource"),
            (Fault::on("ListSchemas", Action::Garbage).named("a"), "a ListSchemas request has no name to match"),
            (Fault::on("ListSchemas", error(99)), "can't have the HTTP status 99"),
            (Fault::on("ListSchemas", error(204)), "can't have the HTTP status 204"),
        ] {
            let error = fault.validation_error().unwrap_or_default();
            assert!(error.contains(expected), "{fault:?}: {error}");
        }
        assert_eq!(Fault::on("ListDatasetImportJobs", Action::Garbage).named("a").validation_error(), None);
        assert_eq!(Fault::on("ListSchemas", error(503)).validation_error(), None);
    }

    #[test]
    fn fault_without_operation_fires_on_the_first_operation_it_affects() {
        let fault = Fault { operation: None, ..Fault::on("", Action::Status("CREATE THINKING".to_owned())) };
        let mut faults = vec![fault];
        assert!(take_matching(&mut faults, &FaultTarget { operation: "ListSchemas", ..describe() }).is_none());
        assert!(take_matching(&mut faults, &describe()).is_some());
    }

    #[test]
    fn fault_json_uses_the_documented_defaults() {
        let text = r#"{"operation": "CreateDatasetImportJob", "count": 2, "action": {"error": {"code": "X"}}}"#;
        let fault: Fault = serde_json::from_str(text).unwrap();
        assert_eq!(fault.action, Action::Error { code: "X".into(), message: String::new(), status: 400 });
        let reset: Fault = serde_json::from_str(r#"{"action": "resetAfter"}"#).unwrap();
        assert_eq!((reset.count, reset.action), (1, Action::ResetAfter));
    }
}
