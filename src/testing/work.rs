//! How often places were compared, and entries or scopes read: what the work of the queue and of the workers is made of.

use std::cell::Cell;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

pub(crate) fn count() {
    COUNT.set(COUNT.get() + 1);
}

/// The work that the current thread does.
pub(crate) fn during(work: impl FnOnce()) -> usize {
    let before = COUNT.get();
    work();
    COUNT.get() - before
}
