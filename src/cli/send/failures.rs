//! File of failed records. Its path is checked at the start; the file is created once there is a
//! stream.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Write},
    os::{
        fd::AsFd,
        unix::fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use rustix::fs::{Access, access};
use serde::Serialize;

use super::window::{RowFailure, SettledRow};
use crate::cli::terminal::inline;

/// Most bytes that are buffered until there is a stream: a file of nothing but malformed rows opens
/// none.
const MAX_HELD: usize = 1024 * 1024;

/// Writes failed records as NDJSON. Holds line numbers and reasons, and no identifier.
#[derive(Debug)]
pub(crate) struct FailureFile {
    path: PathBuf,
    /// The input, which must not be overwritten.
    input: Option<FileIdentity>,
    /// None until there is a stream.
    file: Option<File>,
    /// Lines that were written before it.
    held: Vec<u8>,
}

/// A failed record, as it is written.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct FailureRecord<'a> {
    /// Its first line in the input.
    pub line: u64,
    /// Its number in the stream, if it was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<i64>,
    /// Name of the gRPC status code.
    pub code: &'a str,
    /// Stable reason to branch on.
    pub reason: &'a str,
    /// A sentence for people.
    pub message: &'a str,
}

impl<'a> FailureRecord<'a> {
    /// The failure of a record, if it failed.
    #[must_use]
    pub(crate) fn of(settled: &'a SettledRow) -> Option<Self> {
        let RowFailure {
            code,
            reason,
            message,
        } = settled.verdict.as_ref().err()?;
        Some(Self {
            line: settled.line,
            sequence: Some(settled.sequence),
            code,
            reason,
            message,
        })
    }
}

impl FailureFile {
    /// Confirms that a file can be made at `path`, or emptied, and that it is not the input (`-` is
    /// standard input). Touches nothing.
    ///
    /// # Errors
    /// What is wrong with the path.
    pub(crate) fn plan(path: &Path, input: &Path) -> anyhow::Result<Self> {
        let planned = Self {
            path: path.to_owned(),
            input: identity_of_input(input),
            file: None,
            held: Vec::new(),
        };
        match fs::metadata(path) {
            Ok(there) if there.is_dir() => bail!("{} is a directory", planned.name()),
            Ok(there) => {
                planned.unless_input(&there)?;
                access(path, Access::WRITE_OK)
                    .with_context(|| format!("cannot write to {}", planned.name()))?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                access(folder(path), Access::WRITE_OK | Access::EXEC_OK)
                    .with_context(|| format!("cannot create {}", planned.name()))?;
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot use {}", planned.name()));
            }
        }
        Ok(planned)
    }

    /// Makes or empties the file, and writes what came before; nothing if it is open already.
    ///
    /// # Errors
    /// Those of the file system, and if the path has become the input's.
    pub(crate) fn open(&mut self) -> anyhow::Result<()> {
        if self.file.is_some() {
            return Ok(());
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&self.path)
            .with_context(|| format!("cannot create {}", self.name()))?;
        let there = file.metadata()?;
        self.unless_input(&there)?;
        if there.is_file() {
            file.set_len(0)?;
        }
        file.write_all(&self.held)
            .with_context(|| self.incomplete())?;
        self.held = Vec::new();
        self.file = Some(file);
        Ok(())
    }

    /// Writes a failure; before the file is open, it is buffered.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn write(&mut self, failure: &FailureRecord<'_>) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(failure)?;
        line.push(b'\n');
        match &mut self.file {
            // Failures are rare, so each is written at once and seen during the transfer.
            Some(file) => file.write_all(&line).with_context(|| self.incomplete()),
            None => {
                self.held.append(&mut line);
                // The destination has been checked before rows are read.
                if self.held.len() > MAX_HELD {
                    self.open()?;
                }
                Ok(())
            }
        }
    }

    fn unless_input(&self, there: &Metadata) -> anyhow::Result<()> {
        // A terminal may be both: output does not overwrite its input.
        let is_input = self.input == Some(FileIdentity::of(there));
        if is_input && !there.file_type().is_char_device() {
            bail!(
                "--failures {} is the input itself, which it would destroy; name another file",
                self.name()
            );
        }
        Ok(())
    }

    fn name(&self) -> String {
        inline(self.path.display())
    }

    fn incomplete(&self) -> String {
        format!("the file of failures {} is not complete", self.name())
    }
}

