//! What a rack shows about a promote: its own lines while it goes on, and what there is to see when it does not end well.
//!
//! Everything here is best effort and bounded in time ([`EVIDENCE_TIME`] in all) and size: nothing of it can fail a promote, or
//! hide how it failed. Processes and log are read when the rack begins to go back and once more at the end, since what fails is
//! gone when it has gone back.

use super::guess::{self, Clues, guess};
use super::socket::{Lines, LogStream, Piece};
use super::{Convox, wire};
use crate::event::{Evidence, LogOf, Moment, Output, Progress};
use crate::names::ReleaseId;
use crate::rack::EVIDENCE_TIME;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::{Instant, timeout_at};

/// Lines that are kept of each process.
const LOG_LINES: usize = 40;
/// Lines that are kept of the rack's own.
const SYSTEM_LINES: usize = 20;
/// How much of the log's end is kept to choose them from, in bytes. With what else is bounded here, evidence stays below 256 KiB.
const LOG_BYTES: usize = 128 << 10;
/// A line is cut after so many bytes.
const LONGEST: usize = 1000;
/// Processes that are listed.
const PROCESSES: usize = 20;
/// Readings of the status that are kept.
const MOMENTS: usize = 200;
/// Lines of the manifests' difference.
const MANIFEST_LINES: usize = 40;
/// A manifest larger than this is not compared.
const MANIFEST_BYTES: usize = 256 << 10;
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
}

/// What is seen of a promote while it goes on, kept for when it does not end well.
pub(super) struct Trail {
    /// The release that was active before.
    pub(super) before: Option<ReleaseId>,
    began: Instant,
    /// The same by the rack's clock.
    began_there: OffsetDateTime,
    timeline: Vec<Moment>,
    /// What was there to see when the rack began to go back: what fails then is gone when it is over.
    caught: Option<Caught>,
    /// How much is left of [`EVIDENCE_TIME`].
    left: Duration,
}

/// The app's processes and the end of its log, at one moment.
#[derive(Default)]
struct Caught {
    processes: Vec<wire::Process>,
    lines: Vec<String>,
    missing: Vec<String>,
}

/// How a promote ended that did not end well.
pub(super) enum Ending<'e> {
    /// The rack went back.
    RolledBack,
    /// Time ran out.
    OutOfTime,
    /// The rack answered an error.
    Refused(&'e str),
}

impl Trail {
    pub(super) fn begin(clock_ahead: Option<time::Duration>) -> Self {
        let began_there = OffsetDateTime::now_utc().saturating_add(clock_ahead.unwrap_or_default());
        Self { before: None, began: Instant::now(), began_there, timeline: Vec::new(), caught: None, left: EVIDENCE_TIME }
    }

    /// Takes down a status that is another one than the last.
    pub(super) fn note(&mut self, status: &str, release: Option<&ReleaseId>) {
        let millis = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        if self.timeline.len() < MOMENTS {
            self.timeline.push(Moment { millis, status: status.to_owned(), release: release.cloned() });
        }
    }
}

impl Convox {
    /// Looks at the processes and the log while what fails is still there, for a part of the time there is.
    pub(super) async fn catch(&self, app: &str, trail: &mut Trail) {
        let began = Instant::now();
        trail.caught = Some(self.caught(app, trail.began.elapsed(), began + trail.left / 2).await);
        trail.left = trail.left.saturating_sub(began.elapsed());
    }

