//! ListDestinations and DescribeActions: the paged methods.

use prost::Message;
use tracing::error;
use uuid::Uuid;

use super::{UnaryCalls, page, store_failure};
use crate::{
    domain::{Authorized, Caller, DestinationUid, Etag, OrganizationId, View},
    pb,
    registry::{Cursor, Entry, ListQuery},
    server::{
        check::{self, Violations},
        convert,
        status::Failure,
    },
};

/// Destinations of a page when the caller does not say (the contract's).
const DEFAULT_PAGE: u16 = 50;
/// Most destinations of a page (the contract's).
const LARGEST_PAGE: u16 = 1000;

/// Most bytes of a page. Clients accept messages of 4 MiB by default; a destination has some 10 KiB
/// at most.
const LARGEST_PAGE_BYTES: usize = 3 * 1024 * 1024;

/// The only filter there is.
const FILTER_RULE: &str =
    r#"must have the form display_name:"text", where \" and \\ stand for " and \ in the text"#;
const TOKEN_RULE: &str = "must be the next_page_token of the same query";

impl UnaryCalls {
    /// Lists an organization's destinations, newest first.
    ///
    /// # Errors
    /// Malformed fields, or the store's failure.
    pub(crate) async fn list_destinations(
        &self,
        caller: &Caller,
        request: pb::ListDestinationsRequest,
    ) -> Result<pb::ListDestinationsResponse, Failure> {
        let (organization, query) = check::all(|noted| check_list(caller, &request, noted))?;
        let page = self
            .registry
            .list(&organization, &query)
            .await
            .map_err(store_failure)?;
        let mut destinations: Vec<_> = page.entries.iter().map(entry).collect();
        let fit = how_many_fit(&destinations);
        let next = if fit < destinations.len() {
            destinations.truncate(fit);
            page.entries[..fit].last().map(Cursor::after)
        } else {
            page.next
        };
        let seal = |next| page::seal(&bound_to(&organization, &query), &position(next));
        Ok(pb::ListDestinationsResponse {
            destinations,
            next_page_token: next.map(seal).unwrap_or_default(),
        })
    }

    /// Describes what destinations can do.
    ///
    /// # Errors
    /// A bad page size or token.
    pub(crate) fn describe_actions(
        &self,
        caller: &Caller,
        request: &pb::DescribeActionsRequest,
    ) -> Result<pb::DescribeActionsResponse, Failure> {
        let allowed = caller.unscoped().ok_or(Failure::PermissionDenied)?;
        let actions = self.vendor.describe(&allowed);
        let (start, size) = check::all(|noted| check_describe(request, actions.len(), noted))?;
        let end = start.saturating_add(size).min(actions.len());
        let next = (end < actions.len()).then(|| page::seal(ACTIONS, &(end as u64).to_be_bytes()));
        Ok(pb::DescribeActionsResponse {
            actions: actions[start..end].iter().map(convert::action).collect(),
            next_page_token: next.unwrap_or_default(),
        })
    }
}

/// A destination of a list. One that cannot be read is logged, and shown with what is known of it:
/// its id stays taken, and it can be deleted.
fn entry(entry: &Entry) -> pb::Destination {
    match entry {
        Ok(destination) => convert::destination(destination),
        Err(unreadable) => {
            error!(error = %unreadable.error, "a listed destination cannot be read");
            pb::Destination {
                name: unreadable.name.clone(),
                uid: unreadable.uid.to_string(),
                display_name: unreadable.display_name.clone(),
                create_time: Some(unreadable.create_time.into()),
                update_time: Some(unreadable.update_time.into()),
                etag: Etag::of(unreadable.uid, unreadable.revision).0,
                ..Default::default()
            }
        }
    }
}

/// How many of a page stay below what clients accept; one at least, which always does.
fn how_many_fit(destinations: &[pb::Destination]) -> usize {
    let mut bytes = 0;
    let fits = |destination: &&pb::Destination| {
        bytes += destination.encoded_len();
        bytes <= LARGEST_PAGE_BYTES
    };
    destinations.iter().take_while(fits).count().max(1)
}

fn check_list(
    caller: &Caller,
    request: &pb::ListDestinationsRequest,
    noted: &mut Violations,
) -> Option<(Authorized<OrganizationId, View>, ListQuery)> {
    let size = page_size(request.page_size, noted);
    let organization = caller.organization(&request.parent);
    let organization = noted.authorized("parent", organization);
    let filter = noted.ok_or_note(
        "filter",
        display_name_filter(&request.filter).ok_or(FILTER_RULE),
    );
    let organization = organization?;
    let query = ListQuery {
        display_name: filter?,
        after: None,
        limit: limit(size?),
    };
    let after = after(&organization, &query, &request.page_token, noted);
    Some((organization, ListQuery { after, ..query }))
}

