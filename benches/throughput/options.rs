//! What a run is asked for on its command line.

use std::{path::PathBuf, time::Duration};

use clap::Parser;

use crate::rows::Row;

/// Measures this service and a bare echo server under the same load, in alternating pairs
#[derive(Debug, Parser)]
#[command(name = "cargo bench --")]
pub(crate) struct Options {
    /// A look, in a minute: one pair a row, short, and fewer streams
    #[arg(long)]
    quick: bool,
    /// Only these rows, or those whose names hold one of these, such as `100-1-1,wide`
    #[arg(long, value_name = "FILTER", value_delimiter = ',')]
    rows: Vec<String>,
    /// Pairs of a row
    #[arg(long)]
    pairs: Option<usize>,
    /// Seconds for which each server of a pair is pushed
    #[arg(long)]
    seconds: Option<f64>,
    /// Records a second at which latency is measured
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    pub(crate) rate: u32,
    /// A binary of this service to measure, in place of what this is built with
    #[arg(long, value_name = "PATH")]
    pub(crate) server: Option<PathBuf>,
    /// A binary of this service to compare with, in place of the echo server
    #[arg(long, value_name = "PATH")]
    pub(crate) against: Option<PathBuf>,
    /// Records the server with `perf` while it is pushed, in the first pair of the row
    #[arg(long, value_name = "FILE")]
    pub(crate) perf: Option<PathBuf>,
    /// What cargo passes.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    pub(crate) fn read() -> Self {
        Self::parse()
    }

    /// A row's whole name picks that one alone; other filters pick by any part.
    pub(crate) fn wants(&self, name: &str) -> bool {
        let is_row = |filter: &String| Row::all().iter().any(|row| row.name() == *filter);
        let picks =
            |filter: &String| name == filter || (name.contains(filter.as_str()) && !is_row(filter));
        self.rows.is_empty() || self.rows.iter().any(picks)
    }

    pub(crate) fn pairs(&self) -> usize {
        self.pairs.unwrap_or(self.pick(1, 5)).clamp(1, 100)
    }

    /// What this service is compared with.
    pub(crate) fn other(&self) -> &'static str {
        match self.against {
            Some(_) => "other",
            None => "echo",
        }
    }

    /// How long the servers are pushed.
    pub(crate) fn push(&self) -> Duration {
        let seconds = self.seconds.unwrap_or(self.pick(0.7, 1.5));
        Duration::from_secs_f64(seconds.clamp(0.1, 120.0))
    }

    /// How long they are loaded at a fixed rate.
    pub(crate) fn paced(&self) -> Duration {
        self.pick(Duration::from_millis(500), Duration::from_millis(1_500))
    }

    /// Of the rows with many streams.
    pub(crate) fn many_streams(&self) -> usize {
        self.pick(1_000, 5_000)
    }

    fn pick<T>(&self, quick: T, usual: T) -> T {
        if self.quick { quick } else { usual }
    }
}
