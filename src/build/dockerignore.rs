//! `.dockerignore`: which paths of a build context Docker leaves out.
//!
//! Pure: patterns in, a verdict for a `/`-separated path of bytes out. The rules are Docker's (moby/patternmatcher), which are
//! not git's: a pattern without `**/` matches from the context's root only, the last match wins, a match on a directory counts
//! for all below it, and `!` brings back files below an excluded directory. The same patterns say which paths BuildKit asks
//! for when it names include patterns, so the context sync uses this matcher in both directions.
//!
//! There is no walk in here; [`Trail`] lets a walk carry a directory's matches to its children, and
//! [`DockerIgnore::may_skip`] and [`DockerIgnore::may_match_below`] tell it where it need not go.

use regex::bytes::Regex;

/// A pattern that Docker refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{pattern}` is no valid `.dockerignore` pattern")]
pub struct BadPattern {
    /// The pattern, as written.
    pub pattern: String,
}

/// The patterns of a `.dockerignore` file, in order.
#[derive(Debug, Clone, Default)]
pub struct DockerIgnore {
    patterns: Vec<Pattern>,
}

/// How each pattern matched a directory or one of its parents; see [`DockerIgnore::step`].
#[derive(Debug, Clone)]
pub struct Trail {
    matched: Vec<bool>,
}

#[derive(Debug, Clone)]
struct Pattern {
    /// `!`: a match includes.
    includes: bool,
    matcher: Matcher,
    /// The leading parts that each stand for exactly one part of a path.
    parts: Vec<Matcher>,
    /// True when more than those parts can match: after `**`, or a class, which may match a slash.
    open: bool,
}

#[derive(Debug, Clone)]
enum Matcher {
    Exact(Vec<u8>),
    Prefix(Vec<u8>),
    Suffix(Vec<u8>),
    Expression(Regex),
}

impl Matcher {
    fn matches(&self, path: &[u8]) -> bool {
        match self {
            Self::Exact(text) => path == text.as_slice(),
            Self::Prefix(text) => path.starts_with(text),
            Self::Suffix(text) => path.ends_with(text),
            Self::Expression(expression) => expression.is_match(path),
        }
    }
}

impl DockerIgnore {
    /// Parses the content of a `.dockerignore` file.
    pub fn parse(text: &str) -> Result<Self, BadPattern> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        // A comment's `#` counts in the first column only, before blanks are trimmed.
        Self::from_patterns(text.lines().filter(|line| !line.starts_with('#')))
    }

    /// Takes patterns as lines of a file, comments left out already.
    pub fn from_patterns<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Result<Self, BadPattern> {
        let mut parsed = Vec::new();
        for written in patterns {
            let written = written.as_ref();
            let bad = || BadPattern { pattern: written.to_owned() };
            let text = written.trim();
            if text.is_empty() {
                continue;
            }
            let (includes, text) = match text.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, text),
            };
            if includes && text.is_empty() {
                return Err(bad());
            }
            let cleaned = clean(text);
            if cleaned.is_empty() {
                continue;
            }
            parsed.push(Pattern::parse(&cleaned, includes).ok_or_else(bad)?);
        }
        Ok(Self { patterns: parsed })
    }

    /// True when there is no pattern at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// True when the path, relative to the context's root, is left out.
    #[must_use]
    pub fn is_ignored(&self, path: &[u8]) -> bool {
        let mut trail = self.start();
        for end in path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at).chain([path.len()]) {
            trail = self.step(&trail, &path[..end]);
        }
        self.ignores(&trail)
    }

    /// The trail of the context's root, which nothing matches.
    #[must_use]
    pub fn start(&self) -> Trail {
        Trail { matched: vec![false; self.patterns.len()] }
    }

    /// The trail of `path`, given its directory's.
    #[must_use]
    pub fn step(&self, directory: &Trail, path: &[u8]) -> Trail {
        let matched = self.patterns.iter().zip(&directory.matched).map(|(pattern, above)| *above || pattern.matcher.matches(path));
        Trail { matched: matched.collect() }
    }

    /// True when a path with this trail is left out.
    #[must_use]
    pub fn ignores(&self, trail: &Trail) -> bool {
        // The last match wins.
        let last = self.patterns.iter().zip(&trail.matched).rev().find(|(_, matched)| **matched);
        last.is_some_and(|(pattern, _)| !pattern.includes)
    }

    /// True when a walk need not enter the ignored directory `dir`: no `!` pattern can bring back anything below it.
    #[must_use]
    pub fn may_skip(&self, dir: &[u8]) -> bool {
        !self.patterns.iter().any(|pattern| pattern.includes && pattern.may_match_below(dir))
    }

    /// True when some pattern without `!` could match a path below `dir` that does not match `dir` itself.
    #[must_use]
    pub fn may_match_below(&self, dir: &[u8]) -> bool {
        self.patterns.iter().any(|pattern| !pattern.includes && pattern.may_match_below(dir))
    }
}

