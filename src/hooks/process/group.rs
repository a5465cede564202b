//! Process groups: whether one still runs, and how it is ended.

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often a group that is to end is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// A process group that a hook leads. Dropped before it has ended, it is killed.
pub struct Group {
    id: Pid,
    // The id of a group that is gone may be given to somebody else's: it is not touched again.
    gone: AtomicBool,
}

impl Group {
    /// The group of a process that was started as its leader.
    pub fn of(leader: u32) -> Option<Self> {
        let id = Pid::from_raw(i32::try_from(leader).ok()?)?;
        Some(Self { id, gone: AtomicBool::new(false) })
    }

    /// True while a process of the group runs. Ended ones that nobody has waited for (in a container without an init
    /// nobody ever does) run no more.
    pub async fn is_alive(&self) -> bool {
        let id = self.id;
        if self.gone.load(Ordering::Relaxed) {
            return false;
        }
        if test_kill_process_group(id).is_err() {
            self.gone.store(true, Ordering::Relaxed);
            return false;
        }
        // Reading all of /proc takes some milliseconds where much is running.
        tokio::task::spawn_blocking(move || runs(id).unwrap_or(true)).await.unwrap_or(true)
    }

    /// Ends the group: TERM, KILL after `grace`. Returns when nothing of it runs, `false` when something still does as long
    /// again after the KILL.
    pub async fn end(&self, grace: Duration) -> bool {
        if !self.is_alive().await {
            return true;
        }
        // An error means that the group has ended meanwhile.
        let _ = kill_process_group(self.id, Signal::TERM);
        // A stopped process (one that read from the terminal is) ends only when it goes on.
        let _ = kill_process_group(self.id, Signal::CONT);
        if self.wait(grace).await {
            return true;
        }
        let _ = kill_process_group(self.id, Signal::KILL);
        self.wait(grace.max(Duration::from_secs(5))).await
    }

    async fn wait(&self, limit: Duration) -> bool {
        let begun = Instant::now();
        while self.is_alive().await {
            if begun.elapsed() >= limit {
                return false;
            }
            tokio::time::sleep(LOOK).await;
        }
        true
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.gone.load(Ordering::Relaxed) {
            // An error means that it has ended by itself.
            let _ = kill_process_group(self.id, Signal::KILL);
        }
    }
}

/// Whether a process of the group is there and no zombie, as /proc tells; `None` where there is no /proc.
fn runs(group: Pid) -> Option<bool> {
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        if !entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        if let Some((state, of)) = state_and_group(&stat)
            && of == group.as_raw_nonzero().get()
            && !matches!(state, "Z" | "X")
        {
            return Some(true);
        }
    }
    Some(false)
}

/// The third and fifth field of `/proc/PID/stat` (proc(5)); the second is a name that may hold anything.
fn state_and_group(stat: &str) -> Option<(&str, i32)> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    Some((state, fields.nth(1)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_and_group_are_read_behind_any_name() {
        assert_eq!(state_and_group("12 (a) Z (b) S 1 345 345 0 -1"), Some(("S", 345)));
        assert_eq!(state_and_group("12 (sh)"), None);
    }

    #[test]
    fn this_test_runs_in_its_group() {
        let own = rustix::process::getpgrp();
        assert_ne!(runs(own), Some(false));
    }
}
