//! `serve` as its operator meets it: what it listens on, what it shares, and what it outlives.

use std::{fs, path::Path};

use tempfile::TempDir;

use crate::support::binary::{Process, Server, address, command, get_with, run, run_with};

fn home() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// `serve` on a database and a free port, with the keys that another one has made.
fn serve_on(home: &TempDir, database: &Path) -> Process {
    let store = format!("sqlite:{}", database.display());
    let flags = ["serve", "--log-format=json", "--listen=127.0.0.1:0"];
    let mut serve = command(&flags);
    serve.arg("--keys-file").arg(home.path().join("keys"));
    Process::spawn(serve.args(["--store", &store]))
}

#[test]
fn a_second_server_on_the_same_database_is_refused_until_the_first_is_gone() {
    let home = home();
    let first = Server::start(&home, "127.0.0.1:0", &[]);
    let database = home.path().join("store.db");
    let link = home.path().join("link.db");
    std::os::unix::fs::symlink(&database, &link).unwrap();
    let holder = format!("process {}", first.process.id());
    for path in [&database, &link] {
        let refused = serve_on(&home, path).end();
        assert_eq!(refused.code, Some(1), "{refused:?}");
        for told in [&holder, &first.address] {
            assert!(refused.stderr.contains(told.as_str()), "{refused:?}");
        }
    }
    // Killed, it had no chance to unlock.
    drop(first);
    let mut next = serve_on(&home, &database);
    next.complains("serving gRPC");
    assert_eq!(next.terminate().code, Some(0));
}

#[test]
fn serve_listens_on_a_host_name_and_health_asks_where_the_variable_says() {
    let home = home();
    let flags = [
        "--metrics-listen=localhost:0",
        "--sandbox",
        "--sandbox-listen=localhost:0",
    ];
    let mut server = Server::start(&home, "localhost:0", &flags);
    let metrics = address(&server.process.complains("serving metrics"));
    assert!(get_with(&metrics, "/metrics", "").0.contains(" 200 "));
    let port = server.address.rsplit(':').next().unwrap().to_owned();
    let ask = |listen: &str, server: Option<&str>| {
        let mut health = command(&["health"]);
        health.env("CONNECTOR_LISTEN", listen);
        health.envs(server.map(|url| ("CONNECTOR_SERVER", url)));
        run_with(&mut health, "")
    };
    for host in ["127.0.0.1", "0.0.0.0", "localhost"] {
        let healthy = ask(&format!("{host}:{port}"), None);
        assert_eq!(healthy.code, Some(0), "{host}: {healthy:?}");
    }
    // A port where nobody can be.
    let nowhere = ask("127.0.0.1:1", None);
    assert_eq!(nowhere.code, Some(1), "{nowhere:?}");
    assert!(nowhere.stderr.contains("http://127.0.0.1:1"), "{nowhere:?}");
    assert_eq!(ask("127.0.0.1:1", Some(&server.url())).code, Some(0));
}

#[test]
fn signals_that_mean_nothing_do_not_kill() {
    let home = home();
    let mut server = Server::start(&home, "127.0.0.1:0", &[]);
    for signal in ["HUP", "USR1", "USR2", "HUP"] {
        assert!(server.process.signal(signal).success());
        server
            .process
            .complains(&format!("\"signal\":\"SIG{signal}\""));
    }
    let health = run(&["health", "--server", &server.url()]);
    assert_eq!(health.code, Some(0), "{health:?}");
    assert_eq!(server.process.terminate().code, Some(0));
}

#[test]
fn a_scrape_has_the_format_that_it_asks_for() {
    let home = home();
    let mut server = Server::start(&home, "127.0.0.1:0", &["--metrics-listen=127.0.0.1:0"]);
    let metrics = address(&server.process.complains("serving metrics"));
    for (accept, content_type, ends) in [
        (
            "",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            true,
        ),
        (
            "Accept: */*\r\n",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            true,
        ),
        (
            "Accept: text/plain\r\n",
            "text/plain; version=0.0.4; charset=utf-8",
            false,
        ),
    ] {
        let (head, body) = get_with(&metrics, "/metrics", accept);
        let head = head.to_lowercase();
        assert!(
            head.contains(&format!("content-type: {content_type}")),
            "{head}"
        );
        assert!(head.contains("vary: accept"), "{head}");
        assert_eq!(body.ends_with("# EOF\n"), ends, "{body}");
    }
}

#[test]
fn proxies_of_the_environment_are_not_used_and_the_log_says_so() {
    let home = home();
    fs::write(home.path().join("keys"), run(&["keygen"]).stdout).unwrap();
    let said = |variables: &[(&str, &str)]| {
        let store = format!("sqlite:{}", home.path().join("store.db").display());
        let mut serve = command(&["serve", "--log-format=json", "--listen=127.0.0.1:0"]);
        for name in [
            "HTTPS_PROXY",
            "https_proxy",
            "ALL_PROXY",
            "all_proxy",
            "HTTP_PROXY",
            "http_proxy",
        ] {
            serve.env_remove(name);
        }
        serve
            .args(["--store", &store])
            .envs(variables.iter().copied());
        serve.arg("--keys-file").arg(home.path().join("keys"));
        let mut process = Process::spawn(&mut serve);
        process.complains("serving gRPC");
        process.terminate().stderr
    };
    let proxy = "http://user:canary@127.0.0.1:1";
    for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"] {
        let log = said(&[(name, proxy)]);
        assert!(log.contains("no proxy of the environment is used"), "{log}");
        assert!(log.contains(&format!("\"set\":\"{name}\"")), "{log}");
        assert!(!log.contains("canary"), "{log}");
    }
    for quiet in [
        &[][..],
        &[("HTTPS_PROXY", "")],
        &[("HTTPS_PROXY", proxy), ("CONNECTOR_EGRESS_PROXY", proxy)],
    ] {
        let log = said(quiet);
        assert!(!log.contains("proxy of the environment"), "{log}");
        assert!(!log.contains("canary"), "{log}");
    }
}

#[test]
fn the_help_shows_no_password_of_the_environment() {
    let mut help = command(&["serve", "--help"]);
    let help = run_with(
        help.env("CONNECTOR_EGRESS_PROXY", "http://user:canary@proxy"),
        "",
    );
    assert_eq!(help.code, Some(0));
    assert!(help.stdout.contains("CONNECTOR_EGRESS_PROXY"), "{help:?}");
    assert!(!help.stdout.contains("canary"), "{help:?}");
}
