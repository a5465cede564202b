//! The words of the domain, each parsed once and passed as its own type.
//!
//! An image id and a manifest digest look alike and mean different things, so they are different types; a path inside
//! the repository is bytes, as git has it. Nothing here touches the outside.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A name that does not have the shape its kind asks for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{value}` is not {expected}")]
pub struct InvalidName {
    /// The text as it was written.
    pub value: String,
    /// What would have been right, with its article ("an app name: …").
    pub expected: &'static str,
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $expected:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Parses the name; the error says what shape it should have.
            pub fn new(value: impl Into<String>) -> Result<Self, InvalidName> {
                let value = value.into();
                let valid: fn(&str) -> bool = $valid;
                if valid(&value) { Ok(Self(value)) } else { Err(InvalidName { value, expected: $expected }) }
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(value: String) -> Result<Self, InvalidName> {
                Self::new(value)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidName;
            fn from_str(value: &str) -> Result<Self, InvalidName> {
                Self::new(value)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "description": $expected })
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

fn words(value: &str, extra: &[u8]) -> bool {
    !value.is_empty()
        && value.len() <= 100
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || extra.contains(&b))
        && value.as_bytes()[0].is_ascii_alphanumeric()
}

fn is_hex(value: &str) -> bool {
    value.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn is_sha256(value: &str) -> bool {
    value.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && is_hex(hex))
}

name_type!(
    /// The name of an app: the key in `apps.yaml`, by default its directory's name.
    AppName,
    "an app name: letters, digits, `-`, `_` and `.`, starting with a letter or digit",
    |v| words(v, b"-_.")
);
name_type!(
    /// The name of a rack, as `apps.yaml` calls it.
    RackName,
    "a rack name: letters, digits, `-`, `_`, `.` and `/`, starting with a letter or digit",
    |v| words(v, b"-_./")
);
name_type!(
    /// The name of a service: an entry of a manifest's `services`.
    ServiceName,
    "a service name: letters, digits, `-`, `_` and `.`, starting with a letter or digit",
    |v| words(v, b"-_.")
);
name_type!(
    /// A full git object id of a commit, lower-case hex (SHA-1: 40 digits, SHA-256: 64).
    CommitId,
    "a full commit id: 40 or 64 lower-case hex digits",
    |v| (v.len() == 40 || v.len() == 64) && is_hex(v)
);
name_type!(
    /// A digest over an app's inputs and resolved configuration: 24 hex digits of a SHA-256.
    Fingerprint,
    "a fingerprint: 24 lower-case hex digits",
    |v| v.len() == 24 && is_hex(v)
);
name_type!(
    /// The digest of an image manifest in a registry, `sha256:…`: what is deployed.
    Digest,
    "a manifest digest: `sha256:` and 64 hex digits",
    is_sha256
);
name_type!(
    /// The id of an image in the engine, `sha256:…`: the digest of its configuration, never what a registry answers.
    ImageId,
    "an image id: `sha256:` and 64 hex digits",
    is_sha256
);
name_type!(
    /// The id of a release on a rack (`R` and capitals).
    ReleaseId,
    "a release id",
    |v| words(v, b"-_")
);
name_type!(
    /// The id of a build on a rack (`B` and capitals).
    BuildId,
    "a build id",
    |v| words(v, b"-_")
);
name_type!(
    /// The id of a run: its start in UTC, the part of a second last in 65536ths, so that ids sort by time.
    RunId,
    "a run id",
    |v| words(v, b"-_")
);

impl CommitId {
    /// The first twelve digits, for people.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl Fingerprint {
    /// The first 24 hex digits of `hash`, a SHA-256.
    #[must_use]
    pub fn from_sha256(hash: &[u8]) -> Self {
        Self(hex::encode(hash)[..24].to_owned())
    }
}

impl RunId {
    /// A new id for a run that starts at `now`.
    #[must_use]
    pub fn starting(now: time::OffsetDateTime) -> Self {
        let format = time::macros::format_description!("[year][month][day]-[hour][minute][second]");
        let stamp = now.to_offset(time::UtcOffset::UTC).format(format).unwrap_or_default();
        // Two runs can start within one second, and which of them is the newer decides what a resume takes over.
        let part = (u64::from(now.nanosecond()) << 16) / 1_000_000_000;
        Self(format!("{stamp}-{part:04x}"))
    }
}

/// One app on one rack, written `app@rack`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Target {
    /// The app.
    pub app: AppName,
    /// The rack.
    pub rack: RackName,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}@{}", self.app, self.rack))
    }
}

