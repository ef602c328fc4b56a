//! The promises of delivery, each run as a scenario whose figures are printed.
//!
//! `cargo test --test prove` runs the small sizes; `cargo test --release --test prove -- --large`
//! the large ones. A first free argument picks scenarios whose names hold it, `--seed N` draws
//! other faults. Scenarios run one after the other, so that no figure disturbs another.
#![allow(
    clippy::unwrap_used,
    reason = "clippy's exception for tests does not reach this target"
)]

mod figure;
mod load;
mod options;
mod r10_drain;
mod r11_calls;
mod r12_metrics;
mod r1_faults;
mod r2_simulation;
mod r3_sockets;
mod r4_crashes;
mod r5_isolation;
mod r6_outage;
mod r7_rate_limit;
mod r8_neighbours;
mod r9_memory;

#[path = "../it/sim/mod.rs"]
#[allow(dead_code, reason = "the integration tests use the rest of it")]
mod sim;
#[path = "../it/support/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "the integration tests use the rest of it"
)]
mod support;
#[path = "../it/test_service.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "the integration tests use the rest of it"
)]
mod test_service;

use std::{
    panic::{self, AssertUnwindSafe},
    process::ExitCode,
};

use figure::Figure;
use options::{Options, Size};

/// A promise, and what shows whether it is kept.
struct Scenario {
    name: &'static str,
    /// Its figures; or why there are none, with the violations of its history.
    run: fn(Size) -> Result<Vec<Figure>, String>,
}

/// All of them, in the order in which they run: one line each.
#[rustfmt::skip]
const SCENARIOS: &[Scenario] = &[
    Scenario { name: "R1 a vendor that fails in every way", run: r1_faults::run },
    Scenario { name: "R2 a simulated network", run: r2_simulation::run },
    Scenario { name: "R3 faulty networks on both sides", run: r3_sockets::run },
    Scenario { name: "R4 a server that is killed", run: r4_crashes::run },
    Scenario { name: "R5 refused records", run: r5_isolation::run },
    Scenario { name: "R6 a vendor that is down", run: r6_outage::run },
    Scenario { name: "R7 a vendor that limits the rate", run: r7_rate_limit::run },
    Scenario { name: "R8 a neighbour that is stuck", run: r8_neighbours::run },
    Scenario { name: "R9 streams that push against a standstill", run: r9_memory::run },
    Scenario { name: "R10 a server that is asked to stop", run: r10_drain::run },
    Scenario { name: "R11 few calls", run: r11_calls::run },
    Scenario { name: "R12 true metrics", run: r12_metrics::run },
];

fn main() -> ExitCode {
    let options = Options::read(std::env::args().skip(1));
    let wanted = SCENARIOS
        .iter()
        .filter(|scenario| options.wants(scenario.name));
    if options.list {
        wanted.for_each(|scenario| println!("{}: test", scenario.name));
        return ExitCode::SUCCESS;
    }
    let (mut figures, mut failures) = (Vec::new(), Vec::new());
    for scenario in wanted {
        println!("{} (seed {})", scenario.name, options.size.seed);
        match attempt(scenario, options.size) {
            Ok(more) => figures.extend(more),
            Err(why) => failures.push(format!("{}\n{why}", scenario.name)),
        }
    }
    figure::print(&figures);
    for failure in &failures {
        println!("\nFAILED (seed {}): {failure}", options.size.seed);
    }
    if failures.is_empty() && figures.iter().all(Figure::holds) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs a scenario; a panic in it, such as a wait that is too long, fails it and no other.
fn attempt(scenario: &Scenario, size: Size) -> Result<Vec<Figure>, String> {
    panic::catch_unwind(AssertUnwindSafe(|| (scenario.run)(size)))
        .unwrap_or_else(|_| Err("it panicked, as told above".into()))
}
