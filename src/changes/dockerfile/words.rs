//! Words of an instruction: splitting, flags, quotes and variables, as BuildKit's shell lexer reads them.

use std::fmt;

/// What is known of a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Variable {
    /// Its value.
    Value(String),
    /// It is declared and has no value.
    Unset,
    /// Only the build knows: the builder's own, a base image's, or made of such.
    Unknown,
}

/// Why a word has no one meaning here.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// A variable without a known value.
    Variable(String),
    /// A form that is not understood.
    Form,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name) => write!(f, "the value of `{name}` is not known here"),
            Self::Form => f.write_str("it is not a form that is understood here"),
        }
    }
}

/// Splits at blanks outside quotes; quotes and escapes stay.
pub(super) fn split(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == escape && quote != Some('\'') {
            word.push(c);
            word.extend(chars.next());
            continue;
        }
        match quote {
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if matches!(c, '"' | '\'') => quote = Some(c),
            Some(open) if open == c => quote = None,
            _ => {}
        }
        word.push(c);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// The `--flags` an instruction starts with, and what is behind them.
pub(super) fn flags(text: &str, escape: char) -> (Vec<String>, &str) {
    let mut rest = text.trim_start();
    let mut flags = Vec::new();
    while rest.starts_with("--") {
        let Some(flag) = split(rest, escape).into_iter().next() else { break };
        rest = rest[flag.len()..].trim_start();
        // It ends the flags: what follows may begin with dashes itself.
        if flag == "--" {
            break;
        }
        flags.push(flag);
    }
    (flags, rest)
}

/// A word with quotes removed and variables filled in.
pub(super) fn expand(word: &str, escape: char, get: &dyn Fn(&str) -> Variable) -> Result<String, Failed> {
    let mut out = String::new();
    let mut quote: Option<char> = None;
    let mut rest = word;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            _ if quote == Some('\'') => {
                if c == '\'' {
                    quote = None;
                } else {
                    out.push(c);
                }
            }
            _ if c == escape => {
                let Some(next) = rest.chars().next() else {
                    out.push(c);
                    break;
                };
                // Inside double quotes an escape escapes only what has a meaning there.
                if quote.is_some() && !(next == '"' || next == '$' || next == escape) {
                    out.push(c);
                }
                out.push(next);
                rest = &rest[next.len_utf8()..];
            }
            '"' if quote.is_some() => quote = None,
            '\'' if quote.is_some() => out.push(c),
            '"' | '\'' => quote = Some(c),
            '$' => {
                let (text, behind) = variable(rest, escape, get)?;
                out.push_str(&text);
                rest = behind;
            }
            _ => out.push(c),
        }
    }
    if quote.is_some() { Err(Failed::Form) } else { Ok(out) }
}

/// The value of the variable `text` starts with (behind its `$`), and what follows.
fn variable<'t>(text: &'t str, escape: char, get: &dyn Fn(&str) -> Variable) -> Result<(String, &'t str), Failed> {
    let length = |text: &str| text.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
    let Some(body) = text.strip_prefix('{') else {
        let (name, rest) = text.split_at(length(text));
        return Ok((value(name, get)?.unwrap_or_default(), rest));
    };
    let end = closing(body).ok_or(Failed::Form)?;
    let (body, rest) = (&body[..end], &body[end + 1..]);
    let (name, operator) = body.split_at(length(body));
    let found = value(name, get)?;
    let word = |text: &str| expand(text, escape, get);
    let (strict, form) = match operator.strip_prefix(':') {
        Some(form) => (true, form),
        None => (false, operator),
    };
    let set = found.clone().filter(|value| !strict || !value.is_empty());
    let text = match (form.get(..1), set) {
        (None, _) if !strict => found.unwrap_or_default(),
        (Some("-" | "?"), Some(value)) => value,
        (Some("-"), None) | (Some("+"), Some(_)) => word(&form[1..])?,
        (Some("+"), None) => String::new(),
        // Patterns (`#`, `%`, `/`) and a required one that is missing.
        _ => return Err(Failed::Form),
    };
    Ok((text, rest))
}

/// A variable's value; `None` when it is declared without one.
fn value(name: &str, get: &dyn Fn(&str) -> Variable) -> Result<Option<String>, Failed> {
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(Failed::Form);
    }
    match get(name) {
        Variable::Value(value) => Ok(Some(value)),
        Variable::Unset => Ok(None),
        Variable::Unknown => Err(Failed::Variable(name.to_owned())),
    }
}

/// The brace that closes, past nested ones.
fn closing(body: &str) -> Option<usize> {
    let mut depth = 0usize;
    for (at, c) in body.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => return Some(at),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}
