//! Input flags: the format of the input, by default from its file name.

use std::{fs::File, io::BufReader, path::Path};

use anyhow::{anyhow, bail};
use encoding_rs::Encoding;

use super::input::{self, BadRows, InputFormat, InputOptions};
use crate::pb::identifier_record::Operation;

/// Flags of `send` about its input.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct InputArgs {
    /// How the input is written [default: by its file name]
    #[arg(long, value_name = "FORMAT")]
    format: Option<InputFormat>,

    /// What stands between values of CSV: one character, or `tab` [default: a comma; a tab in .tsv]
    #[arg(long, value_name = "CHARACTER", value_parser = delimiter)]
    delimiter: Option<u8>,

    /// How text is written, such as windows-1252 or utf-16le [default: utf-8, or as the file's
    /// byte-order mark says]
    #[arg(long, value_name = "NAME", value_parser = encoding)]
    encoding: Option<&'static Encoding>,

    /// What to do with records that do not say
    #[arg(long, value_name = "OPERATION", default_value = "add")]
    operation: DefaultOperation,

    /// The column or member that holds add or remove [default: operation]
    #[arg(long, value_name = "NAME")]
    operation_column: Option<String>,

    /// A column or member that does not matter; may be repeated
    #[arg(long = "ignore-column", value_name = "NAME")]
    ignored_columns: Vec<String>,

    /// A value that stands for no value; may be repeated, and replaces the list: \N, NULL, (null),
    /// nil, None, undefined, NaN, NA, N/A, #N/A
    #[arg(long = "null", value_name = "VALUE")]
    nulls: Vec<String>,

    /// What to do with a row that is wrong: stop there, or skip it and write it to --failures
    #[arg(long, value_name = "WHAT", default_value = "stop")]
    bad_rows: BadRows,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum DefaultOperation {
    Add,
    Remove,
}

impl InputArgs {
    /// The options for the file of this name and a mapping of these identifiers.
    ///
    /// # Errors
    /// The flags contradict each other, or one is missing.
    pub(super) fn options(&self, path: &Path, mapped: Vec<String>) -> anyhow::Result<InputOptions> {
        let (format, usual_delimiter) = self.format(path)?;
        self.check_names(&mapped)?;
        let told = InputOptions::new(format);
        Ok(InputOptions {
            delimiter: self.delimiter,
            usual_delimiter,
            encoding: self.encoding,
            operation: self.operation(),
            operation_column: self.operation_column.clone(),
            ignored_columns: self.ignored_columns.clone(),
            nulls: if self.nulls.is_empty() {
                told.nulls
            } else {
                self.nulls.clone()
            },
            mapped,
            bad_rows: self.bad_rows,
            ..told
        })
    }

    /// The format, and the delimiter that files of this name have.
    fn format(&self, path: &Path) -> anyhow::Result<(InputFormat, u8)> {
        let (format, delimiter) = match (self.format, by_name(path)) {
            (Some(format), Some((_, delimiter))) => (format, delimiter),
            (Some(format), None) => (format, b','),
            (None, Some(told)) => told,
            (None, None) => return Err(self.format_missing(path)),
        };
        if format == InputFormat::Ndjson && self.delimiter.is_some() {
            bail!("--delimiter is for CSV, and the input is NDJSON");
        }
        Ok((format, delimiter))
    }

    /// The error of a missing format. A file is inspected, to name the flag; a pipe is not.
    fn format_missing(&self, path: &Path) -> anyhow::Error {
        let file = File::open(path).ok();
        match file.filter(|file| file.metadata().is_ok_and(|known| known.is_file())) {
            Some(file) => {
                let seen = input::looks_like(BufReader::new(file), self.encoding);
                anyhow!(
                    "the name of {} does not tell its format; {seen}",
                    path.display()
                )
            }
            None => anyhow!("say --format csv or --format ndjson; the file name does not tell"),
        }
    }

    /// A name cannot have two roles.
    fn check_names(&self, mapped: &[String]) -> anyhow::Result<()> {
        let is_mapped = |name: &str| mapped.iter().any(|mapped| input::alike(mapped, name));
        if let Some(name) = self.operation_column.iter().find(|name| is_mapped(name)) {
            bail!("--operation-column {name}: the mapping takes this for an identifier");
        }
        if let Some(name) = self
            .ignored_columns
            .iter()
            .find(|name| mapped.contains(name))
        {
            bail!(
                "--ignore-column {name}: the mapping takes this identifier; leave it out of the \
                 mapping with --map"
            );
        }
        if let Some(name) = &self.operation_column
            && self.ignored_columns.contains(name)
        {
            bail!("{name} is named by --operation-column and by --ignore-column");
        }
        Ok(())
    }

