//! `send`: streams records from a file or standard input into a destination.

use std::{
    cell::RefCell,
    convert::Infallible,
    fs::File,
    io::{self, BufRead, BufReader},
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, anyhow};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use self::{
    failures::{FailureFile, FailureRecord},
    input::{BadInput, ErrorExtent, Findings, InputItem, InputOptions},
    input_args::InputArgs,
    mapping::MapArg,
    options::TransferOptions,
    outcome::{SendError, SendEvent, Unfinished},
    report::{Progress, SendTally},
    window::InputRow,
};
use super::{
    Exit, on_detached_thread,
    remote::{Server, ServerArgs},
    say,
    stop::Stop,
    terminal::inline,
};
use crate::{backoff::Backoff, config::duration, pb};

mod attempt_error;
mod failures;
pub(super) mod input;
mod input_args;
mod lookup;
mod mapping;
pub(super) mod options;
pub(super) mod outcome;
pub(super) mod report;
mod retry_timer;
pub(super) mod transfer;
pub(super) mod window;

/// Rows buffered between the thread that reads and the task that sends: enough that neither waits.
const ROWS_AHEAD: usize = 1_000;
/// Reason of rows that could not be read as records, beside those that servers give.
const BAD_ROW: &str = "BAD_ROW";
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

    /// Context kind of the members [default: user]
    #[arg(long, value_name = "KIND")]
    context_kind: Option<String>,

    #[arg(long, value_name = "MAPPING", help = mapping::help())]
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
    reading: InputArgs,

    /// Write failed records here: line, sequence, code, reason and message as NDJSON. The file is
    /// made, or emptied, once a stream is open
    #[arg(long, value_name = "FILE")]
    failures: Option<PathBuf>,

    /// Give up after so long without a stream; or, once records had their whole delivery time-out,
    /// so much longer without a result
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
    let sent = match Stop::on_signals(Exit::Unable) {
        Ok(stop) => send(&args, &stop).await,
        Err(error) => Err(error).context("cannot listen for signals"),
    };
    sent.unwrap_or_else(|error| Exit::unable(&error))
}

async fn send(args: &SendArgs, stop: &Stop) -> anyhow::Result<Exit> {
    let prepared = tokio::select! {
        biased;
        signal = stop.asked() => Err(anyhow!("stopped by {signal}")),
        prepared = prepare(args) => prepared,
    };
    let Prepared {
        source,
        input,
        options,
        reporter,
    } = prepared.context("nothing was sent")?;
    let reporter = RefCell::new(reporter);
    let mut reading = source.start(input);
    let handle = |event: SendEvent<'_>| reporter.borrow_mut().handle(&event);
    let sent = tokio::select! {
        sent = transfer::run(&options, reading.rows, stop.asked(), handle) => sent,
        never = reading.side_items.forward(&reporter) => match never {},
    };
    let mut reporter = reporter.into_inner();
    reading.side_items.forward_rest(&mut reporter);
    let tally = reporter.end(sent)?;
    if args.validate_only {
        say("checked only: nothing was delivered");
    }
    // It has ended, since the end of its rows was seen.
    let (findings, read) = reading.end.await.context("the reader stopped")?;
    let found = findings.to_string();
    if !found.is_empty() {
        say(found);
    }
    read.map_err(|bad| {
        let way_out = match bad.extent {
            ErrorExtent::Row => "; --bad-rows skip leaves such rows out",
            ErrorExtent::Rest => "",
        };
        let (input, bad) = (inline(args.input.display()), inline(bad));
        let before = tally.records();
        anyhow!("{input} (the {before} records before it have results): {bad}{way_out}")
    })?;
    Ok(if tally.failures() == 0 {
        Exit::Done
    } else {
        Exit::Negative
    })
}

/// Everything that is prepared before a stream opens.
struct Prepared {
    source: Source,
    input: InputOptions,
    options: TransferOptions,
    reporter: SendReporter,
}

