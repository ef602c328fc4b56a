//! `send`: streams records from a file or standard input into a destination.

use std::{
    cell::RefCell,
    convert::Infallible,
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use tokio::sync::{mpsc, oneshot};
use tonic::Code;
use uuid::Uuid;

use self::{
    input::{BadInput, Findings, Item, Reach},
    mapping::MapArg,
    reading::ReadingArgs,
    report::{FailureFile, Progress, Tally},
    stream::Event,
    window::Row,
};
use super::{Exit, remote, remote::ServerArgs, say};
use crate::{backoff::Backoff, config::duration, pb};

pub(super) mod input;
mod mapping;
mod patience;
mod reading;
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

    #[command(flatten)]
    reading: ReadingArgs,

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
is an absent identifier. Files may be compressed with gzip.
NDJSON: one object a line, {\"identifiers\":{\"user_id\":\"u-1\"},\"operation\":\"add\"} or flat, \
{\"user_id\":\"u-1\",\"operation\":\"add\"}; without `operation`, --operation decides.

A lost connection is taken up again, and what the server has not committed is sent again.

Exit code: 0 all records delivered, 1 some failed, 2 not finished.";

/// Runs the command.
pub(super) async fn run(args: SendArgs) -> Exit {
    match send(&args).await {
        Ok(exit) => exit,
        Err(error) => Exit::unable(&error),
    }
}

async fn send(args: &SendArgs) -> anyhow::Result<Exit> {
    let source = Source::open(&args.input)?;
    let mapping = args.mapping().await?;
    let mapped = mapping.iter().flat_map(|map| map.sources.clone());
    let input = args.reading.settings(&args.input, mapped.collect())?;
    let watcher = RefCell::new(Watcher::new(source.bytes, args.failures.as_deref())?);
    let mut reading = source.start(input);
    let settings = args.stream(mapping);
    let sent = tokio::select! {
        sent = stream::run(&settings, reading.rows, |event| watcher.borrow_mut().hear(&event)) => {
            sent.map_err(anyhow::Error::from)
        }
        never = reading.asides.tell(&watcher) => match never {},
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    let mut watcher = watcher.into_inner();
    reading.asides.tell_rest(&mut watcher);
    let tally = watcher.end()?;
    if args.validate_only {
        say("checked only: nothing was delivered");
    }
    if let Err(error) = sent {
        return Err(error.context(not_finished(&tally)));
    }
    // It has ended, since the end of its rows was seen.
    let (findings, read) = reading.end.await.context("the reader stopped")?;
    let found = findings.to_string();
    if !found.is_empty() {
        say(found);
    }
    read.map_err(|bad| {
        let way_out = match bad.reach {
            Reach::Row => "; --bad-rows skip leaves such rows out",
            Reach::Rest => "",
        };
        let input = args.input.display();
        let before = tally.records();
        anyhow!("{input} (the {before} records before it have results): {bad}{way_out}")
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
    /// Streams by the mapping that the input is read by, also if the destination's changes meanwhile.
    fn stream(&self, mapping: Vec<pb::FieldMapping>) -> stream::Settings {
        let stream_id = self.stream_id.clone();
        stream::Settings {
            endpoint: self.server.server.clone(),
            open: pb::OpenStream {
                destination: self.destination.clone(),
                activation: Some(pb::Activation {
                    segment_id: self.segment_id.clone(),
                    segment_name: self.segment_name.clone(),
                    field_mappings: mapping,
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

    /// The mapping that will hold, to find a file with wrong names before every one of its records
    /// fails. Nothing where the server does not tell: the stream will say why.
    async fn mapping(&self) -> anyhow::Result<Vec<pb::FieldMapping>> {
        if !self.map.is_empty() {
            return Ok(self.map.iter().map(|MapArg(map)| map.clone()).collect());
        }
        match tokio::time::timeout(CALL_TIMEOUT, self.get_destination()).await {
            Ok(Ok(destination)) => Ok(destination.field_mappings),
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
    fn start(self, settings: input::Settings) -> Reading {
        let (rows, taken) = mpsc::channel(ROWS_AHEAD);
        let (asides, heard) = mpsc::channel(ROWS_AHEAD);
        let (end, ended) = oneshot::channel();
        std::thread::spawn(move || {
            let mut findings = Findings::default();
            let read = input::read(self.input, &settings, &mut findings, |item| match item {
                Item::Row(row) => rows.blocking_send(row).is_ok(),
                Item::Bad(bad) => asides.blocking_send(Aside::Bad(bad)).is_ok(),
                Item::Note(note) => asides.blocking_send(Aside::Note(note)).is_ok(),
            });
            // Without a listener the command is over already.
            end.send((findings, read)).ok();
        });
        Reading {
            rows: taken,
            asides: Asides(heard),
            end: ended,
        }
    }
}

/// An input that is being read.
struct Reading {
    rows: mpsc::Receiver<Row>,
    asides: Asides,
    /// What was found, and how it ended.
    end: oneshot::Receiver<(Findings, Result<(), BadInput>)>,
}

/// What an input holds beside rows to send.
enum Aside {
    Bad(BadInput),
    Note(String),
}

/// Bounded like the rows: the reader waits until it is heard.
struct Asides(mpsc::Receiver<Aside>);

impl Asides {
    /// Tells what comes, for ever. Cancel safe.
    async fn tell(&mut self, watcher: &RefCell<Watcher>) -> Infallible {
        while let Some(aside) = self.0.recv().await {
            watcher.borrow_mut().hear_aside(&aside);
        }
        std::future::pending().await
    }

    /// Tells what has come.
    fn tell_rest(&mut self, watcher: &mut Watcher) {
        while let Ok(aside) = self.0.try_recv() {
            watcher.hear_aside(&aside);
        }
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

    fn hear_aside(&mut self, aside: &Aside) {
        match aside {
            Aside::Note(note) => self.progress.say(note),
            Aside::Bad(bad) => {
                self.tally.count_bad_row();
                let file = self.failures.as_mut();
                let written = file.map_or(Ok(()), |file| file.write_bad_row(bad));
                self.broken = self.broken.take().or(written.err());
            }
        }
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
