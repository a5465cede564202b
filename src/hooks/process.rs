//! Hooks as processes.
//!
//! A hook gets a process group of its own. Its output is read line by line while it runs; when it ends, runs out of time
//! or is cancelled, everything left in its group is asked to end, then killed, and [`Processes::run`] returns only when
//! nothing of the group runs any more. `group` ends groups.

mod group;

use super::{HookCommand, HookError, HookRunner};
use crate::event::{Output, Progress};
use group::Group;
use std::collections::VecDeque;
use std::io::{BufRead as _, ErrorKind};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

/// Lines of output an error repeats.
const TAIL: usize = 20;
/// How long output is awaited after the group is gone, from a process that left the group and keeps the pipe.
const DRAIN: Duration = Duration::from_secs(1);

/// Runs hooks as processes.
#[derive(Debug, Clone)]
pub struct Processes {
    grace: Duration,
}

impl Default for Processes {
    /// 10 seconds between TERM and KILL.
    fn default() -> Self {
        Self::new(Duration::from_secs(10))
    }
}

/// Why a hook is over.
enum Over {
    Ended(std::io::Result<ExitStatus>),
    OutOfTime,
    Cancelled,
}

impl Processes {
    /// With `grace` between TERM and KILL.
    #[must_use]
    pub fn new(grace: Duration) -> Self {
        Self { grace }
    }
}

#[async_trait::async_trait]
impl HookRunner for Processes {
    async fn run(&self, hook: &HookCommand, progress: &Progress, cancel: &CancellationToken) -> Result<(), HookError> {
        if cancel.is_cancelled() {
            return Err(HookError::Cancelled);
        }
        let program = hook.program.display().to_string();
        let start = |message| HookError::Start { program: program.clone(), message };
        let mut child = spawn(hook).await.map_err(|error| start(why_not_started(hook, &error)))?;
        // From here on the group ends with this future, even when it is dropped.
        let group = child.id().and_then(Group::of).ok_or_else(|| start("it has no process id".to_owned()))?;
        let tail = Arc::new(Mutex::new(VecDeque::new()));
        let stop = CancellationToken::new();
        // A dropped future stops its readers.
        let _stop_readers = stop.clone().drop_guard();
        let readers = [
            child.stdout.take().map(|pipe| tokio::spawn(read(pipe, Output::Out, progress.clone(), Arc::clone(&tail), stop.clone()))),
            child.stderr.take().map(|pipe| tokio::spawn(read(pipe, Output::Err, progress.clone(), Arc::clone(&tail), stop.clone()))),
        ];

        let over = tokio::select! {
            biased;
            status = child.wait() => Over::Ended(status),
            () = cancel.cancelled() => Over::Cancelled,
            () = tokio::time::sleep(hook.timeout) => Over::OutOfTime,
        };
        if matches!(over, Over::Ended(_)) && group.is_alive().await {
            progress.notice(format!("`{program}` ended and left processes running: they are ended too"));
        }
        let (gone, _) = tokio::join!(group.end(self.grace), child.wait());
        if !gone {
            progress.notice(format!("processes of `{program}` are still there after they were killed: the system holds them"));
        }
        finish(readers, &stop).await;

        match over {
            Over::Cancelled => Err(HookError::Cancelled),
            Over::OutOfTime => Err(HookError::Timeout { program, limit: hook.timeout }),
            Over::Ended(Err(error)) => Err(start(format!("it was started and could not be awaited: {error}"))),
            Over::Ended(Ok(status)) => {
                let tail = tail.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect();
                verdict(program, status, tail)
            }
        }
    }
}

fn verdict(program: String, status: ExitStatus, tail: Vec<String>) -> Result<(), HookError> {
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(HookError::Exit { program, code, tail }),
        (None, signal) => Err(HookError::Signal { program, signal: signal.unwrap_or_default() }),
    }
}

