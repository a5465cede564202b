//! Where things stand in YAML text, more exactly than its tree tells: keys, colons, aliases, lines.

use crate::yaml::Entry;

/// Where an entry stands.
#[derive(Debug)]
pub(super) struct Spot<'t> {
    /// The key's first byte.
    pub(super) start: usize,
    /// The byte behind the colon.
    pub(super) after_colon: usize,
    /// The value's first byte, behind its anchor and tag; the colon's end when nothing is written.
    pub(super) value_start: usize,
    /// The byte behind the value.
    pub(super) end: usize,
    /// The quote around the key, or nothing.
    pub(super) quote: &'t str,
}

impl<'t> Spot<'t> {
    /// Finds an entry; `None` when it is written in a way this does not know (`? key`, an anchor without a value).
    pub(super) fn of(text: &'t str, entry: &Entry) -> Option<Self> {
        let start = entry.key_span.start;
        let key = &text[start..];
        let quote = if key.starts_with(['"', '\'']) { &key[..1] } else { "" };
        let written = key[quote.len()..].strip_prefix(entry.key.as_str())?.strip_prefix(quote)?;
        let colon = written.trim_start_matches([' ', '\t']);
        let after_colon = text.len() - colon.strip_prefix(':')?.len();
        let (value_start, end) = value(text, entry, after_colon)?;
        Some(Self { start, after_colon, value_start, end, quote })
    }
}

fn value(text: &str, entry: &Entry, after_colon: usize) -> Option<(usize, usize)> {
    let node = &entry.value;
    if node.aliased {
        let rest = text[after_colon..].trim_start();
        let start = text.len() - rest.len();
        let name = rest.strip_prefix('*')?;
        let length = name.find(|c: char| c.is_whitespace() || ",[]{}".contains(c)).unwrap_or(name.len());
        return Some((start, start + 1 + length));
    }
    let written = &text[node.span.clone()];
    if node.is_null() && written.trim().is_empty() {
        return (!node.anchored).then_some((after_colon, after_colon));
    }
    // A block scalar's span runs over the lines behind it.
    Some((node.span.start, node.span.start + written.trim_end().len()))
}

/// The first byte of the line that holds `at`.
pub(super) fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |newline| newline + 1)
}

/// The byte behind the line that holds `at`, before its line break.
pub(super) fn line_end(text: &str, at: usize) -> usize {
    let end = text[at..].find('\n').map_or(text.len(), |newline| at + newline);
    if text[at..end].ends_with('\r') { end - 1 } else { end }
}

/// The line break at `at`; empty at the end of the text.
pub(super) fn newline(text: &str, at: usize) -> &'static str {
    match &text[at..] {
        rest if rest.starts_with("\r\n") => "\r\n",
        rest if rest.starts_with('\n') => "\n",
        _ => "",
    }
}

/// True when nothing but blanks stands before `at` in its line.
pub(super) fn is_block_line(text: &str, at: usize) -> bool {
    text[line_start(text, at)..at].trim().is_empty()
}

/// The end of a block entry's last line, before its line break: everything below it that is indented deeper is its own, save
/// comments and blank lines at the end.
pub(super) fn entry_extent(text: &str, spot: &Spot<'_>) -> usize {
    let indent = spot.start - line_start(text, spot.start);
    let mut extent = line_end(text, spot.end.max(spot.start));
    let mut at = line_end(text, spot.start);
    loop {
        let next = at + newline(text, at).len();
        if next == at {
            return extent;
        }
        at = line_end(text, next);
        let line = &text[next..at];
        let content = line.trim_start();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        if line.len() - content.len() <= indent && next > spot.end {
            return extent;
        }
        extent = extent.max(at);
    }
}
