//! What a rack shows about a promote: its own lines while it goes on, and what is left to see after a rollback.
//!
//! Everything here is best effort and bounded in time and size: nothing of it can fail a promote.

use super::socket::{Lines, LogStream, Piece};
use super::{Convox, wire};
use crate::event::{Output, Progress};
use crate::names::ReleaseId;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

/// Lines of the app's log that are kept as evidence.
const LOG_LINES: usize = 40;
/// How much of the app's log is read for them, in bytes.
const LOG_BYTES: usize = 256 << 10;
/// Processes that are listed.
const PROCESSES: usize = 20;
/// Lines that are remembered so that a stream opened again does not repeat them.
const REMEMBERED: usize = 200;

impl Convox {
    /// Hands on what the rack itself says about the app (`system/…` lines of its log) for as long as it is polled.
    pub(super) async fn tell_progress(&self, app: &str, progress: &Progress) -> Infallible {
        let mut told: VecDeque<String> = VecDeque::new();
        loop {
            let options = [("Follow", "true".to_owned()), ("Prefix", "true".to_owned()), ("Since", "5s".to_owned())];
            if let Ok(mut stream) = LogStream::open(&self.http, &["apps", app, "logs"], &options).await {
                let mut lines = Lines::default();
                while let Some(Piece::Output(bytes)) = stream.next().await {
                    for line in lines.push(&bytes) {
                        if is_system(&line) && !told.contains(&line) {
                            told.push_back(line.clone());
                            told.drain(..told.len().saturating_sub(REMEMBERED));
                            progress.log(Output::Out, line);
                        }
                    }
                }
            }
            tokio::time::sleep(self.poll).await;
        }
    }

    /// The app's processes and their states, those of `release` first.
    pub(super) async fn process_states(&self, app: &str, release: &ReleaseId) -> Vec<String> {
        let answer: Result<Vec<wire::Process>, _> = self.http.get(&["apps", app, "processes"], &[]).await;
        let mut processes = answer.unwrap_or_default();
        processes.sort_by_key(|process| (process.release != release.as_str(), process.name.clone(), process.id.clone()));
        let line = |process: &wire::Process| {
            let wire::Process { id, name, release, status } = process;
            format!("process {id} of service {name}, release {release}: {status}")
        };
        processes.iter().take(PROCESSES).map(line).collect()
    }

    /// The last lines of the app's log since `since` ago.
    pub(super) async fn last_lines(&self, app: &str, since: Duration) -> Vec<String> {
        let since = format!("{}s", since.as_secs() + 1);
        let options = [("Follow", "false".to_owned()), ("Prefix", "true".to_owned()), ("Since", since)];
        let mut kept: VecDeque<String> = VecDeque::new();
        let read = async {
            let Ok(mut stream) = LogStream::open(&self.http, &["apps", app, "logs"], &options).await else { return };
            let (mut lines, mut size) = (Lines::default(), 0);
            while let Some(Piece::Output(bytes)) = stream.next().await {
                size += bytes.len();
                kept.extend(lines.push(&bytes));
                kept.drain(..kept.len().saturating_sub(LOG_LINES));
                if size > LOG_BYTES {
                    break;
                }
            }
            kept.extend(lines.finish());
        };
        let _ = tokio::time::timeout(self.patience(), read).await;
        kept.into_iter().map(|line| format!("log {line}")).collect()
    }
}

/// True for a line of the rack itself: its second word names `system/…`, after the time.
fn is_system(line: &str) -> bool {
    line.split_whitespace().nth(1).is_some_and(|word| word.starts_with("system/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_racks_own_lines_are_progress() {
        assert!(is_system("2026-11-22T20:00:00Z system/cloudformation/resource CREATE_COMPLETE web"));
        assert!(is_system("2026-11-22T20:00:00Z system/k8s/web Scaled up"));
        assert!(!is_system("2026-11-22T20:00:00Z service/web/abc GET /"));
        assert!(!is_system("system/x"));
    }
}
