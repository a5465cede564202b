//! Input that means harm, or might as well: escapes for terminals and runners, bombs, paths that lead away, answers and logs without
//! end. Each ends in a clear error or in flat progress.

use super::bench::Bench;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;

/// Drives a terminal (title, clipboard, screen, order of letters) and GitHub's runner, in one line and in lines of its own.
const EVIL: &str = "evil\u{1b}]0;title\u{7}\u{1b}]52;c;aGk=\u{7}\u{1b}[2J\u{9b}31m\u{202e}x <script>alert(1)</script> ##[error]y";
const EVIL_LINES: &str = "\r\n::set-output name=x::y\n::error::boo\n  ::add-mask::z\n";

/// Asserts that a text shows what it says and does nothing.
#[track_caller]
fn harmless(name: &str, text: &str) {
    let bad = |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    assert!(!text.contains(bad), "{name}:\n{text:?}");
    assert!(!text.contains("##[error]"), "{name}:\n{text}");
    for line in text.lines().map(str::trim_start) {
        assert!(!["::set-output", "::error::", "::add-mask"].iter().any(|command| line.starts_with(command)), "{name}:\n{text}");
    }
}

/// A rack that answers every connection by this; it ends with the test's process.
fn rack(answer: impl Fn(&mut TcpStream) -> std::io::Result<()> + Send + Sync + Copy + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]).and_then(|_| answer(&mut stream));
            });
        }
    });
    format!("http://{address}")
}