/// A path inside the repository: bytes separated by `/`, relative to its root, without `.` or `..` parts. Empty is the root.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepoPath(Vec<u8>);

impl RepoPath {
    /// A path git gave: already relative and clean. Slashes at the ends are dropped.
    pub fn from_git(bytes: impl Into<Vec<u8>>) -> Self {
        let mut bytes = bytes.into();
        while bytes.last() == Some(&b'/') {
            bytes.pop();
        }
        Self(bytes)
    }

    /// Joins `relative`, as a user wrote it, to this directory and resolves `.` and `..`. `None` when that leaves the repository.
    #[must_use]
    pub fn join(&self, relative: &str) -> Option<Self> {
        let mut parts: Vec<&[u8]> = self.parts().collect();
        if relative.starts_with('/') {
            return None;
        }
        for part in relative.as_bytes().split(|b| *b == b'/') {
            match part {
                b"" | b"." => {}
                b".." => {
                    parts.pop()?;
                }
                part => parts.push(part),
            }
        }
        Some(Self(parts.join(&b'/')))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// True for the root of the repository.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The parts between slashes; none for the root.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/').filter(|part| !part.is_empty())
    }

    /// The part below `dir`, when the path is `dir` itself (empty) or lies in it.
    #[must_use]
    pub fn below(&self, dir: &RepoPath) -> Option<&[u8]> {
        if dir.is_root() {
            return Some(&self.0);
        }
        let rest = self.0.strip_prefix(dir.0.as_slice())?;
        if rest.is_empty() { Some(rest) } else { rest.strip_prefix(b"/") }
    }

    /// True when the path is `dir` or lies in it.
    #[must_use]
    pub fn is_in(&self, dir: &RepoPath) -> bool {
        self.below(dir).is_some()
    }

    /// The directory that holds the path; the root's is the root.
    #[must_use]
    pub fn parent(&self) -> Self {
        let end = self.0.iter().rposition(|b| *b == b'/').unwrap_or(0);
        Self(self.0[..end].to_vec())
    }

    /// The last part, lossily as text; empty for the root.
    #[must_use]
    pub fn file_name(&self) -> String {
        String::from_utf8_lossy(self.parts().last().unwrap_or_default()).into_owned()
    }

    /// The path on disk, below `root`.
    #[must_use]
    pub fn under(&self, root: &std::path::Path) -> std::path::PathBuf {
        use std::os::unix::ffi::OsStrExt as _;
        if self.is_root() { root.to_owned() } else { root.join(std::ffi::OsStr::from_bytes(&self.0)) }
    }
}

/// As text for people: bytes that are no UTF-8 and control characters are escaped (`\xff`), the root is `.`.
impl fmt::Display for RepoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() {
            return f.pad(".");
        }
        let mut text = String::with_capacity(self.0.len());
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if c.is_control() { text.extend(c.escape_default()) } else { text.push(c) }
            }
            for byte in chunk.invalid() {
                text.push_str(&format!("\\x{byte:02x}"));
            }
        }
        f.pad(&text)
    }
}

impl From<&str> for RepoPath {
    fn from(path: &str) -> Self {
        Self::from_git(path.as_bytes())
    }
}

impl Serialize for RepoPath {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An image repository: a registry's host, with its port if it has one, and the path there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository {
    /// Host and port as written; Docker Hub is `docker.io`.
    pub host: String,
    /// The path below the host, lower case.
    pub path: String,
}

