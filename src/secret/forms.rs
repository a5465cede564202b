//! The spellings of a value that are looked for, and which variables hold secrets.

use super::SHORTEST_MASKED;
use super::decoded::bare_text;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};
use std::fmt::Write as _;

/// The spellings of a value have about this many bytes for each of its own, for guessing sizes only.
pub(super) const FACTOR: usize = 36;

/// What RFC 3986 never encodes stays.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// What `encodeURIComponent` leaves stays.
const COMPONENT: &AsciiSet = &UNRESERVED.remove(b'!').remove(b'*').remove(b'\'').remove(b'(').remove(b')');
/// Only what would end a URL's part is encoded.
const RESERVED: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'/').add(b':').add(b'<').add(b'>').add(b'?').add(b'@').add(b'[').add(b']');

/// The spellings looked for as they are. Those that leave the writer a choice are here in their usual shape, so that they are found
/// when they are folded, too.
pub(super) fn plain(value: &str) -> Vec<String> {
    let mut found = vec![value.to_owned(), hex::encode(value), hex::encode_upper(value)];
    if value.contains('\n') {
        found.push(value.lines().map(str::trim).collect());
    }
    for set in [NON_ALPHANUMERIC, UNRESERVED, COMPONENT, RESERVED] {
        found.extend(both_cases(utf8_percent_encode(value, set).to_string()));
    }
    found.extend(both_cases(url::form_urlencoded::byte_serialize(value.as_bytes()).collect()));
    found.extend(both_cases(value.bytes().map(percent_encoding::percent_encode_byte).collect()));
    if let Ok(json) = serde_json::to_string(value) {
        let json = &json[1..json.len() - 1];
        found.extend([json.to_owned(), json.replace('/', "\\/"), units(json, char::is_ascii), units(value, |_| false)]);
    }
    found.extend([value.replace('\'', "'\\''"), value.replace('\'', "'\"'\"'")]);
    found.extend(markup(value));
    found.extend(base64(value));
    found
}

/// The spellings looked for in text whose escapes were undone, without what escapes are made of.
pub(super) fn bare(value: &str) -> Vec<String> {
    let mut found = base64(value);
    found.push(value.to_owned());
    found.iter().map(|form| bare_text(form)).filter(|form| form.len() >= SHORTEST_MASKED).collect()
}

/// The value in XML and HTML: as text, and in attributes with each of the ways to write an apostrophe.
fn markup(value: &str) -> Vec<String> {
    let text = value.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let quoted = ["&#39;", "&#x27;", "&apos;", "'"].map(|apostrophe| text.replace('"', "&quot;").replace('\'', apostrophe));
    std::iter::once(text).chain(quoted).filter(|written| written != value).collect()
}

/// Behind 0, 1 or 2 other bytes a value has three base64 spellings; the digits that depend on neighbours are cut.
fn base64(value: &str) -> Vec<String> {
    let mut found = Vec::new();
    for lead in 0..3 {
        let bytes: Vec<u8> = std::iter::repeat_n(0, lead).chain(value.bytes()).collect();
        let first = (lead * 8).div_ceil(6);
        let last = (bytes.len() * 8) / 6;
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            found.push(engine.encode(&bytes)[first..last].to_owned());
        }
    }
    found
}

/// A percent-encoded text with its digits as they are and in lower case.
fn both_cases(upper: String) -> [String; 2] {
    let mut lower = String::with_capacity(upper.len());
    let mut digits = 0;
    for c in upper.chars() {
        lower.push(if digits > 0 { c.to_ascii_lowercase() } else { c });
        digits = if c == '%' { 2 } else { usize::saturating_sub(digits, 1) };
    }
    [upper, lower]
}

/// JSON as writers make it that keep to some characters.
fn units(json: &str, stays: impl Fn(&char) -> bool) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if stays(&c) {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out
}

/// True when a variable's name says that its value is a secret.
pub(super) fn names_a_secret(name: &str) -> bool {
    const WORDS: [&str; 6] = ["PASS", "SSHPASS", "PWD", "AUTH", "PAT", "JWT"];
    /// With another word before them, too: `PGPASSWORD`, `authToken`.
    const ENDS: [&str; 9] = ["SECRET", "SECRETS", "TOKEN", "PASSWORD", "PASSWD", "PASSPHRASE", "APIKEY", "CREDENTIAL", "CREDENTIALS"];
    let name = name.to_ascii_uppercase();
    let mut words = name.split(['_', '-', '.']);
    let last_is_key = name.ends_with("_KEY") || name == "KEY";
    last_is_key || words.any(|word| WORDS.contains(&word) || ENDS.iter().any(|end| word.ends_with(end)))
}

/// True for what stands in logs anyway: short, one word, a number, or a path.
pub(super) fn is_plain_word(value: &str) -> bool {
    let value = value.trim();
    let letters = value.chars().all(|c| c.is_ascii_lowercase() || matches!(c, '-' | '_' | '.'));
    value.len() < 8 || (letters && value.len() < 24) || value.chars().all(|c| c.is_ascii_digit()) || value.starts_with(['/', '~', '.'])
}

/// A URL's user without a password is a token when it has at least so many bytes.
const TOKEN_ALONE: usize = 20;

/// The password in a URL's userinfo.
pub(super) fn password_of_url(value: &str) -> Option<String> {
    let url = value.contains("://").then(|| url::Url::parse(value.trim()).ok()).flatten()?;
    let part = url.password().unwrap_or(url.username());
    let text = percent_encoding::percent_decode_str(part).decode_utf8().ok()?;
    // A user alone is a token on some hosts (`https://TOKEN@host`), and a name (`git`) on most.
    let is_secret = url.password().is_some() || text.len() >= TOKEN_ALONE;
    is_secret.then(|| text.into_owned())
}

/// Where passwords are in the userinfo of URLs in a text; those that only stand for one (`PASSWORD`, `$TOKEN`) are not meant.
pub(super) fn passwords_of_urls(text: &str, mut tell: impl FnMut((usize, usize))) {
    for (at, colons) in text.match_indices("://") {
        let start = at + colons.len();
        let end = text[start..].find(|c: char| c.is_whitespace() || matches!(c, '/' | '"' | '\'' | '`' | '<' | '>' | '\\'));
        let authority = &text[start..end.map_or(text.len(), |end| start + end)];
        let Some((userinfo, _)) = authority.rsplit_once('@') else { continue };
        let (user, password) = match userinfo.split_once(':') {
            Some((user, password)) => (user.len() + 1, password),
            None if userinfo.len() >= TOKEN_ALONE => (0, userinfo),
            None => continue,
        };
        let stands_for_one =
            password.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_') || password.starts_with(['$', '{', '*']);
        if !stands_for_one {
            let start = start + user;
            tell((start, start + password.len()));
        }
    }
}
