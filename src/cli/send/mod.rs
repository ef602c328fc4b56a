//! `send`: streams records from a file or standard input into a destination.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use tokio::sync::{mpsc, oneshot};
use tonic::Code;
use uuid::Uuid;

use self::{
    input::{BadInput, Format},
    mapping::MapArg,
    report::{FailureFile, Progress, Tally},
    stream::Event,
    window::Row,
};
use super::{Exit, remote, remote::ServerArgs, say};
use crate::{
    backoff::Backoff,
    config::duration,
    pb::{self, identifier_record::Operation},
};

pub(super) mod input;
mod mapping;
mod patience;
pub(super) mod report;
pub(super) mod stream;
pub(super) mod window;

/// Rows between the thread that reads and the task that sends: enough for neither to wait.
const ROWS_AHEAD: usize = 1_000;
/// Longest wait for the answer of a unary call.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Pauses between streams: quick at first, since another server is often ready, and gentle to a
/// server that starts with many senders waiting for it.
pub(crate) const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(200),
    longest: Duration::from_secs(10),
};

/// Flags of `send`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct SendArgs {
    #[command(flatten)]
    server: ServerArgs,

    /// Destination, as organizations/{organization}/destinations/{destination}
    #[arg(long, value_name = "NAME")]
    destination: String,

    /// Stable ID of the segment; LaunchDarkly creates it on the first call
    #[arg(long, value_name = "ID")]
    segment_id: String,

    /// Name of the segment as people see it
    #[arg(long, value_name = "NAME")]
    segment_name: String,

    /// Replaces the destination's mapping, such as context_key=user_id,email:trim,lowercase
    /// (transforms: trim, lowercase, sha256, nfc)
    #[arg(long, value_name = "MAPPING")]
    map: Vec<MapArg>,

    /// Names this log of records; a newer stream of the same ID takes over from an older one
    /// [default: a new one]
    #[arg(long, value_name = "ID")]
    stream_id: Option<String>,

    /// How long the server tries one record, 1s to 1h [default: the server's]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    delivery_timeout: Option<Duration>,

    /// Check and map every record, and deliver none
    #[arg(long)]
    validate_only: bool,

    /// How the input is written [default: by its file name]
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,

    /// What to do with records that do not say
    #[arg(long, value_name = "OPERATION", default_value = "add")]
    operation: DefaultOperation,

    /// Write failed records here: line, sequence, code, reason and message as NDJSON
    #[arg(long, value_name = "FILE")]
    failures: Option<PathBuf>,

    /// Stop after so long without a stream, or without a result that was due
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration::parse)]
    give_up_after: Duration,

    /// Input; - for standard input
    #[arg(value_name = "FILE", default_value = "-")]
    input: PathBuf,
}