async fn prepare(args: &SendArgs) -> anyhow::Result<Prepared> {
    let server = args.server.server()?;
    let plan = |path: &PathBuf| FailureFile::plan(path, &args.input);
    let failures = args.failures.as_ref().map(plan).transpose()?;
    let input = args.input.clone();
    let source = on_detached_thread(move || Source::open(&input)).await??;
    let mut reporter = SendReporter::new(source.bytes, failures);
    let mapping = args.mapping(&server, &mut reporter).await?;
    let mapped = mapping.iter().flat_map(|map| map.sources.clone());
    let input = args.reading.options(&args.input, mapped.collect())?;
    Ok(Prepared {
        source,
        input,
        options: args.stream(server, mapping),
        reporter,
    })
}

/// Prints from where to send again.
fn not_finished(tally: &SendTally, next_line: Option<u64>) -> String {
    match (tally.line, next_line) {
        (0, _) => "not finished: no record has a result; send all of it again".into(),
        (_, Some(next)) => format!(
            "not finished: all records before line {next} have results; go on from line {next}"
        ),
        (line, None) => format!(
            "not finished: the records up to line {line} have results; go on with what follows"
        ),
    }
}

impl SendArgs {
    /// Streams by the mapping that the input is read by, also if the destination's changes
    /// meanwhile.
    fn stream(&self, server: Server, mapping: Vec<pb::FieldMapping>) -> TransferOptions {
        let stream_id = self.stream_id.clone();
        TransferOptions {
            server,
            open: pb::OpenStream {
                destination: self.destination.clone(),
                activation: Some(pb::Activation {
                    segment_id: self.segment_id.clone(),
                    segment_name: self.segment_name.clone(),
                    field_mappings: mapping,
                    context_kind: self.context_kind.clone().unwrap_or_default(),
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

    /// The mapping that will be used, to find a file with wrong names before all of its records
    /// fail.
    async fn mapping(
        &self,
        server: &Server,
        reporter: &mut SendReporter,
    ) -> anyhow::Result<Vec<pb::FieldMapping>> {
        if !self.map.is_empty() {
            return Ok(self.map.iter().map(|MapArg(map)| map.clone()).collect());
        }
        let options = self.stream(server.clone(), Vec::new());
        let asked = lookup::destination(&options, |event| reporter.handle(&event)).await;
        let destination = asked.map_err(|error| match error {
            // A proxy between may let streams pass and nothing else.
            SendError::GaveUp { .. } => {
                anyhow!("cannot ask what the destination maps; --map does without: {error}")
            }
            other => other.into(),
        })?;
        Ok(destination.field_mappings)
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
        let file =
            File::open(path).with_context(|| format!("cannot open {}", inline(path.display())))?;
        let metadata = file.metadata()?;
        Ok(Self {
            input: Box::new(BufReader::new(file)),
            bytes: metadata.is_file().then_some(metadata.len()),
        })
    }

    /// Reads on a thread of its own, since standard input blocks. It is not joined: it ends with
    /// its input, when its rows are no longer taken, or with the process.
    fn start(self, options: InputOptions) -> InputReading {
        let (rows, taken) = mpsc::channel(ROWS_AHEAD);
        let (side_items, heard) = mpsc::channel(ROWS_AHEAD);
        let (end, ended) = oneshot::channel();
        std::thread::spawn(move || {
            let mut findings = Findings::default();
            let read = input::read(self.input, &options, &mut findings, |item| match item {
                InputItem::Row(row) => rows.blocking_send(row).is_ok(),
                InputItem::Bad(bad) => side_items.blocking_send(SideItem::Bad(bad)).is_ok(),
                InputItem::Note(note) => side_items.blocking_send(SideItem::Note(note)).is_ok(),
            });
            // Without a receiver the command has ended already.
            end.send((findings, read)).ok();
        });
        InputReading {
            rows: taken,
            side_items: SideItems(heard),
            end: ended,
        }
    }
}

/// An input that is being read.
struct InputReading {
    rows: mpsc::Receiver<InputRow>,
    side_items: SideItems,
    /// The warnings, and how the input ended.
    end: oneshot::Receiver<(Findings, Result<(), BadInput>)>,
}

/// What an input holds beside rows to send.
enum SideItem {
    Bad(BadInput),
    Note(String),
}

/// Bounded like the rows: the reader waits until the item is received.
struct SideItems(mpsc::Receiver<SideItem>);

impl SideItems {
    /// Forwards items to the reporter for ever. Cancel safe.
    async fn forward(&mut self, reporter: &RefCell<SendReporter>) -> Infallible {
        while let Some(item) = self.0.recv().await {
            reporter.borrow_mut().handle_side_item(&item);
        }
        std::future::pending().await
    }

    /// Forwards the items that have arrived.
    fn forward_rest(&mut self, reporter: &mut SendReporter) {
        while let Ok(item) = self.0.try_recv() {
            reporter.handle_side_item(&item);
        }
    }
}

/// Counts, shows and records the events of a transfer.
struct SendReporter {
    tally: SendTally,
    progress: Progress,
    failures: Option<FailureFile>,
    /// Why failures can no longer be written: nothing more is sent.
    broken: Option<anyhow::Error>,
}

impl SendReporter {
    fn new(bytes: Option<u64>, failures: Option<FailureFile>) -> Self {
        Self {
            tally: SendTally::default(),
            progress: Progress::new(bytes),
            failures,
            broken: None,
        }
    }

    fn handle(&mut self, event: &SendEvent<'_>) -> ControlFlow<()> {
        match event {
            SendEvent::Opened => self.open_failures(),
            SendEvent::Settled(settled) => {
                for record in *settled {
                    self.tally.count(record);
                    if let Some(failure) = FailureRecord::of(record) {
                        self.write_down(&failure);
                    }
                }
                self.progress.show(&self.tally);
            }
            SendEvent::Notice(_) | SendEvent::Drain | SendEvent::Lost { .. } => {}
        }
        self.progress.print(event);
        match self.broken {
            None => ControlFlow::Continue(()),
            Some(_) => ControlFlow::Break(()),
        }
    }

    fn handle_side_item(&mut self, item: &SideItem) {
        match item {
            SideItem::Note(note) => self.progress.say(note),
            SideItem::Bad(bad) => {
                self.tally.fail(BAD_ROW);
                let at = bad.column.map(|column| format!("column {column}: "));
                self.write_down(&FailureRecord {
                    line: bad.line,
                    sequence: None,
                    code: "INVALID_ARGUMENT",
                    reason: BAD_ROW,
                    message: &format!("{}{}", at.unwrap_or_default(), bad.what),
                });
            }
        }
    }

    /// Writes a failure; before the stream is open, it is buffered.
    fn write_down(&mut self, failure: &FailureRecord<'_>) {
        if self.broken.is_none()
            && let Some(file) = &mut self.failures
        {
            self.broken = file.write(failure).err();
        }
    }

    fn open_failures(&mut self) {
        if let Some(file) = &mut self.failures {
            self.broken = file.open().err();
        }
    }

    /// Prints the totals, and from where to continue.
    fn end(mut self, sent: Result<(), Unfinished>) -> anyhow::Result<SendTally> {
        if sent.is_ok() {
            // An input without rows opens no stream.
            self.open_failures();
        }
        self.progress.end();
        say(&self.tally);
        match (sent, self.broken) {
            (Ok(()), None) => Ok(self.tally),
            (Ok(()), Some(broken)) => Err(broken),
            (Err(unfinished), broken) => {
                let why = broken.unwrap_or_else(|| unfinished.error.into());
                Err(why.context(not_finished(&self.tally, unfinished.next_line)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_to_go_on_is_told_as_exactly_as_it_is_known() {
        let mut tally = SendTally::default();
        assert!(not_finished(&tally, Some(2)).ends_with("send all of it again"));
        tally.line = 17;
        assert!(not_finished(&tally, Some(20)).ends_with("go on from line 20"));
        assert!(not_finished(&tally, None).contains("up to line 17 have results"));
    }
}
