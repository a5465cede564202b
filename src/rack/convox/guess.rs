//! What a failed promote looks like, from the words of the rack and the app: a guess, said as one.
//!
//! The causes that explain others come first: an app that crashes for want of a variable fails its health check, too. The
//! wording is ECS's and the load balancers' on version 2, Kubernetes' on version 3.

use crate::event::Suspect;
use crate::names::{RackName, ReleaseId};
use regex::Regex;

/// Everything that may tell.
#[derive(Default)]
pub(super) struct Clues<'c> {
    /// The lines of the rack, and what it answered to the promote.
    pub(super) system: Vec<&'c str>,
    /// The lines of the new release's processes.
    pub(super) app: Vec<&'c str>,
    /// The states of its processes.
    pub(super) states: Vec<&'c str>,
    /// Time ran out while it was still going on.
    pub(super) still_going: bool,
}

/// What is looked for in lines of the rack and of the app, in this order.
const SIGNS: &[(Suspect, &str, &str)] = &[
    (
        Suspect::ImagePull,
        r"CannotPullContainerError|CannotPullImageManifestError|ErrImagePull|ImagePullBackOff|InvalidImageName|pull access denied|manifest unknown",
        "",
    ),
    (
        Suspect::NoCapacity,
        r"unable to place a task|FailedScheduling|Insufficient (cpu|memory|pods)|\d+/\d+ nodes are available|RESOURCE:(CPU|MEMORY|ENI)|closest matching container-instance",
        "",
    ),
    (
        Suspect::OutOfMemory,
        r"OOMKilled|OOMKilling|OutOfMemoryError|killed due to memory usage|[Ee]xit(ed with| )? ?code:? ?137",
        r"^Killed$|Cannot allocate memory|heap out of memory",
    ),
    (
        Suspect::MissingEnv,
        r"required env: \S+",
        r"required env: \S+|KeyError.*key not found: .[A-Z][A-Z0-9_]+|KeyError: '[A-Z][A-Z0-9_]+'|([Ee]nvironment|[Ee]nv) (variable|var)s? .*(not set|missing|required|undefined|not found)|(missing|required|unset) (environment|env) (variable|var)|\b[A-Z][A-Z0-9_]{2,} (is not set|must be set|is required|not set)",
    ),
    (
        Suspect::BadCommand,
        r"CannotStartContainerError|RunContainerError|StartError|executable file not found|exec format error|no such file or directory: unknown|[Ee]xit(ed with| )? ?code:? ?12[67]",
        r"executable file not found|exec format error|: (command )?not found$|can't open '.*'|exec user process caused",
    ),
    (
        Suspect::CrashLoop,
        r"CrashLoopBackOff|Back-off restarting failed container|Essential container in task exited|[Ee]xit(ed with| )? ?code:? ?[1-9]",
        r"[Ee]xited with code [1-9]|panicked at|Traceback \(most recent call last\)|[Uu]ncaught [Ee]xception",
    ),
];

/// What the load balancers and the kubelet say of an app that does not answer well.
const UNHEALTHY: &str = r"is unhealthy in|[Hh]ealth checks? failed|failed ELB health checks|failed container health checks|(Readiness|Liveness|Startup) probe failed|FailedHealthChecks";

/// What it looks like, and the line that says so.
pub(super) fn guess(clues: &Clues<'_>) -> (Suspect, String) {
    for (suspect, system, app) in SIGNS {
        let found = first(system, &clues.system).or_else(|| first(app, &clues.app));
        if let Some(line) = found {
            return (*suspect, line);
        }
    }
    if let Some(state) = clues.states.iter().find(|state| matches!(**state, "crashed" | "failed" | "error" | "stopped")) {
        return (Suspect::CrashLoop, format!("a process is `{state}`"));
    }
    if let Some(line) = first(UNHEALTHY, &clues.system) {
        return match wrong_port(&line, &clues.app) {
            Some(why) => (Suspect::WrongPort, why),
            None => (Suspect::Unhealthy, line),
        };
    }
    if clues.states.contains(&"unhealthy") {
        return (Suspect::Unhealthy, "a process is `unhealthy`".to_owned());
    }
    (if clues.still_going { Suspect::StillGoing } else { Suspect::Unknown }, String::new())
}

