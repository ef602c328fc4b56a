use clap::Parser;

use super::{reader::declarations, *};
use crate::docs::hold_table;

#[derive(Parser)]
struct TestCommand {
    #[command(flatten)]
    serve: ServeArgs,
}

fn check(flags: &[&str]) -> Result<Settings, Problems> {
    let line = ["serve"].into_iter().chain(flags.iter().copied());
    TestCommand::try_parse_from(line).unwrap().serve.check()
}

fn with_keys(flags: &[&str]) -> Result<Settings, Problems> {
    let keys = ["--keys-file", "k"];
    check(&[&keys, flags].concat())
}

fn problems(flags: &[&str]) -> Vec<String> {
    let Problems(problems) = with_keys(flags).unwrap_err();
    problems.iter().map(ToString::to_string).collect()
}

/// A directory with a certificate `cert.pem` and its key `key.pem`.
fn certificate() -> tempfile::TempDir {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::default().self_signed(&key);
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, pem: String| std::fs::write(directory.path().join(name), pem);
    write("cert.pem", certificate.unwrap().pem()).unwrap();
    write("key.pem", key.serialize_pem()).unwrap();
    directory
}

/// A file with a certificate, and what is read from it.
fn roots() -> (tempfile::NamedTempFile, Roots) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::default().self_signed(&key);
    let pem = certificate.unwrap().pem().into_bytes();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &pem).unwrap();
    (file, Roots::from_pem(pem).unwrap())
}

#[test]
fn the_documented_settings_are_those_of_the_code() {
    let titles = ["flag", "variable", "default", "range", "meaning"];
    let declared = declarations::<Settings>();
    hold_table(&titles, declared.iter().map(|each| each.row().into()));
}

#[test]
fn flags_that_are_not_given_leave_the_defaults() {
    assert_eq!(with_keys(&[]), Ok(Settings::with_keys("k".into())));
}

#[test]
fn each_flag_reaches_its_setting() {
    let (ca_file, roots) = roots();
    let certificate = certificate();
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| certificate.path().join(name));
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manifests/rudderstack.json");
    let shape = RequestShape::from_manifest(&std::fs::read(&manifest).unwrap()).unwrap();
    let settings = with_keys(&[
        "--listen=[::1]:1",
        &format!("--tls-cert={}", cert.display()),
        &format!("--tls-key={}", key.display()),
        &format!("--tls-client-ca={}", cert.display()),
        "--egress-proxy=http://proxy:3128",
        &format!("--ca-file={}", ca_file.path().display()),
        "--metrics-listen=127.0.0.1:2",
        "--store=sqlite:a.db",
        "--launchdarkly-url=https://ld.example:8443/",
        "--integration-key=other-one",
        &format!("--integration-manifest={}", manifest.display()),
        "--attempt-timeout=3s",
        "--max-calls-per-account=4",
        "--linger=5ms",
        "--max-members-per-call=7",
        "--max-streams=8",
        "--max-batch-records=9",
        "--max-in-flight-records=10",
        "--default-delivery-timeout=11s",
        "--max-stream-age=12m",
        "--max-stream-idle=13s",
        "--drain-timeout=14s",
        "--max-buffered-mib=15",
        "--insecure",
        "--log-format=json",
        "--log=warn",
    ]);
    let expected = Settings {
        listen: "[::1]:1".parse().unwrap(),
        tls: Some(TlsFiles {
            certificate: cert.clone(),
            key,
            client_ca: Some(cert),
        }),
        metrics_listen: Some("127.0.0.1:2".parse().unwrap()),
        store: "sqlite:a.db".into(),
        keys_file: "k".into(),
        launchdarkly: ClientSettings {
            url: Some("https://ld.example:8443/".parse().unwrap()),
            egress: Egress {
                proxy: Some("http://proxy:3128".parse().unwrap()),
                roots: Some(roots),
            },
            integration: Integration::new("other-one", shape).unwrap(),
            attempt_timeout: Duration::from_secs(3),
            max_calls_per_account: NonZeroU16::new(4).unwrap(),
            max_members_per_call: 7,
        },
        sandbox_listen: None,
        delivery: LaneSettings {
            linger: Duration::from_millis(5),
        },
        limits: StreamLimits {
            max_streams: 8,
            max_batch_records: 9,
            max_in_flight_records: 10,
            default_delivery_timeout: Duration::from_secs(11),
            max_stream_age: Duration::from_secs(12 * 60),
            max_stream_idle: Duration::from_secs(13),
            drain_timeout: Duration::from_secs(14),
        },
        max_buffered_mib: 15,
        insecure: true,
        log: telemetry::LogSettings {
            format: telemetry::LogFormat::Json,
            filter: "warn".into(),
        },
    };
    assert_eq!(settings, Ok(expected));
}

