//! The journal of a run: its events, one JSON line each, in `.offbuild/runs/<run>.jsonl` under the repository's root.
//!
//! A lifecycle event is on the disk when [`Journal::append`] (or [`Journal::append_all`], which syncs once for many)
//! returns; output lines ride along with the next one. Reading forgives a last line that a kill tore. Journals are for
//! their owner only (they hold logs), are ignored by git by a `.gitignore` of their own, and the oldest go when there are
//! more than [`KEPT_RUNS`]. What events mean is not known here: [`crate::report::state`] folds them.

use crate::error::{Error, Result};
use crate::event::{Event, EventKind, FORMAT_VERSION};
use crate::names::RunId;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// How many journals are kept, the newest ones.
pub const KEPT_RUNS: usize = 50;

/// Output lines wait for the next lifecycle event at most this long, in bytes.
const BUFFERED: usize = 64 * 1024;

/// A journal being written.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    buffer: Vec<u8>,
}

/// A journal on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFile {
    /// The run.
    pub run: RunId,
    /// Its journal.
    pub path: PathBuf,
}

impl RunFile {
    /// Where the run's HTML page is kept when nobody names another place: it goes when its journal goes.
    #[must_use]
    pub fn page(&self) -> PathBuf {
        self.path.with_extension("html")
    }
}

/// Returns `.offbuild` under `root`, made when it is missing, with the `.gitignore` that keeps it out of the tree.
pub fn home(root: &Path) -> io::Result<PathBuf> {
    let home = root.join(".offbuild");
    DirBuilder::new().recursive(true).mode(0o700).create(&home)?;
    match OpenOptions::new().write(true).create_new(true).open(home.join(".gitignore")) {
        Ok(mut file) => file.write_all(b"*\n")?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    Ok(home)
}

impl Journal {
    /// Creates the journal of `run` under the repository's `root` and removes the oldest ones beyond [`KEPT_RUNS`].
    pub fn create(root: &Path, run: &RunId) -> Result<Self> {
        let path = runs_dir(root).join(format!("{run}.jsonl"));
        let open = || -> io::Result<File> {
            home(root)?;
            let runs = runs_dir(root);
            DirBuilder::new().recursive(true).mode(0o700).create(&runs)?;
            let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path)?;
            // A synced file is only found after a crash when its directory is synced too.
            File::open(&runs)?.sync_all()?;
            Ok(file)
        };
        let file = open().map_err(|error| {
            Error::unusable(format!("the journal of run `{run}` cannot be created"))
                .because(format!("`{}`: {error}", path.display()))
                .hint("make `.offbuild` in the repository's root writable")
        })?;
        prune(root);
        Ok(Self { file, path, buffer: Vec::new() })
    }

    /// A journal on a file that is open for reading only.
    #[cfg(test)]
    pub(crate) fn unwritable(dir: &Path) -> Self {
        let path = dir.join("unwritable.jsonl");
        fs::write(&path, "").unwrap();
        Self { file: File::open(&path).unwrap(), path, buffer: Vec::new() }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends one event; it is on disk on return when it is a lifecycle event.
    pub fn append(&mut self, event: &Event) -> io::Result<()> {
        self.append_all(std::slice::from_ref(event))
    }

    /// Appends events in order, with at most one sync for all of them.
    pub fn append_all(&mut self, events: &[Event]) -> io::Result<()> {
        for event in events {
            serde_json::to_writer(&mut self.buffer, event)?;
            self.buffer.push(b'\n');
        }
        let sync = events.iter().any(|event| event.kind.is_lifecycle());
        if sync || self.buffer.len() > BUFFERED {
            self.flush()?;
        }
        if sync {
            self.file.sync_data()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let written = self.file.write_all(&self.buffer);
        // Also after a failure: writing half a line a second time would not mend it.
        self.buffer.clear();
        written
    }

    /// Reads the events of a journal. A torn last line is left out; a broken line elsewhere is an error that names it.
    pub fn read(path: &Path) -> Result<Vec<Event>> {
        read_lines(path, |_| true)
    }

    /// Reads the first event, which tells what the run was about; `None` when there is none that can be read.
    #[must_use]
    pub fn read_first(path: &Path) -> Option<Event> {
        let mut line = Vec::new();
        BufReader::new(File::open(path).ok()?).read_until(b'\n', &mut line).ok()?;
        serde_json::from_slice(&line).ok()
    }

    /// Reads what a table of runs needs: the events without output lines and transfers, many times faster.
    pub fn read_outline(path: &Path) -> Result<Vec<Event>> {
        // The kind stands near a line's start, and quotes inside texts are escaped: this cannot meet an output's text.
        let loud = ["\"event\":\"log\"", "\"event\":\"transfer\"", "\"event\":\"build-step\""];
        read_lines(path, |line| !loud.iter().any(|kind| line.get(..120).unwrap_or(line).contains(kind)))
    }

    /// Lists the journals under the repository's `root`, newest first.
    pub fn list(root: &Path) -> Result<Vec<RunFile>> {
        let runs = runs_dir(root);
        let unreadable = |error: io::Error| Error::unusable(format!("the runs in `{}` cannot be listed", runs.display())).because(error);
        let entries = match fs::read_dir(&runs) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unreadable(error)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.map_err(unreadable)?.path();
            let stem = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".jsonl"));
            if let Some(run) = stem.and_then(|stem| RunId::new(stem).ok()) {
                found.push(RunFile { run, path });
            }
        }
        found.sort_by(|a, b| b.run.cmp(&a.run));
        Ok(found)
    }

    /// Finds a run by its id, by the start of it that no other run shares, or the newest by `latest`.
    pub fn find(root: &Path, which: &str) -> Result<RunFile> {
        let runs = Self::list(root)?;
        let hint = "see the runs there are: `offbuild history`";
        let none = || Error::config(format!("there is no run `{which}`")).hint(hint);
        if which == "latest" {
            return runs.into_iter().next().ok_or_else(|| Error::config("nothing was run here yet").hint("deploy: `offbuild deploy`"));
        }
        if let Some(exact) = runs.iter().find(|file| file.run.as_str() == which) {
            return Ok(exact.clone());
        }
        let found: Vec<&RunFile> = runs.iter().filter(|file| !which.is_empty() && file.run.as_str().starts_with(which)).collect();
        match found.as_slice() {
            [] => Err(none()),
            [one] => Ok((*one).clone()),
            several => {
                let names: Vec<String> = several.iter().take(5).map(|file| format!("`{}`", file.run)).collect();
                let more = if several.len() > 5 { ", …" } else { "" };
                let text = format!("`{which}` is the start of {} runs: {}{more}", several.len(), names.join(", "));
                Err(Error::config(text).hint("give more of the id"))
            }
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // Only output lines can be left here; there is nobody to tell that they were lost.
        let _ = self.flush();
    }
}

