//! Git's patterns: whether a text matches one, answered as git does, down to its oddities (what `**` means behind a literal
//! beginning, what an unclosed `[` does).
//!
//! It follows git's `wildmatch.c` step by step. The crates there are for this differ from it where a pattern is odd, and an
//! ignore rule that is read in another way hides a changed file.

/// What characters mean.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mode {
    /// `*` and `?` stop at a slash; `**` does not.
    pub(super) path: bool,
    /// `A` is `a`.
    pub(super) fold: bool,
}

/// True when all of `text` matches all of `pattern`.
pub(super) fn matches(pattern: &[u8], text: &[u8], mode: Mode) -> bool {
    matched(pattern, text, mode) == Outcome::Match
}

/// True for the characters a pattern's literal beginning ends at.
pub(super) fn is_special(byte: u8) -> bool {
    matches!(byte, b'*' | b'?' | b'[' | b'\\')
}

/// How an attempt ended. That nothing further along can match either keeps patterns with many stars from taking forever.
#[derive(PartialEq, Eq, Clone, Copy)]
enum Outcome {
    Match,
    NoMatch,
    /// However far a star reaches, it does not.
    Never,
    /// However far a star reaches that stops at slashes, it does not.
    NotBeforeSlash,
}

/// The byte at a place; behind the end there are zeros, which neither a pattern nor a name holds.
fn at(bytes: &[u8], place: usize) -> u8 {
    bytes.get(place).copied().unwrap_or_default()
}

fn matched(pattern: &[u8], text: &[u8], mode: Mode) -> Outcome {
    let fold = |byte: u8| if mode.fold { byte.to_ascii_lowercase() } else { byte };
    let (mut p, mut t) = (0, 0);
    while p < pattern.len() {
        let now = fold(at(text, t));
        if now == 0 && pattern[p] != b'*' {
            return Outcome::Never;
        }
        match pattern[p] {
            b'?' if mode.path && now == b'/' => return Outcome::NoMatch,
            b'?' => {}
            b'*' => match star(pattern, p, text, t, mode) {
                Star::Is(outcome) => return outcome,
                Star::UpTo(slash, next) => (t, p) = (slash, next),
            },
            b'[' => match class(pattern, p, now, mode) {
                Some((true, end)) if !(mode.path && now == b'/') => p = end,
                Some(_) => return Outcome::NoMatch,
                None => return Outcome::Never,
            },
            byte => {
                let literal = if byte == b'\\' {
                    p += 1;
                    at(pattern, p)
                } else {
                    fold(byte)
                };
                if literal != now {
                    return Outcome::NoMatch;
                }
            }
        }
        p += 1;
        t += 1;
    }
    if t < text.len() { Outcome::NoMatch } else { Outcome::Match }
}

/// What a star leads to.
enum Star {
    /// This.
    Is(Outcome),
    /// It stands for the rest of a directory's name: both go on behind the slash at these places in text and pattern.
    UpTo(usize, usize),
}