/// Sends the beginning of an answer, and then a byte at a time for ever.
fn drip(stream: &mut TcpStream, begin: &[u8]) -> std::io::Result<()> {
    stream.write_all(begin)?;
    loop {
        stream.write_all(b"x")?;
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

#[test]
fn what_a_rack_answers_drives_neither_a_terminal_nor_a_runner() {
    let mut bench = Bench::released();
    let host = rack(|stream| {
        let body = format!("{EVIL}{EVIL_LINES}");
        write!(stream, "HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    });
    bench.set("STAGING_HOST", host);
    bench.set("GITHUB_ACTIONS", "true");
    for args in [&["deploy"][..], &["status"], &["plan"], &["doctor"], &["rollback", "web@staging"]] {
        let done = bench.offbuild().run(args);
        harmless(&args.join(" "), &done.stderr);
        harmless(&args.join(" "), &done.stdout);
    }
}

#[test]
fn names_and_words_of_others_drive_neither_a_terminal_nor_a_runner() {
    let mut bench = Bench::released();
    bench.repo.git(&["checkout", "-q", "-b", "feat/\u{202e}x"]);
    bench.repo.write(&format!("apps/web/{}", EVIL.replace('/', "|")), "x").write("apps/web/a\n::error::b", "x").commit(EVIL);
    let hook = bench.repo.path("../hook-output");
    std::fs::write(&hook, format!("{EVIL}{EVIL_LINES}")).unwrap();
    bench.repo.write("apps/web/deploy/before_release.sh", format!("#!/bin/sh\ncat {}\nexit 3\n", hook.display()));
    bench.repo.commit(&format!("{EVIL}{EVIL_LINES}"));
    let (summary, outputs, page) = (bench.repo.path("../summary.md"), bench.repo.path("../outputs"), bench.repo.path("../page.html"));
    bench.set("GITHUB_STEP_SUMMARY", summary.to_str().unwrap());
    bench.set("GITHUB_OUTPUT", outputs.to_str().unwrap());
    for github in ["false", "true"] {
        bench.set("GITHUB_ACTIONS", github);
        for args in [
            &["plan"][..],
            &["deploy", "--all", "--html", page.to_str().unwrap()],
            &["why", "web"],
            &["changed", "--base", "HEAD~2"],
            &["changed", "--base", "HEAD~2", "--format", "names"],
            &["status"],
            &["history"],
            &["show", "latest", "--verbose"],
            &["config", "web@staging"],
            &["lint"],
            &["validate"],
            &["why", "\u{1b}[31mx\n::error::boo"],
        ] {
            let done = bench.offbuild().run(args);
            let name = args.join(" ");
            assert!(!done.stderr.contains("panicked") && done.code != 101, "{name}: {}", done.stderr);
            // What a hook prints as a command is one, as in any step of the runner.
            let said = done.stderr.lines().filter(|line| !(github == "true" && ["::error::boo", "::add-mask::z"].contains(line)));
            harmless(&name, &said.collect::<Vec<_>>().join("\n"));
            harmless(&name, &done.stdout);
        }
    }
    let page = std::fs::read_to_string(page).unwrap();
    assert!(!page.contains("<script>alert") && page.contains("&lt;script&gt;alert"), "{page}");
    let summary = std::fs::read_to_string(summary).unwrap();
    assert!(!summary.contains("<script>") && summary.contains("evil"), "{summary}");
    harmless("the summary", &summary);
    let outputs = std::fs::read_to_string(outputs).unwrap();
    assert!(
        outputs.lines().all(|line| line.split_once('=').is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_lowercase() || c == '_')))
    );
}

#[test]
fn bombs_are_refused() {
    let laughs = |inside: &str| {
        let mut text = "x-0: &b0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let above = level - 1;
            text.push_str(&format!("x-{level}: &b{level} [{}]\n", format!("*b{above}, ").repeat(9)));
        }
        format!("{text}{inside}: *b11\n")
    };
    let deep = |open: &str| open.repeat(200_000);
    let bench = Bench::released();
    let good = std::fs::read_to_string(bench.repo.path("apps.yaml")).unwrap();
    let manifest = std::fs::read_to_string(bench.repo.path("apps/web/convox.yml")).unwrap();
    for bomb in
        [laughs("services"), laughs("version"), deep("["), deep("{a: "), deep("- "), format!("a: {}", deep("'")), "a: &a [*a]\n".to_owned()]
    {
        for (file, good) in [("apps.yaml", &good), ("apps/web/convox.yml", &manifest)] {
            bench.repo.write(file, &bomb);
            let done = bench.offbuild().run(&["validate"]);
            assert_eq!(done.code, 2, "{}\n{}", done.stdout, done.stderr);
            assert!(
                done.stderr.contains(file) && done.stderr.len() < 10_000,
                "{} {}",
                done.stderr.len(),
                &done.stderr[..done.stderr.len().min(2000)]
            );
            bench.repo.write(file, good);
        }
    }
    // Large is not wrong.
    bench.repo.write("apps/web/convox.yml", format!("{manifest}    environment: [\"A={}\"]\n", "x".repeat(4 << 20)));
    bench.offbuild().run(&["validate"]).code(0);
}

#[test]
fn paths_that_lead_out_of_the_repository_are_refused() {
    let bench = Bench::built();
    let outside = bench.repo.path("../outside");
    std::fs::create_dir_all(&outside).unwrap();
    std::fs::write(outside.join("Dockerfile"), "FROM scratch\nCOPY stolen /\n").unwrap();
    std::fs::write(outside.join("stolen"), "stolen").unwrap();
    std::fs::write(outside.join("convox.yml"), "services:\n  web:\n    build: .\n").unwrap();
    let manifest = |build: &str| bench.repo.write("apps/web/convox.yml", format!("services:\n  web:\n    build: {build}\n")).commit("x");
    symlink(&outside, bench.repo.path("apps/web/link")).unwrap();
    symlink(outside.join("Dockerfile"), bench.repo.path("apps/web/Dockerfile.out")).unwrap();
    symlink("loop", bench.repo.path("apps/web/loop")).unwrap();
    for (build, says) in [
        ("../../../outside", "outside"),
        (outside.to_str().unwrap(), "outside"),
        ("{path: ., manifest: ../../../outside/Dockerfile}", "outside"),
        ("loop", "loop"),
        ("{path: ., manifest: loop}", "loop"),
    ] {
        manifest(build);
        let done = bench.offbuild().run(&["build"]);
        assert!((1..=3).contains(&done.code), "{build}: {}\n{}", done.code, done.stderr);
        assert!(done.stderr.contains("error") && done.stderr.contains(says), "{build}: {}", done.stderr);
    }
    // A Dockerfile's own paths cannot leave its context, whatever they say, and what links in it lead to is not sent.
    manifest(".");
    for copy in ["../../../outside/stolen", "link/stolen"] {
        bench.repo.write("apps/web/Dockerfile", format!("FROM scratch\nCOPY {copy} /\n")).commit("x");
        let done = bench.offbuild().run(&["build"]);
        assert_eq!(done.code, 1, "{copy}: {}", done.stderr);
    }
    // An app that is a link to somewhere else.
    symlink(&outside, bench.repo.path("apps/evil")).unwrap();
    bench.repo.write("apps/web/Dockerfile", "FROM scratch\nCOPY file /\n").commit("x");
    let done = bench.offbuild().run(&["plan"]);
    assert!(!done.stdout.contains("evil"), "{}\n{}", done.stdout, done.stderr);
}

#[test]
fn an_answer_without_end_is_an_error() {
    let mut bench = Bench::released();
    let body: fn(&mut TcpStream) -> std::io::Result<()> = |stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{\"version\": \"")?;
        loop {
            stream.write_all(&[b'x'; 1 << 16])?;
        }
    };
    let headers: fn(&mut TcpStream) -> std::io::Result<()> = |stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
        loop {
            stream.write_all(b"x-more: and more and more and more\r\n")?;
        }
    };
    let error: fn(&mut TcpStream) -> std::io::Result<()> = |stream| {
        stream.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n")?;
        loop {
            stream.write_all(&[b'x'; 1 << 16])?;
        }
    };
    let drips_body: fn(&mut TcpStream) -> std::io::Result<()> = |stream| drip(stream, b"HTTP/1.1 200 OK\r\n\r\n{\"version\": \"");
    let drips_headers: fn(&mut TcpStream) -> std::io::Result<()> = |stream| drip(stream, b"HTTP/1.1 200 OK\r\nx-more: ");
    bench.configure("defaults: {racks: [staging], timeouts: {answer: 1s}}");
    for answer in [body, headers, error, drips_body, drips_headers] {
        bench.set("STAGING_HOST", rack(answer));
        let done = bench.offbuild().run(&["deploy"]);
        assert_eq!(done.code, 3, "{}", done.stderr);
        assert!(done.stderr.starts_with("error: ") && done.stderr.contains("staging") && done.stderr.len() < 2000, "{}", done.stderr);
    }
}

