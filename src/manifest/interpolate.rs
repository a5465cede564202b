//! Variables in values: `${VAR}` and its forms with defaults.
//!
//! Only values that are used here are expanded; the text that goes to a rack keeps its variables, they are the rack's.
//! Compose's rules: <https://docs.docker.com/reference/compose-file/interpolation/>.

use super::source::Dialect;

/// A value with its variables filled in.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Expanded {
    /// The text.
    pub(super) text: String,
    /// Variables that have neither value nor default; they are empty in the text.
    pub(super) unset: Vec<String>,
}

/// Expands `text`. The error says what is wrong with it. `convox.yml` knows braces only: `$NAME` and `$$` stay as they are.
pub(super) fn expand(text: &str, dialect: Dialect, env: &dyn Fn(&str) -> Option<String>) -> Result<Expanded, String> {
    let mut done = Expanded::default();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        done.text.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(body) = after.strip_prefix('{') {
            let end = closing(body).ok_or_else(|| format!("`${{` without its `}}` in `{text}`"))?;
            braced(&body[..end], dialect, env, &mut done)?;
            rest = &body[end + 1..];
        } else if dialect == Dialect::Convox {
            done.text.push('$');
            rest = after;
        } else if let Some(literal) = after.strip_prefix('$') {
            done.text.push('$');
            rest = literal;
        } else {
            let name = &after[..name_length(after)];
            if name.is_empty() {
                return Err(format!("a `$` that starts no variable in `{text}`; a plain dollar sign is written `$$`"));
            }
            variable(name, env, &mut done);
            rest = &after[name.len()..];
        }
    }
    done.text.push_str(rest);
    Ok(done)
}

fn variable(name: &str, env: &dyn Fn(&str) -> Option<String>, done: &mut Expanded) {
    match env(name) {
        Some(value) => done.text.push_str(&value),
        None => done.unset.push(name.to_owned()),
    }
}

/// What stands between `${` and `}`.
fn braced(body: &str, dialect: Dialect, env: &dyn Fn(&str) -> Option<String>, done: &mut Expanded) -> Result<(), String> {
    let name = &body[..name_length(body)];
    let rest = &body[name.len()..];
    if name.is_empty() {
        return Err(format!("`${{{body}}}` names no variable"));
    }
    if rest.is_empty() {
        variable(name, env, done);
        return Ok(());
    }
    let (strict, operator) = match rest.strip_prefix(':') {
        Some(operator) => (true, operator),
        None => (false, rest),
    };
    // With a colon, an empty value counts as none.
    let value = env(name).filter(|value| !strict || !value.is_empty());
    let word = operator.get(1..).unwrap_or_default();
    match (operator.chars().next(), value) {
        (Some('-' | '?'), Some(value)) => done.text.push_str(&value),
        (Some('-'), None) | (Some('+'), Some(_)) => {
            let word = expand(word, dialect, env)?;
            done.text.push_str(&word.text);
            done.unset.extend(word.unset);
        }
        (Some('+'), None) => {}
        (Some('?'), None) if word.is_empty() => return Err(format!("variable `{name}` is required and not set")),
        (Some('?'), None) => return Err(format!("variable `{name}` is required: {word}")),
        _ => {
            return Err(format!(
                "`${{{body}}}` is no variable: `${{NAME}}`, `${{NAME:-default}}`, `${{NAME:?message}}`, `${{NAME:+other}}`"
            ));
        }
    }
    Ok(())
}

fn name_length(text: &str) -> usize {
    let length = text.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
    if text.starts_with(|c: char| c.is_ascii_digit()) { 0 } else { length }
}

/// The closing brace, past those of nested variables.
fn closing(body: &str) -> Option<usize> {
    let mut depth = 0;
    let mut last = '\0';
    for (at, c) in body.char_indices() {
        match c {
            '{' if last == '$' => depth += 1,
            '}' if depth == 0 => return Some(at),
            '}' => depth -= 1,
            _ => {}
        }
        last = c;
    }
    None
}

/// The variables of a `.env` file: `NAME=value` lines, `export` before them or not, values bare or quoted.
pub(super) fn dotenv(text: &str, env: &dyn Fn(&str) -> Option<String>) -> std::collections::BTreeMap<String, String> {
    let mut found = std::collections::BTreeMap::new();
    for line in text.lines() {
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line);
        let Some((name, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) else { continue };
        let (name, value) = (name.trim(), value.trim());
        if let Some(literal) = value.strip_prefix('\'').and_then(|rest| rest.split_once('\'')) {
            found.insert(name.to_owned(), literal.0.to_owned());
            continue;
        }
        let bare = match value.strip_prefix('"').and_then(|rest| rest.rfind('"').map(|end| &rest[..end])) {
            Some(quoted) => quoted.replace("\\n", "\n").replace("\\\"", "\""),
            None => value.split(" #").next().unwrap_or_default().trim_end().to_owned(),
        };
        let known = |name: &str| env(name).or_else(|| found.get(name).cloned());
        // A value that does not expand is meant as it stands.
        let value = expand(&bare, Dialect::Compose, &known).map_or(bare, |expanded| expanded.text);
        found.insert(name.to_owned(), value);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "A" => Some("a".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn compose_variables_expand_as_documented() {
        for (text, expected) in [
            ("x$A/${A}.y", "xa/a.y"),
            ("$$A and $${A}", "$A and ${A}"),
            ("${EMPTY:-d}|${EMPTY-d}|${NO:-d}|${NO-d}", "d||d|d"),
            ("${NO:-${A}${NO:-z}}", "az"),
            ("${A:+yes}${EMPTY:+no}${EMPTY+set}${NO+no}", "yesset"),
            ("${A:?must}", "a"),
        ] {
            let expanded = expand(text, Dialect::Compose, &env).unwrap();
            assert_eq!((expanded.text.as_str(), expanded.unset.len()), (expected, 0), "{text}");
        }
        assert_eq!(expand("${NO}$NO", Dialect::Compose, &env).unwrap().unset, ["NO", "NO"]);
    }

    #[test]
    fn what_does_not_expand_says_why() {
        for (text, expected) in [
            ("${NO:?say it}", "variable `NO` is required: say it"),
            ("${EMPTY:?}", "variable `EMPTY` is required and not set"),
            ("${A", "`${` without its `}` in `${A`"),
            ("5 $", "a `$` that starts no variable in `5 $`; a plain dollar sign is written `$$`"),
        ] {
            assert_eq!(expand(text, Dialect::Compose, &env).unwrap_err(), expected);
        }
    }

    #[test]
    fn convox_knows_braces_only() {
        assert_eq!(expand("$A $$ ${A}", Dialect::Convox, &env).unwrap().text, "$A $$ a");
    }

    #[test]
    fn a_dotenv_file_is_read_as_compose_reads_it() {
        let read = dotenv("# c\nexport X=1\nY = \"two $X\" \nZ='$X'\nW=plain # why\n\nno line\n", &env);
        let pairs: Vec<_> = read.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(pairs, ["W=plain", "X=1", "Y=two 1", "Z=$X"]);
    }
}
