//! The text of a Dockerfile as instructions: directives, continuations, comments, heredocs.

/// A Dockerfile's instructions.
#[derive(Debug, Default)]
pub(super) struct File {
    /// The escape character: `\` or, by directive, a backtick.
    pub(super) escape: char,
    pub(super) instructions: Vec<Instruction>,
    /// Something that may have been read wrongly, and its line.
    pub(super) doubt: Option<(usize, String)>,
}

/// An instruction in one line, without the bodies of its heredocs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    /// The line it starts at, from 1.
    pub(super) line: usize,
    pub(super) text: String,
}

/// Splits the text.
pub(super) fn parse(text: &str) -> File {
    let lines: Vec<&str> = text.trim_start_matches('\u{feff}').lines().collect();
    let escape = escape(&lines);
    let mut file = File { escape, ..File::default() };
    let mut at = 0;
    while at < lines.len() {
        let first = at;
        let mut joined = String::new();
        let mut open = true;
        while open && at < lines.len() {
            let line = lines[at];
            at += 1;
            // Comments and blank lines inside a continuation are skipped, not its end.
            if line.trim_start().starts_with('#') || line.trim().is_empty() {
                if joined.is_empty() {
                    break;
                }
                continue;
            }
            let line = if joined.is_empty() { line.trim_start() } else { line };
            let (part, continues) = continuation(line, escape);
            joined.push_str(part);
            open = continues;
            // An instruction that is only an escape so far is still one.
            if joined.is_empty() && open {
                joined.push(' ');
            }
        }
        let text = joined.trim().to_owned();
        if text.is_empty() {
            continue;
        }
        match skip_heredocs(&text, &lines[at..], escape) {
            Some(skipped) => at += skipped,
            None => {
                let why = "a heredoc without its end: what is instruction and what is text cannot be told".to_owned();
                file.doubt.get_or_insert((first + 1, why));
            }
        }
        file.instructions.push(Instruction { line: first + 1, text });
    }
    file
}

/// The `escape` directive; directives stand before everything else.
fn escape(lines: &[&str]) -> char {
    for line in lines {
        let Some((key, value)) = line.trim().strip_prefix('#').and_then(|comment| comment.split_once('=')) else { break };
        let key = key.trim();
        if key.is_empty() || !key.bytes().all(|b| b.is_ascii_alphanumeric()) {
            break;
        }
        if key.eq_ignore_ascii_case("escape") && value.trim() == "`" {
            return '`';
        }
    }
    '\\'
}

/// The line without its final escape, and whether there was one. Two of them are one that is meant.
fn continuation(line: &str, escape: char) -> (&str, bool) {
    let end = line.trim_end_matches([' ', '\t', '\r']);
    match end.strip_suffix(escape) {
        Some(part) if !part.ends_with(escape) => (part, true),
        _ => (line, false),
    }
}

/// How many of the lines behind an instruction are bodies of its heredocs; `None` when one does not end.
fn skip_heredocs(text: &str, behind: &[&str], escape: char) -> Option<usize> {
    let name = text.split_whitespace().find(|word| !word.eq_ignore_ascii_case("ONBUILD"))?.to_ascii_uppercase();
    if !matches!(name.as_str(), "RUN" | "COPY" | "ADD") {
        return Some(0);
    }
    let mut skipped = 0;
    for word in super::words::split(text, escape) {
        let Some((end, tabs)) = heredoc(&word) else { continue };
        let is_end = |line: &&str| if tabs { line.trim_start_matches('\t') == end } else { **line == end };
        skipped += behind[skipped..].iter().position(is_end)? + 1;
    }
    Some(skipped)
}

/// The name that ends the heredoc a word starts (`<<EOF`, `3<<-"EOF"`), and whether tabs may stand before it.
pub(super) fn heredoc(word: &str) -> Option<(String, bool)> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (rest, tabs) = match rest.strip_prefix('-') {
        Some(rest) => (rest, true),
        None => (rest, false),
    };
    let name: String = rest.chars().filter(|c| !matches!(c, '"' | '\'')).collect();
    (!name.is_empty() && !name.contains('<')).then_some((name, tabs))
}
