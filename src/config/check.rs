//! Checking values one by one, so that every problem is found in one go.

use std::{fmt, ops::RangeInclusive, str::FromStr, time::Duration};

use super::duration;

/// Collects problems while values are set.
#[derive(Debug, Default)]
pub(super) struct Check(Vec<Problem>);

impl Check {
    /// Sets a value, or notes why its text cannot be one.
    pub(super) fn set<T>(
        &mut self,
        to: &mut T,
        flag: &'static str,
        text: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) {
        match parse(text) {
            Ok(value) => *to = value,
            Err(reason) => self.problem(flag, reason),
        }
    }

    pub(super) fn problem(&mut self, flag: &'static str, reason: impl Into<String>) {
        self.0.push(Problem {
            flag,
            reason: reason.into(),
        });
    }

    pub(super) fn end<T>(self, value: T) -> Result<T, Problems> {
        if self.0.is_empty() {
            Ok(value)
        } else {
            Err(Problems(self.0))
        }
    }
}

/// Everything that is wrong with a set of settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("these settings cannot be used:{}", .0.iter().map(|p| format!("\n  {p}")).collect::<String>())]
pub struct Problems(pub Vec<Problem>);

/// What is wrong with one setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The flag, without its dashes.
    pub flag: &'static str,
    /// What is wrong, and what to write instead.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "--{} ({}): {}",
            self.flag,
            variable(self.flag),
            self.reason
        )
    }
}

/// The environment twin of a flag.
pub(super) fn variable(flag: &str) -> String {
    format!("CONNECTOR_{}", flag.replace('-', "_").to_uppercase())
}

pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err(format!("`{text}` is neither true nor false")),
    }
}

pub(super) fn count<T>(range: RangeInclusive<T>) -> impl Fn(&str) -> Result<T, String>
where
    T: FromStr + PartialOrd + fmt::Display,
{
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        let (least, most) = (range.start(), range.end());
        number.ok_or_else(|| format!("`{text}` is not a whole number from {least} to {most}"))
    }
}

pub(super) fn time(range: RangeInclusive<Duration>) -> impl Fn(&str) -> Result<Duration, String> {
    move |text| {
        let time = duration::parse(text)?;
        if range.contains(&time) {
            return Ok(time);
        }
        let (least, most) = (
            duration::format(*range.start()),
            duration::format(*range.end()),
        );
        Err(format!("`{text}` is not from {least} to {most}"))
    }
}
