//! The rules of all apps, kept between runs: what `offbuild changed` needs to know of a repository.
//!
//! Working them out means reading the configuration, every manifest and every Dockerfile. What came of that is a function of
//! the files that were asked for ([`Asked`]) and of the variables that were looked up, so it stays right until one of those
//! differs. The file may be deleted at any time; one that is damaged or of another version is as good as none.
//!
//! It is read without being taken apart: rules are indexed by the directory that all they match lies in, and only those of
//! apps that a changed path can touch are decoded. What was asked for is a file of its own, read only when something differs.

use super::committed::Asked;
use super::inputs::{Ignores, InputRule, Inputs, Reach, Shared, Unseen, prefixes};
use super::{Change, Rule};
use crate::config::{Discover, Pattern, Unowned};
use crate::names::{AppName, CommitId, RackName, RepoPath};
use crate::yaml::Place;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What the file begins with: another layout gets another number, another version of the program another file.
const FORMAT: &str = concat!("offbuild rules 4 ", env!("CARGO_PKG_VERSION"));

/// Every kind of rule there is, by number in the file.
const KINDS: [&str; 9] = ["directory", "uses", "global", "context", "dockerfile", "dockerignore", "manifest", "hook", "build"];

/// What a rulebook is made of.
pub struct Made {
    /// The commit that was read.
    pub commit: CommitId,
    /// The configuration file.
    pub file: RepoPath,
    /// What happens with paths no app owns.
    pub unowned: Unowned,
    /// Where apps are looked for.
    pub discover: Discover,
    /// What was found there.
    pub found: Vec<Found>,
    /// The variables that were looked up, with their values. Values are kept as salted hashes.
    pub variables: BTreeMap<String, Option<String>>,
    /// The paths that were asked for.
    pub asked: Asked,
    /// The apps, in the order of the configuration.
    pub apps: Vec<MadeApp>,
}

/// A directory that was found: its path, its manifest, the compose file beside that, whether it has hooks.
pub type Found = (Vec<u8>, String, Option<String>, bool);

/// An app of a rulebook.
pub struct MadeApp {
    /// The racks it goes to.
    pub racks: Vec<RackName>,
    /// Its inputs.
    pub inputs: Inputs,
    /// What its manifest warns of.
    pub warnings: Vec<String>,
}

/// An app that changes can touch.
pub struct Touched {
    /// Its inputs.
    pub inputs: Inputs,
    /// What its manifest warns of.
    pub warnings: Vec<String>,
}

/// A rulebook in the bytes of its file.
#[derive(Serialize, Deserialize)]
pub struct Rulebook<'a> {
    #[serde(borrow)]
    format: &'a str,
    commit: &'a str,
    file: &'a [u8],
    unowned: Unowned,
    discover: Discover,
    found: Vec<Found>,
    salt: u64,
    variables: Vec<(&'a str, Option<[u8; 16]>)>,
    #[serde(borrow)]
    apps: Vec<(&'a str, &'a str)>,
    /// By number: rules, ignore patterns, warnings.
    #[serde(borrow)]
    details: Vec<&'a [u8]>,
    shared: &'a [u8],
    /// Sorted: where a rule's paths lie, and the apps with such a rule.
    #[serde(borrow)]
    index: Vec<(&'a [u8], Vec<u32>)>,
}

#[derive(Serialize, Deserialize)]
struct Details<'a> {
    #[serde(borrow)]
    rules: Vec<KeptRule<'a>>,
    ignore: Vec<KeptPattern<'a>>,
    warnings: Vec<&'a str>,
}

#[derive(Serialize, Deserialize)]
struct KeptRule<'a> {
    reach: KeptReach<'a>,
    kind: u8,
    matches: &'a str,
    #[serde(borrow)]
    place: Option<KeptPlace<'a>>,
    #[serde(borrow)]
    through: Vec<&'a str>,
    unseen: Option<(&'a [u8], &'a str)>,
}

#[derive(Serialize, Deserialize)]
enum KeptReach<'a> {
    Path(&'a [u8]),
    Below(&'a [u8]),
    Glob(&'a str),
}

type KeptPlace<'a> = (&'a str, usize, usize);

#[derive(Serialize, Deserialize)]
struct KeptPattern<'a> {
    glob: &'a str,
    negated: bool,
    #[serde(borrow)]
    place: KeptPlace<'a>,
}