/// The last line that has the sign: what came after it is nearer to the end.
fn first(sign: &str, lines: &[&str]) -> Option<String> {
    let sign = Regex::new(sign).ok().filter(|_| !sign.is_empty())?;
    lines.iter().rev().find(|line| sign.is_match(line)).map(|line| line.trim().to_owned())
}

/// The port the rack asks, as its line names it, when the app says that it listens on others only.
fn wrong_port(line: &str, app: &[&str]) -> Option<String> {
    let asked = Regex::new(r"\(port (\d+)\)|:(\d{2,5})[:/]").ok()?.captures(line)?;
    let asked = asked.get(1).or(asked.get(2))?.as_str();
    let listens = Regex::new(r"(?i)listening (?:on|at)\b.*?(?::|port )(\d{2,5})\b").ok()?;
    let ports: Vec<&str> = app.iter().filter_map(|line| Some(listens.captures(line)?.get(1)?.as_str())).collect();
    let other = ports.last().filter(|_| !ports.contains(&asked))?;
    Some(format!("the rack asks port {asked}, and the app says that it listens on {other}"))
}

/// The variable that a line names: a word in capitals, rather one that can be nothing else.
fn variable(line: &str) -> Option<String> {
    const LEVELS: [&str; 10] = ["ERROR", "FATAL", "CRITICAL", "PANIC", "WARN", "WARNING", "INFO", "DEBUG", "ENV", "KEY"];
    let words = Regex::new(r"\b[A-Z][A-Z0-9_]{2,}\b").ok()?;
    let found: Vec<&str> = words.find_iter(line).map(|word| word.as_str()).filter(|word| !LEVELS.contains(word)).collect();
    found.iter().find(|word| word.contains('_')).or(found.first()).map(|name| (*name).to_owned())
}

