//! File lock: one server to one database file. The lock dies with its process, however that ends.
//!
//! It is on a file beside the database and not on the database itself, whose own locks SQLite
//! would lose when this process closes any other handle to it. The file stays when the lock goes: a
//! server that removed it could remove the one that another server has just locked.

use std::{
    fmt,
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::open_error::OpenProblem;

/// Where the kernel says what this machine, or this container, is called.
const HOST_NAME: &str = "/proc/sys/kernel/hostname";
/// More than any owner writes about itself, in bytes.
const LONGEST: u64 = 1024;

/// Held as long as this process uses the database.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Lock {
    /// Locks the database at a path that exists. All paths to it, through symbolic links too, meet
    /// in the same lock; under another hard link SQLite would not know its own log again.
    ///
    /// # Errors
    /// If another server has it, or the directory cannot be written.
    pub(super) fn take(database: &Path) -> Result<Self, OpenProblem> {
        let not_writable = |error: io::Error| OpenProblem::NotWritable(error.to_string());
        let path = beside(&database.canonicalize().map_err(not_writable)?);
        let mut file = writable().open(path).map_err(not_writable)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenProblem::Served(owner(&mut file))),
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                tracing::warn!(
                    "this file system has no locks: nothing keeps a second server from the database"
                );
            }
            Err(TryLockError::Error(error)) => return Err(not_writable(error)),
        }
        let lock = Self(file);
        lock.note(None);
        Ok(lock)
    }

    /// Writes down which process holds the lock and where it serves, for the error of a second one.
    pub(super) fn note(&self, serving_at: Option<SocketAddr>) {
        let host = std::fs::read_to_string(HOST_NAME).unwrap_or_default();
        let me = LockOwner {
            process: std::process::id(),
            host: host.trim(),
            serving_at,
        };
        // Without it the lock holds all the same.
        if let Err(error) = rewrite(&self.0, &me.to_string()) {
            tracing::warn!(%error, "cannot note beside the database which process uses it");
        }
    }

    /// Lets the database go.
    pub(super) fn release(&self) {
        // The end of the process releases it at the latest.
        self.0.unlock().ok();
    }
}

/// How a file that the store may make is opened: for its owner alone.
pub(super) fn writable() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn beside(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

fn owner(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.take(LONGEST).read_to_string(&mut text);
    match read {
        Ok(_) if !text.trim().is_empty() => text.trim().to_owned(),
        _ => "a process that has not said which".to_owned(),
    }
}

fn rewrite(mut file: &File, text: &str) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(text.as_bytes())
}

/// The process that holds a lock, in words.
struct LockOwner<'a> {
    process: u32,
    host: &'a str,
    serving_at: Option<SocketAddr>,
}

impl fmt::Display for LockOwner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}", self.process)?;
        if !self.host.is_empty() {
            write!(f, " on {}", self.host)?;
        }
        match self.serving_at {
            Some(address) => write!(f, ", serving on {address}"),
            None => Ok(()),
        }
    }
}
