//! `/queue`: the waiting resources in the order in which they would be admitted. Their statuses do not have it, because
//! each move would be a write.

use super::readiness::Readiness;
use crate::queue::{Queue, QueueLine};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::Serialize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The most resources that are shown of one account and region.
const LIMIT: usize = 1000;

/// How long an answer is repeated. Requests must not keep the queue locked.
const MAX_AGE: Duration = Duration::from_secs(1);

#[derive(Serialize)]
struct Page {
    pools: Vec<QueueLine>,
}

/// The answer, and when it was made.
pub(super) struct QueuePage {
    readiness: Arc<Readiness>,
    last: Mutex<Option<(Instant, String)>>,
}

impl QueuePage {
    pub(super) fn new(readiness: Arc<Readiness>) -> Self {
        Self { readiness, last: Mutex::default() }
    }

    /// The answer; `None` if this replica does not lead.
    fn get(&self) -> Option<String> {
        let queue = self.readiness.queue()?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, page)) = last.as_ref().filter(|(at, _)| at.elapsed() < MAX_AGE) {
            return Some(page.clone());
        }
        let pools = Queue::lock(&queue).lines(Timestamp::now(), LIMIT);
        let page = serde_json::to_string(&Page { pools }).unwrap_or_default();
        *last = Some((Instant::now(), page.clone()));
        Some(page)
    }
}

pub(super) async fn show(State(page): State<Arc<QueuePage>>) -> Response {
    let standby = "this replica does not lead; the holder of the Lease has the queue\n";
    match page.get() {
        Some(page) => ([(header::CONTENT_TYPE, "application/json")], page).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, standby).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::{Timing, Trust};
    use crate::testing;

    #[test]
    fn only_the_leader_shows_a_queue_and_it_counts_again_once_a_second() {
        let readiness = Arc::new(Readiness::default());
        let page = QueuePage::new(Arc::clone(&readiness));
        let queue = Arc::new(Mutex::new(Queue::new(5, Timing::default())));
        readiness.set_queue(&queue);
        assert_eq!(page.get(), None, "a standby replica");
        readiness.set_leading([]);
        assert_eq!(page.get().unwrap(), r#"{"pools":[]}"#);
        let mut resource = testing::resource(testing::spec());
        resource.metadata.uid = Some("uid".into());
        Queue::lock(&queue).observe(&resource, Trust::Trusted);
        assert_eq!(page.get().unwrap(), r#"{"pools":[]}"#);
        *page.last.lock().unwrap() = None;
        assert!(page.get().unwrap().contains(r#""position":1"#));
        drop(queue);
        assert_eq!(page.get(), None, "the leadership is over");
    }
}