async fn spawn(hook: &HookCommand) -> std::io::Result<Child> {
    let mut command = Command::new(&hook.program);
    command.args(&hook.args).current_dir(&hook.directory).envs(&hook.env);
    for (name, secret) in &hook.secret_env {
        command.env(name, secret.expose());
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut tries = 0;
    loop {
        match command.spawn() {
            // Somebody forked while the file was open for writing, which is over in a moment.
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy && tries < 10 => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            result => return result,
        }
    }
}

/// Reads a pipe to its end, or until `stop` when somebody else holds it open.
async fn read(
    mut pipe: impl AsyncRead + Unpin,
    output: Output,
    progress: Progress,
    tail: Arc<Mutex<VecDeque<String>>>,
    stop: CancellationToken,
) {
    let mut lines = progress.lines();
    let mut tell = |line: String| {
        let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
        if tail.len() == TAIL {
            tail.pop_front();
        }
        tail.push_back(line.clone());
        progress.log(output, line);
    };
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = tokio::select! {
            read = pipe.read(&mut buffer) => read,
            () = stop.cancelled() => break,
        };
        match read {
            Ok(0) | Err(_) => break,
            Ok(length) => lines.push(&buffer[..length], &mut tell),
        }
        // The program waits, so that what it prints does not pile up here.
        progress.keep_up().await;
    }
    lines.finish(&mut tell);
}

/// Waits for the readers, and stops them when a process outside the group keeps a pipe open.
async fn finish(readers: [Option<tokio::task::JoinHandle<()>>; 2], stop: &CancellationToken) {
    let mut all = futures_util::future::join_all(readers.into_iter().flatten());
    if tokio::time::timeout(DRAIN, &mut all).await.is_err() {
        stop.cancel();
        all.await;
    }
}

/// What kept the program from starting and what to do about it. The system's own text is about the wrong file when the
/// interpreter is what is missing.
fn why_not_started(hook: &HookCommand, error: &std::io::Error) -> String {
    if !hook.directory.is_dir() {
        return format!("its directory `{}` does not exist", hook.directory.display());
    }
    let Some(file) = found(hook) else {
        return match error.kind() {
            ErrorKind::NotFound if is_bare(&hook.program) => "there is no such program in `PATH`".to_owned(),
            ErrorKind::NotFound => "there is no such file".to_owned(),
            _ => error.to_string(),
        };
    };
    let shown = file.display();
    if file.is_dir() {
        return format!("`{shown}` is a directory");
    }
    match error.kind() {
        ErrorKind::NotFound => match shebang(&file) {
            Some(line) if line.ends_with('\r') => {
                format!("its first line `{}` ends in a carriage return: run `sed -i 's/\\r$//' {shown}`", line.trim_end())
            }
            Some(line) => format!("its first line `{line}` names an interpreter that is not installed"),
            None => "the program loader it names is not installed".to_owned(),
        },
        ErrorKind::PermissionDenied if !is_executable(&file) => format!("it is not executable: run `chmod +x {shown}`"),
        ErrorKind::PermissionDenied => match shebang(&file) {
            Some(line) => {
                format!("{error}: may the interpreter of its first line `{line}` be run, and does the file system allow programs?")
            }
            None => format!("{error}: does the file system allow programs?"),
        },
        // ENOEXEC: a script without a first line, which only a shell would run.
        _ if error.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error()) => {
            format!("it is no program: `{shown}` needs a first line like `#!/bin/sh`")
        }
        _ => error.to_string(),
    }
}

fn is_bare(program: &Path) -> bool {
    program.components().count() == 1 && !program.is_absolute()
}

/// The file that was to be run, when there is one.
fn found(hook: &HookCommand) -> Option<PathBuf> {
    if !is_bare(&hook.program) {
        let path = hook.directory.join(&hook.program);
        return path.exists().then_some(path);
    }
    let paths = hook.env.get("PATH").map(std::ffi::OsString::from).or_else(|| std::env::var_os("PATH"))?;
    std::env::split_paths(&paths).map(|directory| directory.join(&hook.program)).find(|path| path.is_file())
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|data| data.permissions().mode() & 0o111 != 0)
}

/// A script's first line, when it names an interpreter.
fn shebang(file: &Path) -> Option<String> {
    let mut line = Vec::new();
    let start = std::io::Read::take(std::fs::File::open(file).ok()?, 256);
    std::io::BufReader::new(start).read_until(b'\n', &mut line).ok()?;
    let line = String::from_utf8_lossy(&line);
    let line = line.trim_end_matches('\n');
    line.starts_with("#!").then(|| line.to_owned())
}
