//! Small words every report uses: durations, sizes, numbers with their noun, lines made safe, tables and colour.

use crate::words::is_invisible;
pub use crate::words::{count, took};
use anstyle::{AnsiColor, Style};
use time::OffsetDateTime;

/// `3.4 of 12.0 MB`.
#[must_use]
pub fn transferred(current: u64, total: Option<u64>) -> String {
    // A tenth of a megabyte is as exact as people read it.
    let tenths = |bytes: u64| format!("{}.{}", bytes / 1_000_000, bytes % 1_000_000 / 100_000);
    total.map_or_else(|| format!("{} MB", tenths(current)), |total| format!("{} of {} MB", tenths(current), tenths(total)))
}

/// Units of ages, the largest first: seconds, name, short name.
const UNITS: [(i64, &str, &str); 6] = [
    (365 * 86_400, "year", "y"),
    (30 * 86_400, "month", "mo"),
    (7 * 86_400, "week", "w"),
    (86_400, "day", "d"),
    (3600, "hour", "h"),
    (60, "minute", "m"),
];

/// How often the largest unit that there is one of fits in between, with its names.
fn in_units(then: OffsetDateTime, now: OffsetDateTime) -> Option<(usize, &'static str, &'static str)> {
    let seconds = (now - then).whole_seconds();
    UNITS.into_iter().find_map(|(length, name, short)| match usize::try_from(seconds / length) {
        Ok(number @ 1..) => Some((number, name, short)),
        _ => None,
    })
}

/// `3 days ago`, in the largest unit that there is one of.
#[must_use]
pub fn age(then: OffsetDateTime, now: OffsetDateTime) -> String {
    in_units(then, now).map_or_else(|| "just now".to_owned(), |(number, name, _)| format!("{} ago", count(number, name)))
}

/// The same for a column: `3d`.
#[must_use]
pub fn age_in_short(then: OffsetDateTime, now: OffsetDateTime) -> String {
    in_units(then, now).map_or_else(|| "now".to_owned(), |(number, _, short)| format!("{number}{short}"))
}

/// A line of a program's output as one safe line: what a carriage return left visible, without escape sequences and
/// control characters, so that it can neither move the cursor nor recolour what follows; nor command a CI's runner, some of which
/// look for `##[` and `##vso[` anywhere in a line.
#[must_use]
pub fn clean(line: &str) -> String {
    let visible = line.split('\r').rev().find(|part| !part.is_empty()).unwrap_or("");
    let mut out = String::with_capacity(visible.len());
    let mut chars = visible.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => match chars.next() {
                // CSI: up to a byte of 0x40 to 0x7e. OSC: up to BEL or ESC \.
                Some('[') => while chars.next().is_some_and(|c| !('\u{40}'..='\u{7e}').contains(&c)) {},
                Some(']') => loop {
                    match chars.next() {
                        None | Some('\u{7}') => break,
                        Some('\u{1b}') => {
                            chars.next_if_eq(&'\\');
                            break;
                        }
                        Some(_) => {}
                    }
                },
                _ => {}
            },
            '\t' => out.push_str("    "),
            c if c.is_control() || is_invisible(c) => {}
            c => out.push(c),
        }
    }
    if out.contains("##") { out.replace("##[", "# #[").replace("##vso[", "# #vso[") } else { out }
}

/// Text of several lines, each made safe by [`clean`].
#[must_use]
pub fn clean_lines(text: &str) -> String {
    text.lines().map(clean).collect::<Vec<_>>().join("\n")
}

/// The first `width` characters, the last of them `…` when there were more.
#[must_use]
pub fn clip(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut clipped: String = text.chars().take(width.saturating_sub(1)).collect();
    clipped.push('…');
    clipped
}

/// `text` in lines of at most `width` characters, broken at spaces; a longer word stays whole, so that it can be copied.
#[must_use]
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split(' ') {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines
}

/// Rows in columns two spaces apart, without trailing spaces. The first row is the heading; the last column is cut so that a
/// row fits `width`, when one is given.
#[must_use]
pub fn table<const N: usize>(rows: &[[String; N]], width: Option<usize>) -> Vec<String> {
    let wide = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(wide).collect();
    let before: usize = widths[..N - 1].iter().map(|width| width + 2).sum();
    let draw = |row: &[String; N]| {
        let mut line = String::new();
        for (cell, width) in row[..N - 1].iter().zip(&widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        line.push_str(&width.map_or_else(|| row[N - 1].clone(), |width| clip(&row[N - 1], width.saturating_sub(before).max(12))));
        line.trim_end().to_owned()
    };
    rows.iter().map(draw).collect()
}

/// Whether and how to colour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Paint {
    on: bool,
}

