//! One run per rack and repository: a lock that says who holds it, since when and where to look, and that does not outlive
//! its holder.
//!
//! `.offbuild/locks/<rack>.json` names the holder; its time of change is the heartbeat. Taking, refreshing and giving back
//! happen under a short `flock` on a guard file beside it: without one, two who find the same stale lock could both take it.
//! The flock alone would not do: it says nothing about who holds it, and nothing at all on many network file systems. A lock
//! is stale when its heartbeat is older than [`TTL`], or at once when its process was of this machine and is gone. Whatever
//! happens in between, the rack refuses a promote while an app updates; the lock saves wasted work.
//!
//! Runners that share no disk meet on the rack: [`lease`] says who deploys to a target, [`freeze`] is a lock set by hand.

pub mod freeze;
pub mod lease;

use crate::error::{Error, Kind, Result};
use crate::journal;
use crate::names::{RackName, RunId};
use crate::words::took;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use time::OffsetDateTime;
use tokio::task::AbortHandle;

/// A lock whose heartbeat is older than this belongs to nobody any more.
pub const TTL: Duration = Duration::from_secs(120);
/// How often the heartbeat is refreshed.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// How often one who waits looks again.
const LOOK: Duration = Duration::from_secs(1);

/// Who holds a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// `user@host`.
    pub by: String,
    /// The run.
    pub run: RunId,
    /// Where CI shows it.
    #[serde(default)]
    pub ci_url: Option<String>,
    /// Since when, UTC.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    /// The process.
    pub pid: u32,
    /// The machine and process table `pid` belongs to, when they are known: elsewhere the same number means another process.
    #[serde(default)]
    pub machine: Option<String>,
}

impl Holder {
    /// This process, doing `run`.
    #[must_use]
    pub fn this(run: RunId, ci_url: Option<String>) -> Self {
        Self { by: this_user(), run, ci_url, since: OffsetDateTime::now_utc(), pid: std::process::id(), machine: this_machine() }
    }

    /// True when the process was of this machine and is gone.
    fn is_gone(&self) -> bool {
        let here = self.machine.is_some() && self.machine == this_machine();
        let pid = i32::try_from(self.pid).ok().and_then(rustix::process::Pid::from_raw);
        here && pid.is_some_and(|pid| rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH) || is_defunct(self.pid))
    }
}

/// True for a process that has ended and that nobody has waited for yet. A container whose first process waits for nobody keeps
/// such a one for good.
fn is_defunct(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state is behind the name, which may hold anything (proc(5)).
    stat.rsplit_once(") ").is_some_and(|(_, fields)| fields.starts_with(['Z', 'X']))
}

/// `user@host`, as far as the environment tells; for locks, journals and builds.
#[must_use]
pub fn this_user() -> String {
    let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    // In CI the person is who started the run, not the runner's account.
    let user = ["GITHUB_ACTOR", "GITLAB_USER_LOGIN", "BUILDKITE_BUILD_CREATOR", "CIRCLE_USERNAME", "USER", "LOGNAME"];
    let user = user.into_iter().find_map(var).unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()));
    let host = fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|host| host.trim().to_owned()).or_else(|| var("HOSTNAME"));
    format!("{user}@{}", host.unwrap_or_else(|| "localhost".to_owned()))
}

/// The boot and the process table of this process (Linux); `None` elsewhere, where only the heartbeat tells.
fn this_machine() -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let table = fs::read_link("/proc/self/ns/pid").ok()?;
    Some(format!("{} {}", boot.trim(), table.display()))
}

/// A held lock; dropping it gives it back.
#[derive(Debug)]
pub struct Lock {
    place: Arc<Place>,
    beating: AbortHandle,
}

#[derive(Debug)]
struct Place {
    rack: RackName,
    path: PathBuf,
    guard: PathBuf,
    holder: Holder,
}

enum Taken {
    Ours { notice: Option<String> },
    Theirs { holder: Box<Holder>, heartbeat: Duration },
}

/// Takes the locks of all `racks` for the repository at `root`, in the racks' order so that two runs cannot wait for each other.
///
/// Waits for holders up to `wait` in all; `notice` is told whom it waits for and whose stale lock it took. When one cannot be
/// had, those already taken are given back and the error is [`Kind::Locked`].
pub async fn acquire(
    root: &Path,
    racks: &BTreeSet<RackName>,
    holder: &Holder,
    wait: Duration,
    notice: &(dyn Fn(String) + Sync),
) -> Result<Vec<Lock>> {
    let until = tokio::time::Instant::now() + wait;
    let mut locks = Vec::new();
    for rack in racks {
        locks.push(acquire_one(root, rack, holder, until, notice).await?);
    }
    Ok(locks)
}

