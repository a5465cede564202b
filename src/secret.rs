//! Secrets: a type that cannot print, and the redactor everything passes that leaves the program.
//!
//! A value is masked as it is and in the spellings in which tools like to echo it: base64 in its three alignments, hex,
//! percent, JSON, shell quotes ([`forms`] lists them, [`decoded`] undoes those that can be written in too many ways). Text is
//! looked through in one pass for all values at once ([`search`]). A value folded over several lines is found by what one line
//! hands to the next ([`Redactor::redact_line`]); who cuts lines asks where ([`Redactor::cut`]).

mod decoded;
mod forms;
mod search;

use search::{Found, Set};
use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, LazyLock, PoisonError, RwLock, RwLockReadGuard};

/// A password, token or other value that must not be seen. Printing it in any way gives `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value, for the one place that has to send it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Values shorter than this, in bytes, are not masked: masking them would shred every log and protect nothing.
pub const SHORTEST_MASKED: usize = 6;
/// Values longer than this, in bytes, are not masked: nobody's password, and looking for them would cost everybody's memory.
pub const LONGEST_MASKED: usize = 64 << 10;

/// What a URL has before its userinfo, whose password is masked whoever it is.
const URL: &str = "://";
/// What stands in a value's place.
const MASK: &str = "***";

/// Masks registered values in text. Clones share one set of values.
#[derive(Clone, Default)]
pub struct Redactor {
    values: Arc<RwLock<Values>>,
}

#[derive(Default)]
struct Values {
    known: HashSet<String>,
    /// Registered, and not yet in a set: sets are made when text comes.
    new: Vec<String>,
    sets: Vec<Set>,
}

impl Redactor {
    /// The one that error messages, panics and everything else outside of a run's events pass: a panic has no other way to reach it.
    #[must_use]
    pub fn of_process() -> Self {
        static PROCESS: LazyLock<Redactor> = LazyLock::new(Redactor::default);
        PROCESS.clone()
    }

    /// Registers a value, whole and line by line. `false` when it is too short or too long to be masked ([`SHORTEST_MASKED`],
    /// [`LONGEST_MASKED`]).
    pub fn register(&self, secret: &Secret) -> bool {
        let value = secret.expose();
        if !(SHORTEST_MASKED..=LONGEST_MASKED).contains(&value.trim().len()) {
            return false;
        }
        let Ok(mut values) = self.values.write() else { return false };
        for part in std::iter::once(value).chain(value.lines()).map(str::trim).chain([value]) {
            if part.len() >= SHORTEST_MASKED && values.known.insert(part.to_owned()) {
                values.new.push(part.to_owned());
            }
        }
        true
    }

    /// Registers the value of a variable when its name says that it is a secret, or the password when it is a URL with one. Plain
    /// words are left alone whatever the name: masking every `postgres` would shred logs.
    pub fn register_variable(&self, name: &str, value: &str) {
        if let Some(password) = forms::password_of_url(value) {
            self.register(&Secret::new(password));
        } else if forms::names_a_secret(name) && !forms::is_plain_word(value) {
            self.register(&Secret::new(value));
        }
    }

