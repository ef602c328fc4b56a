//! Every command as it was built: what it prints, what it does, and its exit code.

use std::fs;

use launchdarkly_connector::{
    config::ServeArgs,
    pb::{self, destination::Config, destination_connector_client::DestinationConnectorClient},
    sandbox::fixtures,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::binary::{Process, Server, address, ask, command, get, members, run, run_with};

mod input;

pub(crate) const DESTINATION: &str = "organizations/acme/destinations/vips";

fn home() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Asks for a destination whose context key is the user ID, or else the e-mail address.
pub(crate) fn creation() -> pb::CreateDestinationRequest {
    let destination = pb::Destination {
        display_name: "VIPs".into(),
        action: "send-identifiers".into(),
        config: Some(Config::LaunchDarkly(pb::LaunchDarklyConfig {
            access_token: fixtures::WRITER_TOKEN.into(),
            client_side_id: fixtures::CLIENT_SIDE_ID.into(),
            ..pb::LaunchDarklyConfig::default()
        })),
        field_mappings: vec![pb::FieldMapping {
            field: "context_key".into(),
            sources: vec!["user_id".into(), "email".into()],
            transforms: vec![],
        }],
        ..pb::Destination::default()
    };
    pb::CreateDestinationRequest {
        parent: "organizations/acme".into(),
        destination_id: "vips".into(),
        destination: Some(destination),
        ..pb::CreateDestinationRequest::default()
    }
}

/// Makes a destination whose context key is the user ID, or else the e-mail address.
pub(crate) fn create_destination(server: &Server) {
    let url = server.url();
    let create = || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let mut client = DestinationConnectorClient::connect(url).await.unwrap();
            client.create_destination(creation()).await.unwrap();
        });
    };
    // On a thread of its own, since a test may have a runtime.
    std::thread::scope(|scope| scope.spawn(create).join().unwrap());
}

fn send<'a>(server: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["send", "--server", server, "--destination", DESTINATION];
    args.extend([
        "--segment-id",
        "vip",
        "--segment-name",
        "VIPs",
        "--give-up-after",
        "20s",
    ]);
    args.extend(more);
    args
}

#[test]
fn serve_stops_when_told_and_health_tells_the_truth() {
    let home = home();
    let server = Server::with_sandbox(&home);
    let url = server.url();
    let health = ["health", "--server", &url];
    let of_service = [
        &health[..],
        &["--service", "cdp.destinations.v1.DestinationConnector"],
    ]
    .concat();
    for args in [&health[..], &of_service] {
        let asked = run(args);
        assert_eq!(
            (asked.code, asked.stdout.as_str()),
            (Some(0), "SERVING\n"),
            "{asked:?}"
        );
    }
    let unknown = run(&[&health[..], &["--service", "nobody"]].concat());
    assert_eq!(unknown.code, Some(1), "{unknown:?}");
    let ended = server.process.terminate();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let gone = run(&health);
    assert_eq!(gone.code, Some(1), "{gone:?}");
    assert!(gone.stderr.contains(&url), "{gone:?}");
}

#[test]
fn serve_names_every_variable_that_is_wrong_and_ignores_empty_ones() {
    use clap::Args;
    let flags = ServeArgs::augment_args(clap::Command::new("serve"));
    let twins: Vec<_> = flags
        .get_arguments()
        .filter_map(clap::Arg::get_env)
        .collect();
    let mut serve = command(&["serve"]);
    let ended = run_with(serve.envs(twins.iter().map(|twin| (twin, "=,?"))), "");
    assert_eq!(ended.code, Some(2), "{ended:?}");
    for twin in &twins {
        let named = ended.stderr.contains(&format!("({}):", twin.display()));
        // Any text is the name of a file, which is looked for only when the rest is right.
        assert_eq!(
            named,
            *twin != "CONNECTOR_KEYS_FILE",
            "{twin:?} in {}",
            ended.stderr
        );
    }
    let mut serve = command(&["serve"]);
    let ended = run_with(serve.envs(twins.iter().map(|twin| (twin, ""))), "");
    assert_eq!(ended.code, Some(2));
    let problems: Vec<_> = ended.stderr.lines().skip(1).collect();
    assert!(
        problems.len() == 1 && problems[0].contains("keygen >"),
        "{problems:?}"
    );
}

