//! Dockerfiles nobody wrote: whatever BuildKit opens for them has to count, and nothing else where all of it can be told.
//!
//! `OFFBUILD_DOCKERFILES` sets how many, `OFFBUILD_SEED` which; both are told when one goes wrong.

use super::super::{Bench, Told};
use super::{FILES, Row, held, row};
use fastrand::Rng;
use std::fmt::Write as _;

/// What an instruction may name. The last ones match more in a glob than for Docker.
const SOURCES: [&str; 24] = [
    "a.txt",
    "lib",
    "lib/",
    "./lib/deep",
    "/docs",
    "other/../a.txt",
    "apps/web/main.rb",
    "lib/*.rb",
    "lib/*",
    "*/one.rb",
    "o*/four.rb",
    "lib/[no]*.rb",
    "{b}",
    "{b}/*",
    "odd/!x.rb",
    "odd/.h*",
    "odd/d-1",
    "odd",
    "docs/*.md",
    "**/one.rb",
    "lib/t?o.rb",
    "lib/[!o]*",
    "odd/?.rb",
    "apps/*/main.rb",
];
const EXACT: usize = 20;
const NAMES: [&str; 3] = ["A", "B", "C"];
const VALUES: [&str; 6] = ["lib", "docs", "other", "a.txt", "lib/deep", ""];
const IGNORED: [&str; 10] = ["**/*.md", "lib/deep", "other", "!other/one.rb", "*", "!lib", "!docs/**", "odd/*", "!odd/d-1", "lib/*.rb"];

struct Writer {
    rng: Rng,
    text: String,
    /// Everything in it can be told to the file.
    exact: bool,
    heredocs: bool,
}

impl Writer {
    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.rng.usize(..of.len())]
    }

    /// A value, or a variable with or without something in its place.
    fn value(&mut self) -> String {
        let (name, value) = (self.one(&NAMES), self.one(&VALUES));
        match self.rng.u8(..6) {
            0 => format!("${name}"),
            1 => format!("${{{name}:-{value}}}"),
            2 => format!("${{{name}:+{value}}}"),
            3 => format!("\"{value}\""),
            _ => value.to_owned(),
        }
    }

    fn source(&mut self) -> String {
        if self.rng.u8(..5) == 0 {
            // What a variable holds may be all or nothing.
            self.exact = false;
            return self.value().replace("\"\"", ".");
        }
        let at = self.rng.usize(..SOURCES.len());
        self.exact &= at < EXACT;
        SOURCES[at].to_owned()
    }

    fn sources(&mut self) -> String {
        (0..self.rng.usize(1..3)).map(|_| self.source() + " ").collect()
    }

    fn instruction(&mut self, stage: usize) {
        let (name, value) = (self.one(&NAMES), self.value());
        let line = match self.rng.u8(..14) {
            0 => format!("ARG {name}"),
            1 => format!("ARG {name}={value}"),
            2 => format!("ENV {name}={value} {}={}", self.one(&NAMES), self.value()),
            3 => format!("ENV {name} {}", self.one(&VALUES[..5])),
            4 => format!("RUN --mount=type=bind,source={},target=/m true", self.one(&["lib", "docs", "a.txt", "odd/d-1", "./other/"])),
            5 if stage > 0 => format!("COPY --from={} /tmp /t/", self.rng.usize(..stage)),
            6 => format!("COPY [\"lib/read me.md\", \"{}\", \"/x/\"]", self.one(&SOURCES[..EXACT])),
            7 => {
                // For another stage, which there may not be.
                self.exact = false;
                let trigger = [format!("COPY {}/x/", self.sources()), format!("ENV {name}={value}"), format!("ARG {name}={value}")];
                format!("ONBUILD {}", self.rng.choice(trigger).unwrap_or_default())
            }
            8 if self.heredocs => format!("COPY <<A {}/x/\nCOPY lib /no\nA", self.sources()),
            9 if self.heredocs => "RUN <<-'A'\ntrue \\\n\tA\n".to_owned(),
            10 => format!("COPY {} \\\n  # not the end\n\n  /x/", self.sources()),
            11 => format!("ADD {}/x/", self.sources()),
            _ => format!("COPY {}/x/", self.sources()),
        };
        self.text.push_str(&line);
        self.text.push('\n');
    }

    fn dockerfile(&mut self) {
        if self.rng.bool() {
            let value = self.one(&VALUES);
            let _ = writeln!(self.text, "ARG A={value}");
        }
        let stages = self.rng.usize(1..4);
        for stage in 0..stages {
            let from = if stage > 0 && self.rng.bool() { format!("s{}", self.rng.usize(..stage)) } else { "BASE".to_owned() };
            let _ = writeln!(self.text, "FROM {from} AS s{stage}");
            for _ in 0..self.rng.usize(1..4) {
                self.instruction(stage);
            }
        }
        // Every stage is needed.
        for stage in 0..stages - 1 {
            let _ = writeln!(self.text, "COPY --from=s{stage} /tmp /t{stage}/");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_dockerfiles_read_what_counts() {
    let number = |name: &str, usual: u64| std::env::var(name).map_or(usual, |number| number.parse().unwrap());
    let (many, seed) = (number("OFFBUILD_DOCKERFILES", 24), number("OFFBUILD_SEED", fastrand::u64(..)));
    let bench = Bench::new();
    let heredocs = bench.major().await >= 23;
    let (mut wrong, mut built, mut exact) = (Vec::new(), 0, 0);
    for case in 0..many {
        let told = Told::new();
        let mut writer = Writer { rng: Rng::with_seed(seed.wrapping_add(case)), text: String::new(), exact: true, heredocs };
        writer.dockerfile();
        let ignore: String = (0..writer.rng.usize(..4)).map(|_| writer.one(&IGNORED).to_owned() + "\n").collect();
        let build = if writer.rng.bool() { "args: {A: docs}" } else { "" };
        let row = Row { dockerfile: writer.text.clone(), ignore, build, ..row("random", "", &[]) };
        let (opened, counted, failed) = held(&bench, &told, &row).await;
        let mut tell = |what: &str, files: Vec<&String>| {
            wrong.push(format!(
                "OFFBUILD_SEED={}: {what}: {files:?}\n{build}\n{}---\n{}",
                seed.wrapping_add(case),
                row.dockerfile,
                row.ignore
            ));
        };
        let forgotten: Vec<&String> = opened.difference(&counted).collect();
        if !forgotten.is_empty() {
            tell("read, and does not count", forgotten);
        }
        // One that fails may not have come to all it reads.
        if failed.is_some() {
            continue;
        }
        built += 1;
        let more: Vec<&String> = counted.difference(&opened).collect();
        if writer.exact && counted.len() < FILES.len() {
            exact += 1;
            if !more.is_empty() {
                tell("counts, and is not read", more);
            }
        }
    }
    eprintln!("{many} from OFFBUILD_SEED={seed}: {built} built, {exact} held exactly");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(built * 4 > many, "{built} of {many} were built");
}
