use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use proptest::prelude::*;
use std::fmt::Write as _;

fn redactor(values: &[&str]) -> Redactor {
    let redactor = Redactor::default();
    values.iter().for_each(|value| assert!(redactor.register(&Secret::new(*value)), "{value}"));
    redactor
}

#[test]
fn a_secret_prints_as_stars() {
    let secret = Secret::new("hunter22");
    assert_eq!(format!("{secret} {secret:?}"), "*** ***");
}

#[test]
fn a_value_too_short_or_too_long_to_mask_is_refused() {
    let redactor = Redactor::default();
    assert!(!redactor.register(&Secret::new("abc")) && !redactor.register(&Secret::new("  abc  \n")));
    assert!(!redactor.register(&Secret::new("x".repeat(LONGEST_MASKED + 1))));
    assert_eq!(redactor.redact("abc xxxxxxxx"), "abc xxxxxxxx");
}

#[test]
fn values_are_masked_in_every_spelling() {
    let value = "it's a/b \"q\" ü&<%41$x";
    let redactor = redactor(&[value]);
    let table = [
        value,
        r#"it's a/b \"q\" ü&<%41$x"#,
        r#"it's a\/b \"q\" ü&<%41$x"#,
        r#"it's a/b \"q\" \u00fc\u0026\u003c%41$x"#,
        r#"it\u0027s\u0020a\/b \u0022q\u0022 \u00FC&<%41$x"#,
        r#"\"it's a/b \\\"q\\\" ü&<%41$x\""#,
        r#"'it'\''s a/b "q" ü&<%41$x'"#,
        r#"'it'"'"'s a/b "q" ü&<%41$x'"#,
        r#"it\'s\ a/b\ \"q\"\ ü\&\<%41\$x"#,
        r#"$'it\'s a/b "q" \303\274&<%41$x'"#,
        r#"$'it\'s a/b "q" \xc3\xbc&<%41$x'"#,
        r#""it's a/b \"q\" \u{fc}&<%41\$x""#,
        "it%27s%20a%2Fb%20%22q%22%20%C3%BC%26%3C%2541%24x",
        "it%27s+a%2fb+%22q%22+%c3%bc%26%3c%2541%24x",
        "it's%20a/b%20%22q%22%20%c3%BC&%3C%2541$x",
        "it's \u{1b}[31ma/b\u{1b}[0m \u{1b}]8;;x\u{7}\"q\" \u{200b}ü&<%41$x",
    ];
    for text in table {
        let shown = redactor.redact(text);
        assert!(
            shown.contains(MASK) && !shown.contains("41") && shown.chars().filter(|c| c.is_alphanumeric()).count() == 0,
            "{text}: {shown}"
        );
    }
}

#[test]
fn what_is_no_value_stays() {
    let redactor = redactor(&["hunter22", "correct horse battery"]);
    for text in ["hunter2 hunter 22", "a %68 \\n 'b' \"c\" \u{1b}[1m", "horse", "%", "\\", "%zz", "\\u12", "\u{1b}", "\u{1b}]", ""] {
        assert_eq!(redactor.redact(text), text);
        assert_eq!(redactor.redact_line(text, &mut String::new()), text);
    }
    assert_eq!(redactor.redact("a 'hunter22' \"b\""), "a '***' \"b\"");
    assert_eq!(redactor.redact("hunter22hunter22 x hunter22"), "*** x ***");
}

#[test]
fn of_values_that_overlap_nothing_is_left() {
    let redactor = redactor(&["abcdefgh", "efghijkl", "cdefgh"]);
    assert_eq!(redactor.redact("-abcdefghijkl-"), "-***-");
}

#[test]
fn a_value_of_several_lines_is_masked_line_by_line() {
    let key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\nAQEFAASCBKcwggSjAgEAAoIB\nAQ==\n-----END KEY-----\n";
    let redactor = redactor(&[key]);
    assert_eq!(redactor.redact(key), "***\n***\n***\n***\n***\n");
    assert_eq!(redactor.redact("grep: AQEFAASCBKcwggSjAgEAAoIB"), "grep: ***");
    assert_eq!(redactor.redact(&serde_json::to_string(key).unwrap()), "\"***\"");
    let mut carry = String::new();
    let shown: Vec<_> = key.lines().map(|line| redactor.redact_line(&format!("    {line}"), &mut carry).trim().to_owned()).collect();
    assert_eq!(shown, ["***"; 5]);
}

