//! `send` as it was built, in trouble: what stands between, signals, and the file of failures.

use std::{
    fs,
    io::Read,
    net::TcpListener,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use h2::Reason;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::{
    cli::{DESTINATION, create_destination},
    support::{
        between::{
            Answer::{self, GoAway, Grpc, Http, Pass, Reset},
            Between,
        },
        binary::{Ended, Process, Server, command, run, run_with},
    },
};

/// How soon a command ends that was told to.
const SOON: Duration = Duration::from_secs(2);

/// A server with a destination, and a directory for files.
fn start() -> (TempDir, Server) {
    let home = tempfile::tempdir().unwrap();
    let server = Server::with_sandbox(&home);
    create_destination(&server);
    (home, server)
}

fn send(url: &str, more: &[&str]) -> Command {
    let mut send = command(&["send", "--server", url, "--destination", DESTINATION]);
    send.args(["--segment-id=vip", "--segment-name=VIPs", "--format=csv"]);
    send.args(more);
    send
}

/// Looks again and again until something is there.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "no {what} in time"
        );
        std::thread::yield_now();
    }
}

/// Waits until a process listens for SIGTERM.
fn listens(id: u32) {
    until("listener", || {
        let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        let caught = status
            .lines()
            .find_map(|line| line.strip_prefix("SigCgt:"))?;
        let mask = u64::from_str_radix(caught.trim(), 16).ok()?;
        (mask >> 14 & 1 == 1).then_some(())
    });
}

fn kill(signal: &str, id: u32) {
    let status = Command::new("sh")
        .args(["-c", &format!("kill -{signal} {id}")])
        .status();
    assert!(status.unwrap().success());
}

/// Sends some rows through something that answers in the service's place at first.
fn send_through(server: &Server, answer: Answer) -> (Between, Process) {
    let answers = [answer, answer, Pass, answer, answer];
    let between = Between::start(&server.address, &answers);
    let mut sending = Process::spawn(&mut send(&between.url(), &["-"]));
    sending.write("user_id\na\nb\nc\n");
    (between, sending)
}

#[test]
fn whatever_answers_in_the_services_place_is_told_once_and_waited_out() {
    let (_home, server) = start();
    let page = Some("<html><h1>Forbidden</h1></html>");
    let mut running = Vec::new();
    for (answer, name) in [
        (Grpc(4, "upstream request timeout"), "DEADLINE_EXCEEDED"),
        (Grpc(5, "no route"), "NOT_FOUND: no route"),
        (Grpc(7, "RBAC%3A denied"), "PERMISSION_DENIED: RBAC: denied"),
        (Grpc(8, "overloaded"), "RESOURCE_EXHAUSTED: overloaded"),
        (Grpc(9, ""), "FAILED_PRECONDITION"),
        (Grpc(12, ""), "UNIMPLEMENTED"),
        (Grpc(14, "no healthy upstream"), "UNAVAILABLE: no healthy"),
        (Grpc(16, "Jwt is missing"), "UNAUTHENTICATED: Jwt"),
        (Http(401, None), "status code 401"),
        (Http(403, page), "status: 403"),
        (Http(404, None), "status code 404"),
        (Http(404, page), "status: 404"),
        (Http(502, page), "status: 502"),
        (Http(503, None), "status code 503"),
        (Http(200, page), "INTERNAL"),
        (Http(200, None), "UNKNOWN"),
        (Reset(Reason::ENHANCE_YOUR_CALM), "RESOURCE_EXHAUSTED"),
        (Reset(Reason::REFUSED_STREAM), "UNAVAILABLE"),
        (GoAway(Reason::ENHANCE_YOUR_CALM), "the connection broke"),
    ] {
        running.push((answer, name, send_through(&server, answer)));
    }
    for (answer, name, (_between, sending)) in running {
        let ended = sending.end();
        assert_eq!(ended.code, Some(0), "{answer:?}: {ended:?}");
        assert!(
            ended.stdout.contains("3 records: 3 delivered, 0 failed"),
            "{answer:?}: {ended:?}"
        );
        let told = ended.stderr.matches("trying again in").count();
        assert_eq!(told, 1, "{answer:?}: {ended:?}");
        let speaker = match answer {
            Reset(_) | GoAway(_) => "the connection broke or was refused",
            _ => "not the service's word",
        };
        assert!(
            ended.stderr.contains(name) && ended.stderr.contains(speaker),
            "{answer:?}: {ended:?}"
        );
    }
}

