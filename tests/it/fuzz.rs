//! The functions that `fuzz/` gives to cargo-fuzz, run here over samples that were cut, doubled and overwritten: so they are known to
//! work, and a reader that breaks at the first wrong byte is found without a fuzzer. `OFFBUILD_CASES` says how many of each.

mod entries;
mod wire;

use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes that readers stumble over.
const BAD: [&[u8]; 24] = [
    b"",
    b"\0",
    b"\xff",
    b"\xc3",
    b"\n",
    b"\r",
    b"\t",
    b" ",
    b"&a",
    b"*a",
    b"<<: ",
    b"!!",
    b"{",
    b"[",
    b"- ",
    b": ",
    b"'",
    b"\"",
    b"${",
    b"\\",
    b"..",
    b"/",
    b"99999999999999999999",
    "\u{202e}".as_bytes(),
];

/// A sample with a few changes, the same for the same seed.
fn mutated(samples: &[Vec<u8>], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = samples[random.usize(..samples.len())].clone();
    for _ in 0..random.usize(1..6) {
        let at = random.usize(..=bytes.len());
        let end = (at + random.usize(..40)).min(bytes.len());
        match random.u8(..6) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => drop(bytes.splice(at..at, bytes[at..end].to_vec().repeat(random.usize(1..20)))),
            3 => drop(bytes.splice(at..end, BAD[random.usize(..BAD.len())].iter().copied())),
            4 => drop(bytes.splice(at..at, BAD[random.usize(..BAD.len())].repeat(random.usize(1..200)))),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = random.u8(..);
                }
            }
        }
    }
    bytes
}

/// Runs an entry over the samples and changes of them; what breaks it is shown.
fn run(entry: impl Fn(&[u8]) -> bool, samples: &[Vec<u8>]) {
    let taken = samples.iter().filter(|sample| entry(sample)).count();
    assert!(taken > 0, "none of {} samples is taken: what would be read after its first byte is not tried", samples.len());
    let asked: Option<u64> = std::env::var("OFFBUILD_CASES").ok().and_then(|cases| cases.parse().ok());
    let began = Instant::now();
    for seed in 0..asked.unwrap_or(400) {
        let bytes = mutated(samples, &mut fastrand::Rng::with_seed(seed));
        let shown = std::panic::AssertUnwindSafe(|| entry(&bytes));
        assert!(std::panic::catch_unwind(shown).is_ok(), "seed {seed} breaks it: {:?}", String::from_utf8_lossy(&bytes));
        // No measurement: many cases take long on a slow machine, and then fewer are enough.
        if asked.is_none() && began.elapsed() > Duration::from_secs(4) {
            break;
        }
    }
}

