//! Permissions of a destination: which of its segments the vendor lets it change. If that is none,
//! the destination itself is refused.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use crate::domain::{Revision, SegmentId};

/// How long an answer for one segment counts for its destination. Ours: people may change
/// permissions, and a segment that was not used for an hour may be used no more.
const RECENT: Duration = Duration::from_secs(3600);

/// The vendor's last answer for each segment that one revision of a destination has used.
#[derive(Debug)]
pub(super) struct Permissions {
    revision: Revision,
    answers: HashMap<SegmentId, PermissionAnswer>,
    latest: Instant,
}

#[derive(Debug, Clone, Copy)]
struct PermissionAnswer {
    permitted: bool,
    at: Instant,
}

impl Permissions {
    pub(super) fn new(revision: Revision, now: Instant) -> Self {
        Self {
            revision,
            answers: HashMap::new(),
            latest: now,
        }
    }

    /// Whether the last answer is recent.
    pub(super) fn are_recent(&self, now: Instant) -> bool {
        now.duration_since(self.latest) < RECENT
    }

    /// Records an answer for a segment. A later revision may have other permissions, and starts
    /// anew.
    pub(super) fn note(
        &mut self,
        revision: Revision,
        segment: &SegmentId,
        permitted: bool,
        now: Instant,
    ) {
        if revision < self.revision {
            return;
        }
        if revision > self.revision {
            *self = Self::new(revision, now);
        }
        self.latest = now;
        let answer = PermissionAnswer { permitted, at: now };
        if let Some(known) = self.answers.get_mut(segment) {
            *known = answer;
            return;
        }
        self.answers
            .retain(|_, answer| now.duration_since(answer.at) < RECENT);
        self.answers.insert(segment.clone(), answer);
    }

    /// Whether at least two segments were used recently, and none may be changed. A single one may
    /// need an approval, or be excluded from the token's role.
    pub(super) fn are_all_refused(&self, now: Instant) -> bool {
        let answers = self.answers.values();
        let recent = || {
            answers
                .clone()
                .filter(|a| now.duration_since(a.at) < RECENT)
        };
        recent().count() > 1 && recent().all(|answer| !answer.permitted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Revision = Revision(1);

    /// Whether all are refused after these answers, a minute apart.
    fn all_refused(answers: &[(&str, bool)]) -> bool {
        let began = Instant::now();
        let mut permissions = Permissions::new(FIRST, began);
        let mut now = began;
        for (segment, permitted) in answers {
            now += Duration::from_secs(60);
            let segment = SegmentId::new(segment).unwrap();
            permissions.note(FIRST, &segment, *permitted, now);
        }
        permissions.are_all_refused(now)
    }

    #[test]
    fn a_destination_is_refused_once_all_of_its_segments_are() {
        assert!(!all_refused(&[("a", false)]));
        assert!(!all_refused(&[("a", false), ("a", false)]), "it is one");
        assert!(all_refused(&[("a", false), ("b", false)]));
        assert!(all_refused(&[("a", true), ("a", false), ("b", false)]));
        assert!(!all_refused(&[("a", false), ("c", true), ("b", false)]));
        assert!(!all_refused(&[("a", false), ("b", false), ("b", true)]));
    }

    #[test]
    fn old_answers_do_not_count() {
        let began = Instant::now();
        let [a, b, c] = ["a", "b", "c"].map(|id| SegmentId::new(id).unwrap());
        let mut permissions = Permissions::new(FIRST, began);
        permissions.note(FIRST, &a, true, began);
        assert!(permissions.are_recent(began));
        let later = began + RECENT;
        assert!(!permissions.are_recent(later));
        permissions.note(FIRST, &b, false, later);
        permissions.note(FIRST, &c, false, later);
        assert!(permissions.are_all_refused(later));
        assert!(!permissions.are_all_refused(later + RECENT));
    }

    #[test]
    fn a_later_revision_starts_anew_and_an_older_one_does_not_count() {
        let now = Instant::now();
        let [a, b] = ["a", "b"].map(|id| SegmentId::new(id).unwrap());
        let mut permissions = Permissions::new(FIRST, now);
        permissions.note(FIRST, &a, false, now);
        permissions.note(FIRST.next(), &b, false, now);
        assert!(!permissions.are_all_refused(now));
        permissions.note(FIRST, &a, false, now);
        assert!(!permissions.are_all_refused(now));
    }
}
