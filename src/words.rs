//! Words for people that more than one layer says: durations, numbers with their noun, and what of a text is not seen.

/// `0.4s`, `41.2s`, `2m 03s`, `1h 02m`.
#[must_use]
pub fn took(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0..=59 => format!("{seconds}.{}s", millis % 1000 / 100),
        60..=3599 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h {:02}m", seconds / 3600, seconds % 3600 / 60),
    }
}

/// True for characters that reorder or hide text. What shows a text leaves them out, so what looks for a value in it does, too.
#[must_use]
pub fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// `1 image`, `3 images`.
#[must_use]
pub fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