#[test]
fn send_gives_up_after_the_time_it_claims() {
    let (_home, server) = start();
    let upstream = &server.address;
    let always = [Http(403, None); 1_000];
    let before_the_stream = Between::start(upstream, &always);
    let after_the_lookup = [&[Pass], &always[..]].concat();
    let at_the_stream = Between::start(upstream, &after_the_lookup);
    for between in [before_the_stream, at_the_stream] {
        let started = Instant::now();
        let mut send = send(&between.url(), &["--give-up-after=2s", "-"]);
        let ended = run_with(&mut send, "user_id\na\n");
        assert!(started.elapsed() >= Duration::from_secs(2), "{ended:?}");
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(
            ended
                .stderr
                .contains("gave up after 2.0 s without a stream: not the service's word"),
            "{ended:?}"
        );
    }
}

#[test]
fn validate_and_health_say_whose_word_it_is() {
    let (_home, server) = start();
    let upstream = &server.address;
    let answers = [Http(403, Some("<html>")), Grpc(12, ""), Http(404, None)];
    let between = Between::start(upstream, &answers);
    let url = between.url();
    let validate = ["validate", "--server", &url, "--destination", DESTINATION];
    let health = ["health", "--server", &url];
    let expected = [
        (&validate[..], 2, "403 Forbidden"),
        (&health[..], 1, "UNIMPLEMENTED"),
        (&health[..], 1, "404"),
    ];
    for (args, code, name) in expected {
        let ended = run(args);
        assert_eq!(ended.code, Some(code), "{ended:?}");
        let words = "not the service's word, but that of a proxy or another server";
        assert!(
            ended.stderr.contains(words) && ended.stderr.contains(name),
            "{ended:?}"
        );
    }
    // The protocol's own answer, which needs no proxy.
    let unknown = run(&["health", "--server", &url, "--service=nobody"]);
    assert_eq!(unknown.code, Some(1), "{unknown:?}");
    assert!(!unknown.stderr.contains("proxy"), "{unknown:?}");
}

#[test]
fn nothing_that_comes_from_elsewhere_commands_the_terminal() {
    let (home, server) = start();
    let evil = Grpc(7, "%1B[2J%0Aerror: fine %C2%9B31m%E2%80%AE");
    let between = Between::start(&server.address, &[evil; 3]);
    let (url, proxied) = (server.url(), between.url());
    let escaped = "\\u{1b}[2J\\nerror: fine \\u{9b}31m\\u{202e}";
    let validate = [
        "validate",
        "--server",
        &proxied,
        "--destination",
        DESTINATION,
    ];
    let checked = run(&validate);
    assert!(checked.stderr.contains(escaped), "{checked:?}");
    let proxied = run_with(&mut send(&proxied, &["-"]), "user_id\na\n");
    assert!(proxied.stderr.contains(escaped), "{proxied:?}");
    let header = "\"user_id\u{1b}[31m\nerror: fine\",\u{202e}x\nu,v\n";
    let file = run_with(&mut send(&url, &["-"]), header);
    assert_eq!(file.code, Some(2), "{file:?}");
    assert!(file.stderr.contains("\\u{1b}[31m"), "{file:?}");
    let path = home.path().join("no\u{1b}]0;such\u{7}.csv");
    let path = run(&["send", "--server", &url, "--destination", DESTINATION]
        .into_iter()
        .chain([
            "--segment-id=vip",
            "--segment-name=VIPs",
            path.to_str().unwrap(),
        ])
        .collect::<Vec<_>>());
    assert!(
        path.stderr.contains("no\\u{1b}]0;such\\u{7}.csv"),
        "{path:?}"
    );
    for ended in [checked, proxied, file, path] {
        let printed = ended.stdout + &ended.stderr;
        let commands = |letter: char| letter.is_control() && letter != '\n' || letter == '\u{202e}';
        assert!(!printed.contains(commands), "{printed:?}");
        let forged = printed
            .lines()
            .filter(|line| line.starts_with("error: fine"));
        assert_eq!(forged.count(), 0, "{printed:?}");
    }
}

