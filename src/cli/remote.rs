//! gRPC connection of a command to its server, and the server's errors as text.

use std::{
    env,
    error::Error,
    fmt::Write,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
    time::Duration,
};

use anyhow::{Context, bail};
use tokio_rustls::rustls;
use tonic::{
    Request, Status,
    metadata::{Ascii, AsciiMetadataKey, AsciiMetadataValue, MetadataKey},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{self, Certificate, ClientTlsConfig, Endpoint, Identity},
};
use tonic_types::StatusExt;

use super::{complain, reachable, terminal::inline};
use crate::{
    config::DEFAULT_LISTEN, loopback::is_loopback,
    pb::destination_connector_client::DestinationConnectorClient, server::status::DOMAIN,
};

/// Longest time to connect. Ours: a reachable server takes milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Silence after which a connection is probed, so that a vanished server is noticed while a
/// stream waits. Ours: well below the minutes after which proxies drop a silent connection.
const PROBE_AFTER: Duration = Duration::from_secs(30);
/// Where an API key travels.
const AUTHORIZATION: &str = "authorization";
/// Headers that gRPC sets itself.
const RESERVED: [&str; 4] = ["content-type", "host", "te", "user-agent"];

/// Which server, and who calls it. Variables differ from those of `serve`, which is often run with
/// the same ones: its `--ca-file` is about LaunchDarkly.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ServerArgs {
    /// URL of the service: http or https; unless set, where CONNECTOR_LISTEN lets `serve` listen
    #[arg(long, env = "CONNECTOR_SERVER", value_name = "URL", value_parser = endpoint)]
    #[arg(default_value = HERE.as_str())]
    server: Endpoint,

    /// Certificates in PEM form that an https server is trusted by, in the place of those that this
    /// machine trusts
    #[arg(long, env = "CONNECTOR_SERVER_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,

    /// Name that the server's certificate must be for, where the URL has another, such as an address
    #[arg(long, env = "CONNECTOR_SERVER_NAME", value_name = "NAME")]
    server_name: Option<String>,

    /// Client certificate in PEM form, to be known by
    #[arg(
        long,
        env = "CONNECTOR_CLIENT_CERT",
        value_name = "FILE",
        requires = "client_key"
    )]
    client_cert: Option<PathBuf>,

    /// Private key of that certificate in PEM form
    #[arg(
        long,
        env = "CONNECTOR_CLIENT_KEY",
        value_name = "FILE",
        requires = "client_cert"
    )]
    client_key: Option<PathBuf>,

    /// File that holds an API key, to be known by; it is sent as `authorization: Bearer KEY`
    #[arg(long, env = "CONNECTOR_API_KEY_FILE", value_name = "FILE")]
    api_key_file: Option<PathBuf>,

    /// Header to send with every call, as for a proxy between; may be repeated. Every user of this
    /// machine can read it, so `authorization` is refused: use --api-key-file
    #[arg(long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
}

/// The default address of the server: where `serve` listens with the same environment variables, as
/// in a container.
static HERE: LazyLock<String> = LazyLock::new(|| {
    let speaks_tls = env::var_os("CONNECTOR_TLS_CERT").is_some_and(|file| !file.is_empty());
    here(env::var("CONNECTOR_LISTEN").ok(), speaks_tls)
});

fn here(listen: Option<String>, speaks_tls: bool) -> String {
    let set = listen.filter(|listen| !listen.is_empty());
    let listen = set.unwrap_or_else(|| DEFAULT_LISTEN.into());
    let scheme = if speaks_tls { "https" } else { "http" };
    match listen.parse() {
        Ok(address) => format!("{scheme}://{}", reachable(address)),
        // A host name.
        Err(_) => format!("{scheme}://{listen}"),
    }
}

/// A server's URL; TLS is set up later, when its files are known.
fn endpoint(url: &str) -> Result<Endpoint, String> {
    let how = "write it like http://127.0.0.1:50051";
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|error| chain(&error))?;
    let scheme = url.split_once("://").map(|(scheme, _)| scheme);
    if !matches!(scheme, Some("http" | "https")) {
        return Err(format!("the scheme must be http or https; {how}"));
    }
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(PROBE_AFTER))
}

/// A request header.
type Header = (AsciiMetadataKey, AsciiMetadataValue);

