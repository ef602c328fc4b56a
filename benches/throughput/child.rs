//! A server in a process of its own, and what the kernel counts of it.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context, ensure};
use launchdarkly_connector::{
    pb::{self, destination_connector_client::DestinationConnectorClient},
    store::KeyRing,
};
use tempfile::TempDir;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};
use tonic::Code;

use crate::{options::Options, vendor::Vendor};

/// Tells a child its role.
const ROLE: &str = "BENCH_ROLE";
/// The line of the log that names the address.
pub(crate) const SERVING: &str = "serving gRPC";
/// Many times what a start takes.
const START: Duration = Duration::from_secs(20);
/// Ticks of `/proc/PID/stat` a second: the kernel shows user space the same on every machine.
const TICKS: f64 = 100.0;

const PARENT: &str = "organizations/bench";
/// Of the form that LaunchDarkly's have; they open nothing.
const ACCESS_TOKEN: &str = "api-00000000-0000-4000-8000-000000000001";
const CLIENT_SIDE_ID: &str = "5a0000000000000000000001";

/// What this executable is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The service, by the command line of its binary.
    Server,
    /// The server that it is compared with.
    Echo,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Echo => "echo",
        }
    }

    /// None for the parent.
    pub(crate) fn of_this_process() -> Option<Self> {
        let name = env::var(ROLE).ok()?;
        [Self::Server, Self::Echo]
            .into_iter()
            .find(|role| role.name() == name)
    }

    /// Ends this process once its parent is gone, in whatever way: then its standard input is
    /// closed.
    pub(crate) fn end_with_parent() {
        thread::spawn(|| {
            std::io::stdin().read_to_end(&mut Vec::new()).ok();
            process::exit(0);
        });
    }
}

/// What a pair compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    This,
    Other,
}

/// Starts servers.
#[derive(Debug)]
pub(crate) struct Servers {
    pub(crate) vendor: Arc<Vendor>,
    this: Program,
    other: Program,
}

#[derive(Debug)]
enum Program {
    Role(Role),
    Binary(PathBuf),
}

impl Servers {
    pub(crate) fn new(options: &Options, vendor: Arc<Vendor>) -> Self {
        let program = |path: &Option<PathBuf>, role| match path {
            Some(path) => Program::Binary(path.clone()),
            None => Program::Role(role),
        };
        Self {
            vendor,
            this: program(&options.server, Role::Server),
            other: program(&options.against, Role::Echo),
        }
    }

    /// Starts a server, and waits until it answers.
    pub(crate) async fn start(&self, side: Side) -> anyhow::Result<Child> {
        let program = match side {
            Side::This => &self.this,
            Side::Other => &self.other,
        };
        timeout(START, Child::start(program, &self.vendor))
            .await
            .context("a server does not start")?
    }
}

/// A running server; killed when dropped.
#[derive(Debug)]
pub(crate) struct Child {
    process: process::Child,
    pub(crate) address: SocketAddr,
    /// From its start to its first answer.
    pub(crate) ready: Duration,
    /// Where records go to.
    pub(crate) destination: String,
    _home: TempDir,
}

impl Child {
    async fn start(program: &Program, vendor: &Vendor) -> anyhow::Result<Self> {
        let home = tempfile::tempdir()?;
        let mut command = match program {
            Program::Role(role) => {
                let mut command = Command::new(env::current_exe()?);
                command.env(ROLE, role.name());
                command
            }
            Program::Binary(path) => Command::new(path),
        };
        for (name, _) in env::vars().filter(|(name, _)| name.starts_with("CONNECTOR_")) {
            command.env_remove(name);
        }
        let is_echo = matches!(program, Program::Role(Role::Echo));
        if !is_echo {
            command.args(serve(home.path(), vendor)?);
        }
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());

