//! Points at which a test lets the agent die. Outside of tests they are nothing.

/// Dies here, if a test says so.
#[cfg(not(test))]
pub(super) fn point(_: &str) {}

#[cfg(test)]
pub(super) use tests::point;

#[cfg(test)]
pub(super) mod tests {
    use std::cell::RefCell;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    thread_local! {
        static AT: RefCell<Option<String>> = const { RefCell::new(None) };
    }

    pub(in super::super) fn point(name: &str) {
        if AT.with_borrow(|at| at.as_deref() == Some(name)) {
            std::panic::panic_any("the agent dies here");
        }
    }

    /// Does something, and dies at the point. Says whether it got there.
    pub(in super::super) fn dying_at(name: &str, work: impl FnOnce()) -> bool {
        AT.with_borrow_mut(|at| *at = Some(name.to_owned()));
        let died = catch_unwind(AssertUnwindSafe(work)).is_err();
        AT.with_borrow_mut(|at| *at = None);
        died
    }
}
