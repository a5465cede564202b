//! What a sandbox keeps on disk: JSON written whole and renamed into place, and the log of requests.

use crate::error::{Error, Result};
use hyper::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use time::OffsetDateTime;

/// Reads a JSON file; `None` when it is not there.
pub(super) fn load<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let wrong = |why: &dyn std::fmt::Display| {
        Error::unusable(format!("the sandbox's state `{}` cannot be read", path.display()))
            .because(why)
            .hint(format!("start afresh: rm {}", path.display()))
    };
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| wrong(&error)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(wrong(&error)),
    }
}

/// Writes a JSON file that only its owner may read (it holds passwords), whole or not at all.
pub(super) fn save<T: Serialize>(path: &Path, value: &T) -> std::io::Result<()> {
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    replace(path, &bytes)
}

/// Writes a file whole or not at all.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    // Two writers of one path must not share the file that is renamed.
    let aside = path.with_added_extension(format!("{:08x}", fastrand::u32(..)));
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&aside)?;
    let written = file.write_all(bytes).and_then(|()| std::fs::rename(&aside, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&aside);
    }
    written
}

/// Makes a directory of the state.
pub(super) fn directory(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path)
        .map_err(|error| Error::unusable(format!("the sandbox cannot make its directory `{}`", path.display())).because(error))
}

/// A name as one part of a path, whatever is in it.
pub(super) fn file_name(name: &str) -> String {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
    const PART: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');
    utf8_percent_encode(name, PART).to_string()
}

/// The log of every request, JSON lines: `time`, `rack` (or `registry`, `ecr`), `method`, `path`, `status` (null when no
/// answer was sent), and for ECR `operation`.
pub(super) struct RequestLog {
    file: Mutex<File>,
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(with = "time::serde::rfc3339")]
    time: OffsetDateTime,
    rack: &'a str,
    method: &'a str,
    path: &'a str,
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<&'a str>,
}

impl RequestLog {
    /// Appends to `path`.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let opened = File::options().append(true).create(true).mode(0o600).open(path);
        let file = opened.map_err(|error| Error::unusable(format!("the sandbox cannot write `{}`", path.display())).because(error))?;
        Ok(Self { file: Mutex::new(file) })
    }

    /// Notes one request.
    pub(super) fn note(&self, place: &str, method: &str, path: &str, operation: Option<&str>, status: Option<StatusCode>) {
        let line = Line { time: OffsetDateTime::now_utc(), rack: place, method, path, status: status.map(|s| s.as_u16()), operation };
        let Ok(mut text) = serde_json::to_string(&line) else { return };
        text.push('\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // A full disk must not change what a rack answers.
        let _ = file.write_all(text.as_bytes());
    }
}