impl Made {
    /// The bytes of the rulebook's file and of the one beside it, with what was asked for. `None` when something cannot be kept.
    #[must_use]
    pub fn to_bytes(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let shared = self.apps.first().map(|app| Arc::clone(&app.inputs.shared))?;
        let salt = fastrand::u64(..);
        let mut index: BTreeMap<Vec<u8>, BTreeSet<u32>> = BTreeMap::new();
        for (number, app) in self.apps.iter().enumerate() {
            for rule in &app.inputs.rules {
                index.entry(rule.reach.start().as_bytes().to_vec()).or_default().insert(u32::try_from(number).ok()?);
            }
        }
        let racks: Vec<String> = self.apps.iter().map(|app| app.racks.iter().map(RackName::as_str).collect::<Vec<_>>().join(" ")).collect();
        let details: Vec<Vec<u8>> =
            self.apps.iter().map(|app| kept(&app.inputs.rules, &app.inputs.ignore, &app.warnings)).collect::<Option<_>>()?;
        let shared = kept(&shared.global, &shared.ignore, &[])?;
        let book = Rulebook {
            format: FORMAT,
            commit: self.commit.as_str(),
            file: self.file.as_bytes(),
            unowned: self.unowned,
            discover: self.discover.clone(),
            found: self.found.clone(),
            salt,
            variables: self
                .variables
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_deref().map(|value| hash(salt, value))))
                .collect(),
            apps: self.apps.iter().zip(&racks).map(|(app, racks)| (app.inputs.app.as_str(), racks.as_str())).collect(),
            details: details.iter().map(Vec::as_slice).collect(),
            shared: &shared,
            index: index.iter().map(|(path, apps)| (path.as_slice(), apps.iter().copied().collect())).collect(),
        };
        Some((summed(postcard::to_allocvec(&book).ok()?), summed(postcard::to_allocvec(&(salt, self.asked.kept())).ok()?)))
    }
}

impl<'a> Rulebook<'a> {
    /// Reads the bytes of a file; `None` when they are damaged, of another version, or nothing this program wrote.
    #[must_use]
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        postcard::from_bytes(whole(bytes)?).ok().filter(|book: &Self| book.format == FORMAT)
    }

    /// The commit it was read from.
    #[must_use]
    pub fn commit(&self) -> Option<CommitId> {
        CommitId::new(self.commit).ok()
    }

    /// The configuration file.
    #[must_use]
    pub fn file(&self) -> RepoPath {
        RepoPath::from_git(self.file)
    }

    /// What happens with paths no app owns.
    #[must_use]
    pub fn unowned(&self) -> Unowned {
        self.unowned
    }

    /// Where apps were looked for.
    #[must_use]
    pub fn discover(&self) -> &Discover {
        &self.discover
    }

    /// What was found there.
    #[must_use]
    pub fn found(&self) -> &Vec<Found> {
        &self.found
    }

    /// True when every variable has the value it had.
    pub fn has_variables(&self, env: &dyn Fn(&str) -> Option<String>) -> bool {
        self.variables.iter().all(|(name, value)| env(name).map(|now| hash(self.salt, &now)) == *value)
    }

    /// The paths that were asked for, from the bytes of their file; `None` when that is damaged, or not this rulebook's.
    #[must_use]
    pub fn asked(&self, bytes: &[u8]) -> Option<Asked> {
        let (salt, kept): (u64, _) = postcard::from_bytes(whole(bytes)?).ok()?;
        (salt == self.salt).then(|| Asked::of_kept(kept))
    }

    /// The apps and the racks each goes to, in the order of the configuration.
    pub fn apps(&self) -> impl Iterator<Item = (AppName, Vec<RackName>)> {
        // Both were names when they were written, and the sum was right.
        let racks = |text: &str| text.split(' ').filter_map(|rack| RackName::new(rack).ok()).collect();
        self.apps.iter().filter_map(move |(name, text)| Some((AppName::new(*name).ok()?, racks(text))))
    }

    /// Every app that the changes may touch, and at least one, since what no app owns is told by what all have in common.
    /// `None` when the rules cannot be read after all.
    #[must_use]
    pub fn touched(&self, changes: &[&[Change]]) -> Option<Vec<Touched>> {
        let (global, ignore, _) = decoded(self.shared)?;
        let shared = Arc::new(Shared { global, ignore, file: Some(self.file()) });
        let paths = || changes.iter().flat_map(|changes| changes.iter()).map(|change| &change.path);
        let mut wanted = BTreeSet::from([0]);
        if paths().any(|path| shared.global.iter().any(|rule| rule.contains(path)))
            || (self.unowned == Unowned::All && paths().next().is_some())
        {
            wanted.extend(0..self.details.len());
        } else {
            for part in paths().flat_map(|path| prefixes(path.as_bytes())) {
                if let Ok(at) = self.index.binary_search_by(|(dir, _)| (*dir).cmp(part)) {
                    wanted.extend(self.index[at].1.iter().filter_map(|number| usize::try_from(*number).ok()));
                }
            }
        }
        let touched = |number: usize| {
            let (rules, ignore, warnings) = decoded(self.details.get(number)?)?;
            let app = AppName::new(self.apps.get(number)?.0).ok()?;
            Some(Touched { inputs: Inputs { app, rules, ignore: Arc::new(ignore), shared: Arc::clone(&shared) }, warnings })
        };
        wanted.into_iter().map(touched).collect()
    }
}

