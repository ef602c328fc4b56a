//! What follows when a stream ends.

use std::{fmt, time::Duration};

use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::support::history::Ending;

/// Why not every record is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// With a status that trying again cannot help.
    Refused { code: Code, reason: String },
    /// The server broke the contract.
    Broken(String),
    /// It took too long.
    Deadline { committed: i64, of: usize },
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { code, reason } => write!(f, "refused with {code:?} {reason}"),
            Self::Broken(what) => write!(f, "the server broke the contract: {what}"),
            Self::Deadline { committed, of } => {
                write!(
                    f,
                    "not done in time: {committed} of {of} records are committed"
                )
            }
        }
    }
}

/// How a stream ended, for the one after it.
pub(super) enum Over {
    Well,
    Again { not_before: Duration },
    Never(Stopped),
}

/// Why a stream has not ended OK.
pub(super) enum Fault {
    Status(Status),
    Lost,
    Broken(String),
}

/// Tells what passes by itself from what does not.
pub(super) fn judge(ended: Result<(), Fault>) -> (Ending, Over) {
    let again = |not_before| Over::Again { not_before };
    let status = match ended {
        Ok(()) => return (Ending::Ok, Over::Well),
        Err(Fault::Lost) => return (Ending::Lost, again(Duration::ZERO)),
        // Its status was OK: that it should not have been, the checker must see too.
        Err(Fault::Broken(what)) => return (Ending::Ok, Over::Never(Stopped::Broken(what))),
        Err(Fault::Status(status)) => status,
    };
    let Some(info) = status.get_details_error_info() else {
        // Not the server speaks, but the HTTP library about a connection.
        return (Ending::Lost, again(Duration::ZERO));
    };
    let delay = status
        .get_details_retry_info()
        .and_then(|info| info.retry_delay);
    let (code, reason) = (status.code(), info.reason);
    let over = match code {
        Code::Unavailable | Code::Aborted => again(delay.unwrap_or_default()),
        Code::ResourceExhausted if delay.is_some() => again(delay.unwrap_or_default()),
        _ => Over::Never(Stopped::Refused {
            code,
            reason: reason.clone(),
        }),
    };
    (Ending::Status { code, reason }, over)
}

/// The reason in the `ErrorInfo` of a record's error.
pub(crate) fn record_reason(error: &tonic_types::pb::Status) -> String {
    use prost::Message;
    let code = Code::from_i32(error.code);
    let status = Status::with_details(code, &error.message, error.encode_to_vec().into());
    let info = status.get_details_error_info();
    info.map(|info| info.reason).unwrap_or_default()
}