async fn acquire_one(
    root: &Path,
    rack: &RackName,
    holder: &Holder,
    until: tokio::time::Instant,
    notice: &(dyn Fn(String) + Sync),
) -> Result<Lock> {
    let unusable = |error: io::Error| {
        Error::unusable(format!("the lock of rack `{rack}` cannot be used"))
            .because(format!("`{}`: {error}", root.join(".offbuild/locks").display()))
            .hint("make `.offbuild` in the repository's root writable")
    };
    let locks = journal::home(root).map_err(unusable)?.join("locks");
    fs::create_dir_all(&locks).map_err(unusable)?;
    // A rack's name may hold `/`, which a file's cannot; `%` is in no rack's name.
    let name = rack.as_str().replace('/', "%2F");
    let place = Place {
        rack: rack.clone(),
        path: locks.join(format!("{name}.json")),
        guard: locks.join(format!("{name}.guard")),
        holder: holder.clone(),
    };
    let mut told = None;
    loop {
        match place.take().map_err(unusable)? {
            Taken::Ours { notice: took_over } => {
                took_over.into_iter().for_each(notice);
                let place = Arc::new(place);
                let beating = tokio::spawn(beat(place.clone())).abort_handle();
                return Ok(Lock { place, beating });
            }
            Taken::Theirs { holder, heartbeat } if tokio::time::Instant::now() >= until => {
                return Err(refusal(rack, &holder, heartbeat, &place.path));
            }
            Taken::Theirs { holder, .. } => {
                if told.as_ref() != Some(&holder.run) {
                    notice(format!("waiting for the lock of rack `{rack}`: {}", describe(&holder)));
                    told = Some(holder.run);
                }
                tokio::time::sleep_until(until.min(tokio::time::Instant::now() + LOOK)).await;
            }
        }
    }
}

/// Refreshes the heartbeat until the lock is given back or somebody else has it.
async fn beat(place: Arc<Place>) {
    loop {
        tokio::time::sleep(HEARTBEAT).await;
        // A heartbeat that cannot be written now may be next time; after the TTL somebody may take over, which is right.
        if place.refresh().is_ok_and(|ours| !ours) {
            return;
        }
    }
}

fn refusal(rack: &RackName, holder: &Holder, heartbeat: Duration, path: &Path) -> Error {
    let path = path.display();
    in_the_way(&format!("rack `{rack}`"), describe(holder), heartbeat, holder)
        .hint(format!("wait for it: `--lock-wait 15m`; if that run is surely over, remove the lock: `rm '{path}'`"))
}

/// The error of who finds another run at the same.
fn in_the_way(place: &str, described: String, silent: Duration, holder: &Holder) -> Error {
    let error = Error::new(Kind::Locked, format!("another run deploys to {place}"))
        .because(described)
        .because(format!("its last sign of life was {} ago", took(millis(silent))));
    match &holder.ci_url {
        Some(url) => error.because(format!("see {url}")),
        None => error,
    }
}

fn describe(holder: &Holder) -> String {
    let since = ago(holder.since, OffsetDateTime::now_utc());
    format!("held by {} (pid {}) for run `{}` since {since}", holder.by, holder.pid, holder.run)
}

/// What somebody wrote on a rack, in one line that cannot move a terminal's cursor.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// `2026-11-22 21:30:00 UTC, 3m 00s ago`.
fn ago(since: OffsetDateTime, now: OffsetDateTime) -> String {
    let age = u64::try_from((now - since).whole_milliseconds()).unwrap_or_default();
    format!("{}, {} ago", until(since), took(age))
}