    /// Everything that is left to see, within the time there is; what cannot be read is said.
    pub(super) async fn evidence(&self, app: &str, release: &ReleaseId, trail: Trail, ending: Ending<'_>) -> Evidence {
        let deadline = Instant::now() + trail.left;
        let since = trail.began.elapsed();
        let before = trail.before.as_ref().filter(|before| *before != release);
        let releases = async { tokio::join!(self.kept_release(app, before, deadline), self.kept_release(app, Some(release), deadline)) };
        let (mut caught, (old, new)) = tokio::join!(self.caught(app, since, deadline), releases);
        if let Some(early) = trail.caught {
            let news = |one: &wire::Process| !early.processes.iter().any(|known| known.id == one.id);
            let later: Vec<wire::Process> = caught.processes.drain(..).filter(news).collect();
            let longer = early.lines.len() > caught.lines.len();
            caught.processes = early.processes.into_iter().chain(later).collect();
            if longer {
                caught.lines = early.lines;
            }
        }
        let mut evidence = Evidence { timeline: trail.timeline, missing: caught.missing, ..Evidence::default() };
        caught.processes.sort_by_key(|one| (one.release != release.as_str(), one.name.clone(), one.id.clone()));
        let theirs: BTreeSet<&str> =
            caught.processes.iter().filter(|one| one.release != release.as_str()).map(|one| one.id.as_str()).collect();
        let mut logs: BTreeMap<&str, VecDeque<&str>> = BTreeMap::new();
        let mut system = VecDeque::new();
        // Lines tell their time to the second; the rack's clock, as it tells it, is never ahead of itself.
        let since = trail.began_there.replace_nanosecond(0).unwrap_or(trail.began_there);
        for line in &caught.lines {
            let Some((when, source, text)) = apart(line) else { continue };
            // What was written before is another promote's. A time that cannot be read tells nothing.
            if OffsetDateTime::parse(when, &Rfc3339).is_ok_and(|when| when < since) {
                continue;
            }
            if is_system(line) {
                keep(&mut system, text, SYSTEM_LINES);
            } else if !theirs.contains(source.rsplit('/').next().unwrap_or_default()) {
                keep(logs.entry(source).or_default(), text, LOG_LINES);
            }
        }
        let ours = caught.processes.iter().filter(|one| one.release == release.as_str());
        let mut clues = Clues {
            system: system.iter().copied().collect(),
            app: logs.values().flatten().copied().collect(),
            states: ours.map(|one| one.status.as_str()).collect(),
            still_going: matches!(ending, Ending::OutOfTime),
        };
        if let Ending::Refused(message) = ending {
            clues.system.push(message);
        }
        (evidence.suspect, evidence.because) = guess(&clues);
        evidence.because.truncate(evidence.because.floor_char_boundary(LONGEST));
        evidence.next = guess::next(evidence.suspect, &evidence.because, app, &self.name, release);
        evidence.logs =
            logs.iter().take(PROCESSES).map(|(source, lines)| LogOf { source: (*source).to_owned(), lines: owned(lines) }).collect();
        evidence.system = owned(&system);
        evidence.processes = caught.processes.iter().take(PROCESSES).map(wire::Process::seen).collect();
        match (old, new) {
            (Ok(Some(old)), Ok(Some(new))) => {
                evidence.env = old.env_change(&new);
                evidence.manifest = differences(&old, &new);
            }
            (Err(why), _) | (_, Err(why)) => evidence.missing.push(why),
            // The app's first release, or one the rack has deleted.
            _ => {}
        }
        evidence
    }

    async fn kept_release(&self, app: &str, id: Option<&ReleaseId>, deadline: Instant) -> Result<Option<wire::Release>, String> {
        let Some(id) = id else { return Ok(None) };
        match timeout_at(deadline, self.release(app, id)).await {
            Ok(Ok(release)) => Ok(release),
            Ok(Err(error)) => Err(format!("release {id}: {error}")),
            Err(_) => Err(format!("release {id}: no answer in time")),
        }
    }

    async fn caught(&self, app: &str, since: Duration, deadline: Instant) -> Caught {
        let ((processes, no_processes), (lines, no_lines)) =
            tokio::join!(self.processes(app, deadline), self.last_lines(app, since, deadline));
        Caught { processes, lines, missing: no_processes.into_iter().chain(no_lines).collect() }
    }

    async fn processes(&self, app: &str, deadline: Instant) -> (Vec<wire::Process>, Option<String>) {
        let path = ["apps", app, "processes"];
        match timeout_at(deadline, self.http.get::<Vec<wire::Process>>(&path, &[])).await {
            Ok(Ok(processes)) => (processes, None),
            Ok(Err(error)) => (Vec::new(), Some(format!("the processes: {}", error.message()))),
            Err(_) => (Vec::new(), Some("the processes: no answer in time".to_owned())),
        }
    }

    /// The last lines of the app's log since `since` ago, as much of them as is kept.
    async fn last_lines(&self, app: &str, since: Duration, deadline: Instant) -> (Vec<String>, Option<String>) {
        // The rack's clock may be behind ours.
        let since = format!("{}s", since.as_secs() + 5);
        let options = [("Follow", "false".to_owned()), ("Prefix", "true".to_owned()), ("Since", since)];
        let mut kept = Tail::default();
        let read = async {
            let mut stream =
                LogStream::open(&self.http, &["apps", app, "logs"], &options).await.map_err(|error| error.message().to_owned())?;
            let mut lines = Lines::default();
            while let Some(piece) = stream.next().await {
                match piece {
                    Piece::Output(bytes) => lines.push(&bytes).into_iter().for_each(|line| kept.push(line)),
                    Piece::Refused(message) => return Err(String::from_utf8_lossy(&message).trim().to_owned()),
                }
            }
            lines.finish().into_iter().for_each(|line| kept.push(line));
            Ok(())
        };
        let ended = timeout_at(deadline, read).await;
        let missing = match ended {
            Ok(Ok(())) => None,
            Ok(Err(why)) => Some(format!("the log: {why}")),
            Err(_) => Some("the log was not read to its end in time".to_owned()),
        };
        (kept.lines.into(), missing)
    }
}

