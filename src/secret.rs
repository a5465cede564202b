//! Secrets: a type that cannot print, and the redactor every event passes.
//!
//! A value is masked as it is and in the encodings in which tools like to echo it (base64 in its three alignments, hex,
//! percent, JSON). The redactor works on whole lines; whoever reads a stream hands it lines, not chunks.

use base64::Engine as _;
use std::fmt;
use std::sync::{Arc, RwLock};

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

/// Masks registered values in text. Clones share one set of values.
#[derive(Clone, Default)]
pub struct Redactor {
    needles: Arc<RwLock<Vec<String>>>,
}

impl Redactor {
    /// Registers a value. `false` when it is too short to be masked ([`SHORTEST_MASKED`]).
    pub fn register(&self, secret: &Secret) -> bool {
        let value = secret.expose();
        if value.len() < SHORTEST_MASKED {
            return false;
        }
        let mut found = encodings(value);
        let Ok(mut needles) = self.needles.write() else { return false };
        needles.append(&mut found);
        // Longest first, so that an encoding that contains another is masked whole.
        needles.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        needles.dedup();
        true
    }

    /// The text with every registered value replaced by `***`.
    #[must_use]
    pub fn redact(&self, text: &str) -> String {
        // A poisoned lock still guards the same list: showing a secret is worse than reading it.
        let needles = self.needles.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut text = text.to_owned();
        for needle in needles.iter() {
            if text.contains(needle.as_str()) {
                text = text.replace(needle.as_str(), "***");
            }
        }
        text
    }
}

fn encodings(value: &str) -> Vec<String> {
    use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
    let mut found = vec![value.to_owned(), hex::encode(value), hex::encode_upper(value)];
    found.push(percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC).to_string());
    if let Ok(json) = serde_json::to_string(value) {
        found.push(json[1..json.len() - 1].to_owned());
    }
    // Behind 0, 1 or 2 other bytes the same value has three base64 spellings; the digits that depend on neighbours are cut.
    for lead in 0..3 {
        let bytes: Vec<u8> = std::iter::repeat_n(0, lead).chain(value.bytes()).collect();
        let first = (lead * 8).div_ceil(6);
        let last = (bytes.len() * 8) / 6;
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            let text = engine.encode(&bytes);
            found.push(text[first..last].to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_prints_as_stars() {
        let secret = Secret::new("hunter22");
        assert_eq!(format!("{secret} {secret:?}"), "*** ***");
    }

    #[test]
    fn a_value_too_short_to_mask_is_refused() {
        let redactor = Redactor::default();
        assert!(!redactor.register(&Secret::new("abc")));
        assert_eq!(redactor.redact("abc"), "abc");
    }

    proptest::proptest! {
        #[test]
        fn no_encoding_of_a_secret_survives(value in "[ -~]{6,40}", before in "[a-z]{0,7}", after in "[a-z]{0,7}") {
            use base64::engine::general_purpose::{STANDARD, URL_SAFE};
            let redactor = Redactor::default();
            redactor.register(&Secret::new(value.clone()));
            let whole = format!("{before}:{value}:{after}");
            proptest::prop_assert!(!redactor.redact(&whole).contains(&value));
            for text in [STANDARD.encode(&whole), URL_SAFE.encode(&whole), hex::encode(&whole)] {
                proptest::prop_assert!(redactor.redact(&text).contains("***"), "{text} was not masked");
            }
        }
    }
}