#[test]
fn the_sandbox_listens_where_it_is_told() {
    let beside = with_keys(&["--sandbox", "--sandbox-listen=127.0.0.1:9"]).unwrap();
    assert_eq!(beside.sandbox_listen.unwrap().to_string(), "127.0.0.1:9");
}

#[test]
fn every_problem_is_reported_at_once() {
    let wrong = [
        "--insecure=perhaps",
        "--listen=localhost",
        "--tls-cert=no/such/file",
        "--tls-key=no/such/file",
        "--tls-client-ca=no/such/file",
        "--metrics-listen=localhost",
        "--store=mysql:x",
        "--launchdarkly-url=http://ld.example",
        "--egress-proxy=socks5://proxy",
        "--ca-file=no/such/file",
        "--integration-key=a/b",
        "--integration-manifest=no/such/file",
        "--attempt-timeout=0s",
        "--max-calls-per-account=0",
        "--sandbox=maybe",
        "--sandbox-listen=nowhere",
        "--linger=5",
        "--max-members-per-call=1001",
        "--max-streams=-1",
        "--max-batch-records=1001",
        "--max-in-flight-records=many",
        "--default-delivery-timeout=2h",
        "--max-stream-age=0s",
        "--max-stream-idle=500ms",
        "--drain-timeout=2h",
        "--max-buffered-mib=1",
        "--log-format=xml",
        "--log=a=b=c",
    ];
    let Problems(problems) = check(&wrong).unwrap_err();
    let mut named: Vec<_> = problems.iter().map(|problem| problem.flag).collect();
    let flag = |given: &&'static str| given.trim_start_matches('-').split('=').next().unwrap();
    let mut expected: Vec<_> = wrong.iter().map(flag).chain(["keys-file"]).collect();
    named.sort_unstable();
    expected.sort_unstable();
    assert_eq!(named, expected);
}

#[test]
fn a_problem_names_flag_and_variable_and_what_to_write() {
    assert_eq!(
        problems(&["--max-batch-records=0"]),
        [
            "--max-batch-records (CONNECTOR_MAX_BATCH_RECORDS): `0` is not a whole number from 1 to 1000"
        ]
    );
    assert_eq!(
        problems(&["--default-delivery-timeout=61m"]),
        [
            "--default-delivery-timeout (CONNECTOR_DEFAULT_DELIVERY_TIMEOUT): \
          `61m` is not from 1s to 1h"
        ]
    );
    let without_keys = check(&[]).unwrap_err().to_string();
    assert!(
        without_keys.contains("launchdarkly-connector keygen >"),
        "{without_keys}"
    );
}

#[test]
fn other_machines_are_let_in_only_if_told() {
    for open in [
        "--listen=0.0.0.0:1",
        "--listen=[::]:1",
        "--listen=192.0.2.1:1",
    ] {
        let refused = problems(&[open]);
        assert!(
            refused.len() == 1 && refused[0].contains("--insecure"),
            "{refused:?}"
        );
        assert!(with_keys(&[open, "--insecure"]).is_ok());
        assert!(with_keys(&[open, "--insecure=false"]).is_err());
    }
}