#[test]
fn serve_tells_a_keys_file_to_mend_from_a_failure() {
    let home = home();
    let missing = home.path().join("no-such-keys");
    let ended = run(&[
        "serve",
        "--listen=127.0.0.1:0",
        "--keys-file",
        missing.to_str().unwrap(),
    ]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("no-such-keys"), "{ended:?}");

    let server = Server::with_sandbox(&home);
    let keys = home.path().join("keys");
    let other_store = format!("--store=sqlite:{}", home.path().join("other.db").display());
    let taken = [
        "serve",
        "--listen",
        &server.address,
        &other_store,
        "--keys-file",
    ];
    let ended = run_with(command(&taken).arg(keys), "");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains(&server.address), "{ended:?}");
}

#[test]
fn metrics_are_read_over_http_where_the_operator_says() {
    let home = home();
    let flags = [
        "--sandbox",
        "--sandbox-listen=127.0.0.1:0",
        "--metrics-listen=127.0.0.1:0",
    ];
    let mut server = Server::start(&home, "127.0.0.1:0", &flags);
    let metrics = address(&server.process.complains("serving metrics"));
    create_destination(&server);
    let url = server.url();
    let sent = run_with(
        &mut command(&send(&url, &["--format=csv", "-"])),
        "user_id\na\nb\n",
    );
    assert_eq!(sent.code, Some(0), "{sent:?}");
    let scrape = get(&metrics, "/metrics");
    let delivered = format!("connector_records_delivered_total{{destination=\"{DESTINATION}\"}} 2");
    assert!(scrape.contains(&delivered), "{scrape}");
}

#[test]
fn keygen_prints_another_key_each_time() {
    let [one, other] = [run(&["keygen"]), run(&["keygen"])];
    assert_eq!((one.code, one.stdout.lines().count()), (Some(0), 1));
    assert_ne!(one.stdout, other.stdout);
}

#[test]
fn validate_shows_each_check_and_never_the_token() {
    let home = home();
    let server = Server::with_sandbox(&home);
    let url = server.url();
    let unsaved = [
        "validate",
        "--server",
        &url,
        "--client-side-id",
        fixtures::CLIENT_SIDE_ID,
    ];
    let with = |token| run_with(command(&unsaved).env("CONNECTOR_ACCESS_TOKEN", token), "");

    let good = with(fixtures::WRITER_TOKEN);
    assert_eq!(good.code, Some(0), "{good:?}");
    assert_eq!(good.stdout.matches("passed").count(), 3, "{good:?}");
    let reader = with(fixtures::READER_TOKEN);
    assert_eq!(reader.code, Some(1), "{reader:?}");
    assert!(
        reader.stdout.contains("write permission  failed: "),
        "{reader:?}"
    );
    let from_stdin = [&unsaved[..], &["--access-token-file", "-"]].concat();
    let piped = run_with(
        &mut command(&from_stdin),
        &format!("{}\n", fixtures::WRITER_TOKEN),
    );
    assert_eq!(piped.code, Some(0), "{piped:?}");
    for ended in [&good, &reader, &piped] {
        assert!(!format!("{ended:?}").contains("api-0"), "{ended:?}");
    }

    create_destination(&server);
    let stored = ["validate", "--server", &url, "--destination"];
    assert_eq!(run(&[&stored[..], &[DESTINATION]].concat()).code, Some(0));
    let unknown = run(&[&stored[..], &["organizations/acme/destinations/nobody"]].concat());
    assert_eq!(unknown.code, Some(2), "{unknown:?}");
    assert!(
        unknown.stderr.contains("DESTINATION_NOT_FOUND"),
        "{unknown:?}"
    );
    let without = run(&unsaved);
    assert_eq!(without.code, Some(2), "{without:?}");
}

#[test]
fn send_delivers_a_file_and_writes_down_what_failed() {
    let home = home();
    let server = Server::with_sandbox(&home);
    create_destination(&server);
    let (url, sandbox) = (server.url(), server.sandbox.clone().unwrap());
    let csv = home.path().join("members.csv");
    let failures = home.path().join("failures.ndjson");
    let (csv_path, failures_path) = (csv.to_str().unwrap(), failures.to_str().unwrap());

    fs::write(
        &csv,
        "user_id,email,operation\nu-1,,add\nu-2,,add\n,c@x.org,\nu-1,,remove\n",
    )
    .unwrap();
    let all = run(&send(&url, &[csv_path]));
    assert_eq!(all.code, Some(0), "{all:?}");
    assert!(
        all.stdout.contains("4 records: 4 delivered, 0 failed"),
        "{all:?}"
    );
    assert_eq!(members(&sandbox, "zeotap-vip"), ["c@x.org", "u-2"]);

    fs::write(&csv, "user_id,email,name\nu-3,,\n,,Eve\nu-4,,\n").unwrap();
    let some = run(&send(&url, &["--failures", failures_path, csv_path]));
    assert_eq!(some.code, Some(1), "{some:?}");
    assert!(some.stdout.contains("1  IDENTIFIER_MISSING"), "{some:?}");
    let written = fs::read_to_string(&failures).unwrap();
    let failure: Value = serde_json::from_str(&written).unwrap();
    assert_eq!(
        (&failure["line"], &failure["sequence"]),
        (&3.into(), &2.into())
    );
    assert_eq!(failure["reason"], "IDENTIFIER_MISSING");
    assert_eq!(
        members(&sandbox, "zeotap-vip"),
        ["c@x.org", "u-2", "u-3", "u-4"]
    );
}