fn limit(size: usize) -> u16 {
    match size {
        0 => DEFAULT_PAGE,
        size => u16::try_from(size).map_or(LARGEST_PAGE, |size| size.min(LARGEST_PAGE)),
    }
}

fn after(
    organization: &OrganizationId,
    query: &ListQuery,
    token: &str,
    noted: &mut Violations,
) -> Option<Cursor> {
    if token.is_empty() {
        return None;
    }
    let position = page::open(&bound_to(organization, query), token);
    noted
        .ok_or_note("page_token", position.ok_or(TOKEN_RULE))
        .map(cursor)
}

/// What a token of a list is bound to. Not to the page size: that may change from page to page.
fn bound_to<'a>(organization: &'a OrganizationId, query: &'a ListQuery) -> [&'a str; 3] {
    let filter = query.display_name.as_deref();
    [
        "destinations",
        organization.as_str(),
        filter.unwrap_or_default(),
    ]
}

fn position(cursor: Cursor) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&cursor.created_micros.to_be_bytes());
    bytes[8..].copy_from_slice(cursor.uid.0.as_bytes());
    bytes
}

fn cursor(position: [u8; 24]) -> Cursor {
    let (micros, uid) = position.split_first_chunk().expect("24 bytes hold 8");
    Cursor {
        created_micros: i64::from_be_bytes(*micros),
        uid: DestinationUid(Uuid::from_slice(uid).expect("16 of 24 bytes are left")),
    }
}

/// What a token of the actions is bound to.
const ACTIONS: &[&str] = &["actions"];

/// Where the page starts, and how long it is at most.
fn check_describe(
    request: &pb::DescribeActionsRequest,
    count: usize,
    noted: &mut Violations,
) -> Option<(usize, usize)> {
    let size = page_size(request.page_size, noted);
    let start = match request.page_token.as_str() {
        "" => Some(0),
        token => noted.ok_or_note("page_token", start(token, count).ok_or(TOKEN_RULE)),
    };
    // All of them when the caller does not say (the contract's).
    let size = size.map(|size| if size == 0 { count } else { size });
    Some((start?, size?))
}

fn start(token: &str, count: usize) -> Option<usize> {
    let start = page::open(ACTIONS, token).map(u64::from_be_bytes)?;
    // A server with fewer actions may have been started since.
    usize::try_from(start).ok().filter(|start| *start < count)
}

fn page_size(size: i32, noted: &mut Violations) -> Option<usize> {
    noted.ok_or_note(
        "page_size",
        usize::try_from(size).map_err(|_| "must not be negative"),
    )
}

/// The text of `display_name:"text"`, or no text for no filter; nothing for any other filter.
#[expect(clippy::option_option, reason = "malformed and absent are told apart")]
fn display_name_filter(filter: &str) -> Option<Option<String>> {
    let filter = filter.trim();
    if filter.is_empty() {
        return Some(None);
    }
    let quoted = filter.strip_prefix("display_name:")?.trim_start();
    let quoted = quoted.strip_prefix('"')?.strip_suffix('"')?;
    unescape(quoted).map(Some)
}

/// Replaces `\"` and `\\`; nothing if a quote or a backslash stands by itself.
fn unescape(quoted: &str) -> Option<String> {
    let mut text = String::with_capacity(quoted.len());
    let mut chars = quoted.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => text.push(chars.next().filter(|c| matches!(c, '"' | '\\'))?),
            '"' => return None,
            char => text.push(char),
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_filter_is_read_with_its_escapes() {
        let read = |filter| display_name_filter(filter);
        assert_eq!(read(""), Some(None));
        assert_eq!(read(r#"display_name:"VIP é""#), Some(Some("VIP é".into())));
        assert_eq!(read(r#" display_name: "a" "#), Some(Some("a".into())));
        assert_eq!(read(r#"display_name:"\"a\\""#), Some(Some(r#""a\"#.into())));
    }

    #[test]
    fn any_other_filter_is_refused() {
        for filter in [
            "vip",
            "display_name:vip",
            r#"display_name:""#,
            r#"display_name:"a"b""#,
            r#"display_name:"a\""#,
            r#"display_name:"a\n""#,
            r#"display_name="a""#,
            r#"display_name:"a" AND display_name:"b""#,
            r#"uid:"a""#,
        ] {
            assert_eq!(display_name_filter(filter), None, "{filter}");
        }
    }

    #[test]
    fn a_cursor_survives_its_token() {
        let place = Cursor {
            created_micros: -1_234_567,
            uid: DestinationUid::generate(),
        };
        assert_eq!(cursor(position(place)), place);
    }
}
