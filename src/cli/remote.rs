//! gRPC connection of a command to its server, and the server's errors as text.

use std::{
    env,
    error::Error,
    fmt::Write,
    sync::{Arc, LazyLock},
    time::Duration,
};

use tonic::{
    Status,
    transport::{Channel, ClientTlsConfig, Endpoint},
};
use tonic_types::StatusExt;

use super::{reachable, terminal::inline};
use crate::{
    config::DEFAULT_LISTEN, pb::destination_connector_client::DestinationConnectorClient,
    server::status::DOMAIN,
};

/// Longest time to connect. Ours: a reachable server takes milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Silence after which a connection is probed, so that a vanished server is noticed while a
/// stream waits. Ours: well below the minutes after which proxies drop a silent connection.
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

/// The default address of the server: where `serve` listens with the same environment variables, as
/// in a container.
static HERE: LazyLock<String> = LazyLock::new(|| here(env::var("CONNECTOR_LISTEN").ok()));

fn here(listen: Option<String>) -> String {
    let set = listen.filter(|listen| !listen.is_empty());
    let listen = set.unwrap_or_else(|| DEFAULT_LISTEN.into());
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
/// The failure as a status, as a call would return it.
pub(crate) async fn channel(endpoint: &Endpoint) -> Result<Channel, Status> {
    endpoint.connect().await.map_err(|error| {
        let mut status = Status::unavailable(format!("cannot connect to {}", endpoint.uri()));
        status.set_source(Arc::new(error));
        status
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

/// Whether the service itself made a status: then it has an `ErrorInfo` of the service's domain.
/// Any other status comes from this side's library, or from a proxy between.
#[must_use]
pub(super) fn is_from_service(status: &Status) -> bool {
    status
        .get_details_error_info()
        .is_some_and(|info| info.domain == DOMAIN)
}

/// A status as lines for people, with its origin: the service, this side's library, or a proxy.
#[must_use]
pub(super) fn describe(status: &Status) -> String {
    let said = quote(status);
    if is_from_service(status) {
        said
    } else if let Some(cause) = status.source() {
        // This side's library stores the cause of a status as its source.
        let causes = inline(chain(cause));
        format!("the connection broke or was refused ({said}: {causes})")
    } else {
        format!("not the service's word, but that of a proxy or another server: {said}")
    }
}

/// The text of a status: code, message, reason, and each field violation.
#[must_use]
pub(super) fn quote(status: &Status) -> String {
    let mut text = code_name(status.code());
    if !status.message().is_empty() {
        text = format!("{text}: {}", inline(status.message()));
    }
    let details = status.get_error_details();
    if let Some(info) = details.error_info() {
        text = format!("{text} ({})", inline(&info.reason));
    }
    for violation in details
        .bad_request()
        .into_iter()
        .flat_map(|bad| &bad.field_violations)
    {
        let (field, wrong) = (inline(&violation.field), inline(&violation.description));
        write!(text, "\n  {field}: {wrong}").expect("writing to a String cannot fail");
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

/// An error with its causes. The last one usually says most; some errors repeat their causes.
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
    }

    #[test]
    fn a_status_of_another_speaker_is_not_passed_off_as_the_services() {
        let proxy = "not the service's word, but that of a proxy or another server";
        let forged = |domain: &str| {
            let metadata = std::collections::HashMap::new();
            let details = ErrorDetails::with_error_info("RBAC", domain, metadata);
            Status::with_error_details(Code::PermissionDenied, "denied", details)
        };
        let text = describe(&forged("mesh.example"));
        assert_eq!(text, format!("{proxy}: PERMISSION_DENIED: denied (RBAC)"));
        assert_eq!(
            describe(&forged(DOMAIN)),
            "PERMISSION_DENIED: denied (RBAC)"
        );
        let bare = describe(&Status::unauthenticated(""));
        assert_eq!(bare, format!("{proxy}: UNAUTHENTICATED"));
        let mut broken = Status::cancelled("gone");
        broken.set_source(Arc::new(std::io::Error::other("reset")));
        let text = "the connection broke or was refused (CANCELLED: gone: reset)";
        assert_eq!(describe(&broken), text);
    }

    #[test]
    fn what_a_server_says_cannot_command_a_terminal() {
        let text = describe(&Status::internal("\u{1b}[2J\nerror: all is well"));
        assert!(
            text.ends_with("INTERNAL: \\u{1b}[2J\\nerror: all is well"),
            "{text}"
        );
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
