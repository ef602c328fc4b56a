//! The tables, in Markdown.

use std::fs;

use hdrhistogram::Histogram;

use crate::{
    options::Options,
    rows::{Measured, Pair, Row},
};

/// Most members of one call.
const MEMBERS: f64 = 1_000.0;

/// A row, and its pairs.
pub(crate) type MeasuredRow = (Row, Vec<Pair>);

/// On what machine, and how.
pub(crate) fn conditions(options: &Options) -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models = cpu.lines().filter(|line| line.starts_with("model name"));
    let model = models
        .clone()
        .next()
        .and_then(|line| line.split(": ").nth(1));
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{} CPUs ({}), Linux {}; {} pairs a row, each server pushed for {:.1} s",
        models.count(),
        model.unwrap_or("unknown"),
        release.trim(),
        options.pairs(),
        options.push().as_secs_f64(),
    )
}

/// The middle one; of an even number, the mean of the two in the middle.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// The median, with the least and the most.
pub(crate) fn spread(values: impl Iterator<Item = f64> + Clone) -> String {
    let least = values.clone().fold(f64::INFINITY, f64::min);
    let most = values.clone().fold(f64::NEG_INFINITY, f64::max);
    format!("{:.2} ({least:.2}–{most:.2})", median(values))
}

fn median_of(pairs: &[Pair], what: impl Fn(&Pair) -> f64) -> f64 {
    median(pairs.iter().map(what))
}

pub(crate) fn print_cost(rows: &[MeasuredRow], options: &Options) {
    let other = options.other();
    println!("\nCost\n");
    println!(
        "| row | records/s | {other} | CPU s/M records | {other} | ratio (min–max) | peak MiB | {other} |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|");
    for (row, pairs) in rows {
        println!(
            "| {} | {:.0} k | {:.0} k | {:.2} | {:.2} | {} | {:.0} | {:.0} |",
            row.name(),
            median_of(pairs, |pair| pair.this.rate / 1e3),
            median_of(pairs, |pair| pair.other.rate / 1e3),
            median_of(pairs, |pair| pair.this.cpu),
            median_of(pairs, |pair| pair.other.cpu),
            spread(pairs.iter().map(Pair::ratio)),
            median_of(pairs, |pair| pair.this.peak_kib as f64 / 1024.0),
            median_of(pairs, |pair| pair.other.peak_kib as f64 / 1024.0),
        );
    }
}

pub(crate) fn print_calls(rows: &[MeasuredRow]) {
    println!("\nCalls\n");
    println!("| row | records | calls | ideal | calls/ideal | members a call |");
    println!("|---|--:|--:|--:|--:|--:|");
    for (row, pairs) in rows.iter().filter(|(row, _)| !row.is_noise) {
        let sum = |what: fn(&Measured) -> u64| -> f64 {
            pairs.iter().map(|pair| what(&pair.this)).sum::<u64>() as f64
        };
        let (records, calls) = (sum(|this| this.records), sum(|this| this.calls));
        let ideal = (records / MEMBERS).ceil();
        println!(
            "| {} | {records:.0} | {calls:.0} | {ideal:.0} | {:.2} | {:.0} |",
            row.name(),
            calls / ideal,
            sum(|this| this.members) / calls,
        );
    }
}

pub(crate) fn print_latency(rows: &[MeasuredRow], options: &Options) {
    println!("\nLatency of acks at a fixed rate, in ms\n");
    let other = options.other();
    println!("| row | records/s | messages | p50 | p99 | p99.9 | {other} p50 | p99 | p99.9 |");
    println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|");
    for (row, pairs) in rows.iter().filter(|(row, _)| !row.is_noise) {
        let mut merged = [Histogram::new(3).unwrap(), Histogram::new(3).unwrap()];
        for pair in pairs {
            merged[0].add(&pair.this.micros).unwrap();
            merged[1].add(&pair.other.micros).unwrap();
        }
        let [this, other] = merged.map(|micros: Histogram<u64>| {
            [0.5, 0.99, 0.999].map(|quantile| micros.value_at_quantile(quantile) as f64 / 1e3)
        });
        let records: u64 = pairs.iter().map(|pair| pair.this.micros.len()).sum();
        println!(
            "| {} | {} | {} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} |",
            row.name(),
            row.rate(options),
            records / row.per_message() as u64,
            this[0],
            this[1],
            this[2],
            other[0],
            other[1],
            other[2],
        );
    }
}
