//! What the cells of one service share: a repository, everything it needs, and the front before the service.

use super::table::{Call, Service};
use crate::support::engine;
use crate::support::front::{Behind, Fault, Front, Head, Rule, To};
use crate::support::services::{PASSWORD, USER, login};
use crate::support::tokens::Door;
use crate::support::world::{Run, Setup, World, wait_for};
use crate::support::{Offbuild, unique};
use offbuild::event::EventKind;
use offbuild::sandbox::Version;
use regex::Regex;
use std::cell::Cell;

/// One service and all around it.
pub struct Bed {
    service: Service,
    world: World,
    front: Front,
    _door: Option<Door>,
    turn: Cell<usize>,
    repository: Cell<usize>,
}

/// A place in a deploy, the same in each: a request, how many changes come before it, and how often it came since the last one.
struct Before {
    line: String,
    changes: usize,
    times: usize,
}

impl Before {
    fn of(head: &Head, seen: &[Head]) -> Self {
        let changes = |head: &Head| head.method != "GET" && head.method != "HEAD";
        let line = line(head);
        let times = seen.iter().rev().take_while(|head| !changes(head)).filter(|head| self::line(head) == line).count();
        // What is looked at more often is looked at until it is over, which takes as long as it takes.
        Self { line, changes: seen.iter().filter(|head| changes(head)).count(), times: times.min(1) }
    }
}

/// A request without what differs from run to run.
fn line(head: &Head) -> String {
    let ids = Regex::new(r"\b[BR][A-Z]{10}\b|[0-9a-f]{12,}|\?.*").unwrap();
    format!("{} {} {}", head.method, ids.replace_all(&head.path, "…"), head.operation)
}

/// How a deploy with a fault ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The exit code.
    pub code: i32,
    /// How the target ended; empty when the run ended before there was one.
    pub word: String,
    /// How often the call went wrong; of several that are under way at the same time, the one that was sent most.
    pub faulted: usize,
    /// How often a call that changes something reached the service.
    pub passed: usize,
    /// How often any call that changes something reached the service.
    pub changes: usize,
    /// The new commit is live.
    pub is_live: bool,
    /// Everything it said.
    pub said: String,
}

impl Bed {
    /// Starts everything and deploys a first commit, so that there is something to fall back to.
    pub fn of(service: Service) -> Self {
        let setup = Setup::new(&["web"]).defaults("timeouts: {rack_build: 6s, promote: 6s, push: 15s, answer: \"${ANSWER:-30s}\"}");
        let world = match service {
            Service::Rack3 => setup.rack("staging", Version::V3, "deliver: build").start(),
            Service::Import => setup.rack("staging", Version::V3, "").start(),
            Service::External | Service::Mover => setup.rack("staging", Version::V3, "deliver: external").start(),
            Service::Ecr => setup.ecr().start(),
            Service::Rack2 | Service::Registry | Service::Tokens | Service::Engine => setup.start(),
        };
        let door = (service == Service::Tokens).then(|| Door::before(&world.host()));
        let environment = world.sandbox.environment();
        let behind = match service {
            Service::Engine | Service::Mover => Behind::Unix(engine::socket()),
            Service::Registry => Behind::Tcp(world.host()),
            Service::Tokens => Behind::Tcp(door.as_ref().unwrap().host.clone()),
            Service::Ecr => Behind::Tcp(environment["AWS_ENDPOINT_URL_ECR"].trim_start_matches("http://").to_owned()),
            Service::Rack2 | Service::Rack3 | Service::Import | Service::External => {
                Behind::Tcp(environment["STAGING_HOST"].trim_start_matches("http://").to_owned())
            }
        };
        let front = Front::before(behind);
        let may_pull = |host: &str| {
            let form = [("server", host), ("username", USER), ("password", PASSWORD)];
            world.sandbox.call("POST", "staging", "/registries", &form);
        };
        match service {
            Service::Registry => {
                login(world.repo.dir.path(), &front.host, PASSWORD);
                may_pull(&front.host);
            }
            // What everybody may pull, the rack may.
            Service::Tokens => login(world.repo.dir.path(), &front.host, PASSWORD),
            // The world's racks of version 3 are handed the login with each import, and this one builds.
            Service::Rack3 => may_pull(&world.host()),
            _ => {}
        }
        let bed = Self { service, world, front, _door: door, turn: Cell::default(), repository: Cell::default() };
        // Both pages there will be, so that what builds nothing finds its images.
        for _ in 0..2 {
            bed.commit(false);
            bed.deploy("30s").code(0);
        }
        bed
    }

    /// Commits something to deploy: a page that was built before, or a new one.
    fn commit(&self, new: bool) {
        self.turn.set(self.turn.get() + 1);
        let text = if new { unique() } else { format!("page {}", self.turn.get() % 2) };
        self.world.page("web", &text).repo.git(&["commit", "--allow-empty", "-qam", &format!("turn {}", self.turn.get())]);
    }

