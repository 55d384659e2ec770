//! The state shared by the server, the clock and the library's handle.

use std::{
    ops::{Deref, DerefMut},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::http::Uri;

use crate::{
    clock::now_ms,
    store::{Store, state_file},
};

/// What the server, the clock and the library's handle share.
#[derive(Debug, Clone)]
pub(crate) struct AppState {
    pub(crate) store: Arc<Mutex<Store>>,
    /// The root directory of the S3 data.
    pub(crate) data: PathBuf,
    pub(crate) sts: Option<Uri>,
    /// Set once, on shutdown: threads that read data stop at the next record.
    pub(crate) stopping: Arc<AtomicBool>,
}

impl AppState {
    /// Locks the store, with all jobs advanced to the current time.
    pub(crate) fn lock(&self) -> StoreGuard<'_> {
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        store.advance(now_ms());
        StoreGuard(store)
    }

    /// Stops all changes, in memory and in the state file: another process may already use the file.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.lock().state_file = None;
    }
}

/// The locked store. Changes are written to the state file before the lock is released, so no client observes a
/// change that a restart would lose.
pub(crate) struct StoreGuard<'a>(MutexGuard<'a, Store>);

impl Deref for StoreGuard<'_> {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.0
    }
}

impl DerefMut for StoreGuard<'_> {
    fn deref_mut(&mut self) -> &mut Store {
        &mut self.0
    }
}

impl Drop for StoreGuard<'_> {
    fn drop(&mut self) {
        // Request handlers need the result, so they also call this function themselves.
        state_file::save_if_changed(&mut self.0);
    }
}