/// What to do next about it.
pub(super) fn next(suspect: Suspect, because: &str, app: &str, rack: &RackName, release: &ReleaseId) -> String {
    // Whoever has several racks must not change another one.
    let app = format!("{app} --rack {rack}");
    let logs = format!("convox logs -a {app} --since 30m");
    match suspect {
        Suspect::ImagePull => "check that the image is there and the rack may pull it, then deploy again".to_owned(),
        Suspect::NoCapacity => {
            format!("make room (`convox rack scale --rack {rack}`, or less `scale:` in the manifest), then: offbuild deploy --resume")
        }
        Suspect::OutOfMemory => "give the service more memory (`scale.memory` in the manifest), and commit".to_owned(),
        Suspect::MissingEnv => {
            let name = variable(because).unwrap_or_else(|| "NAME".to_owned());
            format!("set it: convox env set {name}=VALUE -a {app}, then: offbuild deploy --resume")
        }
        Suspect::BadCommand => format!("correct `command:` or the image; to try it: convox run SERVICE sh -a {app} --release {release}"),
        Suspect::CrashLoop => format!("see why it ends: {logs}"),
        Suspect::WrongPort => "let the app listen on the port of the manifest (`PORT`), or correct `port:`".to_owned(),
        Suspect::Unhealthy => {
            format!("see what the health check was answered: {logs}; an app that starts slowly needs a longer `health.grace`")
        }
        Suspect::StillGoing => format!("see whether it ends: convox apps info -a {app}; if it does, raise `timeouts.promote`"),
        Suspect::Unknown => format!("see what the app said before it stopped: {logs}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guessed(system: &[&str], app: &[&str], states: &[&str]) -> Suspect {
        let (system, app, states) = (system.to_vec(), app.to_vec(), states.to_vec());
        guess(&Clues { system, app, states, still_going: false }).0
    }

    #[test]
    fn the_words_of_racks_lead_to_a_cause() {
        let table: &[(&str, Suspect)] = &[
            ("CannotPullContainerError: Error response from daemon: manifest for x:web not found", Suspect::ImagePull),
            ("Failed to pull image \"r/x\": ErrImagePull", Suspect::ImagePull),
            (
                "(service web) was unable to place a task because no container instance met all of its requirements. The closest \
                 matching container-instance 1 has insufficient memory available.",
                Suspect::NoCapacity,
            ),
            ("0/3 nodes are available: 3 Insufficient memory.", Suspect::NoCapacity),
            ("OutOfMemoryError: Container killed due to memory usage", Suspect::OutOfMemory),
            ("container web terminated: OOMKilled, exit code 137", Suspect::OutOfMemory),
            ("required env: STRIPE_KEY", Suspect::MissingEnv),
            ("CannotStartContainerError: exec: \"rails\": executable file not found in $PATH", Suspect::BadCommand),
            ("Essential container in task exited: exit code 1", Suspect::CrashLoop),
            ("Back-off restarting failed container main in pod web-1", Suspect::CrashLoop),
            (
                "(service web) (port 3000) is unhealthy in (target-group arn) due to (reason Health checks failed with these codes: [502])",
                Suspect::Unhealthy,
            ),
            ("Readiness probe failed: HTTP probe failed with statuscode: 503", Suspect::Unhealthy),
            ("UPDATE_ROLLBACK_IN_PROGRESS: web", Suspect::Unknown),
        ];
        for (line, suspect) in table {
            assert_eq!(guessed(&["Scaled up", line], &["GET / 200"], &["running"]), *suspect, "{line}");
        }
    }

    #[test]
    fn the_words_of_apps_explain_what_the_rack_only_sees() {
        let crash = ["Essential container in task exited: exit code 1"];
        let table: &[(&str, Suspect)] = &[
            ("KeyError: key not found: \"DATABASE_URL\"", Suspect::MissingEnv),
            ("KeyError: 'DATABASE_URL'", Suspect::MissingEnv),
            ("Error: environment variable STRIPE_KEY is not set", Suspect::MissingEnv),
            ("SECRET_KEY_BASE is not set", Suspect::MissingEnv),
            ("sh: rake: not found", Suspect::BadCommand),
            ("FATAL ERROR: JavaScript heap out of memory", Suspect::OutOfMemory),
            ("boom", Suspect::CrashLoop),
        ];
        for (line, suspect) in table {
            assert_eq!(guessed(&crash, &[line], &[]), *suspect, "{line}");
        }
        assert_eq!(guessed(&[], &["starting"], &["running", "crashed"]), Suspect::CrashLoop);
        assert_eq!(guessed(&[], &[], &["unhealthy"]), Suspect::Unhealthy);
    }

    #[test]
    fn a_port_is_the_cause_when_the_app_names_another() {
        let asks = ["Readiness probe failed: Get \"http://10.1.2.3:3000/\": dial tcp 10.1.2.3:3000: connect: connection refused"];
        let (suspect, why) = guess(&Clues { system: asks.to_vec(), app: vec!["Listening on tcp://0.0.0.0:8080"], ..Clues::default() });
        assert_eq!((suspect, why.as_str()), (Suspect::WrongPort, "the rack asks port 3000, and the app says that it listens on 8080"));
        assert_eq!(guessed(&asks, &["Listening on http://0.0.0.0:3000"], &[]), Suspect::Unhealthy);
        assert_eq!(guessed(&asks, &["starting"], &[]), Suspect::Unhealthy);
    }

    #[test]
    fn what_is_slow_is_not_called_broken() {
        let slow = Clues { still_going: true, ..Clues::default() };
        assert_eq!(guess(&slow), (Suspect::StillGoing, String::new()));
    }

    #[test]
    fn every_guess_ends_with_what_to_do() {
        let (rack, release) = (RackName::new("prod").unwrap(), ReleaseId::new("RNEW").unwrap());
        assert_eq!(
            next(Suspect::MissingEnv, "KeyError: key not found: \"DATABASE_URL\"", "web", &rack, &release),
            "set it: convox env set DATABASE_URL=VALUE -a web --rack prod, then: offbuild deploy --resume"
        );
        for line in [
            "FATAL: environment variable STRIPE_KEY is not set",
            "[ERROR] required environment variable STRIPE_KEY is missing",
            "2026-11-22T20:00:00Z ERROR STRIPE_KEY must be set",
            "KeyError: 'STRIPE_KEY' (ENV)",
            "required env: STRIPE_KEY",
        ] {
            let next = next(Suspect::MissingEnv, line, "web", &rack, &release);
            assert!(next.starts_with("set it: convox env set STRIPE_KEY=VALUE -a web --rack prod, then: "), "{line}: {next}");
        }
        assert!(next(Suspect::BadCommand, "", "web", &rack, &release).ends_with("convox run SERVICE sh -a web --rack prod --release RNEW"));
    }
}
