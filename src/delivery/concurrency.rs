//! Concurrency limit (AIMD) of one lane: how many of its calls may overlap.

/// Most overlapping calls of one lane. Beyond a few, the account's own limit decides.
const MAX_CALLS: usize = 4;

/// Additive increase, multiplicative decrease: one more after each success, half after a
/// conflict, since a conflict is what overlapping changes of one segment cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CallConcurrency(usize);

impl CallConcurrency {
    pub(super) fn new() -> Self {
        Self(1)
    }

    pub(super) fn size(self) -> usize {
        self.0
    }

    pub(super) fn succeeded(&mut self) {
        self.0 = (self.0 + 1).min(MAX_CALLS);
    }

    pub(super) fn conflicted(&mut self) {
        self.0 = (self.0 / 2).max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_grows_by_one_and_halves_within_its_bounds() {
        let mut window = CallConcurrency::new();
        (0..10).for_each(|_| window.succeeded());
        assert_eq!(window.size(), MAX_CALLS);
        window.conflicted();
        assert_eq!(window.size(), MAX_CALLS / 2);
        (0..10).for_each(|_| window.conflicted());
        assert_eq!(window.size(), 1);
    }
}