/// The files of these names in the repository.
fn samples(names: &[&str]) -> Vec<Vec<u8>> {
    fn collect(dir: &Path, names: &[&str], found: &mut Vec<Vec<u8>>) {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            if path.is_dir() {
                collect(&path, names, found);
            } else if names.iter().any(|wanted| name.to_string_lossy() == *wanted) {
                found.push(std::fs::read(path).unwrap());
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    collect(&root.join("example"), names, &mut found);
    found.extend(names.iter().filter_map(|name| std::fs::read(root.join(name)).ok()));
    found
}

#[test]
fn apps_yaml() {
    let mut samples = samples(&["apps.yaml", "apps.example.yaml"]);
    samples.push(b"version: 1\ndiscover: {include: [apps, web], exclude: [\"x/**\"]}\nregistry: {repository: \"r.example/${AB:-x}/{app}\", create: true}\nracks:\n  staging: {host: \"http://${AB}.example\", password: \"${CD}\", poll: 50ms}\n  production: {host: h.example, password: x, after: [staging], protected: true}\ndefaults: {racks: [staging]}\nglobal: [shared/**]\nignore: [\"**/*.md\"]\nshared: {lib: [lib/**]}\ngroups: {both: [apps, web]}\napps:\n  apps: {uses: [lib], after: [web], racks: [staging, production]}\n  web: {hooks: {repeatable: [after_release]}, ignore: [\"docs/**\"]}\n".to_vec());
    run(entries::apps_yaml, &samples);
}

#[test]
fn convox_yml() {
    let mut samples = samples(&["convox.yml"]);
    samples.push(b"environment: [A=b, C]\nresources:\n  db: {type: postgres}\nservices:\n  web:\n    build: {path: ., manifest: Dockerfile, args: [X=1]}\n    image: a/b:${TAG:-x}\n    <<: &a {port: 3000}\n".to_vec());
    run(entries::convox_yml, &samples);
}

#[test]
fn compose() {
    let mut samples = samples(&["docker-compose.yml"]);
    samples.push(b"x-a: &a {args: {A: \"${B:?no}\"}}\nservices:\n  web:\n    build: {<<: *a, context: ., target: t, secrets: [s], ssh: [default], cache_from: [\"type=registry,ref=x\"], labels: {a: b}, additional_contexts: {b: ../b}}\nsecrets: {s: {file: ./s}}\n".to_vec());
    run(entries::compose, &samples);
}

#[test]
fn dockerfile() {
    let mut samples = samples(&["Dockerfile"]);
    samples.push(b"# syntax=docker/dockerfile:1\n# escape=`\nARG A=x\nFROM a AS b\nCOPY --from=b --chown=1 [\"x\", \"y/\"]\nRUN --mount=type=bind,source=.,target=/x <<EOF\nls ${A:-x}\nEOF\nADD ../x* /\n".to_vec());
    run(entries::dockerfile, &samples);
}

#[test]
fn dockerignore() {
    let mut samples = samples(&[".dockerignore"]);
    samples.push(b"# c\n**/node_modules\n!keep/**/x?.[a-z]\n\\!x\n/a/../b/\n**\n".to_vec());
    run(entries::dockerignore, &samples);
}

#[test]
fn journal() {
    let lines = [
        r#"{"seq":0,"time":"2026-01-02T03:04:05Z","event":"run-started","version":1,"run":"r1","command":"deploy","commit":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","subject":"s","branch":null,"ci_url":"https://x"}"#,
        r#"{"seq":1,"time":"2026-01-02T03:04:05Z","event":"step-started","step":{"app":"web","rack":"staging","stage":"promote"},"detail":"x"}"#,
        r#"{"seq":2,"time":"2026-01-02T03:04:05Z","event":"log","step":{"app":"web","rack":"staging","stage":"promote"},"output":"out","line":"<b>"}"#,
        r#"{"seq":3,"time":"2026-01-02T03:04:06Z","event":"step-finished","step":{"app":"web","rack":"staging","stage":"promote"},"millis":18446744073709551615,"outcome":{"outcome":"done"}}"#,
        r#"{"seq":4,"time":"2026-01-02T03:04:07Z","event":"run-finished","code":0,"millis":18446744073709551615}"#,
    ];
    run(entries::journal, &[format!("{}\n", lines.join("\n")).into_bytes(), lines[0].into(), lines[3].into()]);
}

#[test]
fn redactor() {
    let samples = [
        "it's \"a\" secret/value\0'it'\\''s \\\"a\\\" secret\\/value' %69t%27s",
        "hunter22\0aHVudGVyMjI= hunter\n22",
        "ü\u{1b}[1mn$'\0\\303\\274",
    ];
    run(entries::redactor, &samples.map(|sample| sample.as_bytes().to_vec()));
}

#[test]
fn lines() {
    run(entries::lines, &["a\r\nb\u{1b}[31mc\u{1b}]52;c;x\u{7}\r50%\r100%\n\u{202e}x".as_bytes().to_vec(), vec![b'x'; 40_000]]);
}

#[test]
fn rack_json() {
    let one = r#"{"id":"RABC","status":"running","version":"20260421192651","release":"RABC","build":"BABC","generation":"2","env":"A=1\nREVISION=x","created":"2026-11-22T19:37:36.867426953Z","description":"deploy [fp1:x]","manifest":"services: {}","name":"web","parameters":{"A":"b"},"type":"","provider":"aws","region":"us-east-1","git-sha":"x"}"#;
    let rack = wire::Rack::new();
    run(|data| rack.json(data), &[one.as_bytes().to_vec(), format!("[{one},{one}]").into_bytes(), b"[]".to_vec(), b"null".to_vec()]);
}

#[test]
fn rack_frames() {
    let frame = |first: u8, payload: &[u8]| [&[first, u8::try_from(payload.len()).unwrap()], payload].concat();
    let end = frame(0x82, b"");
    let samples = [
        [frame(0x81, b"Pulling gr\xc3"), frame(0x80, b"\xbcn\r\nERROR: x\n"), frame(0x89, b"p"), end.clone()].concat(),
        [frame(0x01, b"ERROR: unable to read logs"), frame(0x88, b"")].concat(),
        [vec![0x82, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], vec![0x82, 126, 1, 0], vec![b'x'; 256], end].concat(),
    ];
    let rack = wire::Rack::new();
    run(|data| rack.frames(data), &samples);
}
