//! Files that are read again while the process runs: when they change, or when it is asked to.
//!
//! Files are looked at every few seconds, and known by what they hold. A notification of the system
//! (inotify) is about one directory entry. It misses a Kubernetes volume, where a symbolic link
//! further up is swapped, and a network file system, which sends none. A time of change may stay
//! the same where a file was replaced.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use aws_lc_rs::digest::{SHA256, digest};
use tokio::sync::watch;
use zeroize::Zeroizing;

/// How often files are looked at. Ours: the files are small, and a volume of Kubernetes itself
/// follows its secret within a minute.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What a file holds, or why it cannot be read. It may be a key, so it is wiped from memory.
pub type Contents = io::Result<Zeroizing<Vec<u8>>>;

/// Reads a file.
///
/// # Errors
/// When it cannot be read.
pub fn read(path: &Path) -> Contents {
    fs::read(path).map(Zeroizing::new)
}

/// Requests to read files again at once, such as SIGHUP; the other end makes them.
#[derive(Debug, Clone)]
pub struct ReloadRequests(watch::Receiver<()>);

/// Makes requests to read files again.
#[derive(Debug)]
pub struct ReloadTrigger(watch::Sender<()>);

impl ReloadTrigger {
    /// Asks for all files to be read again.
    pub fn trigger(&self) {
        self.0.send_replace(());
    }
}

impl ReloadRequests {
    /// Requests, and what makes them.
    #[must_use]
    pub fn new() -> (ReloadTrigger, Self) {
        let (trigger, requests) = watch::channel(());
        (ReloadTrigger(trigger), Self(requests))
    }

    /// Requests that are never made.
    #[must_use]
    pub fn never() -> Self {
        Self::new().1
    }

    /// Waits for the next request. Cancel safe.
    async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

/// Files that belong together, such as a certificate and its key.
#[derive(Debug)]
pub struct WatchedFiles {
    paths: Vec<PathBuf>,
    requests: ReloadRequests,
    /// A request was made, and is not answered yet.
    is_asked: bool,
    /// What was read last for use, whether it could be used or not.
    handled: Fingerprint,
    /// What the last look found.
    seen: Fingerprint,
}

/// What files hold: a digest of each, or the kind of the error.
type Fingerprint = Vec<Result<[u8; 32], io::ErrorKind>>;

impl WatchedFiles {
    /// Watches files of which this was read.
    #[must_use]
    pub fn new(paths: Vec<PathBuf>, read: &[&Contents], requests: ReloadRequests) -> Self {
        let handled: Fingerprint = read.iter().map(|contents| fingerprint(contents)).collect();
        Self {
            paths,
            requests,
            is_asked: false,
            seen: handled.clone(),
            handled,
        }
    }

    /// Waits until the files have changed, or a request is made; answers what they hold now, in the
    /// order of their paths.
    ///
    /// A change is answered once two looks in a row have found the same, so that files which are
    /// being written are left alone. A request is answered at once. Cancel safe.
    pub async fn changed(&mut self) -> Vec<Contents> {
        loop {
            if !self.is_asked {
                tokio::select! {
                    () = self.requests.next() => self.is_asked = true,
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                }
            }
            let contents = self.look().await;
            let found: Fingerprint = contents.iter().map(fingerprint).collect();
            let is_settled = found == self.seen;
            self.seen = found;
            if std::mem::take(&mut self.is_asked) || (is_settled && self.seen != self.handled) {
                self.handled.clone_from(&self.seen);
                return contents;
            }
        }
    }

    async fn look(&self) -> Vec<Contents> {
        let paths = self.paths.clone();
        let read = move || paths.iter().map(|path| self::read(path)).collect();
        // A file system that hangs must not hold up streams.
        match tokio::task::spawn_blocking(read).await {
            Ok(contents) => contents,
            // The runtime ends.
            Err(_) => std::future::pending().await,
        }
    }
}

fn fingerprint(contents: &Contents) -> Result<[u8; 32], io::ErrorKind> {
    match contents {
        Ok(bytes) => {
            let digest = digest(&SHA256, bytes);
            Ok(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
        }
        Err(error) => Err(error.kind()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tokio::time::{Instant, timeout};

    use super::*;

    fn watched(paths: &[&Path], requests: ReloadRequests) -> WatchedFiles {
        let contents: Vec<_> = paths.iter().map(|path| read(path)).collect();
        let paths = paths.iter().map(|&path| path.to_owned()).collect();
        let contents: Vec<_> = contents.iter().collect();
        WatchedFiles::new(paths, &contents, requests)
    }

    fn texts(contents: Vec<Contents>) -> Vec<Option<String>> {
        let text = |bytes: Zeroizing<Vec<u8>>| String::from_utf8(bytes.to_vec()).unwrap();
        contents.into_iter().map(|one| one.ok().map(text)).collect()
    }

    fn text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_found_whatever_replaced_the_file_and_is_told_once() {
        let home = tempfile::tempdir().unwrap();
        let [first, second] = ["first", "second"].map(|name| {
            let directory = home.path().join(name);
            fs::create_dir(&directory).unwrap();
            fs::write(directory.join("file"), name).unwrap();
            directory
        });
        // As a volume of Kubernetes is: the link to the directory is what changes.
        let link = home.path().join("data");
        symlink(&first, &link).unwrap();
        let path = link.join("file");
        let mut files = watched(&[&path], ReloadRequests::never());

        fs::remove_file(&link).unwrap();
        symlink(&second, &link).unwrap();
        assert_eq!(texts(files.changed().await), [text("second")]);
        fs::write(&path, "in its place").unwrap();
        assert_eq!(texts(files.changed().await), [text("in its place")]);
        fs::remove_file(&path).unwrap();
        assert_eq!(texts(files.changed().await), [None]);
        let again = timeout(20 * LOOK_EVERY, files.changed()).await;
        assert!(again.is_err(), "nothing has changed");
    }

    #[tokio::test(start_paused = true)]
    async fn files_are_left_alone_while_they_are_being_written() {
        let home = tempfile::tempdir().unwrap();
        let (one, other) = (home.path().join("one"), home.path().join("other"));
        let mut files = watched(&[&one, &other], ReloadRequests::never());
        fs::write(&one, "new").unwrap();
        let start = Instant::now();
        let write_the_other = async {
            tokio::time::sleep(LOOK_EVERY + LOOK_EVERY / 2).await;
            fs::write(&other, "new too").unwrap();
        };
        let (found, ()) = tokio::join!(files.changed(), write_the_other);
        assert_eq!(texts(found), [text("new"), text("new too")]);
        assert_eq!(start.elapsed(), 3 * LOOK_EVERY);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_not_lost_where_something_else_came_first() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("file");
        let (trigger, requests) = ReloadRequests::new();
        let mut files = watched(&[&path], requests);
        trigger.trigger();
        // The first poll takes the request, and begins to look.
        tokio::select! {
            biased;
            _ = files.changed() => panic!("a look takes another thread"),
            () = std::future::ready(()) => {}
        }
        let start = Instant::now();
        assert_eq!(texts(files.changed().await), [None]);
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_reads_at_once_what_has_not_changed_too() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("file");
        fs::write(&path, "same").unwrap();
        let (trigger, requests) = ReloadRequests::new();
        let mut files = watched(&[&path], requests);
        let start = Instant::now();
        for _ in 0..2 {
            trigger.trigger();
            assert_eq!(texts(files.changed().await), [text("same")]);
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