const AFTER_HELP: &str = "\
CSV: the first line names the identifiers; a column `operation` holds add or remove; an empty cell \
is an absent identifier.
NDJSON: one object a line, {\"identifiers\":{\"user_id\":\"u-1\"},\"operation\":\"add\"} or flat, \
{\"user_id\":\"u-1\",\"operation\":\"add\"}; without `operation`, --operation decides.

A lost connection is taken up again, and what the server has not committed is sent again.

Exit code: 0 all records delivered, 1 some failed, 2 not finished.";

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum DefaultOperation {
    Add,
    Remove,
}

/// Runs the command.
pub(super) async fn run(args: SendArgs) -> Exit {
    match send(&args).await {
        Ok(exit) => exit,
        Err(error) => Exit::unable(&error),
    }
}

async fn send(args: &SendArgs) -> anyhow::Result<Exit> {
    let source = Source::open(&args.input)?;
    let input = input::Settings {
        format: args.format()?,
        operation: args.operation(),
        mapped: args.mapped_identifiers().await?,
    };
    let mut watcher = Watcher::new(source.bytes, args.failures.as_deref())?;
    let (rows, reading) = source.start(input);
    let settings = args.stream();
    let sent = tokio::select! {
        sent = stream::run(&settings, rows, |event| watcher.hear(&event)) => {
            sent.map_err(anyhow::Error::from)
        }
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    let tally = watcher.end()?;
    if args.validate_only {
        say("checked only: nothing was delivered");
    }
    if let Err(error) = sent {
        return Err(error.context(not_finished(&tally)));
    }
    // The reader says how it ended before it closes the channel, whose end was seen.
    reading
        .await
        .context("the reader stopped")?
        .with_context(|| {
            format!(
                "{} (the {} records before it were sent)",
                args.input.display(),
                tally.records()
            )
        })?;
    Ok(if tally.failures() == 0 {
        Exit::Done
    } else {
        Exit::Negative
    })
}

/// Says from where to send again.
fn not_finished(tally: &Tally) -> String {
    match tally.line {
        0 => "not finished: no record has a result".into(),
        line => format!("not finished: the records up to line {line} have results"),
    }
}

impl SendArgs {
    fn stream(&self) -> stream::Settings {
        let stream_id = self.stream_id.clone();
        stream::Settings {
            endpoint: self.server.server.clone(),
            open: pb::OpenStream {
                destination: self.destination.clone(),
                activation: Some(pb::Activation {
                    segment_id: self.segment_id.clone(),
                    segment_name: self.segment_name.clone(),
                    field_mappings: self
                        .map
                        .iter()
                        .map(|MapArg(mapping)| mapping.clone())
                        .collect(),
                }),
                // Without one, a stream that replaces a lost one would not fence it.
                stream_id: stream_id.unwrap_or_else(|| format!("send-{}", Uuid::new_v4())),
                delivery_timeout: self.delivery_timeout.and_then(|time| time.try_into().ok()),
                validate_only: self.validate_only,
            },
            give_up_after: self.give_up_after,
            backoff: BACKOFF,
        }
    }

    fn operation(&self) -> Operation {
        match self.operation {
            DefaultOperation::Add => Operation::Add,
            DefaultOperation::Remove => Operation::Remove,
        }
    }

    fn format(&self) -> anyhow::Result<Format> {
        let extension = self
            .input
            .extension()
            .and_then(|extension| extension.to_str());
        match (self.format, extension) {
            (Some(format), _) => Ok(format),
            (None, Some("csv")) => Ok(Format::Csv),
            (None, Some("ndjson" | "jsonl")) => Ok(Format::Ndjson),
            _ => bail!("say --format csv or --format ndjson; the file name does not tell"),
        }
    }

    /// The identifiers that the mapping takes, to find a CSV with a wrong header before every one
    /// of its records fails. Where the server does not tell, the stream will say why.
    async fn mapped_identifiers(&self) -> anyhow::Result<Vec<String>> {
        let own: Vec<_> = self
            .map
            .iter()
            .flat_map(|MapArg(map)| map.sources.clone())
            .collect();
        if !own.is_empty() {
            return Ok(own);
        }
        match tokio::time::timeout(CALL_TIMEOUT, self.get_destination()).await {
            Ok(Ok(destination)) => {
                let mappings = destination.field_mappings.into_iter();
                Ok(mappings.flat_map(|mapping| mapping.sources).collect())
            }
            Ok(Err(status)) if matches!(status.code(), Code::NotFound | Code::InvalidArgument) => {
                bail!(remote::describe(&status))
            }
            Ok(Err(_)) | Err(_) => Ok(Vec::new()),
        }
    }

    async fn get_destination(&self) -> Result<pb::Destination, tonic::Status> {
        let name = self.destination.clone();
        let mut client = remote::connect(&self.server.server).await?;
        let got = client
            .get_destination(pb::GetDestinationRequest { name })
            .await?;
        Ok(got.into_inner())
    }
}

/// An input that is open and not yet read.
struct Source {
    input: Box<dyn BufRead + Send>,
    /// Its length, if it is a file.
    bytes: Option<u64>,
}

impl Source {
    fn open(path: &Path) -> anyhow::Result<Self> {
        if path.as_os_str() == "-" {
            let input = Box::new(BufReader::new(io::stdin()));
            return Ok(Self { input, bytes: None });
        }
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let metadata = file.metadata()?;
        Ok(Self {
            input: Box::new(BufReader::new(file)),
            bytes: metadata.is_file().then_some(metadata.len()),
        })
    }

    /// Reads on a thread of its own, since standard input blocks. Nobody joins it: it ends with
    /// its input, when nobody takes its rows any more, or with the process.
    fn start(
        self,
        settings: input::Settings,
    ) -> (mpsc::Receiver<Row>, oneshot::Receiver<Result<(), BadInput>>) {
        let (rows, taken) = mpsc::channel(ROWS_AHEAD);
        let (end, ended) = oneshot::channel();
        std::thread::spawn(move || {
            let read = input::read(self.input, &settings, |row| rows.blocking_send(row).is_ok());
            // Without a listener the command is over already.
            end.send(read).ok();
        });
        (taken, ended)
    }
}

/// Counts, shows and writes down what happens.
struct Watcher {
    tally: Tally,
    progress: Progress,
    failures: Option<FailureFile>,
    /// Why the file of failures is not complete.
    broken: Option<io::Error>,
}

impl Watcher {
    fn new(bytes: Option<u64>, failures: Option<&Path>) -> anyhow::Result<Self> {
        let create = |path: &Path| {
            FailureFile::create(path).with_context(|| format!("cannot create {}", path.display()))
        };
        Ok(Self {
            tally: Tally::default(),
            progress: Progress::new(bytes),
            failures: failures.map(create).transpose()?,
            broken: None,
        })
    }

    fn hear(&mut self, event: &Event<'_>) {
        if let Event::Settled(settled) = event {
            for record in *settled {
                self.tally.count(record);
                let written = self
                    .failures
                    .as_mut()
                    .map_or(Ok(()), |file| file.write(record));
                self.broken = self.broken.take().or(written.err());
            }
            self.progress.show(&self.tally);
        }
        self.progress.tell(event);
    }

    fn end(self) -> anyhow::Result<Tally> {
        self.progress.end();
        say(&self.tally);
        match self.broken {
            None => Ok(self.tally),
            Some(error) => Err(error).context("the file of failures is not complete"),
        }
    }
}