/// A header that is given as an argument.
fn header(text: &str) -> Result<Header, String> {
    let (name, value) = text
        .split_once(':')
        .ok_or("write it like 'x-tenant: acme'")?;
    let name = name.trim().to_ascii_lowercase();
    if name == AUTHORIZATION {
        return Err(
            "every user of this machine can read the arguments of a process, and so a credential \
             in them; put an API key into a file and name it with --api-key-file"
                .to_owned(),
        );
    }
    if RESERVED.contains(&name.as_str()) || name.starts_with("grpc-") {
        return Err(format!("gRPC sets `{name}` itself; choose another name"));
    }
    let name: MetadataKey<Ascii> = name.parse().map_err(
        |_| "the name of a header is of letters, digits and hyphens, and does not end with -bin",
    )?;
    let value = value.trim().parse();
    let mut value: AsciiMetadataValue = value
        .map_err(|_| format!("the value of `{name}` must be of printable ASCII characters"))?;
    // It may be a credential: no debug output shows it.
    value.set_sensitive(true);
    Ok((name, value))
}

impl ServerArgs {
    /// Reads the files that the flags name.
    ///
    /// # Errors
    /// What is wrong with them, and the way out.
    pub(super) fn server(&self) -> anyhow::Result<Server> {
        // Read here and not by clap, whose errors quote what may be a credential.
        let headers = self.headers.iter().map(|text| header(text));
        let headers: Result<Vec<_>, _> = headers.collect();
        let mut headers = headers.map_err(|why| anyhow::anyhow!("--header: {why}"))?;
        if let Some(path) = &self.api_key_file {
            headers.push(authorization(path)?);
            if self.is_overheard() {
                complain(
                    "warning: the API key is sent without encryption; use https, unless something \
                     on this machine encrypts it, such as a mesh",
                );
            }
        }
        let endpoint = match self.server.uri().scheme_str() {
            Some("https") => self.with_tls()?,
            _ => self.without_tls()?,
        };
        Ok(Server {
            endpoint,
            headers: RequestHeaders(headers.into()),
        })
    }

    /// Whether what is sent leaves this machine as plain text.
    fn is_overheard(&self) -> bool {
        let uri = self.server.uri();
        uri.scheme_str() == Some("http") && !uri.host().is_some_and(is_loopback)
    }

    fn without_tls(&self) -> anyhow::Result<Endpoint> {
        let given = [
            ("--ca-file", self.ca_file.is_some()),
            ("--server-name", self.server_name.is_some()),
            ("--client-cert", self.client_cert.is_some()),
        ];
        if let Some((flag, _)) = given.iter().find(|(_, is_given)| *is_given) {
            let url = self.server.uri();
            bail!(
                "{flag} is for a server that is reached by https, and {url} is not; correct --server"
            );
        }
        Ok(self.server.clone())
    }

    fn with_tls(&self) -> anyhow::Result<Endpoint> {
        let mut tls = match &self.ca_file {
            Some(path) => ClientTlsConfig::new().ca_certificate(authorities(path)?),
            None => ClientTlsConfig::new().with_enabled_roots(),
        };
        if let Some(name) = &self.server_name {
            tls = tls.domain_name(name);
        }
        if let (Some(certificate), Some(key)) = (&self.client_cert, &self.client_key) {
            tls = tls.identity(Identity::from_pem(
                pem(certificate, "--client-cert")?,
                pem(key, "--client-key")?,
            ));
        }
        let endpoint = self.server.clone().tls_config(tls);
        endpoint.map_err(|error| {
            let files = self.client_cert.iter().chain(&self.client_key);
            let files: Vec<_> = files.map(|path| inline(path.display())).collect();
            let error = anyhow::anyhow!(chain(&error));
            if files.is_empty() {
                error.context("TLS cannot be set up")
            } else {
                error.context(format!(
                    "the client certificate and key in {} cannot be used; name a certificate in \
                     PEM form, and the key that it was made with",
                    files.join(" and ")
                ))
            }
        })
    }
}

fn pem(path: &Path, flag: &str) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| {
        let path = inline(path.display());
        format!("cannot read {path}; name a file in PEM form with {flag}")
    })
}

