//! How an app fails to run after a promote, and what a rack shows of it: the states of its processes, what they write, what the
//! rack says. The words are ECS's and its load balancers' on version 2, Kubernetes' on version 3.

use super::rack::Version;
use serde::{Deserialize, Serialize};

/// What is wrong with the new release's processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Symptom {
    /// They end with code 1.
    Crashes,
    /// They need more memory than they may have.
    OutOfMemory,
    /// They run, and answer 502 to the health check.
    Unhealthy,
    /// There is no room for them.
    NoCapacity,
    /// They listen on another port than the manifest says.
    WrongPort,
    /// They end for want of a variable.
    MissingEnv,
    /// Their command is not in the image.
    BadCommand,
}

/// What is shown of a process.
pub(super) struct Shown {
    /// Its state.
    pub(super) status: &'static str,
    /// What it writes.
    pub(super) app: &'static [&'static str],
    /// What the rack says of the service.
    pub(super) system: String,
}

impl Symptom {
    /// What a rack of this version shows of `process` of `service`.
    pub(super) fn shown(self, version: Version, service: &str, process: &str) -> Shown {
        let v2 = version == Version::V2;
        let exits = |code: u8, why: &str| {
            if v2 {
                format!("(service {service}) (task {process}) stopped: Essential container in task exited, exit code: {code}")
            } else {
                format!("Back-off restarting failed container main in pod {process}: terminated: {why}, exit code {code}")
            }
        };
        let (gone, never) = if v2 { ("stopped", "pending") } else { ("crashed", "pending") };
        let (status, app, system): (_, &'static [&'static str], _) = match self {
            Self::Crashes => (gone, &["starting", "boom: cannot open the database"], exits(1, "Error")),
            Self::OutOfMemory if v2 => (
                gone,
                &["starting"],
                format!("(service {service}) (task {process}) stopped: OutOfMemoryError: Container killed due to memory usage"),
            ),
            Self::OutOfMemory => (gone, &["starting"], exits(137, "OOMKilled")),
            Self::Unhealthy => {
                let says = if v2 {
                    format!(
                        "(service {service}) (port 3000) is unhealthy in (target-group arn:aws:elasticloadbalancing:us-east-1:000000000000:targetgroup/{service}/0) due to (reason Health checks failed with these codes: [502])"
                    )
                } else {
                    "Readiness probe failed: HTTP probe failed with statuscode: 502".to_owned()
                };
                (if v2 { "running" } else { "unhealthy" }, &["Listening on http://0.0.0.0:3000", "GET / 502"], says)
            }
            Self::NoCapacity => {
                let says = if v2 {
                    format!(
                        "(service {service}) was unable to place a task because no container instance met all of its requirements. The closest matching (container-instance 0) has insufficient memory available."
                    )
                } else {
                    "FailedScheduling: 0/3 nodes are available: 3 Insufficient memory.".to_owned()
                };
                (never, &[], says)
            }
            Self::WrongPort => {
                let says = if v2 {
                    format!("(service {service}) (port 3000) is unhealthy in (target-group {service}) due to (reason Request timed out)")
                } else {
                    "Readiness probe failed: Get \"http://10.1.2.3:3000/\": dial tcp 10.1.2.3:3000: connect: connection refused".to_owned()
                };
                (if v2 { "running" } else { "unhealthy" }, &["Listening on http://0.0.0.0:8080"], says)
            }
            Self::MissingEnv => (gone, &["starting", "KeyError: key not found: \"DATABASE_URL\""], exits(1, "Error")),
            Self::BadCommand => {
                let says = "exec: \"serve\": executable file not found in $PATH: unknown";
                let says = if v2 {
                    format!("(service {service}) (task {process}) stopped: CannotStartContainerError: Error response from daemon: {says}")
                } else {
                    format!("Error: failed to start container \"main\": StartError: {says}")
                };
                (gone, &[], says)
            }
        };
        Shown { status, app, system }
    }
}