/// `2026-11-22 21:30:00 UTC`.
fn until(at: OffsetDateTime) -> String {
    let format = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");
    // Of others, so it may be one that UTC's calendar does not have.
    at.checked_to_offset(time::UtcOffset::UTC).unwrap_or(at).format(format).unwrap_or_default()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Place {
    /// Runs `inside` while nobody else looks at or changes the lock. The guard's file stays: removing it would let two hold it.
    fn guarded<T>(&self, inside: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let guard = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&self.guard)?;
        guard.lock()?;
        inside()
    }

    /// Who holds the lock, and how old the heartbeat is. A file that says nothing (a disk that was full) has no holder.
    fn holder(&self) -> io::Result<Option<(Option<Holder>, Duration)>> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        // A time in the future is a clock that was set back: that holder is alive as far as we know.
        let age = SystemTime::now().duration_since(file.metadata()?.modified()?).unwrap_or_default();
        Ok(Some((serde_json::from_reader(io::BufReader::new(file)).ok(), age)))
    }

    fn take(&self) -> io::Result<Taken> {
        self.guarded(|| {
            let notice = match self.holder()? {
                None => None,
                Some((Some(holder), heartbeat)) if !holder.is_gone() && heartbeat < TTL => {
                    return Ok(Taken::Theirs { holder: Box::new(holder), heartbeat });
                }
                Some((Some(holder), heartbeat)) => {
                    let why = if holder.is_gone() {
                        "its process is gone".to_owned()
                    } else {
                        format!("no sign of life for {}", took(millis(heartbeat)))
                    };
                    Some(format!("took over the lock of rack `{}`, {}: {why}", self.rack, describe(&holder)))
                }
                Some((None, _)) => Some(format!("took over the lock of rack `{}`, which named no holder", self.rack)),
            };
            // Written beside and renamed, so that whoever reads it reads all of it.
            let beside = self.path.with_extension("new");
            let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&beside)?;
            serde_json::to_writer_pretty(&mut file, &self.holder)?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            fs::rename(&beside, &self.path)?;
            Ok(Taken::Ours { notice })
        })
    }

    fn is_ours(&self) -> io::Result<bool> {
        Ok(self.holder()?.is_some_and(|(holder, _)| holder.as_ref() == Some(&self.holder)))
    }

    /// Refreshes the heartbeat; `false` when the lock is no longer ours.
    fn refresh(&self) -> io::Result<bool> {
        self.guarded(|| {
            let ours = self.is_ours()?;
            if ours {
                OpenOptions::new().write(true).open(&self.path)?.set_modified(SystemTime::now())?;
            }
            Ok(ours)
        })
    }

    fn release(&self) -> io::Result<()> {
        self.guarded(|| if self.is_ours()? { fs::remove_file(&self.path) } else { Ok(()) })
    }
}

impl Lock {
    /// The rack it is for.
    #[must_use]
    pub fn rack(&self) -> &RackName {
        &self.place.rack
    }

