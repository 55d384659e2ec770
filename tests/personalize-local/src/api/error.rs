//! Error responses of the service: code, message and HTTP status.

use super::constraints::Violation;

/// An error response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub(crate) struct ApiError {
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) status: u16,
}

impl ApiError {
    pub(crate) fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), status: 400 }
    }

    pub(crate) fn unknown_operation() -> Self {
        Self::new("UnknownOperationException", "")
    }

    pub(crate) fn too_large() -> Self {
        Self { status: 413, ..Self::new("RequestEntityTooLargeException", "The request entity is too large.") }
    }

    /// The state file can't be written, so a restart would lose the change.
    pub(crate) fn internal() -> Self {
        Self { status: 500, ..Self::new("InternalServerException", "") }
    }

    pub(crate) fn invalid_input(message: impl Into<String>) -> Self {
        Self::new("InvalidInputException", message)
    }

    pub(crate) fn not_found(arn: &str) -> Self {
        Self::new("ResourceNotFoundException", format!("The given ARN {arn} does not exist."))
    }

    pub(crate) fn already_exists(arn: &str) -> Self {
        Self::new("ResourceAlreadyExistsException", format!("Another resource with Arn {arn} already exists."))
    }

    pub(crate) fn too_many_tags() -> Self {
        Self::new("TooManyTagsException", "The maximum number of tags per resource is 50.")
    }

    pub(crate) fn invalid_token() -> Self {
        Self::new("InvalidNextTokenException", "The token is not valid.")
    }

    /// Violated constraints, in the wording of other AWS JSON services. The model does not declare this error.
    pub(crate) fn validation(violations: &[Violation]) -> Self {
        let noun = if violations.len() == 1 { "error" } else { "errors" };
        let list: Vec<String> = violations.iter().map(ToString::to_string).collect();
        let message = format!("{} validation {noun} detected: {}", violations.len(), list.join("; "));
        Self::new("ValidationException", message)
    }
}
