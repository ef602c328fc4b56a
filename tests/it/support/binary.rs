//! The binary as it was built, run as people run it.

use std::{
    env,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

/// Far above what anything here takes, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a command that ended left behind.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A command of the binary, without settings from this process's environment.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_launchdarkly-connector"));
    for (name, _) in env::vars().filter(|(name, _)| name.starts_with("CONNECTOR_")) {
        command.env_remove(name);
    }
    command.args(args);
    command
}

/// Runs a command to its end.
pub(crate) fn run(args: &[&str]) -> Ended {
    run_with(&mut command(args), "")
}

/// Runs a command to its end, with something on its standard input.
pub(crate) fn run_with(command: &mut Command, stdin: &str) -> Ended {
    let mut process = Process::spawn(command);
    process.write(stdin);
    process.end()
}

/// A running command; killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Lines,
    stderr: Lines,
}

impl Process {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        Self {
            stdin: child.stdin.take(),
            stdout: Lines::of(child.stdout.take().unwrap()),
            stderr: Lines::of(child.stderr.take().unwrap()),
            child,
        }
    }

    /// Writes to its standard input. A command that does not read it may be gone already.
    pub(crate) fn write(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin
            .write_all(text.as_bytes())
            .and_then(|()| stdin.flush())
            .ok();
    }

    /// Waits for a line of its standard output that holds a text.
    pub(crate) fn says(&mut self, text: &str) -> String {
        self.stdout.until(|line| line.contains(text))
    }

    /// Waits for a line of its standard error that holds a text.
    pub(crate) fn complains(&mut self, text: &str) -> String {
        self.stderr.until(|line| line.contains(text))
    }

    /// Closes its standard input and waits until it ends.
    pub(crate) fn end(mut self) -> Ended {
        drop(self.stdin.take());
        self.wait()
    }

    /// Waits until it ends by itself, with its standard input open.
    pub(crate) fn wait(mut self) -> Ended {
        let (stdout, stderr) = (self.stdout.rest(), self.stderr.rest());
        let code = self.child.wait().unwrap().code();
        Ended {
            code,
            stdout,
            stderr,
        }
    }

    /// Its process ID.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to stop as a supervisor does, and waits until it ends.
    pub(crate) fn terminate(self) -> Ended {
        self.signal("TERM");
        self.end()
    }

    pub(crate) fn signal(&self, signal: &str) -> ExitStatus {
        let kill = format!("kill -{signal} {}", self.id());
        Command::new("sh").args(["-c", &kill]).status().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Lines of a pipe, read by a thread that ends with the pipe.
#[derive(Debug)]
struct Lines {
    coming: mpsc::Receiver<String>,
    seen: String,
}

impl Lines {
    fn of(pipe: impl Read + Send + 'static) -> Self {
        let (lines, coming) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                if lines.send(line).is_err() {
                    return;
                }
            }
        });
        let seen = String::new();
        Self { coming, seen }
    }

    fn until(&mut self, is_it: impl Fn(&str) -> bool) -> String {
        loop {
            match self.coming.recv_timeout(PATIENCE) {
                Ok(line) => {
                    self.seen += &format!("{line}\n");
                    if is_it(&line) {
                        return line;
                    }
                }
                Err(why) => panic!("{why} after:\n{}", self.seen),
            }
        }
    }

    /// All of it, once the pipe is closed.
    fn rest(&mut self) -> String {
        loop {
            match self.coming.recv_timeout(PATIENCE) {
                Ok(line) => self.seen += &format!("{line}\n"),
                Err(mpsc::RecvTimeoutError::Disconnected) => return self.seen.clone(),
                Err(why) => panic!("{why} after:\n{}", self.seen),
            }
        }
    }
}

/// `serve` on a free port, with a fresh database and fresh keys.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) process: Process,
    /// Where the service listens.
    pub(crate) address: String,
    /// Where its sandbox listens, if it has one.
    pub(crate) sandbox: Option<String>,
}

impl Server {
    /// With a sandbox beside it.
    pub(crate) fn with_sandbox(home: &TempDir) -> Self {
        let flags = ["--sandbox", "--sandbox-listen=127.0.0.1:0"];
        Self::start(home, "127.0.0.1:0", &flags)
    }

    pub(crate) fn start(home: &TempDir, listen: &str, flags: &[&str]) -> Self {
        let keys = home.path().join("keys");
        if !keys.exists() {
            std::fs::write(&keys, run(&["keygen"]).stdout).unwrap();
        }
        let store = format!("sqlite:{}", home.path().join("store.db").display());
        let mut serve = command(&["serve", "--log-format=json", "--listen", listen, "--store"]);
        serve.args([&store, "--keys-file"]).arg(&keys).args(flags);
        let mut process = Process::spawn(&mut serve);
        let with_sandbox = flags.contains(&"--sandbox");
        let sandbox = with_sandbox.then(|| address(&process.complains("sandbox in the place")));
        let address = address(&process.complains("serving gRPC"));
        Self {
            process,
            address,
            sandbox,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// The address that a line of the log tells.
pub(crate) fn address(line: &str) -> String {
    let line: Value = serde_json::from_str(line).unwrap();
    line["address"].as_str().unwrap().to_owned()
}

/// Asks a sandbox.
pub(crate) fn ask(address: &str, path: &str) -> Value {
    serde_json::from_str(&get(address, path)).unwrap()
}

/// Gets a page.
pub(crate) fn get(address: &str, path: &str) -> String {
    get_with(address, path, "").1
}

/// Gets a page with another header line; its head, and what follows. By HTTP/1.0, so that the
/// answer ends with the connection.
pub(crate) fn get_with(address: &str, path: &str, header: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n{header}\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

/// The members of a segment in a sandbox's first environment, in order; nobody if there is none.
pub(crate) fn members(sandbox: &str, segment: &str) -> Vec<String> {
    let environment = launchdarkly_connector::sandbox::fixtures::CLIENT_SIDE_ID;
    let segment = ask(
        sandbox,
        &format!("/_sandbox/segments/{environment}/{segment}"),
    );
    let members = segment["members"].as_array().into_iter().flatten();
    members
        .map(|key| key.as_str().unwrap().to_owned())
        .collect()
}
