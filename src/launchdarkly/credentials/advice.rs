//! Reasons of failed credential checks, each with its message and remedy for the user.

use crate::domain::Finding;

/// A reason to branch on, and the message for the user. It holds nothing that a user typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advice {
    /// Stable, UPPER_SNAKE.
    pub reason: &'static str,
    /// What is wrong, and what to do about it.
    pub message: &'static str,
}

impl From<Advice> for Finding {
    fn from(advice: Advice) -> Self {
        Self {
            reason: advice.reason,
            message: advice.message.to_owned(),
        }
    }
}

macro_rules! advice {
    ($($(#[$doc:meta])* $name:ident = $message:literal;)*) => {
        $(
            $(#[$doc])*
            pub const $name: Advice = Advice { reason: stringify!($name), message: $message };
        )*
        /// Every reason.
        pub const ALL: &[Advice] = &[$($name),*];
    };
}

advice! {
    /// Access token, failed: nothing was entered.
    TOKEN_EMPTY =
        "The access token is empty. Create one in LaunchDarkly under Organization settings > \
         Authorization > Access tokens with the role Writer, and paste it here.";
    /// Access token, failed: an SDK key.
    TOKEN_IS_SDK_KEY =
        "This is an SDK key, which cannot call the API. Create an access token in LaunchDarkly \
         under Organization settings > Authorization > Access tokens with the role Writer.";
    /// Access token, failed: a mobile key.
    TOKEN_IS_MOBILE_KEY =
        "This is a mobile key, which cannot call the API. Create an access token in LaunchDarkly \
         under Organization settings > Authorization > Access tokens with the role Writer.";
    /// Access token, failed: quotation marks around it.
    TOKEN_IS_QUOTED =
        "There are quotation marks around the access token. Paste it again without.";
    /// Access token, failed: what stands before a token in a header.
    TOKEN_HAS_SCHEME =
        "There is a word such as Bearer before the access token. Paste the token alone: \
         LaunchDarkly takes it without.";
    /// Access token, failed: white space before or after it.
    TOKEN_HAS_WHITE_SPACE =
        "There is white space before or after the access token. Paste it again without.";
    /// Access token, failed: more characters than are taken.
    TOKEN_TOO_LONG =
        "This is longer than any access token. Copy the token alone from LaunchDarkly, or create \
         a new one.";
    /// Access token, failed: characters that no token has.
    TOKEN_HAS_ILLEGAL_CHARACTERS =
        "The access token holds a character that no token has, such as a space, a line break, a \
         quotation mark, a letter with an accent or an invisible one. Copy it again from \
         LaunchDarkly, or create a new one.";
    /// Access token, failed: status 401.
    TOKEN_REJECTED =
        "LaunchDarkly does not accept this access token. It may be mistyped, deleted or expired, \
         or belong to another LaunchDarkly instance than the one chosen. Create a new token with \
         the role Writer and paste it here.";
    /// Access token, failed: status 403.
    TOKEN_FORBIDDEN =
        "LaunchDarkly knows this access token but lets it do nothing from here. Ask an \
         administrator of the LaunchDarkly account whether the account or token is suspended, or \
         allowed only from certain addresses.";
    /// Access token, unknown: LaunchDarkly could not be asked, and something else is wrong anyway.
    TOKEN_NOT_CHECKED =
        "LaunchDarkly could not be reached to check the access token. Correct what else is \
         wrong, and check again.";
    /// Client-side ID, failed: nothing was entered.
    CLIENT_SIDE_ID_EMPTY =
        "The client-side ID is empty. Copy it from the SDK keys of the environment in LaunchDarkly.";
    /// Client-side ID, failed: an SDK key.
    CLIENT_SIDE_ID_IS_SDK_KEY =
        "This is an SDK key, which is a secret. Copy the client-side ID instead; LaunchDarkly \
         shows it beside the SDK key of the same environment.";
    /// Client-side ID, failed: a mobile key.
    CLIENT_SIDE_ID_IS_MOBILE_KEY =
        "This is a mobile key. Copy the client-side ID instead; LaunchDarkly shows it beside the \
         mobile key of the same environment.";
    /// Client-side ID, failed: an access token.
    CLIENT_SIDE_ID_IS_ACCESS_TOKEN =
        "This is an access token, which is a secret. Copy the client-side ID from the SDK keys \
         of the environment in LaunchDarkly.";
    /// Client-side ID, failed: quotation marks around it.
    CLIENT_SIDE_ID_IS_QUOTED =
        "There are quotation marks around the client-side ID. Paste it again without.";
    /// Client-side ID, failed: white space before or after it.
    CLIENT_SIDE_ID_HAS_WHITE_SPACE =
        "There is white space before or after the client-side ID. Paste it again without.";
    /// Client-side ID, failed: a dash.
    CLIENT_SIDE_ID_HAS_DASH =
        "Client-side IDs hold no dashes, so this is something else, such as the key of a project \
         or environment. Copy the client-side ID from the SDK keys of the environment.";
    /// Client-side ID, failed: more characters than are taken.
    CLIENT_SIDE_ID_TOO_LONG =
        "This is longer than any client-side ID. Copy the ID alone from the SDK keys of the \
         environment in LaunchDarkly.";
    /// Client-side ID, failed: characters that no client-side ID has.
    CLIENT_SIDE_ID_HAS_ILLEGAL_CHARACTERS =
        "Client-side IDs hold only letters, digits and underscores. Copy it again from the SDK \
         keys of the environment in LaunchDarkly.";
    /// Client-side ID, failed: no environment anywhere has it.
    CLIENT_SIDE_ID_NOT_FOUND =
        "No LaunchDarkly environment has this client-side ID. It may be mistyped or its \
         environment deleted. Copy it again from the SDK keys of the environment.";
    /// Client-side ID, failed: the account's environments are all visible, and it is none of them.
    CLIENT_SIDE_ID_NOT_IN_ACCOUNT =
        "This client-side ID does not belong to the account of the access token. Use a token of \
         the account that has the environment, or the client-side ID of an environment that this \
         account has.";
    /// Client-side ID, unknown: the token may not see the environment, or it is another account's.
    CLIENT_SIDE_ID_HIDDEN_OR_ELSEWHERE =
        "The access token may not see an environment with this client-side ID: it is hidden from \
         the token's role or belongs to another account. Check that it is yours, or use a token \
         with the role Writer, which lets this be checked.";
    /// Client-side ID, unknown: more environments than are looked through.
    ENVIRONMENTS_NOT_ALL_LISTED =
        "The account has more projects and environments than are looked through here, and the \
         client-side ID was not among the first. Check by eye that it is yours.";
    /// Write permission, failed: the token's role only reads.
    ROLE_CANNOT_WRITE =
        "The role of this access token only lets it read. Create an access token with the role \
         Writer, or with a custom role that allows createSegment and updateIncluded.";
    /// Write permission, unknown: a custom role or inline policy.
    ROLE_CUSTOM =
        "The access token has a custom role, whose rights LaunchDarkly does not tell here. Make \
         sure that it allows createSegment and updateIncluded on segments of this environment.";
    /// Write permission, unknown: a role that is not known here.
    ROLE_UNFAMILIAR =
        "The access token has a role that is not known here. Make sure that it allows \
         createSegment and updateIncluded on segments of this environment.";
    /// Write permission, unknown: the token may not read about itself.
    ROLE_HIDDEN =
        "LaunchDarkly does not let this access token see its own role. Make sure that it is \
         Writer, or allows createSegment and updateIncluded on segments of this environment.";
    /// Write permission, unknown: the role writes, but the environment may not be its account's.
    ENVIRONMENT_UNCONFIRMED =
        "The role of this access token lets it write in its own account, but it is not known \
         that the environment belongs to that account. Check that the client-side ID is yours.";
    /// Write permission, failed: the instance has no synced segments.
    SYNCED_SEGMENTS_UNAVAILABLE =
        "LaunchDarkly's EU and federal instances have no synced segments, so identifiers cannot \
         be delivered there. Use an account of the commercial instance.";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docs::hold_names;

    #[test]
    fn the_documented_reasons_of_checks_are_those_of_the_code() {
        let names = ALL.iter().map(|advice| advice.reason);
        hold_names(&["check's reason", "outcome"], names);
    }

    #[test]
    fn every_reason_fits_an_error_info_and_every_message_is_sentences() {
        // The rule for reasons in google.rpc.ErrorInfo, which also limits them to 63 characters.
        let reason = regex::Regex::new("^[A-Z][A-Z0-9_]{0,61}[A-Z0-9]$").unwrap();
        for advice in ALL {
            assert!(reason.is_match(advice.reason), "{}", advice.reason);
            assert!(advice.message.ends_with('.'), "{}", advice.reason);
            assert!(!advice.message.contains("  "), "{}", advice.reason);
        }
    }
}