    /// True while nobody took it over. Ask before what cannot be undone: a machine that slept may have lost it.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.place.is_ours().unwrap_or(false)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.beating.abort();
        // A lock that cannot be removed is taken over by the next run: this process will be gone.
        let _ = self.place.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};
    use std::sync::Mutex;

    fn rack(name: &str) -> RackName {
        RackName::new(name).unwrap()
    }

    fn holder(run: &str) -> Holder {
        Holder::this(RunId::new(run).unwrap(), Some("https://ci.example/7".to_owned()))
    }

    async fn take(root: &Path, name: &str, holder: &Holder, wait: Duration) -> (Result<Vec<Lock>>, Vec<String>) {
        let told = Mutex::new(Vec::new());
        let racks = BTreeSet::from([rack(name)]);
        let taken = acquire(root, &racks, holder, wait, &|text| told.lock().unwrap().push(text)).await;
        (taken, told.into_inner().unwrap())
    }

    #[tokio::test]
    async fn a_held_lock_says_who_holds_it_and_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let (first, told) = take(dir.path(), "org/prod", &holder("r1"), Duration::ZERO).await;
        assert!(first.as_ref().unwrap()[0].is_held() && told.is_empty());
        let error = take(dir.path(), "org/prod", &holder("r2"), Duration::ZERO).await.0.unwrap_err();
        assert_eq!((error.kind.exit_code(), error.message.as_str()), (5, "another run deploys to rack `org/prod`"));
        let text = error.to_string();
        for part in ["for run `r1` since ", " ago", "see https://ci.example/7", "`--lock-wait 15m`", "org%2Fprod.json'`", &this_user()] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(take(dir.path(), "other", &holder("r2"), Duration::ZERO).await.0.is_ok());
        drop(first);
        assert!(take(dir.path(), "org/prod", &holder("r2"), Duration::ZERO).await.0.is_ok());
        let left = fs::read_dir(dir.path().join(".offbuild/locks")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert!(left.into_iter().all(|name| name.ends_with(".guard")));
    }

    #[tokio::test]
    async fn whoever_waits_gets_it_when_it_is_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let (first, _) = take(dir.path(), "prod", &holder("r1"), Duration::ZERO).await;
        let second = holder("r2");
        let waiting = take(dir.path(), "prod", &second, Duration::from_secs(600));
        let giving = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            drop(first);
        };
        let ((second, told), ()) = tokio::join!(waiting, giving);
        assert!(second.is_ok());
        assert!(told[0].starts_with("waiting for the lock of rack `prod`: held by "), "{told:?}");
    }

    #[tokio::test]
    async fn a_lock_without_sign_of_life_is_taken_over_and_its_holder_knows() {
        let dir = tempfile::tempdir().unwrap();
        let (first, _) = take(dir.path(), "prod", &holder("r1"), Duration::ZERO).await;
        let first = first.unwrap();
        let path = dir.path().join(".offbuild/locks/prod.json");
        File::options().write(true).open(&path).unwrap().set_modified(SystemTime::now() - TTL - Duration::from_secs(1)).unwrap();
        let (second, told) = take(dir.path(), "prod", &holder("r2"), Duration::ZERO).await;
        assert!(told[0].starts_with("took over the lock of rack `prod`, held by ") && told[0].contains("no sign of life for 2m"));
        assert!(!first[0].is_held() && !first[0].place.refresh().unwrap());
        drop(first); // gives nothing back that is not its own
        assert!(second.unwrap()[0].is_held());
    }

    #[tokio::test]
    async fn a_lock_of_another_machine_is_not_judged_by_its_process() {
        let dir = tempfile::tempdir().unwrap();
        let mut other = holder("r1");
        (other.machine, other.pid) = (Some("elsewhere".to_owned()), i32::MAX as u32);
        let (first, _) = take(dir.path(), "prod", &other, Duration::ZERO).await;
        assert_eq!(take(dir.path(), "prod", &holder("r2"), Duration::ZERO).await.0.unwrap_err().kind, Kind::Locked);
        drop(first);
    }

    #[tokio::test]
    async fn the_lock_of_a_process_that_ended_and_was_not_waited_for_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let theirs = Holder { pid: child.id(), ..holder("r1") };
        assert!(!theirs.is_gone());
        let (first, _) = take(dir.path(), "prod", &theirs, Duration::ZERO).await;
        child.kill().unwrap();
        while !is_defunct(child.id()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let (second, told) = take(dir.path(), "prod", &holder("r2"), Duration::ZERO).await;
        assert!(second.is_ok() && told[0].ends_with("its process is gone"), "{told:?}");
        child.wait().unwrap();
        drop(first);
    }

    #[tokio::test]
    async fn an_empty_lock_file_blocks_nobody() {
        let dir = tempfile::tempdir().unwrap();
        drop(take(dir.path(), "prod", &holder("r1"), Duration::ZERO).await);
        fs::write(dir.path().join(".offbuild/locks/prod.json"), "").unwrap();
        assert!(take(dir.path(), "prod", &holder("r2"), Duration::ZERO).await.0.is_ok());
    }

    const DIR: &str = "OFFBUILD_TEST_LOCK_DIR";
    const HOLD: &str = "OFFBUILD_TEST_LOCK_HOLD";

    /// What the processes of the two tests below do: this binary again, with the variables set.
    #[tokio::test]
    async fn in_a_child_process() {
        let Some(dir) = std::env::var_os(DIR).map(PathBuf::from) else { return };
        let run = holder(&format!("r{}", std::process::id()));
        let rounds = if std::env::var_os(HOLD).is_some() { 1 } else { 10 };
        for _ in 0..rounds {
            let lock = take(&dir, "prod", &run, Duration::from_secs(600)).await.0.unwrap();
            // Whoever is inside alone can make this file.
            File::options().write(true).create_new(true).open(dir.join("inside")).unwrap();
            if std::env::var_os(HOLD).is_some() {
                tokio::time::sleep(Duration::from_secs(600)).await;
            }
            tokio::task::yield_now().await;
            fs::remove_file(dir.join("inside")).unwrap();
            drop(lock);
        }
    }

    fn child(dir: &Path, hold: bool) -> Child {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "lock::tests::in_a_child_process"]).env(DIR, dir).stdout(Stdio::null());
        if hold {
            command.env(HOLD, "1");
        }
        command.spawn().unwrap()
    }

    #[test]
    fn of_racing_processes_one_is_inside_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let children: Vec<Child> = (0..4).map(|_| child(dir.path(), false)).collect();
        for mut child in children {
            assert!(child.wait().unwrap().success());
        }
    }

    #[test]
    fn the_lock_of_a_killed_process_is_taken_over_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut killed = child(dir.path(), true);
        while !dir.path().join("inside").exists() {
            assert!(killed.try_wait().unwrap().is_none());
            std::thread::sleep(Duration::from_millis(5));
        }
        killed.kill().unwrap();
        killed.wait().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (taken, told) = runtime.block_on(take(dir.path(), "prod", &holder("r2"), Duration::ZERO));
        assert!(taken.is_ok() && told[0].ends_with("its process is gone"), "{told:?}");
    }
}