impl Paint {
    /// With colour, or without.
    #[must_use]
    pub fn new(on: bool) -> Self {
        Self { on }
    }

    /// As the environment asks: `NO_COLOR` (when not empty) wins, then `CLICOLOR_FORCE`, then whether it is a terminal and not a
    /// dumb one, unless `CLICOLOR=0` (<https://no-color.org>, <https://bixense.com/clicolors>).
    #[must_use]
    pub fn from_env(terminal: bool, var: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| var(name).is_some_and(|value| !value.is_empty());
        let zero = |name: &str| var(name).is_some_and(|value| value == "0");
        let dumb = var("TERM").is_some_and(|term| term == "dumb");
        let forced = set("CLICOLOR_FORCE") && !zero("CLICOLOR_FORCE");
        Self { on: !set("NO_COLOR") && (forced || (terminal && !dumb && !zero("CLICOLOR"))) }
    }

    fn styled(self, style: Style, text: &str) -> String {
        if self.on { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }

    /// What went well.
    #[must_use]
    pub fn good(self, text: &str) -> String {
        self.styled(AnsiColor::Green.on_default(), text)
    }

    /// What failed.
    #[must_use]
    pub fn bad(self, text: &str) -> String {
        self.styled(AnsiColor::Red.on_default().bold(), text)
    }

    /// What wants attention.
    #[must_use]
    pub fn warn(self, text: &str) -> String {
        self.styled(AnsiColor::Yellow.on_default(), text)
    }

    /// What matters less.
    #[must_use]
    pub fn dim(self, text: &str) -> String {
        self.styled(Style::new().dimmed(), text)
    }

    /// Names and headings.
    #[must_use]
    pub fn strong(self, text: &str) -> String {
        self.styled(Style::new().bold(), text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_say_them() {
        let said: Vec<String> = [0, 449, 59_999, 60_000, 123_000, 3_720_000].into_iter().map(took).collect();
        assert_eq!(said, ["0.0s", "0.4s", "59.9s", "1m 00s", "2m 03s", "1h 02m"]);
    }

    #[test]
    fn ages_are_told_in_the_largest_unit() {
        let now = OffsetDateTime::from_unix_timestamp(1_000_000_000).unwrap();
        let table = [
            (-5, "just now", "now"),
            (59, "just now", "now"),
            (60, "1 minute ago", "1m"),
            (7199, "1 hour ago", "1h"),
            (3 * 86_400, "3 days ago", "3d"),
            (15 * 86_400, "2 weeks ago", "2w"),
            (61 * 86_400, "2 months ago", "2mo"),
            (400 * 86_400, "1 year ago", "1y"),
        ];
        for (seconds, text, short) in table {
            let then = now - time::Duration::seconds(seconds);
            assert_eq!((age(then, now).as_str(), age_in_short(then, now).as_str()), (text, short), "{seconds}");
        }
    }

    #[test]
    fn a_line_can_neither_move_the_cursor_nor_hide() {
        let cases = [
            ("plain ü", "plain ü"),
            ("\u{1b}[31mred\u{1b}[0m", "red"),
            ("10%\r50%\r100%", "100%"),
            ("done\r", "done"),
            ("a\u{1b}]0;title\u{7}b\u{1b}]8;;u\u{1b}\\c", "abc"),
            ("a\tb\u{8}\u{0}", "a    b"),
            ("\u{202e}evil", "evil"),
            ("\u{1b}", ""),
            ("\u{1b}[", ""),
            ("a ##[error]b ##\u{1b}[0m[group] ##vso[x]y ## c", "a # #[error]b # #[group] # #vso[x]y ## c"),
        ];
        for (line, wanted) in cases {
            assert_eq!(clean(line), wanted, "{line:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_is_cleaned_holds_a_control_character(line in ".*") {
            proptest::prop_assert!(!clean(&line).chars().any(char::is_control));
        }
    }

    #[test]
    fn colour_is_asked_of_the_environment() {
        let on = |terminal, vars: &[(&str, &str)]| {
            let var = |name: &str| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            Paint::from_env(terminal, var) == Paint::new(true)
        };
        assert!(on(true, &[]) && !on(false, &[]) && on(true, &[("NO_COLOR", "")]));
        assert!(!on(true, &[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")]) && !on(true, &[("CLICOLOR", "0")]));
        assert!(on(false, &[("CLICOLOR_FORCE", "1")]) && !on(false, &[("CLICOLOR_FORCE", "0")]) && !on(true, &[("TERM", "dumb")]));
    }

    #[test]
    fn a_table_keeps_to_its_width() {
        let rows = [["A".to_owned(), "WHY".to_owned()], ["long name".to_owned(), "because of this and that".to_owned()]];
        assert_eq!(table(&rows, Some(24)), ["A          WHY", "long name  because of t…"]);
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
    }
}