fn runs_dir(root: &Path) -> PathBuf {
    root.join(".offbuild").join("runs")
}

fn prune(root: &Path) {
    // A journal that cannot be removed is no reason not to deploy; the next run tries again.
    for old in Journal::list(root).unwrap_or_default().into_iter().skip(KEPT_RUNS) {
        let _ = fs::remove_file(old.page());
        let _ = fs::remove_file(old.path);
    }
}

fn read_lines(path: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<Event>> {
    let unreadable = |error: io::Error| Error::unusable(format!("the journal `{}` cannot be read", path.display())).because(error);
    let mut reader = BufReader::new(File::open(path).map_err(unreadable)?);
    let mut events = Vec::new();
    let (mut line, mut number) = (Vec::new(), 0usize);
    loop {
        line.clear();
        number += 1;
        if reader.read_until(b'\n', &mut line).map_err(unreadable)? == 0 {
            return Ok(events);
        }
        let whole = line.last() == Some(&b'\n');
        let text = String::from_utf8_lossy(&line);
        if whole && !wanted(&text) {
            continue;
        }
        match serde_json::from_str::<Event>(&text) {
            Ok(event) => {
                check_version(path, &event.kind)?;
                events.push(event);
            }
            Err(_) if !whole || reader.fill_buf().map_err(unreadable)?.is_empty() => return Ok(events),
            Err(error) => {
                return Err(Error::unusable(format!("line {number} of the journal `{}` is not an event", path.display()))
                    .because(error)
                    .hint("it may be from a newer offbuild; the racks still say what is live: `offbuild status`"));
            }
        }
    }
}

fn check_version(path: &Path, kind: &EventKind) -> Result<()> {
    match kind {
        EventKind::RunStarted { version, .. } if *version > FORMAT_VERSION => {
            let text = format!("the journal `{}` has format {version}; this offbuild reads up to {FORMAT_VERSION}", path.display());
            Err(Error::unusable(text).hint("use the offbuild that wrote it, or a newer one"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;
    use std::os::unix::fs::PermissionsExt as _;

    fn run(text: &str) -> RunId {
        RunId::new(text).unwrap()
    }

    #[test]
    fn what_was_appended_is_read_back_and_is_the_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let events = samples::hook_failing();
        let mut journal = Journal::create(dir.path(), &run("20260102-030405-aaaa")).unwrap();
        events.iter().for_each(|event| journal.append(event).unwrap());
        assert_eq!(Journal::read(journal.path()).unwrap(), events);
        let outline = Journal::read_outline(journal.path()).unwrap();
        let quiet: Vec<Event> = events.into_iter().filter(|event| event.kind.is_lifecycle()).collect();
        assert_eq!(outline, quiet);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(journal.path()), 0o600);
        assert_eq!(fs::read_to_string(dir.path().join(".offbuild/.gitignore")).unwrap(), "*\n");
    }

    #[test]
    fn a_lifecycle_event_is_in_the_file_at_once_and_brings_the_lines_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let events = samples::hook_failing();
        let mut journal = Journal::create(dir.path(), &run("r1")).unwrap();
        for (index, event) in events.iter().enumerate() {
            journal.append(event).unwrap();
            if event.kind.is_lifecycle() {
                assert_eq!(Journal::read(journal.path()).unwrap().len(), index + 1);
            }
        }
    }

    #[test]
    fn a_journal_torn_at_any_byte_gives_the_events_before() {
        let dir = tempfile::tempdir().unwrap();
        let events = samples::nothing_to_do();
        let mut journal = Journal::create(dir.path(), &run("r1")).unwrap();
        journal.append_all(&events).unwrap();
        let bytes = fs::read(journal.path()).unwrap();
        let torn = dir.path().join("torn.jsonl");
        for end in 0..bytes.len() {
            fs::write(&torn, &bytes[..end]).unwrap();
            let read = Journal::read(&torn).unwrap();
            assert_eq!(read, events[..read.len()], "torn at {end}");
            let whole = bytes[..end].iter().filter(|byte| **byte == b'\n').count();
            assert!(read.len() >= whole, "torn at {end}");
        }
        let mut broken = b"{}\n".to_vec();
        broken.extend(bytes);
        fs::write(&torn, broken).unwrap();
        assert!(Journal::read(&torn).unwrap_err().message.starts_with("line 1 of"));
    }

    #[test]
    fn a_run_is_found_by_id_start_and_latest() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Journal::find(dir.path(), "latest").unwrap_err().message.contains("nothing was run"));
        for id in ["20260102-030405-aaaa", "20260102-030405-aaab", "20260103-000000-cccc"] {
            Journal::create(dir.path(), &run(id)).unwrap();
        }
        let find = |which: &str| Journal::find(dir.path(), which).map(|file| file.run.to_string()).map_err(|error| error.message);
        assert_eq!(find("latest").unwrap(), "20260103-000000-cccc");
        assert_eq!(find("20260103").unwrap(), "20260103-000000-cccc");
        assert_eq!(find("20260102-030405-aaaa").unwrap(), "20260102-030405-aaaa");
        assert_eq!(find("20260102").unwrap_err(), "`20260102` is the start of 2 runs: `20260102-030405-aaab`, `20260102-030405-aaaa`");
        assert_eq!(find("x").unwrap_err(), "there is no run `x`");
        assert_eq!(find("").unwrap_err(), "there is no run ``");
    }

    #[test]
    fn only_the_newest_runs_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..KEPT_RUNS + 3 {
            Journal::create(dir.path(), &run(&format!("20260102-{number:06}-aaaa"))).unwrap();
            fs::write(Journal::find(dir.path(), "latest").unwrap().page(), "").unwrap();
        }
        // A page that nobody asked for there is none of.
        Journal::create(dir.path(), &run("20260103-000000-aaaa")).unwrap();
        assert_eq!(fs::read_dir(runs_dir(dir.path())).unwrap().count(), 2 * KEPT_RUNS - 1);
        let kept = Journal::list(dir.path()).unwrap();
        assert_eq!(kept.len(), KEPT_RUNS);
        assert_eq!(kept.last().unwrap().run.as_str(), "20260102-000004-aaaa");
    }
}
