//! What is called, and what can go wrong.

use crate::support::front::{Fault, Head};
use regex::Regex;

/// Who is called. Each has a section of the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// The Docker Engine.
    Engine,
    /// A registry with Basic authentication, asked by offbuild and by the engine.
    Registry,
    /// ECR's API.
    Ecr,
    /// A rack of version 2.
    Rack2,
    /// A rack of version 3 with `deliver: build`.
    Rack3,
    /// A rack of version 3 with `deliver: import`.
    Import,
    /// A registry with a token service.
    Tokens,
    /// A rack of version 3 with `deliver: external`, its own registry included.
    External,
    /// The Docker Engine that gets an image it does not have into such a rack.
    Mover,
}

/// A call.
pub struct Call {
    /// What it is for, as the document says it.
    pub name: &'static str,
    /// Its method; the operation of ECR's API.
    method: &'static str,
    /// Its path, as a regular expression.
    path: &'static str,
    /// A path that has been asked for before: the same call earlier is another one.
    after: Option<&'static str>,
    /// The engine makes it, not offbuild.
    pub of_engine: bool,
    /// A path that has not been asked for yet: the same call later is another one.
    before: Option<&'static str>,
    /// An image is built for it, which takes longer.
    pub builds: bool,
    /// Its repository has to be made.
    pub new_repository: bool,
    /// Its image was pushed before, and all that is known of it is what its configuration says.
    pub pushed: bool,
    /// What the rack does wrong besides.
    pub besides: Option<&'static str>,
}

impl Call {
    const fn new(name: &'static str, method: &'static str, path: &'static str) -> Self {
        Self {
            name,
            method,
            path,
            after: None,
            of_engine: false,
            before: None,
            builds: false,
            new_repository: false,
            pushed: false,
            besides: None,
        }
    }

    const fn after(self, path: &'static str) -> Self {
        Self { after: Some(path), ..self }
    }

    const fn before(self, path: &'static str) -> Self {
        Self { before: Some(path), ..self }
    }

    const fn by_engine(self) -> Self {
        Self { of_engine: true, builds: true, ..self }
    }

    const fn building(self) -> Self {
        Self { builds: true, ..self }
    }

    /// A test for it: the request, and those before it.
    pub fn is(&self) -> impl Fn(&Head, &[Head]) -> bool + Send + Clone + 'static {
        let (method, of_engine) = (self.method, self.of_engine);
        let path = Regex::new(self.path).unwrap();
        let after = self.after.map(|path| Regex::new(path).unwrap());
        let until = self.before.map(|path| Regex::new(path).unwrap());
        move |head, before| {
            let asked = if head.operation.is_empty() { &head.method } else { &head.operation };
            let whose = head.agent.contains("docker/") == of_engine;
            let was = |path: &Regex| before.iter().any(|head| path.is_match(&format!("{} {}", head.method, head.path)));
            let now = after.as_ref().is_none_or(was) && !until.as_ref().is_some_and(was);
            asked == method && whose && path.is_match(&head.path) && now
        }
    }
}

/// Every fault, in the document's order.
pub const FAULTS: [Fault; 11] = [
    Fault::Refused,
    Fault::Timeout,
    Fault::Dropped,
    Fault::Reset,
    Fault::Status(401),
    Fault::Status(403),
    Fault::Status(404),
    Fault::Status(429),
    Fault::Status(500),
    Fault::Status(503),
    Fault::Garbage,
];

/// A fault as the document calls it.
pub fn word(fault: Fault) -> String {
    match fault {
        Fault::Refused => "refused".to_owned(),
        Fault::Timeout => "timeout".to_owned(),
        Fault::Dropped => "dropped".to_owned(),
        Fault::Reset => "reset".to_owned(),
        Fault::Status(status) => status.to_string(),
        Fault::Garbage => "garbage".to_owned(),
        Fault::Endless => "endless".to_owned(),
    }
}