#[test]
#[cfg(target_os = "linux")]
fn send_does_not_hide_that_failures_could_not_be_written() {
    let home = home();
    let server = Server::with_sandbox(&home);
    create_destination(&server);
    let url = server.url();
    let args = send(&url, &["--format=csv", "--failures=/dev/full"]);
    let ended = run_with(&mut command(&args), "user_id,email,name\nu-1,,\n ,,Eve\n");
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stdout.contains("1 delivered, 1 failed"), "{ended:?}");
    assert!(ended.stderr.contains("not complete"), "{ended:?}");
}

#[test]
fn send_reads_ndjson_from_standard_input_with_a_mapping_of_its_own() {
    let home = home();
    let server = Server::with_sandbox(&home);
    create_destination(&server);
    let url = server.url();
    let map = "context_key=customer:trim,lowercase";
    let args = send(
        &url,
        &["--format=ndjson", "--map", map, "--operation=remove"],
    );
    let input = "{\"customer\":\" A-1 \",\"operation\":\"add\"}\n\
        {\"identifiers\":{\"customer\":\"B-2\"},\"operation\":\"add\"}\n{\"customer\":\"b-2\"}\n";
    let ended = run_with(&mut command(&args), input);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(
        members(server.sandbox.as_ref().unwrap(), "zeotap-vip"),
        ["a-1"]
    );
}

#[test]
fn send_delivers_the_rows_before_a_bad_one_and_names_it() {
    let home = home();
    let server = Server::with_sandbox(&home);
    create_destination(&server);
    let (url, sandbox) = (server.url(), server.sandbox.clone().unwrap());
    let args = send(&url, &["--format=csv"]);
    let ended = run_with(&mut command(&args), "user_id\nu-1\nu-2\n\"u-3\n");
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("line 4, column 1: this quote is never closed"),
        "{ended:?}"
    );
    assert_eq!(members(&sandbox, "zeotap-vip"), ["u-1", "u-2"]);
    let header = run_with(&mut command(&args), "userid\nu-1\n");
    assert_eq!(header.code, Some(2), "{header:?}");
    assert!(
        header.stderr.contains("none of the mapped identifiers"),
        "{header:?}"
    );
}

#[test]
fn send_says_what_must_be_mended() {
    let home = home();
    let server = Server::with_sandbox(&home);
    let url = server.url();
    let unknown = run_with(
        &mut command(&send(&url, &["--format=csv"])),
        "user_id\nu-1\n",
    );
    assert_eq!(unknown.code, Some(2), "{unknown:?}");
    assert!(
        unknown.stderr.contains("DESTINATION_NOT_FOUND"),
        "{unknown:?}"
    );
    create_destination(&server);
    let mut args = send(&url, &["--format=csv"]);
    let id = args.iter().position(|arg| *arg == "vip").unwrap();
    args[id] = "not a segment";
    let refused = run_with(&mut command(&args), "user_id\nu-1\n");
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("segment_id"), "{refused:?}");
    assert_eq!(run(&send(&url, &["no-such-file.csv"])).code, Some(2));
}

#[test]
fn send_goes_on_when_the_server_was_killed_and_started_again() {
    let home = home();
    let mut sandbox = Process::spawn(&mut command(&["sandbox", "--listen=127.0.0.1:0"]));
    let said = sandbox.says("sandbox LaunchDarkly on http://");
    let sandbox_url = said.rsplit(' ').next().unwrap().to_owned();
    let flags = ["--launchdarkly-url", &sandbox_url];
    let server = Server::start(&home, "127.0.0.1:0", &flags);
    create_destination(&server);
    let (url, address) = (server.url(), server.address.clone());

    let rows = |numbers: std::ops::Range<u32>| -> String {
        numbers.map(|number| format!("u-{number:04}\n")).collect()
    };
    let mut sender = Process::spawn(&mut command(&send(&url, &["--format=csv"])));
    sender.write(&format!("user_id\n{}", rows(0..3_000)));
    drop(server);
    sender.complains("trying again in");
    let server = Server::start(&home, &address, &flags);
    sender.write(&rows(3_000..5_000));
    let ended = sender.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended
            .stdout
            .contains("5000 records: 5000 delivered, 0 failed"),
        "{ended:?}"
    );
    let expected: Vec<_> = (0..5_000).map(|number| format!("u-{number:04}")).collect();
    let sandbox_address = sandbox_url.trim_start_matches("http://");
    assert_eq!(members(sandbox_address, "zeotap-vip"), expected);
    assert_eq!(server.process.terminate().code, Some(0));
    assert_eq!(sandbox.terminate().code, Some(0));
}