/// At least one certificate: without any, every server would be refused, and the reason be hidden.
fn authorities(path: &Path) -> anyhow::Result<Certificate> {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let pem = pem(path, "--ca-file")?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem).collect();
    let mut roots = rustls::RootCertStore::empty();
    let are_usable = !certificates.is_empty()
        && certificates
            .into_iter()
            .all(|one| one.is_ok_and(|one| roots.add(one).is_ok()));
    if !are_usable {
        let path = inline(path.display());
        bail!("{path} does not hold certificates alone, in PEM form; correct --ca-file");
    }
    Ok(Certificate::from_pem(pem))
}

/// The header of an API key, without the line end that editors and `echo` add.
fn authorization(path: &Path) -> anyhow::Result<Header> {
    let shown = inline(path.display());
    let key = fs::read_to_string(path)
        .with_context(|| format!("cannot read {shown}; name a file that holds an API key"))?;
    let key = key.trim();
    // What it holds is not quoted.
    let is_one_word = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_one_word {
        bail!("{shown} does not hold one API key and nothing else; correct --api-key-file");
    }
    let mut value: AsciiMetadataValue = format!("Bearer {key}").parse()?;
    value.set_sensitive(true);
    Ok((AsciiMetadataKey::from_static(AUTHORIZATION), value))
}

/// A server, and what every call to it says of its caller.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    endpoint: Endpoint,
    headers: RequestHeaders,
}

/// The headers of every request.
#[derive(Debug, Clone)]
pub(crate) struct RequestHeaders(Arc<[Header]>);

impl Interceptor for RequestHeaders {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        for (name, value) in &*self.0 {
            request.metadata_mut().append(name.clone(), value.clone());
        }
        Ok(request)
    }
}

/// A connection that sends a caller's headers.
pub(crate) type Channel = InterceptedService<transport::Channel, RequestHeaders>;
/// Calls the service.
pub(crate) type Client = DestinationConnectorClient<Channel>;

impl Server {
    /// A server by its URL, which is http, and without a credential: for one on this machine.
    ///
    /// # Errors
    /// What is wrong with the URL.
    #[cfg(any(test, feature = "sandbox"))]
    pub(super) fn at(url: &str) -> Result<Self, String> {
        let endpoint = endpoint(url)?;
        let headers = RequestHeaders(Arc::new([]));
        Ok(Self { endpoint, headers })
    }
}

/// Connects.
///
/// # Errors
/// The failure as a status, as a call would return it.
pub(crate) async fn channel(server: &Server) -> Result<Channel, Status> {
    let Server { endpoint, headers } = server;
    let channel = endpoint.connect().await.map_err(|error| {
        let mut status = Status::unavailable(format!("cannot connect to {}", endpoint.uri()));
        status.set_source(Arc::new(error));
        status
    })?;
    Ok(InterceptedService::new(channel, headers.clone()))
}

/// Connects to the service.
///
/// # Errors
/// Like [`channel`].
pub(crate) async fn connect(server: &Server) -> Result<Client, Status> {
    channel(server).await.map(DestinationConnectorClient::new)
}

