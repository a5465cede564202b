//! What a rack showed of a promote that did not end well, in sections: the same for every report.

use crate::event::{EnvChange, Evidence, Suspect};

/// A part of the evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// What it is.
    pub title: String,
    /// Its lines.
    pub lines: Vec<String>,
}

/// The evidence in the order in which it is read: what it looks like, then what that rests on. The status over time is told apart,
/// from the run's own events.
#[must_use]
pub fn sections(evidence: &Evidence) -> Vec<Section> {
    let mut sections = Vec::new();
    let mut add = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            sections.push(Section { title: title.to_owned(), lines });
        }
    };
    let words = evidence.suspect.words();
    add(
        "looks like",
        match (evidence.suspect, evidence.because.as_str()) {
            (Suspect::Unknown, _) => vec![words.to_owned()],
            (_, "") => vec![words.to_owned()],
            (_, because) => vec![words.to_owned(), because.to_owned()],
        },
    );
    let process = |seen: &crate::event::ProcessSeen| format!("{} of {}, release {}: {}", seen.id, seen.service, seen.release, seen.status);
    add("processes", evidence.processes.iter().map(process).collect());
    for log in &evidence.logs {
        add(&format!("last lines of {}", log.source), log.lines.clone());
    }
    add("what the rack said", evidence.system.clone());
    add("environment, by name", names(&evidence.env));
    add("manifest", evidence.manifest.clone());
    add("could not be read", evidence.missing.clone());
    sections
}

fn names(env: &EnvChange) -> Vec<String> {
    let parts = [("added", &env.added), ("changed", &env.changed), ("removed", &env.removed)];
    parts.into_iter().filter(|(_, names)| !names.is_empty()).map(|(word, names)| format!("{word}: {}", names.join(", "))).collect()
}
