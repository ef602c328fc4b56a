//! The segment that records go to, and the port through which it is changed.
//!
//! Delivery speaks to a vendor through [`SegmentClient`] alone; a vendor's folder implements it.

use std::{
    fmt,
    sync::{Arc, LazyLock},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::Instant;

use super::{Connection, ContextKey, ContextKind, Operation, Pattern, change::is_longer};

/// Longest segment ID, in characters (LaunchDarkly's recommended limit for cohort ids).
pub const MAX_SEGMENT_ID_CHARS: u16 = 128;
/// Longest segment name, in characters. LaunchDarkly publishes none; ours fits its forms.
pub const MAX_SEGMENT_NAME_CHARS: u16 = 256;
/// What a segment ID matches: LaunchDarkly's alphabet for keys. Whether it would rewrite
/// other characters is not documented, so none are let through.
pub static SEGMENT_ID_PATTERN: LazyLock<Pattern> =
    LazyLock::new(|| Pattern::new(r"^[a-zA-Z0-9][a-zA-Z0-9_.\-]{0,127}$"));
/// What the names of segments and destinations match: no control character, and something to see.
/// Invisible characters within are let through, since names in some scripts need the controls of
/// direction, and nothing is looked up by a name.
pub static NAME_PATTERN: LazyLock<Pattern> =
    LazyLock::new(|| Pattern::new(&format!("^{PRINTABLE}*{SEEN}{PRINTABLE}*$")));
/// No control character (Unicode's Cc). Written so that the engines of all languages read it alike:
/// many know no `\p`.
const PRINTABLE: &str = r"[^\x00-\x1f\x7f-\x9f]";
/// A character that people see: no control character, no white space (Unicode's Z), and no invisible
/// format character (Cf, except the signs of it that are drawn).
const SEEN: &str = "[^\\x00-\\x20\\x7f-\\xa0\\xad\u{61c}\u{1680}\u{180e}\u{2000}-\u{200f}\
                    \u{2028}-\u{202f}\u{205f}-\u{206f}\u{3000}\u{feff}\u{fff9}-\u{fffb}]";

/// Stable ID of a segment, chosen by the user.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentId(String);

/// Why a segment ID or name is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// Not an ID.
    #[error(
        "must be 1 to {MAX_SEGMENT_ID_CHARS} characters of A-Z a-z 0-9 _ . - and start with a letter or digit"
    )]
    Id,
    /// Not a name.
    #[error(
        "must be 1 to {MAX_SEGMENT_NAME_CHARS} characters, not blank, without control characters"
    )]
    Name,
}

impl SegmentId {
    /// Checks an ID against [`SEGMENT_ID_PATTERN`].
    ///
    /// # Errors
    /// [`SegmentError::Id`] when it does not match.
    pub fn new(id: &str) -> Result<Self, SegmentError> {
        let fits = SEGMENT_ID_PATTERN.is_match(id);
        fits.then(|| Self(id.to_owned())).ok_or(SegmentError::Id)
    }

    /// The ID.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A segment: its stable ID, the kind of its members, and the name people see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentRef {
    /// Stable ID.
    pub id: SegmentId,
    /// What its context keys identify.
    pub kind: ContextKind,
    name: String,
}

impl SegmentRef {
    /// Gives a name to the segment of this ID and kind.
    ///
    /// # Errors
    /// [`SegmentError::Name`] for a blank, over-long or unprintable name.
    pub fn new(id: SegmentId, kind: ContextKind, name: &str) -> Result<Self, SegmentError> {
        let fits = !is_longer(name, MAX_SEGMENT_NAME_CHARS) && NAME_PATTERN.is_match(name);
        fits.then(|| Self {
            id,
            kind,
            name: name.to_owned(),
        })
        .ok_or(SegmentError::Name)
    }

    /// The name people see.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// One call: some members enter or leave one segment.
#[derive(Debug, Clone)]
pub struct SegmentCall {
    /// Where and as whom.
    pub connection: Arc<Connection>,
    /// Which segment.
    pub segment: SegmentRef,
    /// The members. There is at least one, and no key stands there twice. Their operations are all
    /// the same unless the client's [`CallLimits`] let one call have several.
    pub members: Vec<Member>,
}

/// What a call asks for one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The member.
    pub key: ContextKey,
    /// In or out.
    pub operation: Operation,
}