#[test]
fn host_names_are_resolved_and_held_to_the_same_rule() {
    let settings = with_keys(&["--listen=localhost:1", "--metrics-listen=localhost:2"]).unwrap();
    assert!(settings.listen.is_loopback());
    assert_eq!(settings.metrics_listen.unwrap().to_string(), "localhost:2");
    // A name that stands for 0.0.0.0 in every C library, whatever name servers say.
    let open = problems(&["--listen=0:1"]);
    assert!(
        open.len() == 1 && open[0].contains("--insecure"),
        "{open:?}"
    );
    let unknown = problems(&["--listen=no-such-host.invalid:1"]);
    assert!(
        unknown.len() == 1 && unknown[0].contains("cannot be resolved"),
        "{unknown:?}"
    );
}

#[test]
fn an_address_that_is_refused_is_not_shown_for_it_may_hold_a_password() {
    let refused = problems(&["--launchdarkly-url=https://user:canary@ld.example"]);
    assert!(
        refused.len() == 1 && !refused[0].contains("canary"),
        "{refused:?}"
    );
}

#[test]
fn a_password_of_the_proxy_is_taken_from_no_flag_and_shown_nowhere() {
    for url in [
        "http://user:canary@proxy:3128",
        "http://canary@proxy",
        "socks5://u:canary@proxy",
    ] {
        let flag = format!("--egress-proxy={url}");
        let refused = problems(&[&flag]);
        assert!(
            refused.len() == 1 && !refused[0].contains("canary"),
            "{refused:?}"
        );
        let read = TestCommand::try_parse_from(["serve", &flag]).unwrap().serve;
        assert!(!format!("{read:?}").contains("canary"), "{read:?}");
    }
    let refused = problems(&["--egress-proxy=http://user:canary@proxy:3128"]);
    assert!(
        refused[0].contains("(CONNECTOR_EGRESS_PROXY)"),
        "{refused:?}"
    );
}

#[test]
fn a_file_without_certificates_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().display().to_string();
    let refused = problems(&[&format!("--ca-file={path}")]);
    assert!(
        refused.len() == 1 && refused[0].contains(&path),
        "{refused:?}"
    );
}

#[test]
fn the_sandbox_and_another_address_exclude_each_other() {
    let both = problems(&["--sandbox", "--launchdarkly-url=https://ld.example"]);
    assert!(
        both.len() == 1 && both[0].contains("--launchdarkly-url"),
        "{both:?}"
    );
}

#[test]
fn a_key_and_a_manifest_go_together() {
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manifests");
    let manifest = |key: &str| {
        let file = manifests.join(format!("{key}.json"));
        format!("--integration-manifest={}", file.display())
    };
    for (flags, named) in [
        // The requests of another integration than Zeotap's look another way.
        (
            vec!["--integration-key=hightouch".to_owned()],
            "--integration-key (CONN",
        ),
        (vec![manifest("hightouch")], "--integration-manifest (CONN"),
    ] {
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        let refused = problems(&flags);
        assert!(
            refused.len() == 1 && refused[0].starts_with(named),
            "{refused:?}"
        );
    }
    for key in ["zeotap", "hightouch"] {
        let key_flag = format!("--integration-key={key}");
        let settings = with_keys(&[&key_flag, &manifest(key)]).unwrap();
        assert_eq!(settings.launchdarkly.integration.key(), key);
    }
}

#[test]
fn a_manifest_that_cannot_be_used_is_named_with_the_place_in_it() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().display().to_string();
    let manifest =
        r#"{"capabilities":{"syncedSegment":{"requestParser":{"environmentIdPath":"env"}}}}"#;
    std::fs::write(file.path(), manifest).unwrap();
    let refused = problems(&[
        "--integration-key=x",
        &format!("--integration-manifest={path}"),
    ]);
    let place = "/capabilities/syncedSegment/requestParser/environmentIdPath";
    assert!(
        refused.len() == 1 && refused[0].contains(&path) && refused[0].contains(place),
        "{refused:?}"
    );
}
