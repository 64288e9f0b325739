//! What a story does to the cluster itself (nodes, flags, the default subnet) is undone also when
//! it fails half-way.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::story::say;

/// Puts something back when it is dropped. Of several the last one made goes first.
#[must_use]
pub struct Undo<'a>(Option<Box<dyn FnOnce() + 'a>>);

pub fn undo<'a>(put_back: impl FnOnce() + 'a) -> Undo<'a> {
    Undo(Some(Box::new(put_back)))
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        let Some(put_back) = self.0.take() else { return };
        // A second panic while the first one unwinds would end all stories.
        if catch_unwind(AssertUnwindSafe(put_back)).is_err() {
            say("   what the story changed could not be put back");
            assert!(std::thread::panicking(), "what the story changed could not be put back");
        }
    }
}