/// What one call may carry. How often calls may start, and which rate windows count them, is the
/// client's own: a lane waits for a slot and need not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallLimits {
    /// Most members of one call; at least one.
    pub max_members: usize,
    /// Whether one call may add some members and remove others.
    pub operations: OperationsPerCall,
}

/// Which operations one call may carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperationsPerCall {
    /// All members of a call are added, or all are removed.
    One,
    /// A call may add some members and remove others.
    Mixed,
}

impl OperationsPerCall {
    /// The operations, by the calls that they may share.
    #[must_use]
    pub fn groups(self) -> &'static [&'static [Operation]] {
        match self {
            Self::One => &[&[Operation::Add], &[Operation::Remove]],
            Self::Mixed => &[&[Operation::Add, Operation::Remove]],
        }
    }
}

/// What became of one call. The client decides whether trying again can help: it has seen the
/// answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallOutcome {
    /// Every key is in (or out of) the segment now.
    Applied,
    /// Trying the same again cannot help.
    Refused(Refusal),
    /// Nothing is wrong with the call: try again, not before `retry_after` if it is set.
    Retry {
        /// Why it did not work this time.
        error: TransientError,
        /// How long the vendor asked to wait.
        retry_after: Option<Duration>,
    },
    /// No call was made: since the slot was given, a hold has begun.
    Held(Hold),
}

/// No call starts before a moment: none of an account, of an environment, or of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// The moment.
    pub until: Instant,
    /// Why.
    pub error: TransientError,
}

/// What the vendor refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Some member of the call, or its form.
    Payload,
    /// The call's size.
    TooLarge,
    /// The token: the vendor does not accept it.
    Unauthorized,
    /// The token's right to make this change: its role, the plan, or an approval.
    Forbidden,
    /// The segment or the route to it.
    Segment,
}

/// Why a call should be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransientError {
    /// The vendor limits the rate.
    RateLimited,
    /// Another change of the same segment was under way.
    Conflict,
    /// The vendor answered with a passing failure.
    Status(u16),
    /// No answer in time; the change may have been made.
    TimedOut,
    /// No connection could be made.
    Connection,
    /// The connection broke; the change may have been made.
    Broken,
    /// Something between here and the vendor answered in its place; the change may have been made.
    Intercepted(u16),
    /// The vendor refused for good, and has not confirmed that it means it.
    Unconfirmed(Refusal),
}

impl fmt::Display for TransientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RateLimited => f.write_str("LaunchDarkly limits the rate of calls"),
            Self::Conflict => f.write_str(
                "LaunchDarkly answered 409, a conflict with another change of the segment",
            ),
            Self::Status(status) => write!(f, "LaunchDarkly answered status {status}"),
            Self::TimedOut => f.write_str("LaunchDarkly did not answer in time"),
            Self::Connection => f.write_str("LaunchDarkly could not be reached"),
            Self::Broken => f.write_str("the connection to LaunchDarkly broke"),
            Self::Intercepted(status) => write!(
                f,
                "something between this service and LaunchDarkly, such as a proxy or a sign-in page, \
                 answered in its place with status {status}"
            ),
            Self::Unconfirmed(Refusal::Unauthorized) => f.write_str(
                "LaunchDarkly answered 401, and has not confirmed that it refuses the access token",
            ),
            Self::Unconfirmed(Refusal::Forbidden) => f.write_str(
                "LaunchDarkly answered 403, and has not confirmed that the change is forbidden",
            ),
            Self::Unconfirmed(_) => {
                f.write_str("LaunchDarkly refused a segment that it had accepted before")
            }
        }
    }
}

/// What the vendor says of a connection, asked after it has refused a call with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialStanding {
    /// Nothing that it tells speaks against the connection.
    Good,
    /// It refuses the connection: no call with it can succeed.
    Refused,
    /// It could not be asked; not to be asked again before `retry_after` if that is set.
    Unknown {
        /// How long the vendor asked to wait.
        retry_after: Option<Duration>,
    },
}

