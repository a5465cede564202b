//! The fault matrix: each call offbuild makes × each way it can go wrong.
//!
//! A cell is a deploy of the real binary of a one-app repository, through a front before the service that does one thing wrong
//! to one call: once (a stumble), and every time (an illness). What a cell has to end with stands in `docs/faults.md`, which is
//! made from the same cells; what no cell may ever do stands in [`cells`]. After each cell the fault is taken away and a plain
//! `deploy` has to bring the commit to where it belongs.
//!
//! With the other tests one fault of each call is run, a different one for each. `OFFBUILD_MATRIX=all` runs every cell,
//! `OFFBUILD_MATRIX=503` those of one fault, and `OFFBUILD_MATRIX=write` every cell to write the document anew.

mod bed;
mod cells;
mod limits;
mod page;
mod table;

use table::Service;

#[test]
fn the_docker_engine() {
    cells::check(Service::Engine);
}

#[test]
fn a_registry() {
    cells::check(Service::Registry);
}

#[test]
fn a_registry_with_tokens() {
    cells::check(Service::Tokens);
}

#[test]
fn amazon_ecr() {
    cells::check(Service::Ecr);
}

#[test]
fn a_rack_of_version_2() {
    cells::check(Service::Rack2);
}

#[test]
fn a_rack_of_version_3_that_builds() {
    cells::check(Service::Rack3);
}

#[test]
fn a_rack_of_version_3_that_imports() {
    cells::check(Service::Import);
}

#[test]
fn a_rack_of_version_3_that_is_pushed_to() {
    cells::check(Service::External);
}

#[test]
fn the_docker_engine_for_a_rack_that_is_pushed_to() {
    cells::check(Service::Mover);
}