/// The identity of a file, independent of its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileIdentity {
    device: u64,
    inode: u64,
}

impl FileIdentity {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

/// None if it cannot be read: opening the input reports the error.
fn identity_of_input(path: &Path) -> Option<FileIdentity> {
    let metadata = if path.as_os_str() == "-" {
        let copy = io::stdin().as_fd().try_clone_to_owned();
        copy.and_then(|input| File::from(input).metadata())
    } else {
        fs::metadata(path)
    };
    Some(FileIdentity::of(&metadata.ok()?))
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(file: &mut FailureFile, settled: &SettledRow) {
        if let Some(failure) = FailureRecord::of(settled) {
            file.write(&failure).unwrap();
        }
    }

    #[test]
    fn failures_are_written_one_a_line_also_those_from_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("failures.ndjson");
        fs::write(&path, "of an earlier run").unwrap();
        let mut file = FailureFile::plan(&path, Path::new("-")).unwrap();
        let skipped = FailureRecord {
            line: 2,
            sequence: None,
            code: "",
            reason: "ROW",
            message: "why",
        };
        file.write(&skipped).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "of an earlier run");
        file.open().unwrap();
        write(&mut file, &SettledRow::example(3, None));
        write(
            &mut file,
            &SettledRow::example(4, Some("IDENTIFIER_MISSING")),
        );
        file.open().unwrap();
        assert_eq!(
            fs::read_to_string(path).unwrap(),
            "{\"line\":2,\"code\":\"\",\"reason\":\"ROW\",\"message\":\"why\"}\n\
             {\"line\":4,\"sequence\":7,\"code\":\"INVALID_ARGUMENT\",\
             \"reason\":\"IDENTIFIER_MISSING\",\"message\":\"why\"}\n"
        );
    }

    #[test]
    fn the_input_is_known_by_any_name() {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("f.csv");
        fs::write(&input, "user_id\n").unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&input, &link).unwrap();
        let twin = folder.path().join("twin");
        fs::hard_link(&input, &twin).unwrap();
        for path in [
            &input,
            &folder.path().join("../").join(&input),
            &link,
            &twin,
        ] {
            let error = FailureFile::plan(path, &input).unwrap_err().to_string();
            assert!(error.contains("is the input itself"), "{error}");
        }
        // The path becomes the input after it was checked.
        let later = folder.path().join("later");
        let mut file = FailureFile::plan(&later, &input).unwrap();
        fs::hard_link(&input, &later).unwrap();
        assert!(file.open().is_err());
        assert_eq!(fs::read_to_string(&input).unwrap(), "user_id\n");
    }

    #[test]
    fn a_place_that_cannot_be_written_is_told_and_nothing_is_made() {
        let home = tempfile::tempdir().unwrap();
        let missing = home.path().join("no-such-folder");
        for (path, part) in [
            (home.path(), "is a directory"),
            (&missing.join("f"), "cannot create"),
            (Path::new("/proc/sys/kernel/ostype"), "cannot write to"),
        ] {
            let error = FailureFile::plan(path, Path::new("-")).unwrap_err();
            assert!(error.to_string().contains(part), "{error:#}");
        }
        let path = home.path().join("f");
        FailureFile::plan(&path, Path::new("-")).unwrap();
        assert!(!path.exists() && !missing.exists());
        let terminal = Path::new("/dev/null");
        FailureFile::plan(terminal, terminal).unwrap();
    }
}
