//! The cells of a service, run and compared.

use super::bed::{Bed, Seen};
use super::page;
use super::table::{Call, FAULTS, Service, word};
use crate::support::front::Fault;

/// How often a fault comes that never goes away.
const ALWAYS: usize = usize::MAX;

/// One row of the document: a call and a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The call.
    pub call: String,
    /// The fault.
    pub fault: String,
    /// How the deploy ends when it happens once.
    pub once: String,
    /// How often the call is sent when it always happens.
    pub sent: String,
    /// How the deploy ends then.
    pub always: String,
    /// Its exit code.
    pub exit: String,
    /// What is live then.
    pub live: String,
}

/// Runs the service's cells, those of every fault or of one fault per call, and compares them with the document.
pub fn check(service: Service) {
    let mode = std::env::var("OFFBUILD_MATRIX").unwrap_or_default();
    let all = matches!(mode.as_str(), "all" | "write");
    let bed = Bed::of(service);
    let (mut rows, mut broken) = (Vec::new(), Vec::new());
    for (at, call) in service.calls().iter().enumerate() {
        // Another one for each call, and for the same call of another service.
        let one = (at * 4 + service as usize * 3 + 1) % FAULTS.len();
        let named = FAULTS.iter().any(|fault| word(*fault) == mode);
        let wanted = |(index, fault): &(usize, &Fault)| all || if named { word(**fault) == mode } else { *index == one };
        for (_, fault) in FAULTS.iter().enumerate().filter(wanted) {
            rows.push(row(&bed, service, call, *fault, &mut broken));
        }
    }
    if mode == "write" {
        page::write(service, &rows);
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    let documented = page::read(service);
    let differing: Vec<(&Row, Option<&Row>)> = rows
        .iter()
        .map(|row| (row, documented.iter().find(|known| (&known.call, &known.fault) == (&row.call, &row.fault))))
        .filter(|(row, known)| *known != Some(*row))
        .collect();
    assert!(differing.is_empty(), "`{}` says otherwise ({}): {differing:#?}", page::FILE, page::COMMAND);
    if all {
        assert_eq!(rows, documented, "`{}` has other rows ({})", page::FILE, page::COMMAND);
    }
}

fn row(bed: &Bed, service: Service, call: &Call, fault: Fault, broken: &mut Vec<String>) -> Row {
    let what = format!("{service:?}, {}, {}", call.name, word(fault));
    // A port that nobody listens on is no matter of one connection.
    let once = (fault != Fault::Refused).then(|| bed.run(call, fault, 1));
    let always = bed.run(call, fault, ALWAYS);
    for (seen, times) in once.iter().map(|seen| (seen, "once")).chain([(&always, "always")]) {
        broken.extend(never(&format!("{what}, {times}"), call, fault, seen));
    }
    let late = always.word.ends_with("-timeout)");
    let sent = match (fault, late) {
        (Fault::Refused, _) => "–".to_owned(),
        (_, true) => "until its limit".to_owned(),
        // How often something is looked at that goes on meanwhile is a matter of how long that takes.
        _ if always.code == 0 || call.besides.is_some() => "–".to_owned(),
        _ => always.faulted.to_string(),
    };
    Row {
        call: call.name.to_owned(),
        fault: word(fault),
        once: once.map_or_else(|| "–".to_owned(), |seen| ended(&seen)),
        sent,
        always: ended(&always),
        exit: always.code.to_string(),
        live: if always.is_live { "this commit" } else { "the one before" }.to_owned(),
    }
}

fn ended(seen: &Seen) -> String {
    if seen.word.is_empty() { "not begun".to_owned() } else { seen.word.clone() }
}

/// What may not be, whatever the document says.
fn never(what: &str, call: &Call, fault: Fault, seen: &Seen) -> Vec<String> {
    let Seen { code, word, said, .. } = seen;
    // What the service has done is not done again. What repeats without harm is an upload, a tag, and a record's update.
    let once_only = ["build create", "build record", "release create", "promote", "CreateRepository"].contains(&call.name);
    let acted = matches!(fault, Fault::Timeout | Fault::Reset);
    let names = ["staging", "127.0.0.1", "engine"].iter().any(|name| said.contains(name));
    let rules = [
        (!said.contains("panicked"), "it panicked"),
        (fault == Fault::Refused || seen.faulted > 0, "the call was not made"),
        (matches!(code, 0 | 1 | 3), "that exit code"),
        ((*code == 0) == (word == "deployed"), "exit code and outcome do not agree"),
        ((*code == 3) == word.is_empty(), "exit code 3 is for runs that were not begun"),
        (*code != 0 || seen.is_live, "it says that it is live, and it is not"),
        (*code != 3 || seen.changes == 0, "something was changed by a run that was not begun"),
        (*code == 0 || said.contains("next: "), "it does not say what to do"),
        (*code == 0 || names, "it does not say who failed"),
        (!(once_only && acted) || seen.passed == 1, "it was done twice"),
    ];
    let broken = rules.iter().filter(|(kept, _)| !kept);
    broken.map(|(_, rule)| format!("{what}: {rule} (exit {code}, `{word}`, passed {} times):\n{said}", seen.passed)).collect()
}
