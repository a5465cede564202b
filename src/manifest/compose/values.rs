//! Small values of compose files: sizes, comma-separated fields, remote contexts.

use std::collections::BTreeMap;

/// A size in bytes: a number, or one with `b`, `k`, `kb`, `m`, `mb`, `g`, `gb` in powers of 1024, as docker reads them.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit = match text[digits..].trim() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return None,
    };
    text[..digits].parse::<u64>().ok()?.checked_mul(unit)
}

/// The fields of `type=registry,ref=x`; none for a plain reference.
pub(super) fn fields(text: &str) -> BTreeMap<&str, &str> {
    text.split(',').filter_map(|field| field.trim().split_once('=')).collect()
}

/// True when docker would fetch the context from elsewhere.
pub(super) fn is_remote(context: &str) -> bool {
    context.contains("://") || context.starts_with("git@") || context.starts_with("github.com/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_two() {
        for (text, expected) in
            [("64m", Some(64 << 20)), ("1gb", Some(1 << 30)), ("2 kb", Some(2048)), ("7", Some(7)), ("x", None), ("1t", None)]
        {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }

    #[test]
    fn a_remote_context_is_recognized() {
        for remote in ["https://x.y/z.git#main", "git@github.com:a/b", "github.com/a/b", "docker-image://alpine", "oci-layout://x"] {
            assert!(is_remote(remote), "{remote}");
        }
        assert!(!is_remote("./github.com"));
    }
}