/// Whether the server's certificate was refused. Another attempt would meet the same one.
#[must_use]
pub(super) fn is_certificate_refused(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if matches!(tls_error(error), Some(rustls::Error::InvalidCertificate(_))) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The error of TLS that an error is or, as one of input and output, holds.
fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let held = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref);
    let held = held.and_then(|error| error.downcast_ref());
    error.downcast_ref().or(held)
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
            let found = here(listen.map(Into::into), false);
            assert_eq!(found, url);
            assert!(endpoint(&found).is_ok(), "{found}");
            let by_tls = here(listen.map(Into::into), true);
            assert_eq!(by_tls, url.replace("http:", "https:"));
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

    #[derive(clap::Parser)]
    struct TestCommand {
        #[command(flatten)]
        server: ServerArgs,
    }

    fn parsed(flags: &[&str]) -> Result<ServerArgs, clap::Error> {
        let line = ["command"].into_iter().chain(flags.iter().copied());
        <TestCommand as clap::Parser>::try_parse_from(line).map(|command| command.server)
    }

    #[test]
    fn headers_are_sent_as_given_and_no_credential_is_taken_from_arguments() {
        let headers = [
            "--header",
            "x-tenant: acme",
            "--header",
            "X-Tenant:other one ",
        ];
        let server = parsed(&headers).unwrap().server().unwrap();
        let request = server.headers.clone().call(Request::new(())).unwrap();
        let sent: Vec<_> = request.metadata().get_all("x-tenant").iter().collect();
        assert_eq!(sent, ["acme", "other one"]);
        assert!(!format!("{server:?}").contains("acme"), "{server:?}");
        for (wrong, told) in [
            ("authorization: Bearer canary", "--api-key-file"),
            ("Authorization : Bearer canary", "--api-key-file"),
            ("x-tenant", "x-tenant: acme"),
            ("grpc-timeout: 1S", "gRPC sets"),
            ("TE: trailers", "gRPC sets"),
            ("x y: 1", "letters"),
            ("x-bin: 1", "-bin"),
            (": 1", "letters"),
            ("x: \u{1b}", "printable"),
        ] {
            let args = parsed(&["--header", wrong]).unwrap();
            let error = args.server().unwrap_err().to_string();
            assert!(error.contains(told) && !error.contains("canary"), "{error}");
        }
    }

    #[test]
    fn an_api_key_is_read_from_its_file_and_shown_nowhere() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        let read = |text: &str| {
            fs::write(path, text).unwrap();
            parsed(&["--api-key-file", path]).unwrap().server()
        };
        let server = read("canary-1\r\n").unwrap();
        let request = server.headers.clone().call(Request::new(())).unwrap();
        assert_eq!(
            request.metadata().get("authorization").unwrap(),
            "Bearer canary-1"
        );
        assert!(
            !format!("{server:?} {request:?}").contains("canary"),
            "{server:?}"
        );
        for wrong in ["", "\n", "canary 1", "canary\ncanary", "can\u{e4}ry"] {
            let error = format!("{:#}", read(wrong).unwrap_err());
            assert!(error.contains(path) && !error.contains("canary"), "{error}");
        }
        let missing = parsed(&["--api-key-file", "no/such/file"]).unwrap();
        let error = format!("{:#}", missing.server().unwrap_err());
        assert!(error.contains("no/such/file"), "{error}");
    }

    #[test]
    fn an_api_key_is_overheard_unless_it_is_encrypted_or_stays_on_this_machine() {
        for (url, expected) in [
            ("http://connector.example:50051", true),
            ("http://192.0.2.1:50051", true),
            ("https://connector.example", false),
            ("http://127.0.0.1:50051", false),
            ("http://[::1]:50051", false),
            ("http://localhost:50051", false),
        ] {
            let args = parsed(&["--server", url]).unwrap();
            assert_eq!(args.is_overheard(), expected, "{url}");
        }
    }

    #[test]
    fn what_tls_needs_is_given_whole_and_for_https_alone() {
        for flags in [["--client-cert", "c.pem"], ["--client-key", "k.pem"]] {
            let error = parsed(&flags).unwrap_err().to_string();
            let other = ["--client-cert", "--client-key"].map(|flag| error.contains(flag));
            assert_eq!(other, [true, true], "{error}");
        }
        let directory = tempfile::tempdir().unwrap();
        let no_pem = directory.path().join("empty.pem");
        fs::write(&no_pem, "").unwrap();
        let no_pem = no_pem.to_str().unwrap();
        let https = "--server=https://connector.example";
        for (flags, told) in [
            (&["--ca-file", no_pem][..], "https"),
            (&["--server-name", "connector.example"], "https"),
            (&[https, "--ca-file", "no/such/file"], "no/such/file"),
            (&[https, "--ca-file", no_pem], no_pem),
            (
                &[https, "--client-cert", no_pem, "--client-key", no_pem],
                no_pem,
            ),
        ] {
            let error = parsed(flags).unwrap().server().unwrap_err();
            let error = format!("{error:#}");
            assert!(error.contains(told), "{flags:?}: {error}");
        }
    }

    #[tokio::test]
    async fn a_refused_connection_says_where_and_why() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", free.local_addr().unwrap());
        drop(free);
        let error = connect(&Server::at(&url).unwrap()).await.unwrap_err();
        let text = describe(&error);
        assert!(text.contains(&url) && text.contains("refused"), "{text}");
    }
}
