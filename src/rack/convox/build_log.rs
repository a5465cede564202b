//! Following a build on the rack: its log as it comes, its end as the rack's record of it says.
//!
//! The log stream is for people only: it may end early, begin with a refusal, start over, or never close. Looks at the build
//! decide. When the build has ended, the stored log fills in what the stream did not show.

use super::socket::{LogStream, Piece};
use super::{Convox, wire};
use crate::event::{Lines, Output, Progress};
use crate::names::BuildId;
use crate::rack::RackError;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How much of the end of what was shown is kept to find the place in the stored log, in bytes.
const TAIL: usize = 4 << 10;
/// A stored log larger than this, in bytes, is not read.
const LARGEST_STORED: usize = 64 << 20;

impl Convox {
    /// Follows a build until it is complete; a failed one is [`RackError::Build`] with its cause.
    pub(super) async fn follow_build(
        &self,
        app: &str,
        id: &BuildId,
        deadline: Instant,
        limit: Duration,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<wire::Build, RackError> {
        let mut log = BuildLog::new(progress);
        let mut stream = None;
        // A stream that was refused or ended early is asked for again, but not all the time.
        let mut open_from = Instant::now();
        let mut next_look = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return Err(RackError::Cancelled),
                () = tokio::time::sleep_until(next_look) => {}
                piece = next(&mut stream) => {
                    if let Some(Piece::Output(bytes)) = &piece {
                        log.show(bytes, progress);
                        // The rack waits, so that what it sends does not pile up here.
                        progress.keep_up().await;
                        continue;
                    }
                    stream = None;
                    open_from = Instant::now() + self.poll;
                    // The log's end is most often the build's.
                    next_look = next_look.min(Instant::now() + self.poll / 5);
                    continue;
                }
            }
            let build = match self.build(app, id).await {
                Ok(Some(build)) => build,
                Ok(None) => {
                    let what = format!("build `{id}` of app `{app}`");
                    return Err(RackError::Unknown { rack: self.name.clone(), what, message: "the rack has it no more".to_owned() });
                }
                // The rack may be updating itself; the deadline ends this.
                Err(RackError::Unreachable { message, .. }) => {
                    if Instant::now() >= deadline {
                        return Err(self.build_late(app, id, limit, &message));
                    }
                    next_look = (Instant::now() + self.poll).min(deadline);
                    continue;
                }
                Err(error) => return Err(error),
            };
            match build.status.as_str() {
                "complete" | "failed" => return self.finish(app, id, build, stream, log, progress).await,
                "running" if stream.is_none() && Instant::now() >= open_from => {
                    log.start_over();
                    open_from = Instant::now() + self.poll;
                    let options = [("Follow", "true".to_owned())];
                    let path = ["apps", app, "builds", id.as_str(), "logs"];
                    tokio::select! {
                        biased;
                        () = cancel.cancelled() => return Err(RackError::Cancelled),
                        opened = tokio::time::timeout_at(deadline, LogStream::open(&self.http, &path, &options)) => {
                            stream = opened.ok().and_then(Result::ok);
                        }
                    }
                }
                _ => {}
            }
            if Instant::now() >= deadline {
                let waiting_for =
                    format!("for build `{id}` of app `{app}` to end (it is `{}`; see `convox builds logs {id}`)", build.status);
                return Err(self.timed_out(limit, &waiting_for, true));
            }
            next_look = (Instant::now() + if stream.is_some() { self.poll } else { self.poll / 5 }).min(deadline);
        }
    }

    /// The build has ended: shows the rest of its log and tells how it ended.
    async fn finish(
        &self,
        app: &str,
        id: &BuildId,
        build: wire::Build,
        mut stream: Option<LogStream>,
        mut log: BuildLog,
        progress: &Progress,
    ) -> Result<wire::Build, RackError> {
        if let Some(stream) = &mut stream {
            let rest = async {
                while let Some(Piece::Output(bytes)) = stream.next().await {
                    log.show(&bytes, progress);
                }
            };
            // A stream that never closes has had its time.
            let _ = tokio::time::timeout(self.patience(), rest).await;
        }
        let failed = build.status == "failed";
        match self.stored_log(app, id, &build).await {
            Some(stored) => log.show_unseen(&stored, progress),
            None if log.seen == 0 => progress.notice(format!("rack `{}` has no log of build `{id}`", self.name)),
            None => {}
        }
        log.end(progress);
        if !failed {
            return Ok(build);
        }
        let message = log.cause().or(Some(build.reason).filter(|reason| !reason.is_empty()));
        let message = message.unwrap_or_else(|| format!("no cause in its log; see `convox builds logs {id} -a {app}`"));
        Err(RackError::Build { rack: self.name.clone(), message })
    }

    /// The log a build left, from the object store or as a stream, whichever there is.
    async fn stored_log(&self, app: &str, id: &BuildId, build: &wire::Build) -> Option<Vec<u8>> {
        if let Some(key) = build.logs.strip_prefix(&format!("object://{app}/")) {
            let path: Vec<&str> = ["apps", app, "objects"].into_iter().chain(key.split('/')).collect();
            if let Ok(stored) = self.http.get_bytes(&path, &[]).await {
                return Some(stored);
            }
        } else if !build.logs.is_empty() && !build.logs.contains("://") {
            return Some(build.logs.clone().into_bytes());
        }
        let path = ["apps", app, "builds", id.as_str(), "logs"];
        let mut stream = LogStream::open(&self.http, &path, &[("Follow", "false".to_owned())]).await.ok()?;
        let mut stored = Vec::new();
        let read = async {
            while let Some(Piece::Output(bytes) | Piece::Refused(bytes)) = stream.next().await {
                stored.extend_from_slice(&bytes);
                if stored.len() > LARGEST_STORED {
                    // What was shown as it came is all there will be.
                    return stored.clear();
                }
            }
        };
        let _ = tokio::time::timeout(self.patience(), read).await;
        let refusal = stored.starts_with(b"ERROR: unable to read logs") || stored.starts_with(b"ERROR: invalid authentication");
        (!stored.is_empty() && !refusal).then_some(stored)
    }

    /// How long a stream that should be over is waited for.
    pub(super) fn patience(&self) -> Duration {
        (self.poll * 2).max(Duration::from_secs(1))
    }
}

