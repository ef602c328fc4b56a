//! TLS of the gRPC listener: which callers reach it, and how its certificate is renewed.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use launchdarkly_connector::pb::{
    destination_connector_client::DestinationConnectorClient, identifier_record::Operation,
    send_identifiers_request::Message,
};
use tempfile::TempDir;
use tokio::time::Instant;
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
        version::{TLS12, TLS13},
    },
};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use crate::{
    cli::{DESTINATION, creation},
    support::{
        binary::{Ended, Server, address, get, run},
        certificates::{Authority, Issued},
    },
    test_service::{Client, Stream, open, record, soon},
};

/// Far below the 30 s after which a silent connection is given up.
const QUICK: Duration = Duration::from_secs(10);
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// A server that speaks TLS, and its files.
struct Service {
    home: TempDir,
    authority: Authority,
    server: Server,
}

impl Service {
    fn start(flags: &[&str]) -> Self {
        let (home, authority) = (tempfile::tempdir().unwrap(), Authority::new());
        authority.issue("localhost").write(home.path());
        Self::start_in(home, authority, flags)
    }

    /// With the files that are in a directory.
    fn start_in(home: TempDir, authority: Authority, flags: &[&str]) -> Self {
        fs::write(home.path().join("ca.pem"), authority.pem()).unwrap();
        let files = [("tls-cert", "cert.pem"), ("tls-key", "key.pem")];
        let files = files.map(|(flag, name)| file(flag, &home.path().join(name)));
        let flags: Vec<_> = files
            .iter()
            .map(String::as_str)
            .chain(flags.iter().copied())
            .collect();
        let server = Server::start(&home, "127.0.0.1:0", &flags);
        Self {
            home,
            authority,
            server,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn port(&self) -> &str {
        self.server.address.rsplit(':').next().unwrap()
    }

    fn url(&self) -> String {
        format!("https://localhost:{}", self.port())
    }

    /// What `health` answers with its authority and more flags.
    fn health(&self, more: &[&str]) -> Ended {
        let (url, ca) = (self.url(), file("ca-file", &self.path("ca.pem")));
        let flags = ["health", "--timeout=60s", "--server", &url, &ca];
        run(&[&flags, more].concat())
    }

    /// The certificate that a new connection is shown, and the protocol that it speaks.
    async fn shown(
        &self,
        version: &'static SupportedProtocolVersion,
    ) -> (CertificateDer<'static>, ProtocolVersion, Option<Vec<u8>>) {
        let mut roots = RootCertStore::empty();
        roots.add(der(&self.authority.pem())).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let tcp = tokio::net::TcpStream::connect(&self.server.address)
            .await
            .unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let handshake = TlsConnector::from(Arc::new(config)).connect(name, tcp);
        let connection = soon("a handshake", handshake).await.unwrap();
        let session = connection.get_ref().1;
        (
            session.peer_certificates().unwrap()[0].clone().into_owned(),
            session.protocol_version().unwrap(),
            session.alpn_protocol().map(<[u8]>::to_vec),
        )
    }

    async fn client(&self) -> Client {
        let roots =
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(self.authority.pem()));
        let endpoint = Endpoint::from_shared(self.url())
            .unwrap()
            .tls_config(roots)
            .unwrap();
        DestinationConnectorClient::new(endpoint.connect().await.unwrap())
    }

    fn metrics(&mut self) -> String {
        address(&self.server.process.complains("serving metrics"))
    }
}

fn file(flag: &str, path: &Path) -> String {
    format!("--{flag}={}", path.display())
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

fn days_from_now(days: u32) -> SystemTime {
    launchdarkly_connector::clock::now() + days * DAY
}

#[tokio::test]
async fn callers_speak_tls_1_2_or_1_3_and_http_2() {
    let service = Service::start(&[]);
    for (version, named) in [
        (&TLS12, ProtocolVersion::TLSv1_2),
        (&TLS13, ProtocolVersion::TLSv1_3),
    ] {
        let (certificate, spoken, protocol) = service.shown(version).await;
        let expected = fs::read_to_string(service.path("cert.pem")).unwrap();
        assert_eq!(certificate, der(&expected));
        assert_eq!((spoken, protocol), (named, Some(b"h2".to_vec())));
    }
    let healthy = service.health(&[]);
    assert_eq!(healthy.code, Some(0), "{healthy:?}");
}

#[test]
fn plain_text_is_refused_at_once() {
    let service = Service::start(&[]);
    let started = Instant::now();
    let mut plain = TcpStream::connect(&service.server.address).unwrap();
    plain.set_read_timeout(Some(QUICK)).unwrap();
    plain
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    // An alert of TLS, and then the end; or a reset.
    match plain.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
    let refused = run(&["health", "--timeout=60s", "--server", &service.server.url()]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(started.elapsed() < QUICK);
}

#[test]
fn a_client_refuses_a_server_that_cannot_prove_its_name() {
    let service = Service::start(&[]);
    let stranger = service.path("stranger.pem");
    fs::write(&stranger, Authority::new().pem()).unwrap();
    let by_address = format!("https://{}", service.server.address);
    let (ours, strangers) = (
        file("ca-file", &service.path("ca.pem")),
        file("ca-file", &stranger),
    );
    for (url, ca, told) in [
        (service.url(), &strangers, "UnknownIssuer"),
        (by_address.clone(), &ours, "not valid for name"),
    ] {
        let started = Instant::now();
        let refused = run(&["health", "--timeout=60s", "--server", &url, ca]);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains(told), "{refused:?}");
        // Another attempt would end in the same way, so none is made.
        let records = service.path("records.csv");
        fs::write(&records, "user_id\nu-1\n").unwrap();
        let records = records.to_str().unwrap();
        let send = ["send", "--server", &url, ca, "--destination", DESTINATION];
        let more = ["--segment-id=vip", "--segment-name=VIPs", records];
        let unsent = run(&[&send[..], &more].concat());
        assert_eq!(unsent.code, Some(2), "{unsent:?}");
        assert!(unsent.stderr.contains(told), "{unsent:?}");
        assert!(started.elapsed() < 2 * QUICK);
    }
    let name = [
        "health",
        "--server",
        &by_address,
        &ours,
        "--server-name=localhost",
    ];
    assert_eq!(run(&name).code, Some(0));
}

#[test]
fn a_client_certificate_is_not_needed_but_must_be_good() {
    let authority = Authority::new();
    let home = tempfile::tempdir().unwrap();
    let clients = home.path().join("clients.pem");
    fs::write(&clients, authority.pem()).unwrap();
    let mut service = Service::start(&[&file("tls-client-ca", &clients)]);
    let flags = [("client-cert", "cert.pem"), ("client-key", "key.pem")];
    let flags = flags.map(|(flag, name)| file(flag, &home.path().join(name)));
    let ask = |service: &Service, issued: &Issued| {
        issued.write(home.path());
        service.health(&flags.each_ref().map(String::as_str))
    };
    assert_eq!(service.health(&[]).code, Some(0));
    let good = ask(&service, &authority.issue("caller"));
    assert_eq!(good.code, Some(0), "{good:?}");
    let expired = authority.issue_until("caller", launchdarkly_connector::clock::now() - DAY);
    for (bad, why) in [
        (Authority::new().issue("caller"), "UnknownIssuer"),
        (expired, "expired"),
    ] {
        let started = Instant::now();
        let refused = ask(&service, &bad);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(started.elapsed() < QUICK);
        let log = service.server.process.complains(why);
        assert!(log.contains("a client certificate was refused"), "{log}");
    }
}

/// As a volume of Kubernetes is: the files are links through a link to a directory, and a new
/// version swaps that link.
fn publish(volume: &Path, version: &str, authority: &Authority) -> String {
    let directory = volume.join(version);
    fs::create_dir_all(&directory).unwrap();
    let issued = authority.issue("localhost");
    issued.write(&directory);
    let (next, data) = (volume.join("..next"), volume.join("..data"));
    symlink(version, &next).unwrap();
    fs::rename(&next, &data).unwrap();
    for name in ["cert.pem", "key.pem"] {
        let link = volume.join(name);
        if !link.exists() {
            symlink(Path::new("..data").join(name), link).unwrap();
        }
    }
    issued.certificate
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_new_connections_and_streams_go_on() {
    let (home, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let first = publish(home.path(), "..first", &authority);
    let flags = ["--sandbox", "--sandbox-listen=127.0.0.1:0"];
    let mut service = Service::start_in(home, authority, &flags);
    let mut client = service.client().await;
    client.create_destination(creation()).await.unwrap();
    let mut stream = Stream::start(client).await;
    stream.send(Message::Open(open(DESTINATION))).await;
    stream.next().await.unwrap();
    stream.batch(vec![record("u-1", Operation::Add)]).await;
    stream.committed(1).await;
    assert_eq!(service.shown(&TLS13).await.0, der(&first));

    let second = publish(service.home.path(), "..second", &service.authority);
    service
        .server
        .process
        .complains("files of TLS were read again");
    assert_eq!(service.shown(&TLS13).await.0, der(&second));
    stream.batch(vec![record("u-2", Operation::Add)]).await;
    stream.committed(2).await;
    stream.finish().await.1.unwrap();
}

#[tokio::test]
async fn broken_files_leave_the_old_in_use_and_are_named_and_counted() {
    let home = tempfile::tempdir().unwrap();
    let clients = home.path().join("clients.pem");
    fs::write(&clients, Authority::new().pem()).unwrap();
    let flags = [
        "--metrics-listen=127.0.0.1:0",
        &file("tls-client-ca", &clients),
    ];
    let mut service = Service::start(&flags);
    let metrics = service.metrics();
    let counts = || {
        let page = get(&metrics, "/metrics");
        let count = |of: &str| {
            let line = page
                .lines()
                .find_map(|line| line.strip_prefix(of))
                .expect(of);
            line.trim().parse::<u64>().unwrap()
        };
        [
            r#"connector_reloads_total{what="tls_certificate"}"#,
            r#"connector_reload_failures_total{what="tls_certificate"}"#,
            r#"connector_reload_failures_total{what="tls_client_ca"}"#,
            "connector_tls_certificate_expiry_timestamp_seconds ",
        ]
        .map(count)
    };
    let before = counts();
    assert_eq!(before[..3], [0, 0, 0]);
    let first = der(&fs::read_to_string(service.path("cert.pem")).unwrap());

    for (broken, named) in [
        (service.path("cert.pem"), "cert.pem"),
        (clients.clone(), "clients.pem"),
    ] {
        fs::write(&broken, "garbage").unwrap();
        let line = service.server.process.complains("cannot be used");
        assert!(line.contains(named) && line.contains("ERROR"), "{line}");
        assert_eq!(service.shown(&TLS13).await.0, first);
    }
    assert_eq!(counts()[..3], [0, 1, 1]);

    let expires = days_from_now(90);
    let renewed = service.authority.issue_until("localhost", expires);
    renewed.write(service.home.path());
    service
        .server
        .process
        .complains("files of TLS were read again");
    assert_eq!(service.shown(&TLS13).await.0, der(&renewed.certificate));
    let seconds = expires
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    assert_eq!(counts(), [1, 1, 1, seconds]);
}

#[test]
fn sighup_reads_the_files_again_even_if_they_are_the_same() {
    let mut service = Service::start(&[]);
    for _ in 0..2 {
        assert!(service.server.process.signal("HUP").success());
        service.server.process.complains("\"signal\":\"SIGHUP\"");
        service
            .server
            .process
            .complains("files of TLS were read again");
    }
    assert_eq!(service.health(&[]).code, Some(0));
}

#[test]
fn handshakes_that_stop_midway_hold_up_no_other_caller() {
    let service = Service::start(&[]);
    // The record of a handshake, of which most is missing.
    let midway = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01];
    let stopped: Vec<_> = (0..100)
        .map(|number| {
            let mut connection = TcpStream::connect(&service.server.address).unwrap();
            let said = if number % 2 == 0 { &midway[..] } else { &[] };
            connection.write_all(said).unwrap();
            connection
        })
        .collect();
    let started = Instant::now();
    assert_eq!(service.health(&[]).code, Some(0));
    assert!(started.elapsed() < QUICK);
    drop(stopped);
}

#[test]
fn a_certificate_that_expires_soon_is_warned_of() {
    let (home, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    authority
        .issue_until("localhost", days_from_now(13))
        .write(home.path());
    let mut soon = Service::start_in(home, authority, &[]);
    let line = soon.server.process.complains("expires soon");
    assert!(
        line.contains("WARN") && line.contains("\"days\":12"),
        "{line}"
    );

    let (home, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    authority
        .issue_until("localhost", days_from_now(15))
        .write(home.path());
    let later = Service::start_in(home, authority, &[]);
    assert_eq!(later.health(&[]).code, Some(0));
    let log = later.server.process.terminate().stderr;
    assert!(!log.contains("expires soon"), "{log}");
}

#[test]
fn serve_does_not_start_with_files_that_cannot_be_used() {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name);
    let authority = Authority::new();
    authority.issue("localhost").write(home.path());
    fs::write(path("other-key.pem"), authority.issue("localhost").key).unwrap();
    fs::write(path("empty.pem"), "").unwrap();
    let expired = authority.issue_until("localhost", launchdarkly_connector::clock::now() - DAY);
    fs::write(path("expired.pem"), &expired.certificate).unwrap();
    fs::write(path("expired-key.pem"), &expired.key).unwrap();
    for (flags, told) in [
        (vec![("tls-cert", "cert.pem")], "--tls-key"),
        (vec![("tls-key", "key.pem")], "--tls-cert"),
        (vec![("tls-client-ca", "cert.pem")], "--tls-cert"),
        (
            vec![("tls-cert", "cert.pem"), ("tls-key", "missing.pem")],
            "missing.pem",
        ),
        (
            vec![("tls-cert", "missing.pem"), ("tls-key", "key.pem")],
            "missing.pem",
        ),
        (
            vec![("tls-cert", "cert.pem"), ("tls-key", "other-key.pem")],
            "does not belong",
        ),
        (
            vec![("tls-cert", "empty.pem"), ("tls-key", "key.pem")],
            "holds no certificate",
        ),
        (
            vec![("tls-cert", "key.pem"), ("tls-key", "key.pem")],
            "holds no certificate",
        ),
        (
            vec![("tls-cert", "cert.pem"), ("tls-key", "cert.pem")],
            "holds no private key",
        ),
        (
            vec![("tls-cert", "expired.pem"), ("tls-key", "expired-key.pem")],
            "expired on",
        ),
        (
            vec![
                ("tls-cert", "cert.pem"),
                ("tls-key", "key.pem"),
                ("tls-client-ca", "empty.pem"),
            ],
            "holds no certificate",
        ),
    ] {
        let (flag, name) = flags.last().unwrap();
        let given: Vec<_> = flags
            .iter()
            .map(|(flag, name)| file(flag, &path(name)))
            .collect();
        let mut serve = vec!["serve", "--keys-file=k"];
        serve.extend(given.iter().map(String::as_str));
        let refused = run(&serve);
        assert_eq!(refused.code, Some(2), "{flags:?}: {refused:?}");
        let text = &refused.stderr;
        assert!(text.contains(told), "{flags:?}: {refused:?}");
        assert!(text.contains("(CONNECTOR_TLS_"), "{refused:?}");
        assert!(
            flags.len() == 1 || flags.iter().any(|(_, name)| text.contains(name)),
            "{refused:?}"
        );
        assert!(!text.contains("BEGIN"), "{flag} {name}: {refused:?}");
    }
}