/// Matches the star at `p`, and what follows it, from `t` on.
fn star(pattern: &[u8], first: usize, text: &[u8], mut t: usize, mode: Mode) -> Star {
    let fold = |byte: u8| if mode.fold { byte.to_ascii_lowercase() } else { byte };
    let mut p = first + 1;
    let mut crosses = !mode.path;
    if at(pattern, p) == b'*' {
        while at(pattern, p) == b'*' {
            p += 1;
        }
        let ends = matches!((at(pattern, p), at(pattern, p + 1)), (0 | b'/', _) | (b'\\', b'/'));
        if mode.path && ends && (first == 0 || pattern[first - 1] == b'/') {
            // `a/**/b` is `a/b`, too.
            if at(pattern, p) == b'/' && matched(&pattern[p + 1..], text.get(t..).unwrap_or_default(), mode) == Outcome::Match {
                return Star::Is(Outcome::Match);
            }
            crosses = true;
        }
    }
    let slash = || text.iter().skip(t).position(|byte| *byte == b'/').map(|distance| t + distance);
    if p == pattern.len() {
        return Star::Is(if !crosses && slash().is_some() { Outcome::NotBeforeSlash } else { Outcome::Match });
    }
    if !crosses && pattern[p] == b'/' {
        return slash().map_or(Star::Is(Outcome::Never), |slash| Star::UpTo(slash, p));
    }
    let literal = (!is_special(pattern[p])).then(|| fold(pattern[p]));
    while t < text.len() {
        if let Some(literal) = literal {
            while t < text.len() && (crosses || text[t] != b'/') && fold(text[t]) != literal {
                t += 1;
            }
            if fold(at(text, t)) != literal {
                return Star::Is(if crosses { Outcome::Never } else { Outcome::NotBeforeSlash });
            }
        }
        match matched(&pattern[p..], &text[t..], mode) {
            Outcome::NoMatch if !crosses && text[t] == b'/' => return Star::Is(Outcome::NotBeforeSlash),
            Outcome::NoMatch => {}
            Outcome::NotBeforeSlash if crosses => {}
            outcome => return Star::Is(outcome),
        }
        t += 1;
    }
    Star::Is(Outcome::Never)
}

/// Whether `now` is in the class whose `[` is at `p`, and where its `]` is; `None` when there is none, or a name in it is not known.
fn class(pattern: &[u8], mut p: usize, now: u8, mode: Mode) -> Option<(bool, usize)> {
    p += 1;
    let negated = matches!(at(pattern, p), b'!' | b'^');
    if negated {
        p += 1;
    }
    let mut found = false;
    // What a range may begin with.
    let mut before = 0;
    loop {
        let mut byte = *pattern.get(p)?;
        match byte {
            b'\\' => {
                p += 1;
                byte = *pattern.get(p)?;
                found |= now == byte;
            }
            b'-' if before != 0 && !matches!(at(pattern, p + 1), 0 | b']') => {
                p += 1;
                let mut last = pattern[p];
                if last == b'\\' {
                    p += 1;
                    last = *pattern.get(p)?;
                }
                let range = before..=last;
                found |= range.contains(&now) || (mode.fold && now.is_ascii_lowercase() && range.contains(&now.to_ascii_uppercase()));
                byte = 0;
            }
            b'[' if at(pattern, p + 1) == b':' => {
                let start = p + 2;
                let end = start + pattern.get(start..)?.iter().position(|byte| *byte == b']')?;
                match pattern[start..end].strip_suffix(b":") {
                    Some(name) => {
                        found |= is_of(name, now, mode)?;
                        p = end;
                        byte = 0;
                    }
                    None => found |= now == b'[',
                }
            }
            byte => found |= now == byte,
        }
        before = byte;
        p += 1;
        if at(pattern, p) == b']' {
            return Some((found != negated, p));
        }
    }
}

/// Whether a character is of the named kind; `None` when there is no such kind.
fn is_of(kind: &[u8], byte: u8, mode: Mode) -> Option<bool> {
    Some(match kind {
        b"alnum" => byte.is_ascii_alphanumeric(),
        b"alpha" => byte.is_ascii_alphabetic(),
        b"blank" => matches!(byte, b' ' | b'\t'),
        b"cntrl" => byte.is_ascii_control(),
        b"digit" => byte.is_ascii_digit(),
        b"graph" => byte.is_ascii_graphic(),
        b"lower" => byte.is_ascii_lowercase(),
        b"print" => byte.is_ascii_graphic() || byte == b' ',
        b"punct" => byte.is_ascii_punctuation(),
        b"space" => matches!(byte, b' ' | b'\t' | b'\n' | b'\r'),
        b"upper" => byte.is_ascii_uppercase() || (mode.fold && byte.is_ascii_lowercase()),
        b"xdigit" => byte.is_ascii_hexdigit(),
        _ => return None,
    })
}
