//! F: no secret appears in a status, event, log or metric. All tests look for secrets with [`leaks`].

use super::{History, operator_writes};
use crate::env::personalize_local::{SECRET_KEY, SESSION_TOKEN, TEMPORARY_SECRET_KEY};

/// The secrets that every test plants.
pub const PLANTED: [&str; 3] = [SECRET_KEY, TEMPORARY_SECRET_KEY, SESSION_TOKEN];

pub(super) fn check(history: &History<'_>, violations: &mut Vec<String>) {
    let statuses: Vec<_> = operator_writes(history.writes).map(|write| ("a status", write.to_string())).collect();
    violations.extend(leaks(&statuses, &PLANTED));
}

/// The outputs of the operator that contain one of these secrets. An output has a description, such as `a log`, and its
/// text.
pub fn leaks(outputs: &[(&str, String)], secrets: &[&str]) -> Vec<String> {
    let lines = outputs.iter().flat_map(|(what, text)| text.lines().map(move |line| (what, line)));
    let leaking = lines.filter(|(_, line)| secrets.iter().any(|secret| line.contains(secret)));
    leaking.map(|(what, line)| format!("F: {what} contains a secret: {line}")).collect()
}

mod tests {
    use super::{PLANTED, leaks};
    use crate::invariants::check_logs;
    use crate::invariants::histories::{assert_holds, assert_violates, in_progress, write};
    use serde_json::json;

    #[test]
    fn secret_in_a_status_violates_f() {
        let with = |reason: &str| {
            write("a", &json!({"observedGeneration": 1, "failureReason": reason, "conditions": in_progress()}))
        };
        for secret in PLANTED {
            assert_violates("F", &check_logs(&[], &[with(secret)]));
        }
        assert_holds(&check_logs(&[], &[with("nothing to hide")]));
    }

    #[test]
    fn secret_in_an_event_log_or_metric_violates_f() {
        for secret in PLANTED {
            for (what, text) in [
                ("an event", json!({"requestObject": {"note": format!("denied: {secret}")}}).to_string()),
                ("a log", format!("a line\n{{\"message\":\"{secret}\"}}\n")),
                ("a metric", format!("x_total{{error=\"{secret}\"}} 1\n")),
            ] {
                assert_violates("F", &leaks(&[("a log", "quiet".to_owned()), (what, text)], &PLANTED));
            }
        }
    }

    #[test]
    fn output_without_a_secret_holds() {
        let event = json!({"requestObject": {"note": "denied"}}).to_string();
        let outputs = [("an event", event), ("a log", "a line".to_owned()), ("a metric", "x 1".to_owned())];
        assert_holds(&leaks(&outputs, &PLANTED));
    }
}
