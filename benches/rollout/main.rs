//! `cargo bench --bench rollout`: twelve apps from nothing, with nothing changed, and with one of them changed.
//!
//! Each app has three Dockerfile steps that all apps share and two of its own, and two tags. In one run, on one engine and into
//! one registry on loopback:
//!
//! - `offbuild build`: build and push, what the others do too;
//! - `offbuild deploy`: the same, and a release of every app through one sandbox rack, serially;
//! - a loop of `docker build` and `docker push`, an app after the other, which is what scripts do;
//! - all `docker build`s at once, then all pushes at once;
//! - `docker buildx bake --push`, where buildx is installed.
//!
//! Beside them one app alone, cold: the critical path, which no order of work can be quicker than. Steps that cannot be shared
//! need cores, too: where the work of all steps over all cores is more than the critical path, that is the bound.
//!
//! "Cold" is honest without taking anybody's cache away: every contender's first step carries a word of its own, so none of its
//! steps was ever run. Needs a Docker Engine with BuildKit, a `docker` client that speaks to it, `docker-registry` and a
//! static busybox (`tests/run.sh` installs them).
//!
//! Options, after `--`: `shared=2.0` and `own=0.3` (seconds of a step), `steps=wait` (they wait instead of computing),
//! `only=build,deploy,loop,once,bake`, `jobs=N` (for offbuild).

#[path = "../support/mod.rs"]
mod support;

mod contender;
mod place;

use contender::Contender;
use place::Place;
use std::time::Duration;
use support::{asked, cores, table};

/// How many apps.
pub const APPS: usize = 12;

fn main() {
    if !asked() {
        return;
    }
    let place = Place::new();
    let step = |of: &str| format!("{:.1} s", place.seconds(of));
    println!(
        "{APPS} apps, two tags each; 3 shared steps of {}, 2 own steps of {}, {}; {} cores",
        step("shared"),
        step("own"),
        if place.waits() { "waiting" } else { "of one core each" },
        cores()
    );
    let alone = Contender::alone(&place);
    let critical = alone.cold();
    let own = if place.waits() { 1.0 } else { APPS as f64 / cores() as f64 };
    let work = 3.0 * place.seconds("shared") + 2.0 * place.seconds("own") * own;
    println!("one app alone, cold (the critical path): {:.1} s", critical.as_secs_f64());
    println!("the steps alone, shared ones once, over all cores: {work:.1} s");

    let ratio = |took: Duration, of: Duration| format!("{:.2}", took.as_secs_f64() / of.as_secs_f64());
    let mut rows = vec![["", "cold, s", "× critical path", "nothing changed, s", "one changed, s"].map(str::to_owned).to_vec()];
    for contender in Contender::all(&place) {
        let cold = contender.cold();
        let same = contender.again();
        contender.change_one();
        let one = contender.again();
        rows.push(vec![
            contender.name().to_owned(),
            format!("{:.1}", cold.as_secs_f64()),
            ratio(cold, critical),
            format!("{:.2}", same.as_secs_f64()),
            format!("{:.2}", one.as_secs_f64()),
        ]);
        contender.clean();
    }
    alone.clean();
    println!();
    table(&rows);
    if !place.has_bake() {
        println!("\n`docker buildx` is not installed here: no row for `docker buildx bake --push`.");
    }
}