impl Pattern {
    /// `None` when the pattern's syntax is wrong.
    fn parse(text: &str, includes: bool) -> Option<Self> {
        let matcher = compile(text)?;
        let mut parts = Vec::new();
        let mut open = false;
        for part in text.split('/') {
            if part.contains("**") || part.contains('[') || part.ends_with('\\') {
                open = true;
                break;
            }
            parts.push(compile(part)?);
        }
        Some(Self { includes, matcher, parts, open })
    }

    fn may_match_below(&self, dir: &[u8]) -> bool {
        let depth = dir.split(|byte| *byte == b'/').count();
        let begins = dir.split(|byte| *byte == b'/').zip(&self.parts).all(|(part, matcher)| matcher.matches(part));
        begins && (self.open || self.parts.len() > depth)
    }
}

/// The shortest spelling of a path or pattern, as Go's `filepath.Clean` has it, without a leading slash. Empty for the root.
fn clean(text: &str) -> String {
    let rooted = text.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Turns a cleaned pattern into the cheapest matcher that does it; `None` when its syntax is wrong.
fn compile(pattern: &str) -> Option<Matcher> {
    let special = |text: &str| text.contains(['*', '?', '[', ']', '\\']);
    if !special(pattern) {
        return Some(Matcher::Exact(pattern.as_bytes().to_vec()));
    }
    if let Some(rest) = pattern.strip_suffix("**").filter(|rest| !special(rest)) {
        return Some(Matcher::Prefix(rest.as_bytes().to_vec()));
    }
    // `**x` is a plain suffix for Docker; `**/x` must begin at a part's border and goes below.
    if let Some(rest) = pattern.strip_prefix("**").filter(|rest| !special(rest) && !rest.starts_with('/')) {
        return Some(Matcher::Suffix(rest.as_bytes().to_vec()));
    }
    Regex::new(&format!("^{}$", expression(pattern)?)).ok().map(Matcher::Expression)
}

fn expression(pattern: &str) -> Option<String> {
    const ANYTHING: &str = "(?s-u:.)*";
    let mut out = String::new();
    let mut rest = pattern.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '*' if rest.peek() == Some(&'*') => {
                rest.next();
                // `**/` is `**`: no, one or many directories.
                rest.next_if_eq(&'/');
                // In the middle: no directory, or anything that ends with a slash.
                out.push_str(&if rest.peek().is_some() { format!("(?:{ANYTHING}/)?") } else { ANYTHING.to_owned() });
            }
            '*' => out.push_str("(?s-u:[^/])*"),
            '?' => out.push_str("[^/]"),
            '[' => out.push_str(&class(&mut rest)?),
            '\\' => out.push_str(&regex::escape(&rest.next()?.to_string())),
            c => out.push_str(&regex::escape(&c.to_string())),
        }
    }
    Some(out)
}

