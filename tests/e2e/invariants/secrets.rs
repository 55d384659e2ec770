//! F: no secret reaches a status, an event, a log or a metric.

use super::{Books, of_operator};
use crate::env::personalize_local::{SECRET_KEY, SESSION_TOKEN, TEMPORARY_SECRET_KEY};
use serde_json::Value;

pub(super) fn judge(books: &Books<'_>, faults: &mut Vec<String>) {
    if of_operator(books.writes).any(|w| leaks(&w.to_string())) {
        faults.push("F: a status holds a secret".into());
    }
}

/// The same of what the operator tells beside statuses.
pub fn told(events: &[Value], logs: &[String], metrics: &[String]) -> Vec<String> {
    let mut faults = Vec::new();
    if events.iter().any(|event| leaks(&event.to_string())) {
        faults.push("F: an event holds a secret".into());
    }
    if logs.iter().any(|log| leaks(log)) {
        faults.push("F: a log holds a secret".into());
    }
    if metrics.iter().any(|metrics| leaks(metrics)) {
        faults.push("F: a metric holds a secret".into());
    }
    faults
}

/// Whether a text holds a secret that the tests plant.
fn leaks(text: &str) -> bool {
    [SECRET_KEY, TEMPORARY_SECRET_KEY, SESSION_TOKEN].iter().any(|secret| text.contains(secret))
}

mod tests {
    use super::told;
    use crate::env::personalize_local::{SECRET_KEY, SESSION_TOKEN, TEMPORARY_SECRET_KEY};
    use crate::invariants::histories::{breaks, going, holds, write};
    use crate::invariants::judge;
    use serde_json::json;

    const SECRETS: [&str; 3] = [SECRET_KEY, TEMPORARY_SECRET_KEY, SESSION_TOKEN];

    #[test]
    fn f_is_broken_by_a_secret_in_a_status() {
        let with = |reason: &str| {
            write("a", &json!({"observedGeneration": 1, "failureReason": reason, "conditions": going()}))
        };
        for secret in SECRETS {
            breaks("F", &judge(&[], &[with(secret)]));
        }
        holds(&judge(&[], &[with("nothing to hide")]));
    }

    #[test]
    fn f_is_broken_by_a_secret_in_an_event() {
        for secret in SECRETS {
            breaks("F", &told(&[json!({"requestObject": {"note": format!("denied: {secret}")}})], &[], &[]));
        }
    }

    #[test]
    fn f_is_broken_by_a_secret_in_a_log() {
        for secret in SECRETS {
            breaks("F", &told(&[], &["quiet".to_owned(), format!("{{\"message\":\"{secret}\"}}\n")], &[]));
        }
    }

    #[test]
    fn f_is_broken_by_a_secret_in_a_metric() {
        for secret in SECRETS {
            breaks("F", &told(&[], &[], &[format!("x_total{{error=\"{secret}\"}} 1\n")]));
        }
    }

    #[test]
    fn f_is_not_broken_by_what_is_no_secret() {
        holds(&told(&[json!({"requestObject": {"note": "denied"}})], &["a line".to_owned()], &["x 1".to_owned()]));
    }
}