impl Service {
    /// Its heading in the document.
    pub fn heading(self) -> &'static str {
        match self {
            Self::Engine => "The Docker Engine",
            Self::Registry => "A registry",
            Self::Ecr => "Amazon ECR",
            Self::Rack2 => "A rack of version 2",
            Self::Rack3 => "A rack of version 3, `deliver: build`",
            Self::Import => "A rack of version 3, `deliver: import`",
            Self::Tokens => "A registry with a token service",
            Self::External => "A rack of version 3, `deliver: external`",
            Self::Mover => "The Docker Engine, `deliver: external` of an image it does not have",
        }
    }

    /// The body of an error, as the service writes it.
    pub fn body(self) -> fn(u16) -> (u16, String, &'static str) {
        match self {
            Self::Engine | Self::Mover => |status| (status, format!("{{\"message\":\"the engine says {status}\"}}"), "application/json"),
            Self::Registry | Self::Tokens => |status| {
                (status, format!("{{\"errors\":[{{\"code\":\"SAID\",\"message\":\"the registry says {status}\"}}]}}"), "application/json")
            },
            // AWS answers most of what is the caller's fault with 400, throttling among it; the name tells which.
            Self::Ecr => |status| {
                let (status, kind) = match status {
                    401 => (400, "UnrecognizedClientException"),
                    403 => (400, "AccessDeniedException"),
                    404 => (400, "InvalidParameterException"),
                    429 => (400, "ThrottlingException"),
                    status => (status, "ServerException"),
                };
                (status, format!("{{\"__type\":\"{kind}\",\"message\":\"ECR says {kind}\"}}"), "application/x-amz-json-1.1")
            },
            Self::Rack2 => |status| (status, format!("the rack says {status}\n"), "text/plain"),
            Self::Rack3 | Self::Import | Self::External => {
                |status| (status, format!("{{\"error\":\"the rack says {status}\"}}"), "application/json")
            }
        }
    }

    /// Its calls, in the order of a deploy.
    pub fn calls(self) -> Vec<Call> {
        let reads = [
            Call::new("system", "GET", "^/system$"),
            Call::new("app", "GET", "^/apps/web$"),
            Call::new("releases", "GET", r"^/apps/web/releases\?"),
            Call::new("release", "GET", "^/apps/web/releases/R").before("POST "),
            Call::new("build behind the release", "GET", "^/apps/web/builds/B[A-Z]+$").before("POST "),
        ];
        let promote = [
            Call::new("release create", "POST", "^/apps/web/releases$"),
            Call::new("promote", "POST", "/promote$"),
            Call::new("app, promote awaited", "GET", "^/apps/web$").after("POST .*/promote$"),
            Call::new("app log, promote awaited", "GET", "^/apps/web/logs").after("POST .*/promote$"),
            Call {
                besides: Some("staging:web:promote-rolls-back"),
                ..Call::new("processes, after a rollback", "GET", "^/apps/web/processes")
            },
        ];
        let build = [
            Call::new("lease, read", "GET", "^/apps/web/objects/offbuild/lease$"),
            Call::new("lease, written", "POST", "^/apps/web/objects/offbuild/lease$"),
            Call::new("object upload", "POST", "^/apps/web/objects/tmp/"),
            Call::new("build create", "POST", "^/apps/web/builds$"),
            Call::new("build, awaited", "GET", "^/apps/web/builds/B[A-Z]+$").after("POST /apps/web/builds$"),
            Call::new("build log", "GET", "^/apps/web/builds/B[A-Z]+/logs"),
        ];
        match self {
            Self::Rack2 | Self::Rack3 => reads.into_iter().chain(build).chain(promote).collect(),
            Self::Import => vec![
                Call::new("build record", "POST", "^/apps/web/builds$"),
                Call::new("build update", "PUT", "^/apps/web/builds/B[A-Z]+$"),
                Call::new("image import", "POST", "^/apps/web/builds/B[A-Z]+/image$"),
                Call::new("build, import awaited", "GET", "^/apps/web/builds/B[A-Z]+$").after("POST .*/image$"),
            ],
            Self::Registry => vec![
                Call::new("API version", "GET", "^/v2/$"),
                Call::new("tag look-up", "HEAD", "^/v2/web/manifests/"),
                Call::new("manifest", "GET", "^/v2/web/manifests/"),
                Call::new("retag", "PUT", "^/v2/web/manifests/web.[0-9a-f]{40}$"),
                Call::new("retag to `.latest`", "PUT", "^/v2/web/manifests/web.latest$"),
                Call::new("push: upload", "POST", "^/v2/web/blobs/uploads/").by_engine(),
                Call::new("push: manifest", "PUT", "^/v2/web/manifests/").by_engine(),
                Call::new("tag look-up after the push", "HEAD", "^/v2/web/manifests/").building().after("PUT /v2/web/manifests/"),
                Call { pushed: true, ..Call::new("image configuration", "GET", "^/v2/web/blobs/sha256:") },
            ],
            Self::Tokens => vec![
                Call::new("token, to look up", "GET", "^/token.*%3Apull(&|$)"),
                Call::new("token, to tag", "GET", "^/token.*%3Apull%2Cpush(&|$)"),
                Call::new("token, to push", "GET", "^/token").by_engine(),
            ],
            Self::External => vec![
                // Only its answer says where to push: when that is lost, another record is made, and the first one marked failed.
                Call::new("build record to push to", "POST", "^/apps/web/builds$"),
                Call::new("build update, the manifest", "PUT", "^/apps/web/builds/B[A-Z]+$"),
                Call::new("push: upload", "POST", "^/v2/.*/blobs/uploads/").by_engine(),
                Call::new("push: manifest", "PUT", "^/v2/.*/manifests/").by_engine(),
                Call::new("release create", "POST", "^/apps/web/releases$"),
                Call::new("build update, complete", "PUT", "^/apps/web/builds/B[A-Z]+$").after("POST /apps/web/releases$"),
            ],
            Self::Mover => vec![
                Call::new("inspect", "GET", "/images/.*sha256.*/json"),
                Call::new("pull", "POST", "/images/create"),
                Call::new("tag", "POST", "/images/.*/tag"),
                Call::new("push", "POST", "/images/.*/push"),
                Call::new("untag", "DELETE", "/images/"),
            ],
            Self::Ecr => vec![
                Call::new("BatchGetImage", "BatchGetImage", "^/"),
                Call::new("PutImage", "PutImage", "^/"),
                Call::new("GetAuthorizationToken", "GetAuthorizationToken", "^/").building(),
                Call { new_repository: true, builds: true, ..Call::new("CreateRepository", "CreateRepository", "^/") },
            ],
            Self::Engine => vec![
                Call::new("version", "GET", "/version$").building(),
                Call::new("BuildKit", "POST", "/grpc$").building(),
                Call::new("build session", "POST", "/session$").building(),
                Call::new("tag", "POST", "/images/[^/]+/tag").building(),
                Call::new("inspect", "GET", "/images/.*/json").building(),
                Call::new("push", "POST", "/images/.*/push").building(),
            ],
        }
    }
}