/// The end of a log, bounded in bytes.
#[derive(Default)]
struct Tail {
    lines: VecDeque<String>,
    bytes: usize,
}

impl Tail {
    fn push(&mut self, mut line: String) {
        line.truncate(line.floor_char_boundary(LONGEST));
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.bytes > LOG_BYTES {
            let Some(dropped) = self.lines.pop_front() else { break };
            self.bytes -= dropped.len();
        }
    }
}

fn keep<'l>(lines: &mut VecDeque<&'l str>, line: &'l str, most: usize) {
    lines.push_back(line);
    lines.drain(..lines.len().saturating_sub(most));
}

fn owned(lines: &VecDeque<&str>) -> Vec<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}

/// When a line was written, who wrote it, and what, when it is prefixed: `TIME SOURCE TEXT`.
fn apart(line: &str) -> Option<(&str, &str, &str)> {
    let (when, rest) = line.split_once(' ')?;
    let (source, text) = rest.split_once(' ').unwrap_or((rest, ""));
    Some((when, source, text))
}

/// How two releases' manifests differ, as `diff -u` writes it, without its head.
fn differences(old: &wire::Release, new: &wire::Release) -> Vec<String> {
    let (old, new) = (old.manifest.as_str(), new.manifest.as_str());
    if old.is_empty() || new.is_empty() || old.len().max(new.len()) > MANIFEST_BYTES {
        return Vec::new();
    }
    let diff = similar::TextDiff::from_lines(old, new).unified_diff().context_radius(1).to_string();
    let mut lines: Vec<String> =
        diff.lines().take(MANIFEST_LINES + 1).map(|line| line[..line.floor_char_boundary(LONGEST)].to_owned()).collect();
    if lines.len() > MANIFEST_LINES {
        lines.truncate(MANIFEST_LINES);
        lines.push("…".to_owned());
    }
    lines
}

/// True for a line of the rack itself: its second word names `system/…`, after the time.
fn is_system(line: &str) -> bool {
    line.split_whitespace().nth(1).is_some_and(|word| word.starts_with("system/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RackConfig;
    use crate::rack::login::{self, RackLogin};
    use crate::secret::Secret;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    /// A rack that takes every request and answers nothing, or an answer that never ends.
    async fn rack(drips: bool) -> Convox {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let asked = stream.read(&mut [0; 4096]).await;
                    if drips && asked.is_ok() {
                        let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n").await;
                        while sent.is_ok() {
                            tokio::time::sleep(Duration::from_millis(5)).await;
                            sent = stream.write_all(b" ").await;
                        }
                    }
                    // Open until the other side has had enough.
                    while matches!(stream.read(&mut [0; 4096]).await, Ok(1..)) {}
                });
            }
        });
        // What ends the waiting is not the limit of one answer.
        let config = RackConfig { answer: Duration::from_secs(3600), ..login::tests::rack("prod", None, None) };
        let password = Secret::new("evidence-password");
        let login = RackLogin { url, user: "convox".to_owned(), password, relayed: None, source: "the test".to_owned() };
        Convox::new(&config, login, Duration::from_millis(20)).unwrap()
    }

    #[tokio::test]
    async fn a_rack_that_hangs_or_drips_costs_no_more_than_the_time_there_is() {
        let id = |id: &str| ReleaseId::new(id).unwrap();
        for drips in [false, true] {
            let rack = rack(drips).await;
            let mut trail = Trail { left: Duration::from_millis(400), before: Some(id("ROLD")), ..Trail::begin(None) };
            trail.note("rollback", None);
            let looks = async {
                rack.catch("web", &mut trail).await;
                assert!(trail.left <= Duration::from_millis(200), "the early look counts: {:?} are left", trail.left);
                rack.evidence("web", &id("RNEW"), trail, Ending::RolledBack).await
            };
            let evidence = tokio::time::timeout(Duration::from_secs(60), looks).await.expect("it ends by itself");
            let missing =
                ["the processes: no answer in time", "the log was not read to its end in time", "release ROLD: no answer in time"];
            assert_eq!(evidence.missing, missing, "drips: {drips}");
            assert_eq!(evidence.timeline.len(), 1);
        }
        assert_eq!(Trail::begin(None).left, EVIDENCE_TIME);
    }

    #[test]
    fn only_the_racks_own_lines_are_progress() {
        assert!(is_system("2026-11-22T20:00:00Z system/cloudformation/resource CREATE_COMPLETE web"));
        assert!(is_system("2026-11-22T20:00:00Z system/k8s/web Scaled up"));
        assert!(!is_system("2026-11-22T20:00:00Z service/web/abc GET /"));
        assert!(!is_system("system/x"));
    }
}