        let start = Instant::now();
        let process = command.spawn().context("a server cannot be started")?;
        let mut child = Self {
            process,
            address: ([127, 0, 0, 1], 0).into(),
            ready: Duration::ZERO,
            destination: String::new(),
            _home: home,
        };
        child.address = child.serving().await?;
        let url = format!("http://{}", child.address);
        let mut client = DestinationConnectorClient::connect(url).await?;
        let described = client.describe_actions(pb::DescribeActionsRequest::default());
        match described.await {
            Err(status) if !(is_echo && status.code() == Code::Unimplemented) => {
                return Err(status.into());
            }
            _ => child.ready = start.elapsed(),
        }
        if !is_echo {
            let created = client.create_destination(creation()).await?;
            child.destination = created.into_inner().name;
        }
        Ok(child)
    }

    /// Where it says that it serves. What else it says is shown.
    async fn serving(&mut self) -> anyhow::Result<SocketAddr> {
        let (said, serving) = oneshot::channel();
        let mut said = Some(said);
        let stderr = self.process.stderr.take().context("stderr is a pipe")?;
        // Ends with the process.
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                match said.take_if(|_| line.contains(SERVING)) {
                    Some(said) => said.send(line).unwrap_or_default(),
                    None => eprintln!("a server says: {line}"),
                }
            }
        });
        let line = serving.await.context("the server ended")?;
        let line: serde_json::Value = serde_json::from_str(&line)?;
        let address = line["address"].as_str().context("no address in the log")?;
        Ok(address.parse()?)
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// CPU seconds so far, in user space and in the kernel for it.
    pub(crate) fn cpu(&self) -> anyhow::Result<f64> {
        let stat = self.proc("stat")?;
        // The name may hold blanks; it is in parentheses.
        let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        // utime and stime are the fields 14 and 15 of proc(5); the third comes first here.
        let ticks = |field: usize| -> anyhow::Result<f64> { Ok(fields[field - 3].parse()?) };
        ensure!(fields.len() > 12, "stat is too short");
        Ok((ticks(14)? + ticks(15)?) / TICKS)
    }

    /// A size in KiB, by its name in `/proc/PID/status`.
    pub(crate) fn kib(&self, name: &str) -> anyhow::Result<u64> {
        let status = self.proc("status")?;
        let line = status.lines().find(|line| line.starts_with(name));
        let size = line.and_then(|line| line.split_whitespace().nth(1));
        Ok(size.with_context(|| format!("no {name}"))?.parse()?)
    }

    fn proc(&self, file: &str) -> anyhow::Result<String> {
        let path = format!("/proc/{}/{file}", self.id());
        fs::read_to_string(path).context("the server is gone")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// The command line of `serve`: the defaults, and room for many streams.
fn serve(home: &Path, vendor: &Vendor) -> anyhow::Result<Vec<String>> {
    let keys = home.join("keys");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&keys)?;
    file.write_all(KeyRing::generate_line().as_bytes())?;
    Ok(vec![
        "serve".into(),
        "--listen=127.0.0.1:0".into(),
        format!("--store=sqlite:{}", home.join("store.db").display()),
        format!("--keys-file={}", keys.display()),
        format!("--launchdarkly-url=http://{}", vendor.address),
        "--log-format=json".into(),
        "--log=warn,launchdarkly_connector::cli=info".into(),
        "--max-streams=100000".into(),
    ])
}

fn creation() -> pb::CreateDestinationRequest {
    let config = pb::LaunchDarklyConfig {
        access_token: ACCESS_TOKEN.into(),
        client_side_id: CLIENT_SIDE_ID.into(),
        ..Default::default()
    };
    pb::CreateDestinationRequest {
        parent: PARENT.into(),
        destination_id: "launchdarkly".into(),
        destination: Some(pb::Destination {
            display_name: "LaunchDarkly".into(),
            action: "send-identifiers".into(),
            config: Some(pb::destination::Config::LaunchDarkly(config)),
            field_mappings: vec![pb::FieldMapping {
                field: "context_key".into(),
                sources: vec!["user_id".into()],
                transforms: vec![],
            }],
            ..Default::default()
        }),
        ..Default::default()
    }
}