#[test]
fn values_are_found_whenever_they_were_registered() {
    let redactor = Redactor::default();
    let value = |number: usize| format!("value-{number:05}-{}", "z".repeat(number % 50));
    for number in 0..300 {
        redactor.register(&Secret::new(value(number)));
        assert_eq!(redactor.redact(&value(number)), MASK);
    }
    assert!((0..300).all(|number| redactor.redact(&value(number)) == MASK));
    // Few sets, however many values there are.
    assert!(redactor.values().sets.len() < 12, "{}", redactor.values().sets.len());
}

#[test]
fn the_password_of_a_url_is_masked_whoever_it_is() {
    let table = [
        ("see https://ann:s3c@github.com/a and x", "see https://ann:***@github.com/a and x"),
        ("clone https://ghp_0123456789abcdefghij@github.com/a", "clone https://***@github.com/a"),
        ("fatal: 'https://:tok@h/p': no", "fatal: 'https://:***@h/p': no"),
        ("http://a.example/b:c@d https://ann@h https://a:80/x ://@", "http://a.example/b:c@d https://ann@h https://a:80/x ://@"),
        ("write `https://convox:PASSWORD@HOST` or http://u:${P}@h", "write `https://convox:PASSWORD@HOST` or http://u:${P}@h"),
    ];
    for redactor in [Redactor::default(), redactor(&["something else"])] {
        for (text, expected) in table {
            assert_eq!(redactor.redact(text), expected);
        }
    }
}

/// What reports take out of a line before they show it must not have kept a value apart while it was looked for.
#[test]
fn a_value_that_only_shows_once_a_line_is_cleaned_is_masked_before() {
    let redactor = redactor(&["hunter22-hunter22"]);
    let noise = [
        "\u{85}",
        "\u{9b}31m",
        "\u{9d}0;title\u{7}",
        "\u{1b}(B",
        "\u{1b}(B\u{1b}[m",
        "\u{1b}[1;31m",
        "\u{1b}]0;title\u{1b}\\",
        "\u{1b}Pq\u{1b}\\",
        "\u{1b}7",
        "\u{1b}=",
        "\u{0}",
        "\u{8}",
        "\u{b}",
        "\u{7f}",
        "\u{200d}",
        "\u{2066}",
        "\u{feff}",
    ];
    for noise in noise {
        let text = format!("a hunter22-{noise}hunter22 b");
        let shown = crate::report::text::clean(&redactor.redact(&text));
        assert!(!shown.contains("hunter22-hunter22"), "{noise:?}: {shown:?}");
    }
}

#[test]
fn which_variables_are_masked() {
    let masked = |name: &str, value: &str| {
        let redactor = Redactor::default();
        redactor.register_variable(name, value);
        matches!(redactor.redact(value), Cow::Owned(_))
    };
    for name in [
        "DATABASE_PASSWORD",
        "github_token",
        "STRIPE_KEY",
        "SECRET_KEY_BASE",
        "AWS_SECRET_ACCESS_KEY",
        "npm-token",
        "PGPASSWORD",
        "SSHPASS",
        "MYSQL_PWD",
        "npm_config__authToken",
        "CLIENTSECRET",
    ] {
        assert!(masked(name, "s3cr3t-value"), "{name}");
    }
    for (name, value) in [
        ("RAILS_ENV", "production-1A"),
        ("PWD", "/work/s3cr3t"),
        ("DATABASE_PASSWORD", "postgres"),
        ("API_TOKEN", "true"),
        ("SSH_KEY", "/home/ann/.ssh/id"),
        ("PASSENGER_MODE", "s3cr3t-value"),
        ("TOKEN_COUNT_KEY", "123456789"),
    ] {
        assert!(!masked(name, value), "{name}={value}");
    }
    let redactor = Redactor::default();
    redactor.register_variable("DATABASE_URL", "postgres://app:p%40ss-w0rd@db.example/app");
    assert_eq!(redactor.redact("postgres://app:p%40ss-w0rd@db.example p@ss-w0rd"), "postgres://app:***@db.example ***");
    redactor.register_variable("REMOTE", "https://ghp_0123456789abcdefghij@github.com/a/b");
    redactor.register_variable("OTHER", "ssh://git@github.com/a/b");
    assert_eq!(redactor.redact("ghp_0123456789abcdefghij git"), "*** git");
}