/// With a sum at its end.
fn summed(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

/// Without the sum; `None` when it is wrong.
fn whole(bytes: &[u8]) -> Option<&[u8]> {
    let (bytes, sum) = bytes.split_last_chunk::<4>()?;
    (crc32fast::hash(bytes) == u32::from_le_bytes(*sum)).then_some(bytes)
}

fn hash(salt: u64, value: &str) -> [u8; 16] {
    let hash = Sha256::new().chain_update(salt.to_le_bytes()).chain_update(value).finalize();
    std::array::from_fn(|at| hash[at])
}

fn kept(rules: &[InputRule], ignore: &Ignores, warnings: &[String]) -> Option<Vec<u8>> {
    let details = Details {
        rules: rules.iter().map(kept_rule).collect::<Option<_>>()?,
        ignore: ignore
            .patterns()
            .map(|pattern| KeptPattern { glob: &pattern.glob, negated: pattern.negated, place: kept_place(&pattern.place) })
            .collect(),
        warnings: warnings.iter().map(String::as_str).collect(),
    };
    postcard::to_allocvec(&details).ok()
}

fn kept_rule(rule: &InputRule) -> Option<KeptRule<'_>> {
    Some(KeptRule {
        reach: match &rule.reach {
            Reach::Path(path) => KeptReach::Path(path.as_bytes()),
            Reach::Below(path) => KeptReach::Below(path.as_bytes()),
            Reach::Glob(glob) => KeptReach::Glob(glob.glob().glob()),
        },
        kind: KINDS.iter().position(|kind| *kind == rule.rule.kind).and_then(|at| u8::try_from(at).ok())?,
        matches: &rule.rule.matches,
        place: rule.rule.place.as_ref().map(kept_place),
        through: rule.rule.through.iter().map(String::as_str).collect(),
        unseen: rule.unseen.as_ref().map(|unseen| (unseen.parts().0.as_bytes(), unseen.parts().1)),
    })
}

fn kept_place(place: &Place) -> KeptPlace<'_> {
    (&place.file, place.line, place.column)
}

fn decoded(bytes: &[u8]) -> Option<(Vec<InputRule>, Ignores, Vec<String>)> {
    let details: Details<'_> = postcard::from_bytes(bytes).ok()?;
    let rule = |kept: KeptRule<'_>| {
        let unseen = match kept.unseen {
            Some((context, text)) => Some(Unseen::new(RepoPath::from_git(context), text)?),
            None => None,
        };
        Some(InputRule {
            reach: match kept.reach {
                KeptReach::Path(path) => Reach::Path(RepoPath::from_git(path)),
                KeptReach::Below(path) => Reach::Below(RepoPath::from_git(path)),
                KeptReach::Glob(glob) => Reach::of(glob).ok()?,
            },
            rule: Rule {
                kind: KINDS.get(usize::from(kept.kind))?,
                matches: kept.matches.to_owned(),
                place: kept.place.map(place),
                through: kept.through.into_iter().map(str::to_owned).collect(),
            },
            unseen,
        })
    };
    let pattern = |kept: KeptPattern<'_>| Pattern { glob: kept.glob.to_owned(), negated: kept.negated, place: place(kept.place) };
    let patterns: Vec<Pattern> = details.ignore.into_iter().map(pattern).collect();
    let rules = details.rules.into_iter().map(rule).collect::<Option<_>>()?;
    Some((rules, Ignores::new(&patterns).ok()?, details.warnings.into_iter().map(str::to_owned).collect()))
}

fn place((file, line, column): KeptPlace<'_>) -> Place {
    Place { file: file.to_owned(), line, column }
}