/// A class after its `[`: `^` negates, `!` does not, `\` escapes, ranges as usual.
fn class(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<String> {
    let mut out = String::from("[");
    if rest.next_if_eq(&'^').is_some() {
        out.push('^');
    }
    let member = |rest: &mut std::iter::Peekable<std::str::Chars<'_>>| match rest.next()? {
        '\\' => rest.next(),
        c => Some(c),
    };
    let mut empty = true;
    loop {
        if !empty && rest.next_if_eq(&']').is_some() {
            out.push(']');
            return Some(out);
        }
        if rest.peek() == Some(&']') || rest.peek() == Some(&'-') {
            // Go's `filepath.Match` refuses both where a member must begin.
            return None;
        }
        let low = member(rest)?;
        let high = if rest.next_if_eq(&'-').is_some() { member(rest)? } else { low };
        if high < low {
            return None;
        }
        out.push_str(&format!("\\x{{{:x}}}-\\x{{{:x}}}", u32::from(low), u32::from(high)));
        empty = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ignored(patterns: &str, path: &str) -> bool {
        DockerIgnore::parse(patterns).unwrap().is_ignored(path.as_bytes())
    }

    #[test]
    fn the_table_of_dockers_rules() {
        // (patterns, ignored, kept)
        let table: &[(&str, &[&str], &[&str])] = &[
            ("foo", &["foo", "foo/a", "foo/a/b"], &["a/foo", "foobar"]),
            ("*.log", &["a.log", ".log"], &["d/a.log", "a.logs"]),
            ("**/*.log", &["a.log", "d/a.log", "d/e/a.log"], &["a.logs"]),
            ("node_modules/", &["node_modules", "node_modules/x"], &["a/node_modules"]),
            ("**/node_modules", &["node_modules", "a/node_modules", "a/node_modules/x"], &["xnode_modules"]),
            ("/foo\n./bar\na/../baz", &["foo", "bar", "baz"], &["a"]),
            ("  foo  \n#bar\n #baz\n.\n\n", &["foo", "#baz"], &["bar", "#bar", "a"]),
            ("*\n!keep", &["a", "a/keep"], &["keep", "keep/x"]),
            ("dir\n!dir/keep/me", &["dir", "dir/x", "dir/keep/you"], &["dir/keep/me", "dir/keep/me/x"]),
            ("!a\na", &["a"], &[]),
            ("a\n!a", &[], &["a", "a/b"]),
            ("a/b\n!a", &[], &["a/b"]),
            ("[!a]x", &["!x", "ax"], &["bx"]),
            ("[^a]x", &["bx"], &["ax"]),
            ("[a-c]x", &["bx"], &["dx"]),
            ("{a,b}", &["{a,b}"], &["a", "b"]),
            ("**foo", &["foo", "xfoo", "a/xfoo"], &["foox"]),
            ("a**", &["a", "ab", "ab/c"], &["b"]),
            ("a/**", &["a/b", "a/b/c"], &["a", "ab"]),
            ("a/**/z", &["a/z", "a/b/z", "a/b/c/z"], &["az", "a/zz"]),
            ("**", &["a", "a/b"], &[]),
            ("a?c", &["abc", "aéc"], &["ac", "a/c"]),
            ("a\\*b", &["a*b"], &["axb"]),
            ("a.b+(c)", &["a.b+(c)"], &["axb"]),
            ("../x", &[], &["x"]),
            ("! foo", &[], &["foo"]),
            ("*\r\n!a\r\n", &["b"], &["a"]),
        ];
        for (patterns, yes, no) in table {
            for path in *yes {
                assert!(ignored(patterns, path), "{path} with {patterns:?}");
            }
            for path in *no {
                assert!(!ignored(patterns, path), "{path} with {patterns:?}");
            }
        }
    }

    #[test]
    fn a_wrong_pattern_is_named() {
        for pattern in ["[", "a[]b", "[b-a]", "a\\", "!", "[a"] {
            assert_eq!(DockerIgnore::parse(pattern).unwrap_err().pattern, pattern);
        }
    }

    #[test]
    fn a_path_that_is_no_text_is_matched() {
        assert!(DockerIgnore::parse("*.log").unwrap().is_ignored(b"\xff.log"));
        assert!(DockerIgnore::parse("**/x").unwrap().is_ignored(b"\xff/x"));
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_pattern() {
        assert!(ignored("\u{feff}foo", "foo"));
    }

    #[test]
    fn a_walk_skips_what_nothing_can_bring_back() {
        let skips = |patterns: &str, dir: &str| DockerIgnore::parse(patterns).unwrap().may_skip(dir.as_bytes());
        assert!(skips("dir", "dir"));
        assert!(skips("dir\n!other/x", "dir"));
        assert!(!skips("dir\n!dir/keep", "dir"));
        assert!(skips("dir\n!dir/keep", "dir/else"));
        assert!(!skips("dir\n!*/keep", "dir"));
        assert!(!skips("dir\n!**/keep", "dir/deep/down"));
        assert!(skips("*\n!a", "b"));
    }

    proptest::proptest! {
        #[test]
        fn skipping_never_loses_a_path(
            patterns in proptest::collection::vec("!?(\\*\\*/)?[ab*?]{1,2}(/[ab*]{1,2}){0,2}(/\\*\\*)?", 0..5),
            path in "[ab]{1,2}(/[ab]{1,2}){0,4}",
        ) {
            let ignore = DockerIgnore::from_patterns(&patterns).unwrap();
            let mut skipped = false;
            for (at, _) in path.match_indices('/') {
                let dir = &path.as_bytes()[..at];
                skipped |= ignore.is_ignored(dir) && ignore.may_skip(dir);
            }
            proptest::prop_assert!(!skipped || ignore.is_ignored(path.as_bytes()), "{path} of {patterns:?} was lost");
        }
    }
}
