//! Looking for many needles at once, in one pass over the text.
//!
//! Matches may overlap, and all of them count: of two values that overlap in the text, both are to go. The search also tells with how
//! much of a needle the text ends, so that the text's continuation can be looked at together with it.

use super::forms;
use aho_corasick::Anchored;
use aho_corasick::automaton::{Automaton, StateID};
use aho_corasick::nfa::contiguous::NFA;
use std::collections::HashMap;

/// Needles below this, bytes in all, are always one set: making it anew with each new value costs less than a second search.
const SMALL: usize = 64 << 10;

/// Some of the registered values.
pub(super) struct Set {
    values: Vec<String>,
    size: usize,
    /// The values in all their spellings.
    pub(super) plain: Needles,
    /// The values without what escapes are made of.
    pub(super) bare: Needles,
}

impl Set {
    /// Puts more values into `sets`, which are merged so that there are few of them and each value is seldom moved.
    pub(super) fn add(sets: &mut Vec<Self>, values: &[String]) {
        let mut values = values.to_vec();
        let size = |values: &[String]| values.iter().map(|value| value.len() * forms::FACTOR).sum::<usize>();
        while let Some(last) = sets.pop_if(|last| last.size <= SMALL.max(size(&values))) {
            values.extend(last.values);
        }
        let plain = Needles::new(values.iter().flat_map(|value| forms::plain(value)));
        let bare = Needles::new(values.iter().flat_map(|value| forms::bare(value)));
        sets.push(Self { size: size(&values), values, plain, bare });
    }
}

/// With how much of a needle a text ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// The longest end of the text that a needle begins with, bytes.
    pub(super) tail: usize,
    /// It is so much of a needle that it tells.
    pub(super) telling: bool,
}

impl Found {
    /// The one with the longer end, telling when either of equal ones is.
    pub(super) fn longer(self, other: Self) -> Self {
        match self.tail.cmp(&other.tail) {
            std::cmp::Ordering::Less => other,
            std::cmp::Ordering::Equal => Self { tail: self.tail, telling: self.telling || other.telling },
            std::cmp::Ordering::Greater => self,
        }
    }
}

/// Texts to look for.
pub(super) struct Needles {
    automaton: Option<(NFA, StateID)>,
    /// The states in which the text so far ends with a beginning of a needle.
    begun: HashMap<StateID, Found>,
}

impl Needles {
    fn new(needles: impl Iterator<Item = String>) -> Self {
        let mut needles: Vec<String> = needles.collect();
        needles.sort();
        needles.dedup();
        // It can only be too large for its 32 bits, which `LONGEST_MASKED` rules out for one value.
        let built = NFA::new(&needles).ok().filter(|_| !needles.is_empty());
        let automaton = built.and_then(|nfa| nfa.start_state(Anchored::No).ok().map(|start| (nfa, start)));
        let mut begun = HashMap::new();
        if let Some((nfa, start)) = &automaton {
            for needle in &needles {
                let telling = (needle.len() / 2).clamp(4, 8);
                let mut state = *start;
                for (length, byte) in (1..needle.len()).zip(needle.bytes()) {
                    state = nfa.next_state(Anchored::No, state, byte);
                    let known: &mut Found = begun.entry(state).or_default();
                    *known = Found { tail: length, telling: known.telling || length >= telling };
                }
            }
        }
        Self { automaton, begun }
    }

    /// Tells where needles are (of several that end at one place, the longest) and with how much of one the text ends.
    pub(super) fn search(&self, text: &[u8], mut tell: impl FnMut((usize, usize))) -> Found {
        let Some((nfa, start)) = &self.automaton else { return Found::default() };
        let mut state = *start;
        for (at, byte) in text.iter().enumerate() {
            state = nfa.next_state(Anchored::No, state, *byte);
            if nfa.is_match(state) {
                let lengths = (0..nfa.match_len(state)).map(|index| nfa.pattern_len(nfa.match_pattern(state, index)));
                tell((at + 1 - lengths.max().unwrap_or(0), at + 1));
            }
        }
        self.begun.get(&state).copied().unwrap_or_default()
    }
}