#[test]
fn sandbox_says_what_there_is_and_fails_as_told() {
    let mut sandbox = Process::spawn(&mut command(&[
        "sandbox",
        "--listen=127.0.0.1:0",
        "--latency=7ms",
    ]));
    let said = sandbox.says("sandbox LaunchDarkly on http://");
    for word in [
        fixtures::WRITER_TOKEN,
        fixtures::CLIENT_SIDE_ID,
        fixtures::FLAG,
        fixtures::SDK_KEY,
    ] {
        sandbox.says(word);
    }
    let address = said.rsplit('/').next().unwrap();
    assert_eq!(ask(address, "/_sandbox/faults")["latency_ms"], 7);
    assert_eq!(sandbox.terminate().code, Some(0));
}

fn manifest_file(key: &str) -> String {
    format!("{}/tests/manifests/{key}.json", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn sandbox_reads_the_manifests_of_other_integrations() {
    let hightouch = format!("hightouch={}", manifest_file("hightouch"));
    let other = format!("acme={}", manifest_file("fulcrum"));
    let mut sandbox = Process::spawn(&mut command(&[
        "sandbox",
        "--listen=127.0.0.1:0",
        "--integration-manifest",
        &hightouch,
        "--integration-manifest",
        &other,
    ]));
    let said = sandbox.says("sandbox LaunchDarkly on http://");
    for key in ["  zeotap", "  hightouch", "  acme"] {
        sandbox.says(key);
    }
    assert_eq!(sandbox.terminate().code, Some(0), "{said}");
}

#[test]
fn sandbox_names_the_manifest_that_it_cannot_use_and_what_is_wrong_in_it() {
    let home = home();
    let broken = home.path().join("broken.json");
    let broken = broken.to_str().unwrap();
    let manifest = fs::read_to_string(manifest_file("fulcrum")).unwrap();
    fs::write(
        broken,
        manifest.replace("addMemberArrayPath", "addMembersPath"),
    )
    .unwrap();
    let good = manifest_file("fulcrum");
    let field = "/capabilities/syncedSegment/requestParser/addMembersPath";
    for (manifests, words) in [
        (vec![format!("acme={broken}")], vec!["acme", broken, field]),
        (vec!["acme=no-such-file".to_owned()], vec!["no-such-file"]),
        (vec!["acme".to_owned()], vec!["KEY=FILE"]),
        (vec!["acme=".to_owned()], vec!["KEY=FILE"]),
        (vec![format!("a/b={good}")], vec!["letters, digits"]),
        (vec![format!("={good}")], vec!["letters, digits"]),
        (
            vec![format!("acme={good}"), format!("acme={good}")],
            vec!["--integration-manifest", "acme twice"],
        ),
    ] {
        let given = manifests
            .iter()
            .map(|manifest| format!("--integration-manifest={manifest}"));
        let args: Vec<_> = ["sandbox", "--listen=127.0.0.1:0"]
            .map(str::to_owned)
            .into_iter()
            .chain(given)
            .collect();
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let ended = run(&args);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        for word in words {
            assert!(ended.stderr.contains(word), "{word}: {ended:?}");
        }
    }
}

#[test]
fn demo_walks_the_journey_and_stays_up_if_told() {
    let ended = run(&["demo"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.stdout.contains("All of it is as it should be."),
        "{ended:?}"
    );

    let mut demo = Process::spawn(&mut command(&["demo", "--keep-running"]));
    let typed = demo.says("/ValidateCredentials");
    let address = typed
        .split(' ')
        .find(|word| word.starts_with("127.0.0.1:"))
        .unwrap();
    assert_eq!(
        run(&["health", "--server", &format!("http://{address}")]).code,
        Some(0)
    );
    let ended = demo.terminate();
    assert_eq!(ended.code, Some(0), "{ended:?}");
}
