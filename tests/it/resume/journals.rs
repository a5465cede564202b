//! What a damaged journal means for the runs after it.

use super::setup::Setup;
use std::io::Write as _;

/// A run that staged and promoted nothing, and where its journal is.
fn staged() -> (Setup, std::path::PathBuf) {
    let setup = Setup::new();
    setup.run(&["deploy", "--no-promote"]).code(0);
    let journal = setup.repo.path(&format!(".offbuild/runs/{}.jsonl", setup.last_run()));
    (setup, journal)
}

#[test]
fn a_journal_of_a_newer_offbuild_is_not_gone_on_with_and_no_older_run_is_taken_for_it() {
    let (setup, older) = staged();
    let text = std::fs::read_to_string(&older).unwrap();
    let newer = older.with_file_name("29990101-000000-aaaa.jsonl");
    std::fs::write(&newer, text.replacen("\"version\":1", "\"version\":99", 1)).unwrap();
    let refused = setup.run(&["deploy", "--resume"]).code(3);
    refused.says("has format 99; this offbuild reads up to 1").says("name the run to go on with");
    setup.run(&["deploy", "--resume", "2999"]).code(3).says("has format 99");
    assert_eq!(setup.promotes(), [0, 0]);
    // The racks tell enough.
    setup.run(&["deploy"]).code(0);
    assert_eq!(setup.promotes(), [1, 1]);
}

#[test]
fn a_torn_last_line_loses_that_line_only() {
    let (setup, journal) = staged();
    let builds = ["two", "three"].map(|rack| setup.requests(rack, "POST", "/builds"));
    std::fs::File::options().append(true).open(&journal).unwrap().write_all(b"{\"seq\":999,\"time\":\"20").unwrap();
    setup.run(&["deploy", "--resume"]).code(0).says("is taken over");
    assert_eq!(setup.promotes(), [1, 1]);
    assert_eq!(["two", "three"].map(|rack| setup.requests(rack, "POST", "/builds")), builds, "staged again");
}

#[test]
fn a_broken_line_in_the_middle_is_told_by_its_number() {
    let (setup, journal) = staged();
    let text = std::fs::read_to_string(&journal).unwrap();
    let (first, rest) = text.split_once('\n').unwrap();
    std::fs::write(&journal, format!("{first}\nnot an event\n{rest}")).unwrap();
    setup.run(&["deploy", "--resume"]).code(3).says("line 2 of the journal").says("offbuild deploy");
    setup.run(&["deploy"]).code(0);
    assert_eq!(setup.promotes(), [1, 1]);
}

#[test]
fn a_journal_that_cannot_be_made_stops_the_run_before_anything_is_done() {
    let setup = Setup::new();
    std::fs::create_dir_all(setup.repo.path(".offbuild")).unwrap();
    // Whoever runs the tests may be root, whom no mode bits hold up.
    std::fs::write(setup.repo.path(".offbuild/runs"), "in the way").unwrap();
    setup.run(&["deploy"]).code(3).says("the journal of run `").says("make `.offbuild` in the repository's root writable");
    assert_eq!(["two", "three"].map(|rack| setup.requests(rack, "POST", "/builds")), [0, 0]);
}

#[test]
fn a_journal_that_cannot_grow_ends_with_a_word_and_the_run_does_not() {
    let setup = Setup::new();
    // As on a full disk: no file of the run may have more than 4 KiB, and the journal has more.
    let program = env!("CARGO_BIN_EXE_offbuild");
    let script = format!("trap '' XFSZ; ulimit -f 8; exec '{program}' deploy");
    let done = setup.offbuild().shell(&script).code(0);
    done.says("cannot be written, so it ends here");
    assert_eq!(setup.promotes(), [1, 1]);
    setup.run(&["deploy"]).code(0);
    setup.run(&["deploy", "--resume"]).code(0);
    assert_eq!(setup.promotes(), [1, 1]);
}
