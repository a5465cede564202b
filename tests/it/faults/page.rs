//! The document: a table per service, read and written.

use super::cells::Row;
use super::table::Service;
use std::path::PathBuf;
use std::sync::Mutex;

/// Its place in the repository.
pub const FILE: &str = "docs/faults.md";
/// What writes it anew.
pub const COMMAND: &str = "OFFBUILD_MATRIX=write cargo test --locked --test it -- faults::";

const SERVICES: [Service; 9] = [
    Service::Engine,
    Service::Mover,
    Service::Registry,
    Service::Tokens,
    Service::Ecr,
    Service::Rack2,
    Service::Rack3,
    Service::Import,
    Service::External,
];

const INTRODUCTION: &str = "\
# What offbuild does when a call goes wrong

Each row is a deploy of one app that runs already, with one call going wrong: once, and every time. Written by
`OFFBUILD_MATRIX=write cargo test --locked --test it -- faults::`, and held by the same tests: do not edit it by hand. After each
of these deploys the fault was taken away, and a plain `offbuild deploy` brought the commit to where it belongs.

The faults: **refused**: nobody listens, from this call on. **timeout**: the service does what it is asked, and no answer comes.
**dropped**: the connection is closed before the service gets the call. **reset**: the service does what it is asked, and the
connection breaks in the middle of the answer. **401** … **503**: that status, and nothing is done; for ECR the exception that AWS
sends for it (429 is `ThrottlingException`). **garbage**: `200 OK` with a page of HTML, and nothing is done.

**once** is how the deploy ends when it happens once. The rest is about a call that goes wrong every time: how often it is
**sent**, how the deploy **ends**, the **exit** code, and what is **live** then. `not begun` ends before anything is built or
changed.

The engine is of version 20.10. One that keeps images in containerd's store pushes in its own way: a broken `push: upload`, which
this one sends until the limit of a push, ends there as `failed(push)` after a few tries.
";

static FILE_LOCK: Mutex<()> = Mutex::new(());

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(FILE)
}

/// The rows of a service.
pub fn read(service: Service) -> Vec<Row> {
    let _lock = FILE_LOCK.lock().unwrap();
    rows(&std::fs::read_to_string(path()).unwrap_or_default(), service)
}

fn rows(text: &str, service: Service) -> Vec<Row> {
    let heading = format!("## {}\n", service.heading());
    let Some((_, section)) = text.split_once(&heading) else { return Vec::new() };
    let section = section.split("\n## ").next().unwrap_or_default();
    let table = section.lines().filter(|line| line.starts_with("| ")).skip(1);
    let mut call = String::new();
    table
        .map(|line| {
            let cells: Vec<String> = line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
            let [name, fault, once, sent, always, exit, live] = <[String; 7]>::try_from(cells).unwrap();
            if !name.is_empty() {
                call = name;
            }
            Row { call: call.clone(), fault, once, sent, always, exit, live }
        })
        .collect()
}

/// Writes the rows of a service, and leaves the others as they are.
pub fn write(service: Service, written: &[Row]) {
    let _lock = FILE_LOCK.lock().unwrap();
    let known = std::fs::read_to_string(path()).unwrap_or_default();
    let mut text = INTRODUCTION.to_owned();
    for of in SERVICES {
        let known = rows(&known, of);
        text.push_str(&section(of, if of == service { written } else { &known }));
    }
    std::fs::create_dir_all(path().parent().unwrap()).unwrap();
    std::fs::write(path(), text).unwrap();
}

fn section(service: Service, rows: &[Row]) -> String {
    let mut text =
        format!("\n## {}\n\n| call | fault | once | sent | ends | exit | live |\n|---|---|---|---|---|---|---|\n", service.heading());
    let mut last = "";
    for row in rows {
        let Row { call, fault, once, sent, always, exit, live } = row;
        let name = if call == last { "" } else { call };
        text.push_str(&format!("| {name} | {fault} | {once} | {sent} | {always} | {exit} | {live} |\n"));
        last = call;
    }
    text
}