    /// The text with every registered value replaced by `***`.
    #[must_use]
    pub fn redact<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let values = self.values();
        if values.sets.is_empty() && !text.contains(URL) {
            return Cow::Borrowed(text);
        }
        let mut carry = String::new();
        let mut out = String::new();
        let mut masked = false;
        let mut lines = text.split_inclusive('\n').peekable();
        while let Some(line) = lines.next() {
            let body = line.trim_end_matches(['\n', '\r']);
            // What a value could begin with is one only when something follows.
            let shown = line_of(&values.sets, body, &mut carry, lines.peek().is_some());
            masked |= matches!(shown, Cow::Owned(_));
            out.push_str(&shown);
            out.push_str(&line[body.len()..]);
        }
        if masked { Cow::Owned(out) } else { Cow::Borrowed(text) }
    }

    /// The text masked, and then no longer than `most` bytes: cut before, it could end within a value, which nobody would find.
    #[must_use]
    pub fn shortened(&self, text: &str, most: usize) -> String {
        let mut text = self.redact(text).into_owned();
        if text.len() > most {
            text.truncate(text.floor_char_boundary(most));
            text.push('…');
        }
        text
    }

    /// One line of a stream with every registered value replaced by `***`. `carry` is empty for a stream's first line and goes
    /// from line to line: it holds what may be the beginning of a value that is folded, up to the half of it or eight characters of
    /// which are shown when the line that tells comes only later.
    #[must_use]
    pub fn redact_line<'t>(&self, line: &'t str, carry: &mut String) -> Cow<'t, str> {
        let values = self.values();
        line_of(&values.sets, line, carry, true)
    }

    /// Where to cut a line that is too long: at or before `bytes`' end, so that no value is cut in two.
    #[must_use]
    pub fn cut(&self, bytes: &[u8]) -> usize {
        let values = self.values();
        let tail = values.sets.iter().map(|set| set.plain.search(bytes, |_| {}).tail).max();
        bytes.len() - tail.unwrap_or(0)
    }

    fn values(&self) -> RwLockReadGuard<'_, Values> {
        // A poisoned lock still guards the same list: showing a secret is worse than reading it.
        let values = self.values.read().unwrap_or_else(PoisonError::into_inner);
        if values.new.is_empty() {
            return values;
        }
        drop(values);
        let mut values = self.values.write().unwrap_or_else(PoisonError::into_inner);
        let new = std::mem::take(&mut values.new);
        if !new.is_empty() {
            Set::add(&mut values.sets, &new);
        }
        drop(values);
        self.values.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Masks a line. The values are looked for in what the lines before left open and this line; then in the line with its escapes
/// undone.
fn line_of<'t>(sets: &[Set], line: &'t str, carry: &mut String, mask_tail: bool) -> Cow<'t, str> {
    // Folded text is often indented.
    let lead = if carry.is_empty() { 0 } else { line.len() - line.trim_start().len() };
    let body = line[lead..].trim_end();
    let before = carry.len();
    let joined: Cow<'_, str> = if before == 0 { Cow::Borrowed(body) } else { Cow::Owned(format!("{carry}{body}")) };
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    let mut tail = Found::default();
    for set in sets {
        let found = set.plain.search(joined.as_bytes(), |(start, end)| {
            ranges.push((lead + start.saturating_sub(before), lead + end.saturating_sub(before)));
        });
        tail = tail.longer(found);
        // Nearly no line has escapes, so this is rare.
        decoded::search(line, set, |range| ranges.push(range));
    }
    if line.contains(URL) {
        forms::passwords_of_urls(line, |range| ranges.push(range));
    }
    if mask_tail && tail.telling {
        let start = joined.len() - tail.tail;
        ranges.push((lead + start.saturating_sub(before), lead + body.len()));
    }
    let open = joined[joined.len() - tail.tail..].to_owned();
    *carry = open;
    masked(line, ranges)
}

/// The text with `***` in the place of each stretch of what `ranges` cover.
fn masked(text: &str, mut ranges: Vec<(usize, usize)>) -> Cow<'_, str> {
    ranges.retain(|(start, end)| start < end);
    if ranges.is_empty() {
        return Cow::Borrowed(text);
    }
    ranges.sort_unstable();
    let mut out = String::with_capacity(text.len());
    let (mut shown, mut masked) = (0, 0);
    for (start, end) in ranges {
        // A needle begins and ends where characters do; a decoder that is wrong about that must not bring the run down.
        let (start, end) = (text.floor_char_boundary(start), text.ceil_char_boundary(end));
        if start > masked || masked == 0 {
            out.push_str(&text[shown..start]);
            out.push_str(MASK);
        }
        masked = masked.max(end);
        shown = masked;
    }
    out.push_str(&text[shown..]);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests;