    fn offbuild(&self, answer: &str) -> Offbuild {
        let at_front = format!("http://{}", self.front.host);
        let offbuild = self.world.offbuild().env("ANSWER", answer);
        match self.service {
            Service::Engine | Service::Mover => offbuild.env("DOCKER_HOST", format!("tcp://{}", self.front.host)),
            Service::Registry | Service::Tokens => offbuild.env("REGISTRY_HOST", self.front.host.clone()),
            Service::Ecr => offbuild.env("AWS_ENDPOINT_URL_ECR", at_front),
            Service::Rack2 | Service::Rack3 | Service::Import | Service::External => offbuild.env("STAGING_HOST", at_front),
        }
    }

    fn deploy(&self, answer: &str) -> Run {
        self.world.run_as(&self.offbuild(answer), &["deploy"])
    }

    /// What comes right before a call, in a deploy where nothing goes wrong.
    fn before(&self, call: &Call) -> Option<Before> {
        self.ready(call);
        self.front.reset();
        self.besides(call);
        self.deploy("30s");
        let seen = self.front.seen();
        let is = call.is();
        let at = (0..seen.len()).find(|at| is(&seen[*at], &seen[..*at]));
        self.mend();
        let at = at.unwrap_or_else(|| panic!("`{}` is not called: {seen:#?}", call.name));
        (at > 0).then(|| Before::of(&seen[at - 1], &seen[..at - 1]))
    }

    /// Deploys with a fault, and mends it.
    pub fn run(&self, call: &Call, fault: Fault, times: usize) -> Seen {
        let before = if fault == Fault::Refused { self.before(call) } else { None };
        self.ready(call);
        match fault {
            Fault::Refused => self.front.refuse_after(before.map(|before| -> To {
                Box::new(move |head, seen| {
                    let now = Before::of(head, seen);
                    now.line == before.line && now.changes == before.changes && now.times >= before.times
                })
            })),
            _ => self.front.rule(Rule { to: Box::new(call.is()), fault, times, body: self.service.body(), retry_after: None }),
        }
        self.besides(call);
        let run = self.deploy(if fault == Fault::Timeout { "500ms" } else { "30s" });
        let seen = self.front.seen();
        let is = call.is();
        let passed = (0..seen.len()).filter(|at| seen[*at].passed && is(&seen[*at], &seen[..*at])).count();
        let word = run.kinds().find_map(|kind| match kind {
            EventKind::TargetFinished { outcome, .. } => Some(outcome.word()),
            _ => None,
        });
        let result = Seen {
            code: run.done.code,
            word: word.unwrap_or_default(),
            faulted: seen
                .iter()
                .map(|head| seen.iter().filter(|other| other.faulted && other.path == head.path).count())
                .max()
                .unwrap_or_default(),
            passed,
            changes: match self.service {
                // Looking whether BuildKit is there, and asking ECR, is a POST, too.
                Service::Engine | Service::Mover | Service::Ecr => 0,
                _ => seen.iter().filter(|head| head.passed && matches!(head.method.as_str(), "POST" | "PUT")).count(),
            },
            is_live: self.is_live(),
            said: run.done.stderr.clone(),
        };
        self.mend();
        result
    }

    fn ready(&self, call: &Call) {
        if call.new_repository {
            self.repository.set(self.repository.get() + 1);
            let host = self.world.host();
            let yaml = std::fs::read_to_string(self.world.repo.path("apps.yaml")).unwrap();
            let repository = format!("  repository: {host}/made{}/{{app}}", self.repository.get());
            let lines = yaml.lines().map(|line| if line.starts_with("  repository:") { &repository } else { line });
            let text = lines.collect::<Vec<_>>().join("\n");
            self.world.repo.write("apps.yaml", text + "\n");
        }
        self.commit(call.builds || call.pushed);
        if call.pushed {
            let before = self.world.tags("web");
            self.world.run_as(&self.offbuild("30s"), &["build"]).code(0);
            for tag in self.world.tags("web").iter().filter(|tag| tag.starts_with("web.in-") && !before.contains(tag)) {
                self.world.forget_tag("web", tag);
            }
        }
        if self.service == Service::Mover {
            // Twice: with its last tag gone, an image still has its digest for a name.
            (0..2).for_each(|_| engine::remove(&format!("{}/web", self.world.host())));
        }
    }

    fn besides(&self, call: &Call) {
        if let Some(fault) = call.besides {
            self.world.sandbox.fault(fault);
        }
    }

    /// The commit is live and the rack is at rest.
    fn is_live(&self) -> bool {
        let live = || self.world.sandbox.live("staging", "web");
        wait_for(|| live().status == "running");
        live().commit == self.world.repo.git(&["rev-parse", "HEAD"])
    }

    /// With the fault gone, a plain deploy brings the commit to where it belongs.
    fn mend(&self) {
        self.front.reset();
        self.world.sandbox.heal();
        if !self.is_live() {
            self.deploy("30s").code(0).outcomes(&["web@staging deployed"]);
            assert!(self.is_live());
        }
    }
}
