//! What leaves the program outside of a run's events: data to standard output, words to standard error, panics.
//!
//! All of it passes the process's redactor. Words are of others, too (a rack's answer, a file's name), so what could drive a terminal
//! or GitHub's runner is taken out of them.

use crate::error::{Error, Result};
use crate::report::text::clean;
use crate::secret::{Redactor, Secret};
use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::Write as _;

/// Writes text for people to standard output.
pub(super) fn print(text: &str) -> Result<u8> {
    print_as_it_is(&safe(text))
}

/// Writes data to standard output, or text that was drawn with care: only secrets are taken out.
pub(super) fn print_data(text: &str) -> Result<u8> {
    print_as_it_is(&Redactor::of_process().redact(text))
}

/// Writes to standard output, for the one command that tells passwords: those of its own sandbox. A closed pipe (`| head`) is the
/// reader's way to say that it has enough.
pub(super) fn print_as_it_is(text: &str) -> Result<u8> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::failed("standard output cannot be written").because(error))
        }
        _ => Ok(0),
    }
}

/// Writes words to standard error, as lines.
pub(super) fn tell(text: impl std::fmt::Display) {
    let mut words = safe(&text.to_string());
    words.push('\n');
    // Nobody is left to tell when stderr is closed.
    let _ = std::io::stderr().lock().write_all(words.as_bytes());
}

/// Text of others as lines that show what they say and do nothing.
pub(super) fn safe(text: &str) -> String {
    let text = Redactor::of_process().redact(text).into_owned();
    let lines: Vec<String> = text.lines().map(|line| harmless(&clean(line))).collect();
    lines.join("\n") + if text.ends_with('\n') { "\n" } else { "" }
}

/// A line that GitHub's runner takes for no command: those begin with `::`.
fn harmless(line: &str) -> String {
    match line.trim_start().strip_prefix("::") {
        Some(rest) => format!("{}: :{rest}", &line[..line.len() - line.trim_start().len()]),
        None => line.to_owned(),
    }
}

/// Registers what the environment says is a secret: hooks have all of it, and so may print it.
pub(super) fn mask_environment() {
    let redactor = Redactor::of_process();
    for (name, value) in std::env::vars_os() {
        if let (Some(name), Some(value)) = (name.to_str(), value.to_str()) {
            redactor.register_variable(name, value);
        }
    }
}

/// Has panics pass the redactor, too, and say what they are.
pub(super) fn report_panics() {
    std::panic::set_hook(Box::new(|info| {
        let backtrace = Backtrace::capture();
        let trace = if backtrace.status() == BacktraceStatus::Captured { format!("\n{backtrace}") } else { String::new() };
        tell(format!("offbuild broke; this is a mistake in it, please report it: {info}{trace}"));
    }));
}

/// Registers a value, and gives the notice that it cannot be masked when that is so.
pub(super) fn mask(redactor: &Redactor, what: &str, value: &Secret) -> Option<String> {
    let masked = value.expose().trim().is_empty() || redactor.register(value);
    (!masked).then(|| format!("{what} is too short (or much too long) to be masked: logs may show it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_drive_neither_a_terminal_nor_a_runner() {
        let table = [
            ("error: x\n  \"y\"", "error: x\n  \"y\""),
            ("a\tb\n\nc\n", "a    b\n\nc\n"),
            ("a\u{1b}]52;c;aGk=\u{7}b\u{1b}[2Jc", "abc"),
            ("a\r::set-output name=x::y", ": :set-output name=x::y"),
            ("a\n  ::error::b\nc ##[error]d", "a\n  : :error::b\nc # #[error]d"),
            ("\u{202e}evil\u{9b}31m", "evil31m"),
        ];
        for (text, expected) in table {
            assert_eq!(safe(text), expected, "{text:?}");
        }
    }

    /// In a process of its own: the hook is the whole process's.
    #[test]
    fn a_panic_passes_the_redactor() {
        const ASKED: &str = "OFFBUILD_TEST_PANIC";
        if std::env::var_os(ASKED).is_some() {
            report_panics();
            Redactor::of_process().register(&Secret::new("hunter22-hunter22"));
            panic!("the login `hunter22-hunter22` is {}", hex::encode("hunter22-hunter22"));
        }
        let test = "run::tell::tests::a_panic_passes_the_redactor";
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let output = child.args([test, "--exact", "--nocapture"]).env(ASKED, "1").env("RUST_BACKTRACE", "1").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success());
        assert!(said.contains("offbuild broke") && said.contains("the login `***` is ***"), "{said}");
        assert!(!said.contains("hunter22") && !said.contains(&hex::encode("hunter22")), "{said}");
    }
}
