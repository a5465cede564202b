//! Hooks as real processes: what they are told, what is told of them, and that nothing of them stays.

use offbuild::event::{EventKind, Events, Output, Received, Stage, Step};
use offbuild::hooks::process::Processes;
use offbuild::hooks::{HookCommand, HookError, HookRunner as _};
use offbuild::names::AppName;
use offbuild::secret::{Redactor, Secret};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Long enough never to be what ends a test's hook.
const LONG: Duration = Duration::from_secs(120);

/// A hook in a directory of its own.
struct Hook {
    dir: tempfile::TempDir,
    command: HookCommand,
    grace: Duration,
    cancel: CancellationToken,
    redactor: Redactor,
}

/// How it ended and what it told.
struct Ran {
    result: Result<(), HookError>,
    out: Vec<String>,
    err: Vec<String>,
    notices: Vec<String>,
}

impl Hook {
    fn new(script: &str) -> Self {
        Self::raw(&format!("#!/bin/sh\n{script}\n"), 0o755)
    }

    fn raw(content: &str, mode: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("hook.sh");
        std::fs::write(&program, content).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(mode)).unwrap();
        let directory = dir.path().canonicalize().unwrap();
        let command =
            HookCommand { program, args: Vec::new(), directory, env: Default::default(), secret_env: Default::default(), timeout: LONG };
        Self { dir, command, grace: LONG, cancel: CancellationToken::new(), redactor: Redactor::default() }
    }

    fn timeout(mut self, millis: u64) -> Self {
        self.command.timeout = Duration::from_millis(millis);
        self
    }

    fn grace(mut self, millis: u64) -> Self {
        self.grace = Duration::from_millis(millis);
        self
    }

    async fn run(&self) -> Ran {
        let (events, mut receiver) = Events::new(self.redactor.clone());
        let result = Processes::new(self.grace).run(&self.command, &events.progress(step()), &self.cancel).await;
        drop(events);
        collect(result, &mut receiver)
    }

    /// The process id the hook wrote into a file.
    fn pid(&self, file: &str) -> i32 {
        self.try_pid(file).unwrap_or_else(|| panic!("no pid in `{file}`"))
    }

    fn try_pid(&self, file: &str) -> Option<i32> {
        std::fs::read_to_string(self.dir.path().join(file)).ok()?.trim().parse().ok()
    }

    async fn until_written(&self, file: &str) {
        while self.try_pid(file).is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn collect(result: Result<(), HookError>, receiver: &mut Received) -> Ran {
    let mut ran = Ran { result, out: Vec::new(), err: Vec::new(), notices: Vec::new() };
    while let Some(event) = receiver.try_recv() {
        match event.kind {
            EventKind::Log { output: Output::Out, line, .. } => ran.out.push(line),
            EventKind::Log { output: Output::Err, line, .. } => ran.err.push(line),
            EventKind::Notice { message, .. } => ran.notices.push(message),
            other => panic!("a hook told {other:?}"),
        }
    }
    ran
}

fn step() -> Step {
    Step { app: AppName::new("web").unwrap(), rack: None, service: None, stage: Stage::BeforeBuild }
}

/// True while the process runs; one that has ended and was not waited for does not.
fn runs(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[tokio::test]
async fn a_hook_is_told_where_it_is_and_what_for() {
    let mut hook = Hook::new(r#"pwd; echo "$APP_NAME $1 ${HOME:+inherited}"; cat; echo "to stderr" >&2"#);
    hook.command.args = vec!["an argument".to_owned()];
    hook.command.env = [("APP_NAME".to_owned(), "web".to_owned())].into();
    let ran = hook.run().await;
    ran.result.unwrap();
    assert_eq!(ran.out, [hook.command.directory.display().to_string(), "web an argument inherited".to_owned()]);
    assert_eq!(ran.err, ["to stderr"]);
    assert_eq!(ran.notices, [""; 0]);
}

#[tokio::test]
async fn a_program_is_looked_up_in_path() {
    let mut hook = Hook::new("");
    hook.command.program = PathBuf::from("echo");
    hook.command.args = vec!["found".to_owned()];
    assert_eq!(hook.run().await.out, ["found"]);
}

#[tokio::test]
async fn a_secret_reaches_the_hook_and_nobody_else() {
    let mut hook = Hook::new(r#"test "$CONVOX_PASSWORD" = hunter22hunter22 && echo "password: $CONVOX_PASSWORD""#);
    let secret = Secret::new("hunter22hunter22");
    hook.redactor.register(&secret);
    hook.command.secret_env = [("CONVOX_PASSWORD".to_owned(), secret)].into();
    assert_eq!(hook.run().await.out, ["password: ***"]);
    assert!(!format!("{:?}", hook.command).contains("hunter22"));
}

#[tokio::test]
async fn lines_arrive_whole_and_in_order_however_many() {
    let hook = Hook::new("i=0; while [ $i -lt 20000 ]; do echo \"line $i\"; i=$((i+1)); done; printf '::error::kept\\r\\n50%%\\r100%%'");
    let ran = hook.run().await;
    ran.result.unwrap();
    assert_eq!(ran.out.len(), 20_002);
    assert!(ran.out[..20_000].iter().enumerate().all(|(i, line)| *line == format!("line {i}")));
    assert_eq!(ran.out[20_000..], ["::error::kept", "100%"]);
}

#[tokio::test]
async fn a_failing_hook_tells_its_code_and_its_last_lines() {
    let ran = Hook::new("for i in $(seq 30); do echo $i; done; exit 7").run().await;
    let Err(HookError::Exit { code: 7, tail, .. }) = ran.result else { panic!("{:?}", ran.result) };
    assert_eq!(tail, (11..=30).map(|i| i.to_string()).collect::<Vec<_>>());
    let ran = Hook::new("kill -9 $$").run().await;
    assert!(matches!(ran.result, Err(HookError::Signal { signal: 9, .. })), "{:?}", ran.result);
}

#[tokio::test]
async fn out_of_time_the_whole_group_ends() {
    let hook = Hook::new("(sleep 600 & echo $! > deep; wait) & echo $! > child; echo $$ > own; wait").timeout(2000);
    let ran = hook.run().await;
    let Err(HookError::Timeout { limit, .. }) = ran.result else { panic!("{:?}", ran.result) };
    assert_eq!(limit, Duration::from_millis(2000));
    for file in ["own", "child", "deep"] {
        assert!(!runs(hook.pid(file)), "{file} runs on");
    }
}

#[tokio::test]
async fn a_hook_that_ends_well_when_asked_to_may_tidy_up_first() {
    let hook = Hook::new("trap 'echo tidying; exit 0' TERM; echo $$ > own; while :; do sleep 0.05; done").timeout(2000);
    let ran = hook.run().await;
    assert!(matches!(ran.result, Err(HookError::Timeout { .. })), "{:?}", ran.result);
    assert_eq!(ran.out, ["tidying"]);
}

#[tokio::test]
async fn a_hook_that_ignores_term_is_killed() {
    let hook = Hook::new("trap '' TERM; sleep 600 & echo $! > child; echo $$ > own; wait; sleep 600").timeout(2000).grace(200);
    let ran = hook.run().await;
    assert!(matches!(ran.result, Err(HookError::Timeout { .. })), "{:?}", ran.result);
    assert!(!runs(hook.pid("own")) && !runs(hook.pid("child")));
}

#[tokio::test]
async fn a_cancelled_hook_ends_with_all_it_started() {
    let hook = Hook::new("sleep 600 & echo $! > child; wait");
    let (ran, ()) = tokio::join!(hook.run(), async {
        hook.until_written("child").await;
        hook.cancel.cancel();
    });
    assert!(matches!(ran.result, Err(HookError::Cancelled)), "{:?}", ran.result);
    assert!(!runs(hook.pid("child")));
    // Cancelled before it begins, it does not begin.
    std::fs::remove_file(hook.dir.path().join("child")).unwrap();
    assert!(matches!(hook.run().await.result, Err(HookError::Cancelled)));
    assert_eq!(hook.try_pid("child"), None);
}

#[tokio::test]
async fn a_dropped_hook_leaves_nothing_behind() {
    let hook = Hook::new("trap '' TERM; sleep 600 & echo $! > child; wait");
    tokio::select! {
        ran = hook.run() => panic!("{:?}", ran.result),
        () = hook.until_written("child") => {}
    }
    while runs(hook.pid("child")) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_a_good_hook_leaves_running_is_ended_and_told() {
    let hook = Hook::new("sleep 600 & echo $! > child; echo done");
    let ran = hook.run().await;
    ran.result.unwrap();
    assert_eq!(ran.out, ["done"]);
    assert_eq!(ran.notices.len(), 1, "{:?}", ran.notices);
    assert!(!runs(hook.pid("child")));
}

#[tokio::test]
async fn a_daemon_that_left_the_group_and_keeps_the_output_holds_nothing_up() {
    let hook =
        Hook::new("setsid sh -c 'echo $$ > daemon; exec sleep 600' & while ! test -s daemon; do sleep 0.01; done; printf unfinished");
    let ran = hook.run().await;
    let daemon = rustix::process::Pid::from_raw(hook.pid("daemon")).unwrap();
    rustix::process::kill_process(daemon, rustix::process::Signal::KILL).unwrap();
    ran.result.unwrap();
    assert_eq!(ran.out, ["unfinished"]);
}

#[tokio::test]
async fn what_cannot_start_says_why_and_what_to_do() {
    let at = |path: &Path| path.display().to_string();
    let missing = |hook: &mut Hook| hook.command.program.set_file_name("other.sh");
    let unknown = |hook: &mut Hook| hook.command.program = PathBuf::from("offbuild-no-such-program");
    let elsewhere = |hook: &mut Hook| hook.command.directory.push("gone");
    let directory = |hook: &mut Hook| hook.command.program = hook.dir.path().to_owned();
    let as_is = |_: &mut Hook| {};
    type Change<'a> = &'a dyn Fn(&mut Hook);
    let table: [(&str, u32, Change, &str); 8] = [
        ("#!/no/such/ruby -w\n", 0o755, &as_is, "its first line `#!/no/such/ruby -w` names an interpreter that is not installed"),
        ("#!/bin/sh\r\necho\r\n", 0o755, &as_is, "its first line `#!/bin/sh` ends in a carriage return: run `sed -i 's/\\r$//' FILE`"),
        ("#!/bin/sh\n", 0o644, &as_is, "it is not executable: run `chmod +x FILE`"),
        ("echo hello\n", 0o755, &as_is, "it is no program: `FILE` needs a first line like `#!/bin/sh`"),
        ("#!/bin/sh\n", 0o755, &missing, "there is no such file"),
        ("#!/bin/sh\n", 0o755, &unknown, "there is no such program in `PATH`"),
        ("#!/bin/sh\n", 0o755, &elsewhere, "its directory `DIR/gone` does not exist"),
        ("#!/bin/sh\n", 0o755, &directory, "`DIR` is a directory"),
    ];
    for (content, mode, change, expected) in table {
        let mut hook = Hook::raw(content, mode);
        change(&mut hook);
        let Err(HookError::Start { message, .. }) = hook.run().await.result else { panic!("{content:?} started") };
        let message = message.replace(&at(&hook.dir.path().join("hook.sh")), "FILE").replace(&at(hook.dir.path()), "DIR");
        assert_eq!(message, expected);
    }
}