#[test]
fn the_input_is_never_the_file_of_failures() {
    let (home, server) = start();
    let url = server.url();
    let at = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    let content = "user_id\na\n";
    fs::write(at("f.csv"), content).unwrap();
    symlink(at("f.csv"), at("link")).unwrap();
    fs::hard_link(at("f.csv"), at("twin")).unwrap();
    fs::create_dir(at("sub")).unwrap();
    let refused = |ended: Ended| {
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains("is the input itself"), "{ended:?}");
        assert_eq!(fs::read_to_string(at("f.csv")).unwrap(), content);
    };
    for name in ["f.csv", "link", "twin", "sub/../f.csv"] {
        refused(run_with(
            &mut send(&url, &["--failures", &at(name), &at("f.csv")]),
            "",
        ));
    }
    for name in ["f.csv", "twin"] {
        let stdin = fs::File::open(at("f.csv")).unwrap();
        let output = send(&url, &["--failures", &at(name), "-"])
            .stdin(Stdio::from(stdin))
            .output()
            .unwrap();
        refused(Ended {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        });
    }
}

#[test]
fn failures_leave_no_file_before_there_is_a_stream() {
    let (home, server) = start();
    let url = server.url();
    let at = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    fs::write(at("old"), "of an earlier run").unwrap();
    for name in ["old", "new"] {
        let mut wrong = send(&url, &["--failures", &at(name), "-"]);
        wrong.args(["--map=context_key=user_id", "--segment-id=not a segment"]);
        let args: Vec<_> = wrong
            .get_args()
            .filter(|arg| *arg != "--segment-id=vip")
            .map(|arg| arg.to_str().unwrap().to_owned())
            .collect();
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let ended = run_with(&mut command(&args), "user_id\na\n");
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains("segment_id"), "{ended:?}");
    }
    assert_eq!(fs::read_to_string(at("old")).unwrap(), "of an earlier run");
    assert!(!Path::new(&at("new")).exists());
    let nowhere = at("no-such-folder/f");
    let ended = run_with(
        &mut send(&url, &["--failures", &nowhere, "-"]),
        "user_id\na\n",
    );
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(
        ended.stderr.contains("nothing was sent: cannot create"),
        "{ended:?}"
    );
    // An old one is emptied once there is a stream, even if nothing fails.
    let mut good = send(&url, &["--failures", &at("old"), "-"]);
    let ended = run_with(&mut good, "user_id\na\n");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(fs::read_to_string(at("old")).unwrap(), "");
}

/// A sender that waits for more rows, after two that were delivered and one that failed.
fn waiting(home: &TempDir, mut send: Command, name: &str) -> Process {
    let failures = home.path().join(name);
    send.arg("--failures").arg(&failures).arg("-");
    let mut sending = Process::spawn(&mut send);
    sending.write("user_id,email,x\na,,\nb,,\n,,v\n");
    // Results come in order, so this is the last one.
    until("failure", || {
        fs::read_to_string(&failures)
            .is_ok_and(|text| text.ends_with('\n'))
            .then_some(())
    });
    sending
}

/// A command with the signals as a shell in the foreground leaves them.
fn under(env_flag: &str, inner: &Command) -> Command {
    let mut outer = Command::new("env");
    outer.arg(env_flag).arg(inner.get_program());
    outer.args(inner.get_args());
    outer
}

#[test]
#[cfg(target_os = "linux")]
fn send_ends_on_a_signal_and_says_how_far_it_got() {
    let (home, server) = start();
    for signal in ["TERM", "INT", "HUP"] {
        let send = under("--default-signal", &send(&server.url(), &[]));
        let sending = waiting(&home, send, signal);
        kill(signal, sending.id());
        let asked = Instant::now();
        let ended = sending.wait();
        assert!(asked.elapsed() < SOON, "{ended:?}");
        assert_eq!(ended.code, Some(2), "{ended:?}");
        let words = format!(
            "the records up to line 4 have results; go on with what follows: stopped by SIG{signal}"
        );
        assert!(ended.stderr.contains(&words), "{ended:?}");
        assert!(
            ended.stdout.contains("3 records: 2 delivered, 1 failed"),
            "{ended:?}"
        );
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_closing_terminal_does_not_end_what_nohup_started() {
    let (home, server) = start();
    let send = under("--ignore-signal=HUP", &send(&server.url(), &[]));
    let mut sending = waiting(&home, send, "failures");
    kill("HUP", sending.id());
    sending.write("c,,\n");
    let ended = sending.end();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stdout.contains("3 delivered, 1 failed"), "{ended:?}");
}

#[test]
#[cfg(target_os = "linux")]
fn send_ends_on_a_signal_before_it_can_begin() {
    let (home, server) = start();
    let url = server.url();
    // For somebody who writes its input.
    let sending = Process::spawn(&mut send(&url, &[&fifo(&home)]));
    listens(sending.id());
    kill("TERM", sending.id());
    let asked = Instant::now();
    let ended = sending.wait();
    assert!(asked.elapsed() < SOON, "{ended:?}");
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("nothing was sent: stopped by SIGTERM"),
        "{ended:?}"
    );
}