/// The next piece of a stream; without a stream it never comes.
async fn next(stream: &mut Option<LogStream>) -> Option<Piece> {
    match stream {
        Some(stream) => stream.next().await,
        None => std::future::pending().await,
    }
}

/// What was shown of a build's log, and the cause of its failure as far as it told.
struct BuildLog {
    lines: Lines,
    /// Bytes shown.
    seen: usize,
    /// Bytes to pass over: a stream that is opened again starts over.
    skip: usize,
    /// The end of what was shown.
    tail: Vec<u8>,
    last: String,
    error: Option<(String, String)>,
}

impl BuildLog {
    fn new(progress: &Progress) -> Self {
        Self { lines: progress.lines(), seen: 0, skip: 0, tail: Vec::new(), last: String::new(), error: None }
    }

    fn start_over(&mut self) {
        self.skip = self.seen;
    }

    fn show(&mut self, bytes: &[u8], progress: &Progress) {
        let passed = self.skip.min(bytes.len());
        self.skip -= passed;
        let bytes = &bytes[passed..];
        self.seen += bytes.len();
        self.tail.extend_from_slice(bytes);
        self.tail.drain(..self.tail.len().saturating_sub(TAIL));
        let mut lines = Vec::new();
        self.lines.push(bytes, &mut |line| lines.push(line));
        lines.into_iter().for_each(|line| self.line(line, progress));
    }

    /// Shows what of the stored log was not shown yet. The place is where the stored log has the end of what was shown; a live
    /// stream may hold lines the stored log has not (`waiting for build pod …`), so counting bytes is only the last resort.
    fn show_unseen(&mut self, stored: &[u8], progress: &Progress) {
        self.skip = 0;
        let counted = stored.get(..self.seen).filter(|before| before.ends_with(&self.tail)).map(<[u8]>::len);
        let last_line = self.tail.strip_suffix(b"\n").unwrap_or(&self.tail);
        let last_line = &self.tail[last_line.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)..];
        let searched = || {
            let starts = (0..stored.len()).rev().filter(|at| stored[*at..].starts_with(last_line));
            (!last_line.is_empty()).then(|| starts.map(|at| at + last_line.len()).next()).flatten()
        };
        let from = counted.or_else(searched).unwrap_or_else(|| self.seen.min(stored.len()));
        self.show(&stored[from..], progress);
    }

    fn end(&mut self, progress: &Progress) {
        let mut last = None;
        self.lines.finish(&mut |line| last = Some(line));
        if let Some(line) = last {
            self.line(line, progress);
        }
    }

    fn line(&mut self, line: String, progress: &Progress) {
        if let Some(error) = line.strip_prefix("ERROR: ") {
            self.error = Some((error.trim().to_owned(), std::mem::take(&mut self.last)));
        } else if !line.trim().is_empty() {
            self.last.clone_from(&line);
        }
        progress.log(Output::Out, line);
    }

    /// The last `ERROR: ` line; one that only tells an exit status comes with the line before it.
    fn cause(&self) -> Option<String> {
        let (error, before) = self.error.as_ref()?;
        let before = before.trim();
        Some(if error.starts_with("exit status") && !before.is_empty() { format!("{before} ({error})") } else { error.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{EventKind, Events, Stage, Step};
    use crate::names::AppName;
    use crate::secret::Redactor;

    /// The lines shown when a stream gave `live` and the rack then has `stored`, and the cause.
    fn shown(live: &str, stored: &str) -> (Vec<String>, Option<String>) {
        let (events, mut receiver) = Events::new(Redactor::default());
        let step = Step { app: AppName::new("web").unwrap(), rack: None, service: None, stage: Stage::Stage };
        let progress = events.progress(step);
        let mut log = BuildLog::new(&progress);
        log.show(live.as_bytes(), &progress);
        log.show_unseen(stored.as_bytes(), &progress);
        log.end(&progress);
        let mut lines = Vec::new();
        while let Some(event) = receiver.try_recv() {
            if let EventKind::Log { line, .. } = event.kind {
                lines.push(line);
            }
        }
        (lines, log.cause())
    }

    #[test]
    fn the_stored_log_fills_in_what_was_not_shown() {
        let table = [
            ("", "a\nb\n", vec!["a", "b"]),
            ("a\n", "a\nb\n", vec!["a", "b"]),
            ("a\nb", "a\nbc\nd", vec!["a", "bc", "d"]),
            ("a\nb\n", "a\nb\n", vec!["a", "b"]),
            ("waiting for build pod\na\n", "a\nb\n", vec!["waiting for build pod", "a", "b"]),
            ("entirely other\n", "x\n", vec!["entirely other"]),
        ];
        for (live, stored, expected) in table {
            assert_eq!(shown(live, stored).0, expected, "{live:?} {stored:?}");
        }
    }

    #[test]
    fn the_cause_is_the_last_error_line() {
        assert_eq!(shown("ERROR: one\nx\nERROR: two\n", "").1.as_deref(), Some("two"));
        assert_eq!(shown("pull denied\nERROR: exit status 1\n", "").1.as_deref(), Some("pull denied (exit status 1)"));
        assert_eq!(shown("fine\n", "").1, None);
    }
}
