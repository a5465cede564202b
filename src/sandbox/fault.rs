//! Faults: what a sandbox can be told to get wrong, by flag at the start or over its control endpoint at run time.
//!
//! A fault is written `RACK:APP:FAULT`, `RACK:FAULT` or `registry:FAULT` (`ecr:FAULT` for its API); `*` stands for any. Faults that
//! name an answer (`500-once`, `…-answer-lost`) happen once and are gone, the others stay until they are removed.

use super::symptom::Symptom;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

/// The place whose faults concern the image registry.
pub const REGISTRY: &str = "registry";

/// Something a sandbox gets wrong on purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Builds on the rack fail.
    RackBuildFails,
    /// Builds on the rack do not end before this fault does.
    RackBuildHangs,
    /// A promote is accepted and then rolled back.
    PromoteRollsBack,
    /// A promote is accepted, the new processes do not come to run, and it is rolled back.
    App(Symptom),
    /// A promote is accepted and does not end before this fault does; `cancel` ends it too.
    PromoteHangs,
    /// The next promote takes, but its answer never arrives.
    PromoteAnswerLost,
    /// The next build starts, but the answer with its id never arrives.
    BuildAnswerLost,
    /// The app stays `updating`.
    Updating,
    /// Connections are closed without an answer.
    Down,
    /// Every login is refused.
    Unauthorized,
    /// The next request whose path starts with the prefix is answered 500, before anything is done.
    Once500(String),
    /// A registry answers uploads and manifests with 500.
    Push500,
    /// A registry refuses every login.
    LoginRefused,
    /// A registry has no manifests to give.
    ManifestMissing,
}

/// Every fault without a value: its word, and what it does, for people.
const WORDS: &[(&str, Fault, &str)] = &[
    ("rack-build-fails", Fault::RackBuildFails, "builds on the rack fail"),
    ("rack-build-hangs", Fault::RackBuildHangs, "builds on the rack do not end before this fault does"),
    ("promote-rolls-back", Fault::PromoteRollsBack, "a promote is accepted and then rolled back"),
    ("app-crashes", Fault::App(Symptom::Crashes), "a promote is rolled back: the processes end with code 1"),
    ("app-oom", Fault::App(Symptom::OutOfMemory), "… they need more memory than they may have"),
    ("app-unhealthy", Fault::App(Symptom::Unhealthy), "… they answer 502 to the health check"),
    ("app-wrong-port", Fault::App(Symptom::WrongPort), "… they listen on another port"),
    ("app-missing-env", Fault::App(Symptom::MissingEnv), "… a variable they need is not set"),
    ("app-bad-command", Fault::App(Symptom::BadCommand), "… their command is not in the image"),
    ("no-capacity", Fault::App(Symptom::NoCapacity), "… there is no room for them"),
    ("promote-hangs", Fault::PromoteHangs, "a promote is accepted and does not end before this fault does"),
    ("promote-answer-lost", Fault::PromoteAnswerLost, "once: a promote takes, its answer never arrives"),
    ("build-answer-lost", Fault::BuildAnswerLost, "once: a build starts, the answer with its id never arrives"),
    ("updating", Fault::Updating, "the app stays `updating`"),
    ("down", Fault::Down, "connections are closed without an answer"),
    ("401", Fault::Unauthorized, "every login is refused"),
    ("push-500", Fault::Push500, "a registry answers uploads and manifests with 500"),
    ("login-refused", Fault::LoginRefused, "a registry refuses every login"),
    ("manifest-missing", Fault::ManifestMissing, "a registry has no manifests to give"),
];

/// The start of the one fault that carries a value.
const ONCE_500: &str = "500-once:";

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Once500(prefix) => write!(f, "{ONCE_500}{prefix}"),
            fault => f.write_str(WORDS.iter().find(|(_, known, _)| known == fault).map_or("", |(word, ..)| word)),
        }
    }
}

impl FromStr for Fault {
    type Err = UnknownFault;

    fn from_str(text: &str) -> Result<Self, UnknownFault> {
        if let Some(prefix) = text.strip_prefix(ONCE_500).filter(|prefix| prefix.starts_with('/')) {
            return Ok(Self::Once500(prefix.to_owned()));
        }
        let known = WORDS.iter().find(|(word, ..)| *word == text);
        known.map(|(_, fault, _)| fault.clone()).ok_or_else(|| UnknownFault { text: text.to_owned() })
    }
}

/// All faults and how they are written, a line each.
#[must_use]
pub fn help() -> String {
    let mut text = format!("RACK:FAULT, RACK:APP:FAULT, {REGISTRY}:FAULT; `*` is any rack or app\n");
    let once = (format!("{ONCE_500}/PATH-PREFIX"), "once: a request whose path starts so is answered 500");
    let words = WORDS.iter().map(|(word, _, meaning)| ((*word).to_owned(), *meaning)).chain([once]);
    for (word, meaning) in words {
        text.push_str(&format!("  {word:<24} {meaning}\n"));
    }
    text
}

/// A fault nobody knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownFault {
    text: String,
}

impl fmt::Display for UnknownFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a fault; write `RACK:FAULT`, `RACK:APP:FAULT` or `{REGISTRY}:FAULT` with one of", self.text)?;
        for (word, ..) in WORDS {
            write!(f, " `{word}`,")?;
        }
        write!(f, " `{ONCE_500}/PATH-PREFIX`")
    }
}

impl std::error::Error for UnknownFault {}

