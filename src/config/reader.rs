//! Settings reader: one expression for each setting has its flag, default, range and help.
//!
//! That expression serves three readers: clap gets the flag, the command gets the value, and the
//! documentation gets the row of its table.

use std::{
    fmt,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use clap::{Arg, ArgMatches, Command, FromArgMatches, parser::ValueSource, value_parser};

use super::duration;

/// Something that is read from flags and their variables.
pub(super) trait FromFlags: Sized {
    /// Declares and reads each setting, in the order in which help shows them.
    fn read(from: &mut SettingsReader<'_>) -> Self;

    /// Every setting at its default.
    fn defaults() -> Self {
        Self::read(&mut SettingsReader::default())
    }
}

/// Flags of a command. They are checked together, so that every problem is found in one go.
#[derive(Debug, Clone)]
pub struct CheckedFlags<T>(Result<T, Problems>);

impl<T> CheckedFlags<T> {
    /// What was given.
    ///
    /// # Errors
    /// Every problem there is, in the order of the flags.
    pub fn check(self) -> Result<T, Problems> {
        self.0
    }
}

impl<T: FromFlags> clap::Args for CheckedFlags<T> {
    fn augment_args(command: Command) -> Command {
        command.args(declarations::<T>().iter().map(Declaration::arg))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<T: FromFlags> FromArgMatches for CheckedFlags<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut reader = SettingsReader {
            given: Some(matches),
            ..SettingsReader::default()
        };
        let value = T::read(&mut reader);
        Ok(Self(reader.end(value)))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The declaration of each setting of a command: flag, default, range and help. No values are given
/// to it.
pub(super) fn declarations<T: FromFlags>() -> Vec<Declaration> {
    let mut reader = SettingsReader::default();
    T::read(&mut reader);
    reader.declared
}

/// Reads settings, and collects what is wrong with them.
#[derive(Debug, Default)]
pub(super) struct SettingsReader<'a> {
    /// None where every setting has its default.
    given: Option<&'a ArgMatches>,
    declared: Vec<Declaration>,
    problems: Vec<Problem>,
}

impl<'a> SettingsReader<'a> {
    /// Begins a setting; the method that names its form reads it.
    pub(super) fn setting(
        &mut self,
        flag: &'static str,
        help: &'static str,
    ) -> SettingReader<'_, 'a> {
        let declared = Declaration {
            flag,
            value_name: "",
            default: None,
            range: String::new(),
            help,
            details: "",
            form: ValueForm::Text,
            is_secret: false,
        };
        SettingReader {
            reader: self,
            declared,
        }
    }

    pub(super) fn problem(&mut self, flag: &'static str, reason: impl Into<String>) {
        let reason = reason.into();
        self.problems.push(Problem { flag, reason });
    }

    /// Whether a value stands in the process's arguments, which every user of the machine can read.
    pub(super) fn is_in_arguments(&self, flag: &str) -> bool {
        self.given
            .is_some_and(|given| given.value_source(flag) == Some(ValueSource::CommandLine))
    }

    /// Whether a flag or its variable is set.
    pub(super) fn is_set(&self, flag: &str) -> bool {
        let unset = [None, Some(ValueSource::DefaultValue)];
        self.given
            .is_some_and(|given| !unset.contains(&given.value_source(flag)))
    }

    fn end<T>(mut self, value: T) -> Result<T, Problems> {
        if self.problems.is_empty() {
            return Ok(value);
        }
        let flags: Vec<_> = self.declared.iter().map(|each| each.flag).collect();
        self.problems
            .sort_by_key(|problem| flags.iter().position(|flag| *flag == problem.flag));
        Err(Problems(self.problems))
    }
}

/// One setting that is being declared.
#[derive(Debug)]
pub(super) struct SettingReader<'r, 'a> {
    reader: &'r mut SettingsReader<'a>,
    declared: Declaration,
}

impl SettingReader<'_, '_> {
    /// What the documentation says beyond the help.
    pub(super) fn details(mut self, details: &'static str) -> Self {
        self.declared.details = details;
        self
    }

    /// Keeps a value of the environment out of the help.
    pub(super) fn secret(mut self) -> Self {
        self.declared.is_secret = true;
        self
    }

    /// A setting of any form. A value that cannot be used is noted, and the default taken.
    pub(super) fn text<T>(
        mut self,
        value_name: &'static str,
        default: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> T {
        self.declared.default = Some(default);
        self.optional(value_name, &parse)
            .unwrap_or_else(|| parse(default).expect("a test reads every default"))
    }

    /// A setting that need not have a value.
    pub(super) fn optional<T>(
        mut self,
        value_name: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.declared.value_name = value_name;
        let given = self.given().map(|text: &String| parse(text));
        self.end(given)
    }

    fn given<T: Clone + Send + Sync + 'static>(&self) -> Option<&T> {
        self.reader.given?.get_one(self.declared.flag)
    }

    fn end<T>(self, read: Option<Result<T, String>>) -> Option<T> {
        let flag = self.declared.flag;
        self.reader.declared.push(self.declared);
        read?
            .map_err(|reason| self.reader.problem(flag, reason))
            .ok()
    }

    /// What is made of the path of a file, if there is one.
    pub(super) fn file<T>(mut self, parse: impl Fn(&Path) -> Result<T, String>) -> Option<T> {
        self.declared.value_name = "FILE";
        self.declared.form = ValueForm::Path;
        let given = self.given().map(|path: &PathBuf| parse(path));
        self.end(given)
    }

    /// A switch, which is off by default.
    pub(super) fn switch(mut self) -> bool {
        self.declared.form = ValueForm::Switch;
        self.text("BOOL", "false", switch)
    }

    /// A whole number within a range.
    pub(super) fn number<T>(
        mut self,
        value_name: &'static str,
        default: &'static str,
        range: RangeInclusive<T>,
    ) -> T
    where
        T: FromStr + PartialOrd + fmt::Display,
    {
        let shown = format!("{} to {}", range.start(), range.end());
        let what = format!("a whole number from {shown}");
        self.declared.range = shown;
        self.text(value_name, default, |text| {
            let number = text.parse().ok().filter(|number| range.contains(number));
            number.ok_or_else(|| format!("`{text}` is not {what}"))
        })
    }

    /// A time within a range.
    pub(super) fn time(
        mut self,
        default: &'static str,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        let (least, most) = range.clone().into_inner();
        let shown = format!("{} to {}", duration::format(least), duration::format(most));
        self.declared.range.clone_from(&shown);
        self.text("TIME", default, |text| {
            let time = duration::parse(text)?;
            let is_within = range.contains(&time);
            is_within
                .then_some(time)
                .ok_or_else(|| format!("`{text}` is not from {shown}"))
        })
    }
}

fn switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err(format!("`{text}` is neither true nor false")),
    }
}

/// All that is known of a setting but its value.
#[derive(Debug)]
pub(super) struct Declaration {
    flag: &'static str,
    value_name: &'static str,
    default: Option<&'static str>,
    range: String,
    help: &'static str,
    details: &'static str,
    form: ValueForm,
    is_secret: bool,
}

/// How a value is written.
#[derive(Debug)]
enum ValueForm {
    Text,
    Path,
    Switch,
}

impl Declaration {
    fn arg(&self) -> Arg {
        let arg = Arg::new(self.flag)
            .long(self.flag)
            .env(variable(self.flag))
            .hide_env_values(self.is_secret)
            .value_name(self.value_name)
            .default_value(self.default)
            .help(self.help);
        match self.form {
            ValueForm::Text => arg,
            ValueForm::Path => arg.value_parser(value_parser!(PathBuf)),
            ValueForm::Switch => arg
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true"),
        }
    }

    /// A row of the documentation's table.
    #[cfg(test)]
    pub(super) fn row(&self) -> [String; 5] {
        let code = |text: &str| format!("`{text}`");
        [
            code(&format!("--{}", self.flag)),
            code(&variable(self.flag)),
            self.default.map(code).unwrap_or_default(),
            self.range.clone(),
            format!("{}. {}", self.help, self.details)
                .trim_end()
                .to_owned(),
        ]
    }
}

/// The environment variable of a flag.
fn variable(flag: &str) -> String {
    format!("CONNECTOR_{}", flag.replace('-', "_").to_uppercase())
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
        let Self { flag, reason } = self;
        write!(f, "--{flag} ({}): {reason}", variable(flag))
    }
}