    fn operation(&self) -> Operation {
        match self.operation {
            DefaultOperation::Add => Operation::Add,
            DefaultOperation::Remove => Operation::Remove,
        }
    }
}

/// The format and delimiter by a file's name, in any case, compressed or not.
fn by_name(path: &Path) -> Option<(InputFormat, u8)> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    match name.rsplit_once('.')?.1 {
        "csv" => Some((InputFormat::Csv, b',')),
        "tsv" => Some((InputFormat::Csv, b'\t')),
        "ndjson" | "jsonl" => Some((InputFormat::Ndjson, b',')),
        _ => None,
    }
}

fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        b"tab" | b"\\t" => Ok(b'\t'),
        [b'"' | b'\r' | b'\n' | 0x7f] => Err("this has a meaning of its own in CSV".into()),
        [byte] if byte.is_ascii() && !byte.is_ascii_alphanumeric() => Ok(*byte),
        _ => Err("write one ASCII character that is no letter or digit, or `tab`".into()),
    }
}

fn encoding(name: &str) -> Result<&'static Encoding, String> {
    Encoding::for_label_no_replacement(name.as_bytes()).ok_or_else(|| {
        "not known; names are those of the Encoding Standard, such as utf-8, utf-16le, \
         windows-1252 or shift_jis"
            .into()
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct InputCommand {
        #[command(flatten)]
        reading: InputArgs,
    }

    fn options(flags: &[&str], path: &str) -> Result<InputOptions, String> {
        let flags = ["send"].iter().chain(flags);
        let command = InputCommand::try_parse_from(flags).map_err(|error| error.to_string())?;
        let mapped = vec!["user_id".to_owned()];
        let options = command.reading.options(Path::new(path), mapped);
        options.map_err(|error| error.to_string())
    }

    #[test]
    fn a_name_tells_the_format_in_any_case_and_compressed() {
        for (name, format, delimiter) in [
            ("a.csv", InputFormat::Csv, b','),
            ("A.CSV", InputFormat::Csv, b','),
            ("a.csv.gz", InputFormat::Csv, b','),
            ("a.TSV.GZ", InputFormat::Csv, b'\t'),
            ("a.b.ndjson", InputFormat::Ndjson, b','),
            ("a.Jsonl", InputFormat::Ndjson, b','),
        ] {
            let options = options(&[], name).unwrap();
            assert_eq!(
                (options.format, options.usual_delimiter),
                (format, delimiter),
                "{name}"
            );
        }
        let both = options(&["--delimiter=;"], "a.tsv").unwrap();
        assert_eq!(both.delimiter, Some(b';'));
        assert!(options(&[], "-").unwrap_err().contains("--format csv or"));
    }

    #[test]
    fn a_file_without_a_telling_name_is_looked_into() {
        let folder = tempfile::tempdir().unwrap();
        for (content, part) in [
            (&b"{\"a\":1}"[..], "looks like NDJSON: say --format ndjson"),
            (b"user_id\n", "say --format csv"),
            (b"[{}]", "looks like a JSON array"),
            (b"PK\x03\x04", "Excel workbook"),
            (b"", "it is empty"),
        ] {
            let path = folder.path().join("members.txt");
            std::fs::write(&path, content).unwrap();
            let error = options(&[], path.to_str().unwrap()).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn flags_that_say_too_little_or_two_things_are_refused() {
        for (flags, part) in [
            (&["--delimiter=ab"][..], "one ASCII character"),
            (&["--delimiter=\""], "a meaning of its own"),
            (&["--delimiter=é"], "one ASCII character"),
            (&["--encoding=klingon"], "not known"),
            (
                &["--format=ndjson", "--delimiter=;"],
                "--delimiter is for CSV",
            ),
            (
                &["--operation-column=user_id"],
                "takes this for an identifier",
            ),
            (&["--ignore-column=user_id"], "leave it out of the mapping"),
            (
                &["--ignore-column=x", "--operation-column=x"],
                "is named by",
            ),
        ] {
            let error = options(flags, "a.csv").unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        assert_eq!(
            options(&["--delimiter=tab"], "a.csv").unwrap().delimiter,
            Some(b'\t')
        );
    }

    #[test]
    fn values_for_none_are_replaced_not_added_to() {
        assert_eq!(options(&[], "a.csv").unwrap().nulls, input::NULLS);
        let own = options(&["--null=-", "--null=0"], "a.csv").unwrap();
        assert_eq!(own.nulls, ["-", "0"]);
    }
}
