//! A figure: what was measured for a promise, and whether that keeps it.

use std::fmt::Display;

/// One line of the table.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    promise: &'static str,
    what: String,
    measured: String,
    bound: String,
    holds: Option<bool>,
}

impl Figure {
    /// One that must not be above its bound.
    pub(crate) fn at_most<T: PartialOrd + Display>(
        promise: &'static str,
        what: impl Into<String>,
        measured: T,
        bound: T,
    ) -> Self {
        let holds = measured <= bound;
        Self::judged(promise, what, &measured, format!("<= {bound}"), holds)
    }

    /// One that must not be below its bound.
    pub(crate) fn at_least<T: PartialOrd + Display>(
        promise: &'static str,
        what: impl Into<String>,
        measured: T,
        bound: T,
    ) -> Self {
        let holds = measured >= bound;
        Self::judged(promise, what, &measured, format!(">= {bound}"), holds)
    }

    /// One that must be just so.
    pub(crate) fn exactly<T: PartialEq + Display>(
        promise: &'static str,
        what: impl Into<String>,
        measured: T,
        bound: T,
    ) -> Self {
        let holds = measured == bound;
        Self::judged(promise, what, &measured, format!("= {bound}"), holds)
    }

    /// One that is told and not judged.
    pub(crate) fn told(
        promise: &'static str,
        what: impl Into<String>,
        measured: impl Display,
    ) -> Self {
        Self {
            holds: None,
            ..Self::judged(promise, what, &measured, String::new(), true)
        }
    }

    fn judged(
        promise: &'static str,
        what: impl Into<String>,
        measured: &dyn Display,
        bound: String,
        holds: bool,
    ) -> Self {
        Self {
            promise,
            what: what.into(),
            measured: measured.to_string(),
            bound,
            holds: Some(holds),
        }
    }

    /// Whether it keeps its promise, as far as it is judged.
    pub(crate) fn holds(&self) -> bool {
        self.holds.unwrap_or(true)
    }

    fn cells(&self) -> [&str; 5] {
        let verdict = match self.holds {
            Some(true) => "holds",
            Some(false) => "BROKEN",
            None => "",
        };
        [
            self.promise,
            &self.what,
            &self.measured,
            &self.bound,
            verdict,
        ]
    }
}

/// Prints the table.
pub(crate) fn print(figures: &[Figure]) {
    let head = ["promise", "what", "measured", "bound", "verdict"];
    let rows: Vec<_> = std::iter::once(head)
        .chain(figures.iter().map(Figure::cells))
        .collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    println!();
    for row in &rows {
        let padded = row.iter().enumerate().map(|(column, cell)| {
            let width = width(column);
            format!("{cell:width$}")
        });
        println!("{}", padded.collect::<Vec<_>>().join(" | ").trim_end());
    }
}
