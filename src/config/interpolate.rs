//! Variables in values: `${NAME}`, `${NAME:-default}`, and `$$` for a `$`. A `$` before anything else is itself.

/// What is wrong with a variable in a text, and the byte where it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadVariable {
    /// Where in the text.
    pub offset: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: String,
}

/// The text with its variables filled in. As in a shell, a default stands in for a variable that is empty, too.
pub fn interpolate(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, BadVariable> {
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(found) = text[at..].find('$') {
        let dollar = at + found;
        out.push_str(&text[at..dollar]);
        let rest = &text[dollar + 1..];
        if rest.starts_with('$') {
            out.push('$');
            at = dollar + 2;
            continue;
        }
        let Some(inner) = rest.strip_prefix('{') else {
            out.push('$');
            at = dollar + 1;
            continue;
        };
        let bad = |message: String, help: String| BadVariable { offset: dollar, message, help };
        let Some(end) = inner.find('}') else {
            return Err(bad("`${` has no `}`".into(), "write `$$` for a `$` that is no variable".into()));
        };
        let (name, default) = match inner[..end].split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (&inner[..end], None),
        };
        let valid = !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !valid {
            let help = "write `${NAME}` or `${NAME:-default}`, and `$$` for a `$`".into();
            return Err(bad(format!("`${{{}}}` names no variable", &inner[..end]), help));
        }
        match (env(name), default) {
            (Some(value), None) => out.push_str(&value),
            (Some(value), Some(_)) if !value.is_empty() => out.push_str(&value),
            (_, Some(default)) => out.push_str(default),
            (None, None) => {
                let help = format!("set it, or give it a default: `${{{name}:-…}}`");
                return Err(bad(format!("the variable `{name}` is not set"), help));
            }
        }
        at = dollar + 2 + end + 1;
    }
    out.push_str(&text[at..]);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("rack.example.com".into()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn variables_defaults_and_dollars() {
        for (text, expected) in [
            ("plain", "plain"),
            ("https://${HOST}/x", "https://rack.example.com/x"),
            ("${MISSING:-a b}", "a b"),
            ("${MISSING:-}", ""),
            ("${EMPTY}", ""),
            ("${EMPTY:-x}", "x"),
            ("$${HOST}", "${HOST}"),
            ("cost: $5 $HOST $", "cost: $5 $HOST $"),
            ("é${HOST}é", "érack.example.comé"),
        ] {
            assert_eq!(interpolate(text, &env).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (text, offset, message) in [
            ("a ${MISSING}", 2, "the variable `MISSING` is not set"),
            ("${HOST", 0, "`${` has no `}`"),
            ("${}", 0, "`${}` names no variable"),
            ("${1A}", 0, "`${1A}` names no variable"),
            ("${A-B}", 0, "`${A-B}` names no variable"),
        ] {
            let bad = interpolate(text, &env).unwrap_err();
            assert_eq!((bad.offset, bad.message.as_str()), (offset, message), "{text}");
        }
    }
}