/// A fault and where it happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultAt {
    /// The rack's name, [`REGISTRY`], or `*`.
    pub place: String,
    /// The app's name on the rack; `None` or `*` for any.
    pub app: Option<String>,
    /// What happens there.
    pub fault: Fault,
}

impl FaultAt {
    fn concerns(&self, place: &str, app: Option<&str>) -> bool {
        let fits = |pattern: &str, name: &str| pattern == "*" || pattern == name;
        fits(&self.place, place) && self.app.as_deref().is_none_or(|pattern| pattern == "*" || app == Some(pattern))
    }
}

impl fmt::Display for FaultAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.place)?;
        if let Some(app) = &self.app {
            write!(f, "{app}:")?;
        }
        self.fault.fmt(f)
    }
}

impl FromStr for FaultAt {
    type Err = UnknownFault;

    fn from_str(text: &str) -> Result<Self, UnknownFault> {
        let unknown = || UnknownFault { text: text.to_owned() };
        let (place, rest) = text.split_once(':').filter(|(place, _)| !place.is_empty()).ok_or_else(unknown)?;
        let (app, fault) = match rest.parse() {
            Ok(fault) => (None, fault),
            Err(_) => {
                let (app, fault) = rest.split_once(':').filter(|(app, _)| !app.is_empty()).ok_or_else(unknown)?;
                (Some(app.to_owned()), fault.parse().map_err(|_| unknown())?)
            }
        };
        Ok(Self { place: place.to_owned(), app, fault })
    }
}

/// The faults that are set now. Clones share one set.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Mutex<Vec<FaultAt>>>);

impl Faults {
    /// A set that holds `faults`.
    #[must_use]
    pub fn new(faults: Vec<FaultAt>) -> Self {
        Self(Arc::new(Mutex::new(faults)))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<FaultAt>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a fault.
    pub fn add(&self, fault: FaultAt) {
        self.lock().push(fault);
    }

    /// Removes every fault equal to `fault`; `false` when there was none.
    pub fn remove(&self, fault: &FaultAt) -> bool {
        let mut faults = self.lock();
        let before = faults.len();
        faults.retain(|set| set != fault);
        faults.len() < before
    }

    /// Removes all faults.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// The faults that are set, in the order they were added.
    #[must_use]
    pub fn list(&self) -> Vec<FaultAt> {
        self.lock().clone()
    }

    /// True when `fault` is set for the place and app.
    #[must_use]
    pub fn is_set(&self, place: &str, app: Option<&str>, fault: &Fault) -> bool {
        self.lock().iter().any(|set| set.fault == *fault && set.concerns(place, app))
    }

    /// What is wrong with the processes of an app.
    pub(super) fn symptom(&self, place: &str, app: &str) -> Option<Symptom> {
        let faults = self.lock();
        faults.iter().find_map(|set| match set.fault {
            Fault::App(symptom) if set.concerns(place, Some(app)) => Some(symptom),
            _ => None,
        })
    }

    /// As [`Faults::is_set`], and the fault is used up.
    pub(super) fn take(&self, place: &str, app: Option<&str>, fault: &Fault) -> bool {
        self.take_first(|set| set.fault == *fault && set.concerns(place, app))
    }

    /// Uses up a `500-once` of the place whose prefix the path has.
    pub(super) fn take_500(&self, place: &str, path: &str) -> bool {
        self.take_first(|set| matches!(&set.fault, Fault::Once500(prefix) if path.starts_with(prefix) && set.concerns(place, None)))
    }

    fn take_first(&self, fits: impl Fn(&FaultAt) -> bool) -> bool {
        let mut faults = self.lock();
        let found = faults.iter().position(fits);
        found.is_some_and(|at| {
            faults.remove(at);
            true
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_read_as_it_is_printed() {
        for text in [
            "staging:web:rack-build-fails",
            "staging:promote-hangs",
            "registry:push-500",
            "*:*:updating",
            "staging:500-once:/apps/web",
            "staging:401",
        ] {
            assert_eq!(text.parse::<FaultAt>().unwrap().to_string(), text);
        }
        for (_, fault, _) in WORDS {
            assert_eq!(fault.to_string().parse::<Fault>().unwrap(), *fault);
        }
    }

    #[test]
    fn an_unknown_fault_lists_those_that_are_known() {
        let error = "staging:explode".parse::<FaultAt>().unwrap_err().to_string();
        assert!(error.starts_with("`staging:explode` is not a fault"), "{error}");
        for (word, ..) in WORDS {
            assert!(error.contains(word), "{word} is not in {error}");
        }
        assert!("down".parse::<FaultAt>().is_err());
        assert!(":down".parse::<FaultAt>().is_err());
        assert!("staging:500-once:apps".parse::<FaultAt>().is_err());
    }

    #[test]
    fn an_answer_is_lost_once_and_a_rollback_stays() {
        let faults = Faults::default();
        faults.add("a:web:promote-answer-lost".parse().unwrap());
        faults.add("a:promote-rolls-back".parse().unwrap());
        assert!(!faults.take("a", Some("other"), &Fault::PromoteAnswerLost));
        assert!(faults.take("a", Some("web"), &Fault::PromoteAnswerLost));
        assert!(!faults.take("a", Some("web"), &Fault::PromoteAnswerLost));
        assert!(faults.is_set("a", Some("web"), &Fault::PromoteRollsBack));
        assert!(!faults.is_set("b", Some("web"), &Fault::PromoteRollsBack));
    }
}