/// As many as `OFFBUILD_CASES` says.
fn cases() -> u32 {
    std::env::var("OFFBUILD_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(150)
}

/// The ways in which a text may be written.
fn spelled(way: u8, text: &str) -> String {
    let percent = |all: bool, lower: bool| {
        text.bytes().fold(String::new(), |mut out, byte| {
            if all || !byte.is_ascii_alphanumeric() {
                let _ = if lower { write!(out, "%{byte:02x}") } else { write!(out, "%{byte:02X}") };
            } else {
                out.push(char::from(byte));
            }
            out
        })
    };
    match way {
        0 => text.to_owned(),
        1 => STANDARD.encode(text),
        2 => URL_SAFE.encode(text),
        3 => URL_SAFE_NO_PAD.encode(text),
        4 => hex::encode(text),
        5 => hex::encode_upper(text),
        6 => percent(false, false),
        7 => percent(false, true),
        8 => percent(true, true),
        9 => url::form_urlencoded::byte_serialize(text.as_bytes()).collect(),
        10 => serde_json::to_string(text).unwrap(),
        11 => serde_json::to_string(text).unwrap().replace('/', "\\/"),
        12 => text.encode_utf16().fold(String::new(), |out, unit| format!("{out}\\u{unit:04x}")),
        13 => format!("'{}'", text.replace('\'', "'\\''")),
        14 => text.chars().fold(String::new(), |out, c| if c.is_alphanumeric() { format!("{out}{c}") } else { format!("{out}\\{c}") }),
        15 => format!("$'{}'", text.replace('\\', "\\\\").replace('\'', "\\'")),
        16 => format!("{text:?}"),
        _ => {
            let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            if way == 17 { text } else { text.replace('"', "&quot;").replace('\'', ["&#39;", "&#x27;", "&apos;"][usize::from(way % 3)]) }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    /// The middle of the value in this spelling, which no neighbour changes, is nowhere.
    #[test]
    fn no_spelling_of_a_secret_survives(value in "[ -~ü€]{8,40}", way in 0u8..=20, before in "[a-z]{0,7}", after in "[a-z]{0,7}") {
        prop_assume!(value.trim().len() >= SHORTEST_MASKED && value.chars().filter(|c| c.is_alphanumeric()).count() >= SHORTEST_MASKED);
        let redactor = redactor(&[&value]);
        let text = spelled(way, &format!("{before}:{value}:{after}"));
        let shown = redactor.redact(&text).into_owned();
        prop_assert!(shown.contains(MASK), "{} was not masked", text);
        let kept: String = shown.split(MASK).collect();
        // Of the spelling at most what the neighbours take part in is left.
        let longest = spelled(way, &format!("{before}:")).len() + spelled(way, &format!(":{after}")).len() + 8;
        prop_assert!(kept.len() <= longest, "{} became {}", text, shown);
    }

    /// Lines of any width: what is left of a value are less than eight characters, and less than half of it.
    #[test]
    fn no_folded_secret_survives(value in "[!-~]{6,90}", way in 0u8..=7, before in "[a-z]{0,9}", width in 1usize..100, indent in " {0,4}") {
        let redactor = redactor(&[&value]);
        let text = spelled(way, &format!("{before}:{value}:x"));
        let folded: Vec<String> =
            text.as_bytes().chunks(width).map(|line| format!("{indent}{}", String::from_utf8_lossy(line))).collect();
        let mut carry = String::new();
        let lines: Vec<String> = folded.iter().map(|line| redactor.redact_line(line, &mut carry).into_owned()).collect();
        let whole = redactor.redact(&folded.join("\n")).into_owned();
        for shown in [lines.concat(), whole] {
            let shown: String = shown.split_whitespace().collect();
            let spelling = forms::plain(&value);
            prop_assert!(spelling.iter().all(|form| form.len() < SHORTEST_MASKED || !shown.contains(form)), "{:?} became {}", folded, shown);
            prop_assert!(shown.contains(MASK), "{:?} became {}", folded, shown);
        }
    }

    #[test]
    fn any_text_passes(text in "\\PC{0,60}", escapes in "[\\\\'\"%u0-9a-fxn{}$\u{1b}\\[\\]\u{7}üé]{0,40}", value in "[\\\\'\"%u0-9xü]{6,12}") {
        let redactor = Redactor::default();
        redactor.register(&Secret::new(value.clone()));
        for text in [text, escapes.clone(), format!("{escapes}{value}{escapes}")] {
            let shown = redactor.redact(&text).into_owned();
            prop_assert!(value.trim().len() < SHORTEST_MASKED || !shown.contains(value.trim()));
            let (cut, mut carry) = (redactor.cut(text.as_bytes()), String::new());
            prop_assert!(text.is_char_boundary(cut));
            prop_assert!(redactor.redact_line(&text, &mut carry).len() <= text.len() + MASK.len() * text.len());
        }
    }
}