/// A place among the calls that an account may have under way; given back when dropped.
pub struct Slot(Option<Box<dyn Send + Sync>>);

impl Slot {
    /// A slot that gives back `held` when dropped.
    pub fn holding(held: impl Send + Sync + 'static) -> Self {
        Self(Some(Box::new(held)))
    }

    /// A slot where nothing is counted.
    #[must_use]
    pub fn free() -> Self {
        Self(None)
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "Slot(held)"
        } else {
            "Slot(free)"
        })
    }
}

/// Whether a call asks for what another one has asked for in vain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// None of its members has been in a call that failed.
    First,
    /// Some member has. Such calls are kept to a share of the others, so that they cannot
    /// multiply the load of a vendor in trouble.
    Retry,
}

/// Changes segments at a vendor; one attempt a call. The lane owns repetition, since it alone
/// knows how long each record may still be tried and what has superseded it.
#[async_trait]
pub trait SegmentClient: Send + Sync + fmt::Debug + 'static {
    /// Waits until a call that changes this segment may start. A repeated attempt may have to
    /// wait longer, and takes turns with first ones then.
    ///
    /// Cancel safe: a caller that stops waiting loses only its place in the queue.
    async fn ready(
        &self,
        connection: &Arc<Connection>,
        segment: &SegmentId,
        attempt: Attempt,
    ) -> Slot;

    /// Why calls with this connection wait in [`ready`](Self::ready), and until when; none if no
    /// hold is known.
    fn hold(&self, connection: &Connection) -> Option<Hold>;

    /// Tells that a destination uses the connection `after` instead of `before`. If both lead to
    /// one environment, a hold that the vendor asked for in an answer to `before` holds calls with
    /// `after` as well.
    fn connection_replaced(&self, before: &Connection, after: &Connection);

    /// What a call with this connection may carry: what the operator allows, less what calls that
    /// were too large have told.
    fn limits(&self, connection: &Connection) -> CallLimits;

    /// Tells that no more than so many members seem to fit into a call with this connection.
    fn learn_max_members(&self, connection: &Connection, members: usize);

    /// Makes one call; ends within the client's attempt time-out.
    async fn apply(&self, slot: Slot, delivery: &SegmentCall) -> CallOutcome;

    /// Asks what stands behind a refusal that a call with this connection has met: whether the
    /// token is accepted, or whether it may write in its environment. Callers at the same
    /// time share one answer, which also serves callers a moment later.
    ///
    /// Cancel safe: another waiting caller asks in place of one that gives up.
    async fn confirm(&self, connection: &Arc<Connection>, refusal: Refusal) -> CredentialStanding;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn named(name: &str) -> Result<SegmentRef, SegmentError> {
        let id = SegmentId::new("vip").unwrap();
        SegmentRef::new(id, ContextKind::default(), name)
    }

    proptest! {
        #[test]
        fn segment_ids_are_of_launchdarklys_alphabet_for_keys(
            id in "[a-zA-Z0-9_.\\-/ é\n]{0,10}([a-z]{120})?"
        ) {
            let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
            let begins = id.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
            let fits = begins && id.len() <= 128 && id.bytes().all(legal);
            prop_assert_eq!(SegmentId::new(&id).is_ok(), fits);
        }
    }

    #[test]
    fn names_show_something_and_hold_no_control_character() {
        for name in ["VIP", " a ", "é", "וי\u{200F}פי", "❤\u{FE0F}", "a\u{2028}b"] {
            assert!(named(name).is_ok(), "{name:?}");
        }
        for name in [
            "",
            "  ",
            "\u{A0}\u{3000}",
            "\u{200B}",
            "\u{FEFF} \u{2060}",
            "a\nb",
            "a\u{85}",
        ] {
            assert_eq!(named(name), Err(SegmentError::Name), "{name:?}");
        }
    }

    #[test]
    fn names_are_measured_in_characters() {
        assert!(named(&"é".repeat(256)).is_ok());
        assert_eq!(named(&"a".repeat(257)), Err(SegmentError::Name));
    }
}
