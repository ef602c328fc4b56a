//! The server that a command talks to, and how its errors read in a terminal.

use std::{env, error::Error, fmt::Write, sync::LazyLock, time::Duration};

use tonic::{
    Status,
    transport::{Channel, ClientTlsConfig, Endpoint},
};
use tonic_types::StatusExt;

use super::reachable;
use crate::pb::destination_connector_client::DestinationConnectorClient;

/// Longest time to connect. Our choice: a reachable server takes milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Silence after which a connection is probed, so that a vanished server is noticed while a
/// stream waits. Our choice: well below the minutes after which proxies drop a silent connection.
const PROBE_AFTER: Duration = Duration::from_secs(30);

/// Which server.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ServerArgs {
    /// URL of the service: http, or https with the certificates that this machine trusts; unless
    /// set, where CONNECTOR_LISTEN lets `serve` listen
    #[arg(long, env = "CONNECTOR_SERVER", value_name = "URL", value_parser = endpoint)]
    #[arg(default_value = HERE.as_str())]
    pub server: Endpoint,
}

/// Where the server is if nobody says: where `serve` listens with the same variables, as in a
/// container.
static HERE: LazyLock<String> = LazyLock::new(|| here(env::var("CONNECTOR_LISTEN").ok()));

fn here(listen: Option<String>) -> String {
    let set = listen.filter(|listen| !listen.is_empty());
    let listen = set.unwrap_or_else(|| "127.0.0.1:50051".into());
    match listen.parse() {
        Ok(address) => format!("http://{}", reachable(address)),
        // A host name.
        Err(_) => format!("http://{listen}"),
    }
}

/// Reads a server's URL.
///
/// # Errors
/// What is wrong with it.
pub(super) fn endpoint(url: &str) -> Result<Endpoint, String> {
    let how = "write it like http://127.0.0.1:50051";
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|error| chain(&error))?;
    let scheme = url.split_once("://").map(|(scheme, _)| scheme);
    let endpoint = match scheme {
        Some("http") => endpoint,
        Some("https") => endpoint
            .tls_config(ClientTlsConfig::new().with_enabled_roots())
            .map_err(|error| chain(&error))?,
        _ => return Err(format!("the scheme must be http or https; {how}")),
    };
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(PROBE_AFTER))
}

/// Connects.
///
/// # Errors
/// Why not, as the status that a call would have got.
pub(crate) async fn channel(endpoint: &Endpoint) -> Result<Channel, Status> {
    endpoint.connect().await.map_err(|error| {
        let server = endpoint.uri();
        Status::unavailable(format!("cannot connect to {server}: {}", chain(&error)))
    })
}

/// Connects to the service.
///
/// # Errors
/// Like [`channel`].
pub(crate) async fn connect(
    endpoint: &Endpoint,
) -> Result<DestinationConnectorClient<Channel>, Status> {
    channel(endpoint).await.map(DestinationConnectorClient::new)
}

/// A status as lines for people: code, message, reason, and each field that is wrong.
#[must_use]
pub(super) fn describe(status: &Status) -> String {
    let mut text = format!("{}: {}", code_name(status.code()), status.message());
    let details = status.get_error_details();
    if let Some(info) = details.error_info() {
        text = format!("{text} ({})", info.reason);
    }
    for violation in details
        .bad_request()
        .into_iter()
        .flat_map(|bad| &bad.field_violations)
    {
        write!(text, "\n  {}: {}", violation.field, violation.description)
            .expect("writing to a String cannot fail");
    }
    text
}

/// The name of a code as documentation writes it, such as `INVALID_ARGUMENT`.
#[must_use]
pub(super) fn code_name(code: tonic::Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

/// An error with its causes, of which the last one usually says most; some repeat their own.
fn chain(error: &dyn Error) -> String {
    let mut texts = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        texts.push(error.to_string());
        cause = error.source();
    }
    texts.dedup();
    texts.join(": ")
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn a_status_reads_with_its_reason_and_every_field() {
        let mut details = ErrorDetails::new();
        details.set_error_info(
            "INVALID_FIELD",
            "destinations.cdp",
            std::collections::HashMap::new(),
        );
        details.add_bad_request_violation("open.destination", "must be set");
        details.add_bad_request_violation("open.activation.segment_id", "must match");
        let status = Status::with_error_details(Code::InvalidArgument, "2 fields", details);
        assert_eq!(
            describe(&status),
            "INVALID_ARGUMENT: 2 fields (INVALID_FIELD)\n  open.destination: must be set\n  \
             open.activation.segment_id: must match"
        );
        assert_eq!(describe(&Status::cancelled("gone")), "CANCELLED: gone");
    }

    #[test]
    fn the_server_is_looked_for_where_the_environment_lets_it_listen() {
        for (listen, url) in [
            (None, "http://127.0.0.1:50051"),
            (Some(""), "http://127.0.0.1:50051"),
            (Some("127.0.0.1:7000"), "http://127.0.0.1:7000"),
            (Some("0.0.0.0:7000"), "http://127.0.0.1:7000"),
            (Some("[::]:7000"), "http://[::1]:7000"),
            (Some("192.0.2.1:7000"), "http://192.0.2.1:7000"),
            (
                Some("connector.internal:7000"),
                "http://connector.internal:7000",
            ),
        ] {
            let here = here(listen.map(Into::into));
            assert_eq!(here, url);
            assert!(endpoint(&here).is_ok(), "{here}");
        }
    }

    #[test]
    fn a_server_is_named_by_an_http_url() {
        assert!(endpoint("http://127.0.0.1:50051").is_ok());
        assert!(endpoint("https://connector.example").is_ok());
        for wrong in [
            "127.0.0.1:50051",
            "ftp://connector.example",
            "",
            "unix:/tmp/x",
        ] {
            assert!(endpoint(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_refused_connection_says_where_and_why() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", free.local_addr().unwrap());
        drop(free);
        let error = connect(&endpoint(&url).unwrap()).await.unwrap_err();
        let text = describe(&error);
        assert!(text.contains(&url) && text.contains("refused"), "{text}");
    }
}
