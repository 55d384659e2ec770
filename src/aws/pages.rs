//! The pages of a listing, and their bounds.

use super::error::listing_limit_error;
use crate::personalize::{MAX_PAGE, ServiceError};
use std::collections::HashSet;
use std::time::Duration;
use tokio::time::timeout;

/// The maximum number of pages read of a listing, with [`MAX_PAGE`] jobs each.
const MAX_PAGES: usize = 1000;

/// The timeout of a whole listing.
const LISTING_TIMEOUT: Duration = Duration::from_secs(120);

/// Follows the tokens from page to page.
#[derive(Debug, Default)]
pub(super) struct Pages {
    token: Option<String>,
    seen: HashSet<String>,
}

impl Pages {
    /// The token of the page to read now.
    pub(super) fn take_token(&mut self) -> Option<String> {
        self.token.take()
    }

    /// Follows the token that a page ended with, to the next page if there is one.
    pub(super) fn follow(&mut self, token: Option<String>) -> Result<bool, ServiceError> {
        let Some(token) = token.filter(|token| !token.is_empty()) else { return Ok(false) };
        // A repeated token would repeat the listing forever.
        if !self.seen.insert(token.clone()) || self.seen.len() >= MAX_PAGES {
            return Err(listing_limit_error(&format!("{} jobs", MAX_PAGES * usize::from(MAX_PAGE))));
        }
        self.token = Some(token);
        Ok(true)
    }
}

/// Bounds the time of a whole listing.
pub(super) async fn within_time<T>(listing: impl Future<Output = Result<T, ServiceError>>) -> Result<T, ServiceError> {
    let timed_out = |_| Err(listing_limit_error(&format!("{} s", LISTING_TIMEOUT.as_secs())));
    timeout(LISTING_TIMEOUT, listing).await.unwrap_or_else(timed_out)
}