#[test]
#[cfg(target_os = "linux")]
fn send_ends_on_a_signal_even_where_it_cannot_hear() {
    let (home, server) = start();
    let fifo = fifo(&home);
    // More failures than a pipe holds that is not read on.
    let rows = format!("user_id,email,x\n{}", ",,v\n".repeat(2_000));
    let stuck = || {
        let mut sending = Process::spawn(&mut send(&server.url(), &["--failures", &fifo, "-"]));
        sending.write(&rows);
        let mut failures = fs::File::open(&fifo).unwrap();
        failures.read_exact(&mut [0]).unwrap();
        (sending, failures, Instant::now())
    };
    let (sending, failures, asked) = stuck();
    kill("TERM", sending.id());
    let ended = sending.wait();
    assert!(asked.elapsed() < SOON, "{ended:?}");
    assert_eq!(ended.code, Some(2), "{ended:?}");
    // And with it what the pipe holds.
    drop(failures);

    let (sending, _failures, asked) = stuck();
    until("end", || {
        kill("TERM", sending.id());
        let stat = fs::read_to_string(format!("/proc/{}/stat", sending.id())).unwrap();
        stat.contains(") Z ").then_some(())
    });
    assert!(asked.elapsed() < SOON / 2, "{:?}", asked.elapsed());
    assert_eq!(sending.wait().code, Some(2));
}

/// A pipe that nobody else has open.
fn fifo(home: &TempDir) -> String {
    let fifo = home.path().join("fifo");
    let made = Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    fifo.to_str().unwrap().to_owned()
}

/// The same command as the first process of a container, where signals have no default.
fn as_first(inner: &Command) -> Command {
    let mut outer = Command::new("unshare");
    outer
        .args([
            "--user",
            "--map-root-user",
            "--pid",
            "--fork",
            "--kill-child",
        ])
        .arg(inner.get_program())
        .args(inner.get_args());
    outer
}

/// The process that is the first one in there.
fn first(outer: &Process) -> u32 {
    let id = outer.id();
    until("child", || {
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
        children.trim().parse().ok()
    })
}

#[test]
#[cfg(target_os = "linux")]
fn every_command_ends_on_sigterm_as_the_first_process_of_a_container() {
    if run_with(&mut as_first(&Command::new("true")), "").code != Some(0) {
        // Not allowed here: containers seldom may make others.
        return;
    }
    let (home, server) = start();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let nowhere = format!("http://{}", silent.local_addr().unwrap());
    let in_order = |process: Process, code| {
        let inner = first(&process);
        listens(inner);
        kill("TERM", inner);
        let asked = Instant::now();
        let ended = process.wait();
        assert!(asked.elapsed() < SOON, "{ended:?}");
        assert_eq!(ended.code, Some(code), "{ended:?}");
        ended
    };
    let sending = waiting(&home, as_first(&send(&server.url(), &[])), "failures");
    assert!(in_order(sending, 2).stderr.contains("up to line 4"));

    let validate = command(&[
        "validate",
        "--server",
        &nowhere,
        "--destination",
        DESTINATION,
    ]);
    let validating = Process::spawn(&mut as_first(&validate));
    assert!(
        in_order(validating, 2)
            .stderr
            .contains("stopped by SIGTERM")
    );
    // One that waits for a token on standard input.
    let mut validate = command(&["validate", "--server", &nowhere, "--client-side-id=x"]);
    validate.arg("--access-token-file=-");
    in_order(Process::spawn(&mut as_first(&validate)), 2);
    let health = command(&["health", "--server", &nowhere, "--timeout=1h"]);
    in_order(Process::spawn(&mut as_first(&health)), 1);

    let mut sandbox = Process::spawn(&mut as_first(&command(&[
        "sandbox",
        "--listen=127.0.0.1:0",
    ])));
    sandbox.says("faults, limits");
    in_order(sandbox, 0);
    let mut demo = Process::spawn(&mut as_first(&command(&["demo", "--keep-running"])));
    demo.says("/_sandbox/segments");
    in_order(demo, 0);
}
