//! The description a rack keeps with a build: one line for people that also carries what it was built from.
//!
//! ```text
//! Fix the login page [fp1:0123456789abcdef01234567 cfg:89abcdef at:1763847000 run:20261122-213000-1f2e] https://ci.example.com/run/7
//! ```
//!
//! `at` is when the commit was committed: a clone that does not have the live commit can tell by it which of the two is older.
//!
//! On version 2 racks it ends up in a CloudFormation template and everywhere in lists, so it is plain ASCII without quotes,
//! backslashes and substitution signs, and at most [`LONGEST`] characters. Cutting shortens the subject, then drops the link;
//! never the part in brackets.

use super::fingerprint::VERSION;
use crate::names::{Fingerprint, RunId};
use time::OffsetDateTime;

/// The most characters a description has.
pub const LONGEST: usize = 250;

/// What a build was made from, as its description tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The fingerprint of the app.
    pub fingerprint: Fingerprint,
    /// The first 8 digits of the digest of its configuration.
    pub config: String,
    /// Uncommitted files were among its inputs: the commit alone does not tell what runs.
    pub dirty: bool,
    /// When its commit was committed, to the second.
    pub committed: Option<OffsetDateTime>,
}

impl Recorded {
    /// What an app with this configuration digest and fingerprint is built from.
    #[must_use]
    pub fn new(fingerprint: Fingerprint, app_digest: &str, dirty: bool) -> Self {
        Self { fingerprint, config: short_digest(app_digest), dirty, committed: None }
    }

    /// The same, of a commit that was committed then.
    #[must_use]
    pub fn committed(self, at: OffsetDateTime) -> Self {
        Self { committed: OffsetDateTime::from_unix_timestamp(at.unix_timestamp()).ok(), ..self }
    }
}

/// The part of a configuration digest that is recorded.
#[must_use]
pub fn short_digest(app_digest: &str) -> String {
    app_digest.chars().filter(char::is_ascii_alphanumeric).take(8).collect()
}

/// Makes the description of a build.
#[must_use]
pub fn describe(subject: &str, recorded: &Recorded, run: &RunId, ci_url: Option<&str>) -> String {
    let dirty = if recorded.dirty { " dirty" } else { "" };
    let at = recorded.committed.map(|at| format!(" at:{}", at.unix_timestamp())).unwrap_or_default();
    let facts = format!("[fp{VERSION}:{} cfg:{}{dirty}{at} run:{run}]", recorded.fingerprint, recorded.config);
    let url = ci_url.filter(|url| url.chars().all(is_plain) && !url.contains(' '));
    let with_url = url.map(|url| format!("{facts} {url}")).filter(|tail| tail.len() + 40 <= LONGEST);
    let tail = with_url.unwrap_or(facts);
    let mut subject: String =
        subject.split_whitespace().collect::<Vec<_>>().join(" ").chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    let room = LONGEST - tail.len() - 1;
    if subject.len() > room {
        subject.truncate(room.saturating_sub(3));
        subject.truncate(subject.trim_end().len());
        subject.push_str("...");
    }
    format!("{subject} {tail}").trim_start().to_owned()
}

/// Characters that mean nothing to a shell's quotes, JSON, YAML, or a CloudFormation template.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || " .,:;/_-+=@#()[]!?~*".contains(c)
}

/// Reads what a description records. `None` when it is not offbuild's, or of a version whose fingerprints mean something else.
#[must_use]
pub fn recorded_in(description: &str) -> Option<Recorded> {
    let facts = facts(description)?;
    let word = |prefix: &str| word(facts, prefix);
    Some(Recorded {
        fingerprint: Fingerprint::new(word(&format!("fp{VERSION}:"))?).ok()?,
        config: word("cfg:").unwrap_or_default().to_owned(),
        dirty: facts.split(' ').any(|word| word == "dirty"),
        committed: word("at:").and_then(|at| OffsetDateTime::from_unix_timestamp(at.parse().ok()?).ok()),
    })
}

/// The part in brackets.
fn facts(description: &str) -> Option<&str> {
    // The last one: a subject may quote another description.
    let start = description.rfind(&format!("[fp{VERSION}:"))?;
    description[start + 1..].split(']').next()
}

fn word<'f>(facts: &'f str, prefix: &str) -> Option<&'f str> {
    facts.split(' ').find_map(|word| word.strip_prefix(prefix))
}

/// Reads the run that made the build.
#[must_use]
pub fn run_in(description: &str) -> Option<RunId> {
    RunId::new(word(facts(description)?, "run:")?).ok()
}

/// Reads the fingerprint a description records.
#[must_use]
pub fn fingerprint_in(description: &str) -> Option<Fingerprint> {
    recorded_in(description).map(|recorded| recorded.fingerprint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(dirty: bool) -> Recorded {
        Recorded::new(Fingerprint::from_sha256(&[7; 32]), "89abcdef0123", dirty)
    }

    fn run() -> RunId {
        RunId::new("20261122-213000-1f2e").unwrap()
    }

    #[test]
    fn a_description_reads_well_and_back() {
        let text = describe("Fix the \"login\" page\n", &recorded(false), &run(), Some("https://ci.example.com/run/7"));
        assert_eq!(
            text,
            "Fix the _login_ page [fp1:070707070707070707070707 cfg:89abcdef run:20261122-213000-1f2e] https://ci.example.com/run/7"
        );
        assert_eq!((recorded_in(&text), run_in(&text)), (Some(recorded(false)), Some(run())));
        assert_eq!(recorded_in(&describe("", &recorded(true), &run(), None)), Some(recorded(true)));
        let at = OffsetDateTime::from_unix_timestamp(1_763_847_000).unwrap();
        let text = describe("", &recorded(true).committed(at + time::Duration::milliseconds(7)), &run(), None);
        assert!(text.contains(" dirty at:1763847000 run:"), "{text}");
        assert_eq!(recorded_in(&text).unwrap().committed, Some(at));
    }

    #[test]
    fn what_is_not_ours_is_not_read() {
        let cases = ["", "build abc1234 Fix", "[fp0:070707070707070707070707]", "[fp1:zz]", "fp1:070707070707070707070707"];
        for case in cases {
            assert_eq!(recorded_in(case), None, "{case}");
        }
    }

    #[test]
    fn a_subject_that_quotes_a_description_does_not_win() {
        let quoted = "Revert [fp1:111111111111111111111111 cfg:00000000 run:x]";
        assert_eq!(recorded_in(&describe(quoted, &recorded(false), &run(), None)), Some(recorded(false)));
    }

    proptest::proptest! {
        #[test]
        fn a_description_is_short_plain_and_reads_back(subject in ".{0,400}", url in proptest::option::of(".{0,300}"), dirty: bool) {
            let text = describe(&subject, &recorded(dirty), &run(), url.as_deref());
            proptest::prop_assert!(text.len() <= LONGEST);
            proptest::prop_assert!(text.chars().all(is_plain));
            proptest::prop_assert_eq!(recorded_in(&text), Some(recorded(dirty)));
        }
    }
}