#[test]
fn a_hook_that_prints_without_end_fills_neither_memory_nor_the_journal() {
    let bench = Bench::released();
    let memory = bench.repo.path("../memory");
    // A million short lines, then one of 20 MB: their events would be some 300 MB. With `OFFBUILD_GIGABYTE`, ten million lines of 100
    // bytes and one of 100 MB.
    let gigabyte = std::env::var_os("OFFBUILD_GIGABYTE").is_some();
    let (line, lines, long) = if gigabyte { ("y".repeat(99), 10_000_000, 100_000_000) } else { ("y".to_owned(), 1_000_000, 20_000_000) };
    let script = format!(
        "#!/bin/sh\nyes {line} | head -n {lines}\nhead -c {long} /dev/zero | tr '\\0' z\n\
         grep VmHWM /proc/$PPID/status > {}\necho the end\n",
        memory.display()
    );
    bench.repo.write("apps/web/deploy/before_release.sh", script).commit("Hook");
    let done = bench.offbuild().run(&["deploy"]).code(0);
    let told = format!("web@staging | {line}");
    assert_eq!(done.stderr.lines().filter(|line| *line == told).count(), lines);
    assert!(done.stderr.contains("zthe end\n"));
    let peak: u64 = std::fs::read_to_string(memory).unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
    println!("the peak was {peak} kB, the journal {} bytes", std::fs::metadata(journal_of(&bench)).unwrap().len());
    assert!(peak < 160_000, "{peak} kB");
    let events = offbuild::journal::Journal::read(&journal_of(&bench)).unwrap();
    let notices = events.iter().filter_map(|event| match &event.kind {
        offbuild::event::EventKind::Notice { message, .. } => Some(message.as_str()),
        _ => None,
    });
    assert!(
        notices.clone().any(|notice| notice.contains("left out here: the journal holds the first 16 MiB")),
        "{:?}",
        notices.collect::<Vec<_>>()
    );
    let last = events.iter().rev().find_map(|event| match &event.kind {
        offbuild::event::EventKind::Log { line, .. } if line.ends_with("the end") => Some(line.len()),
        _ => None,
    });
    assert!(last.is_some(), "the end of the output is not in the journal");
}

/// The journal of the only run.
fn journal_of(bench: &Bench) -> std::path::PathBuf {
    std::fs::read_dir(bench.repo.path(".offbuild/runs")).unwrap().next().unwrap().unwrap().path()
}
