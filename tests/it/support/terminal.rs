//! A terminal for the binary: a pseudo-terminal of 80 columns that is its input and its output, and somebody who answers.

use super::Done;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::process::Command;

/// Runs a command on a terminal. When it asks `question`, `answer` is typed, once. All it showed is in `stderr`.
pub fn run(mut command: Command, question: &str, answer: &str) -> Done {
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&controller).unwrap();
    unlockpt(&controller).unwrap();
    tcsetwinsize(&controller, Winsize { ws_row: 40, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    let name = ptsname(&controller, Vec::new()).unwrap();
    let open = || OpenOptions::new().read(true).write(true).open(std::ffi::OsStr::from_bytes(name.to_bytes())).unwrap();
    let mut child = command.env("TERM", "xterm").stdin(open()).stdout(open()).stderr(open()).spawn().unwrap();
    // It holds the terminal open, and nothing would ever end.
    drop(command);
    let mut controller = File::from(controller);
    let (mut seen, mut part, mut answered) = (Vec::new(), [0; 4096], false);
    // When the last program that has the terminal ends, reading from it is an error.
    while let Ok(length @ 1..) = controller.read(&mut part) {
        seen.extend_from_slice(&part[..length]);
        if !answered && String::from_utf8_lossy(&seen).contains(question) {
            controller.write_all(format!("{answer}\n").as_bytes()).unwrap();
            answered = true;
        }
    }
    let code = child.wait().unwrap().code().unwrap_or(-1);
    Done { code, stdout: String::new(), stderr: String::from_utf8_lossy(&seen).replace("\r\n", "\n") }
}