impl Repository {
    /// Parses `host/path`, with Docker's rule for a missing host (`docker.io`, and `library/` for one-part names).
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let invalid = || InvalidName {
            value: text.to_owned(),
            expected: "an image repository: `host/path` in lower case, like `123456789012.dkr.ecr.us-east-1.amazonaws.com/web`",
        };
        let (host, path) = match text.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest.to_owned()),
            Some(_) => ("docker.io", text.to_owned()),
            None => ("docker.io", format!("library/{text}")),
        };
        let part = |part: &str| {
            words(part, b"-_.")
                && !part.bytes().any(|b| b.is_ascii_uppercase())
                && part.as_bytes().last().is_some_and(u8::is_ascii_alphanumeric)
        };
        let (name, port) = host.rsplit_once(':').map_or((host, None), |(name, port)| (name, Some(port)));
        let host_fits = !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.[]:".contains(&b))
            && port.is_none_or(|port| port.parse::<u16>().is_ok());
        if host_fits && !path.is_empty() && path.split('/').all(part) { Ok(Self { host: host.to_owned(), path }) } else { Err(invalid()) }
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.path)
    }
}

impl Serialize for Repository {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An image as a manifest names it: a repository, maybe a tag, maybe a digest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageRef {
    /// Where it lives.
    pub repository: Repository,
    /// The tag, when one is written.
    pub tag: Option<String>,
    /// The digest, when one is written.
    pub digest: Option<Digest>,
}

impl ImageRef {
    /// Parses `repository[:tag][@digest]`.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let invalid = || InvalidName { value: text.to_owned(), expected: "an image reference: `repository[:tag][@sha256:…]`" };
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(Digest::new(digest).map_err(|_| invalid())?)),
            None => (text, None),
        };
        // A colon after the last slash is a tag's; one before it is a port's.
        let (repository, tag) = match name.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag.to_owned())),
            _ => (name, None),
        };
        if tag.as_deref().is_some_and(|tag| !is_tag(tag)) {
            return Err(invalid());
        }
        Ok(Self { repository: Repository::parse(repository).map_err(|_| invalid())?, tag, digest })
    }
}

/// True when `text` can be a tag: at most 128 letters, digits, `_`, `.` and `-`, not starting with `.` or `-`.
#[must_use]
pub fn is_tag(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        && !text.starts_with(['.', '-'])
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl Serialize for ImageRef {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_joined_without_leaving_the_repository() {
        let dir = RepoPath::from("services/api");
        assert_eq!(dir.join("../../libs/./auth"), Some(RepoPath::from("libs/auth")));
        assert_eq!(dir.join("."), Some(dir.clone()));
        assert_eq!(dir.join("../../.."), None);
        assert_eq!(dir.join("/etc"), None);
    }

    #[test]
    fn below_respects_part_borders() {
        assert!(RepoPath::from("apps/web/x").is_in(&RepoPath::from("apps/web")));
        assert!(!RepoPath::from("apps/web2/x").is_in(&RepoPath::from("apps/web")));
        assert!(RepoPath::from("x").is_in(&RepoPath::default()));
    }

    #[test]
    fn run_ids_of_one_second_sort_by_time() {
        let start = time::macros::datetime!(2026-01-02 03:04:05 UTC);
        let ids: Vec<String> =
            [0, 15_259, 500_000_000, 999_999_999].map(|part| RunId::starting(start.replace_nanosecond(part).unwrap()).to_string()).into();
        assert_eq!(ids, ["20260102-030405-0000", "20260102-030405-0001", "20260102-030405-8000", "20260102-030405-ffff"]);
    }

    #[test]
    fn a_path_that_is_no_text_is_printed_escaped() {
        assert_eq!(RepoPath::from_git(b"a\xff\nb".to_vec()).to_string(), "a\\xff\\nb");
    }

    #[test]
    fn an_image_reference_tells_a_port_from_a_tag() {
        let parsed = ImageRef::parse("localhost:5000/team/web:v1").unwrap();
        assert_eq!(
            (parsed.repository.host.as_str(), parsed.repository.path.as_str(), parsed.tag.as_deref()),
            ("localhost:5000", "team/web", Some("v1"))
        );
        assert_eq!(ImageRef::parse("localhost:5000/web").unwrap().tag, None);
        assert_eq!(ImageRef::parse("redis").unwrap().repository.to_string(), "docker.io/library/redis");
        assert!(ImageRef::parse("Host.example/WEB:x").is_err());
        assert!(ImageRef::parse("web:").is_err());
    }
}
