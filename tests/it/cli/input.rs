//! What `send` makes of the files that people have.

use std::{io::Write, path::Path};

use flate2::{Compression, write::GzEncoder};

use super::*;
use crate::support::binary::Ended;

/// A server with a sandbox and a destination.
fn server() -> (TempDir, Server) {
    let home = home();
    let server = Server::with_sandbox(&home);
    create_destination(&server);
    (home, server)
}

fn send_file(server: &Server, path: &Path, flags: &[&str]) -> Ended {
    run(&send(
        &server.url(),
        &[flags, &[path.to_str().unwrap()]].concat(),
    ))
}

fn segment(server: &Server) -> Vec<String> {
    members(server.sandbox.as_ref().unwrap(), "zeotap-vip")
}

#[test]
fn bad_rows_are_left_out_if_told_and_written_down() {
    let (home, server) = server();
    let csv = home.path().join("members.csv");
    let failures = home.path().join("failures.ndjson");
    fs::write(
        &csv,
        "user_id,operation\nu-1,add\nu-2,upsert\nu-3,,x\nu-4,\n",
    )
    .unwrap();
    let flags = ["--bad-rows=skip", "--failures", failures.to_str().unwrap()];
    let ended = send_file(&server, &csv, &flags);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let said = "4 records: 2 delivered, 2 failed\n         2  BAD_ROW\n";
    assert_eq!(ended.stdout, said, "{ended:?}");
    assert_eq!(
        fs::read_to_string(&failures).unwrap(),
        "{\"line\":3,\"code\":\"INVALID_ARGUMENT\",\"reason\":\"BAD_ROW\",\"message\":\"the value of \
         operation is neither add nor remove, and no other word is understood\"}\n\
         {\"line\":4,\"code\":\"INVALID_ARGUMENT\",\"reason\":\"BAD_ROW\",\"message\":\"3 values, \
         where the header names 2\"}\n"
    );
    assert_eq!(segment(&server), ["u-1", "u-4"]);

    let stopped = send_file(&server, &csv, &[]);
    assert_eq!(stopped.code, Some(2), "{stopped:?}");
    assert!(stopped.stderr.contains("line 3: "), "{stopped:?}");
    assert!(stopped.stderr.contains("--bad-rows skip"), "{stopped:?}");
}

#[test]
fn a_compressed_file_is_read_and_what_is_odd_in_it_is_told() {
    let (home, server) = server();
    let path = home.path().join("Members.TSV.gz");
    let mut packed = GzEncoder::new(fs::File::create(&path).unwrap(), Compression::default());
    packed
        .write_all(b"email\tuser_id\r\tNULL\ra,b\t\r\t123.0\remail\tuser_id\rx\tu-1\r")
        .unwrap();
    packed.finish().unwrap();
    let ended = send_file(&server, &path, &[]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for part in [
        "4 records: 3 delivered, 1 failed",
        "1 values taken as absent",
        "1 values look as if a spreadsheet had shortened them",
        "1 headers skipped",
    ] {
        assert!(ended.stdout.contains(part), "{ended:?}");
    }
    assert_eq!(segment(&server), ["123.0", "a,b", "u-1"]);
}

/// The cause: such removals were delivered as additions.
#[test]
fn nobody_is_added_who_was_to_be_removed() {
    let (home, server) = server();
    let csv = home.path().join("members.csv");
    fs::write(&csv, "user_id,Action\nu-1,remove\n").unwrap();
    let stopped = send_file(&server, &csv, &[]);
    assert_eq!(stopped.code, Some(2), "{stopped:?}");
    assert!(
        stopped.stderr.contains("--operation-column Action"),
        "{stopped:?}"
    );
    let added = send_file(&server, &csv, &["--ignore-column=Action"]);
    assert_eq!(added.code, Some(0), "{added:?}");
    assert_eq!(segment(&server), ["u-1"]);
    let removed = send_file(&server, &csv, &["--operation-column=action"]);
    assert_eq!(removed.code, Some(0), "{removed:?}");
    assert_eq!(segment(&server), [""; 0]);
}

#[test]
fn a_file_is_keyed_by_one_mapping_to_its_end() {
    let home = home();
    let mut sandbox = Process::spawn(&mut command(&["sandbox", "--listen=127.0.0.1:0"]));
    let said = sandbox.says("sandbox LaunchDarkly on http://");
    let sandbox_url = said.rsplit(' ').next().unwrap().to_owned();
    let sandbox_address = sandbox_url.trim_start_matches("http://");
    let flags = ["--launchdarkly-url", &sandbox_url];
    let server = Server::start(&home, "127.0.0.1:0", &flags);
    create_destination(&server);
    let (url, address) = (server.url(), server.address.clone());

    let mut sender = Process::spawn(&mut command(&send(&url, &["--format=csv"])));
    sender.write("user_id,email\nu-1,a@x.org\n");
    let path = format!("/_sandbox/segments/{}/zeotap-vip", fixtures::CLIENT_SIDE_ID);
    let delivered = (0..10_000).any(|_| get(sandbox_address, &path).contains("\"u-1\""));
    assert!(delivered);
    map_email_alone(&server);
    drop(server);
    let _server = Server::start(&home, &address, &flags);
    sender.write("u-2,b@x.org\n");
    let ended = sender.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(members(sandbox_address, "zeotap-vip"), ["u-1", "u-2"]);
}

/// Changes the mapping of the destination.
fn map_email_alone(server: &Server) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let destination = pb::Destination {
        name: DESTINATION.into(),
        field_mappings: vec![pb::FieldMapping {
            field: "context_key".into(),
            sources: vec!["email".into()],
            transforms: vec![],
        }],
        ..pb::Destination::default()
    };
    let request = pb::UpdateDestinationRequest {
        destination: Some(destination),
        ..pb::UpdateDestinationRequest::default()
    };
    runtime.block_on(async {
        let mut client = DestinationConnectorClient::connect(server.url())
            .await
            .unwrap();
        client.update_destination(request).await.unwrap();
    });
}
