//! What a verdict names is exactly what it rests on, over the histories and rules of `brute`: with the named paths as they were
//! the app is left alone, with one of them as it is now it is not, and no other path makes a difference.

use super::brute::{ANY, Edit, Files, Workshop, apply, cases, some_edit, some_rules};
use offbuild::changes::History;
use offbuild::changes::affected::affected;
use offbuild::changes::fingerprint::fingerprint;
use offbuild::changes::git::Git;
use offbuild::names::CommitId;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::cell::RefCell;
use std::collections::BTreeSet;

/// `to` with `paths` as `from` has them; `None` where a file of the one stands in the way of a file of the other.
fn with(to: &Files, from: &Files, paths: &BTreeSet<String>) -> Option<Files> {
    let mut files = to.clone();
    paths.iter().for_each(|path| apply(&mut files, &Edit::Delete(path.clone())));
    for path in paths {
        if let Some((mode, content)) = from.get(path) {
            apply(&mut files, &Edit::Set(path.clone(), *mode, *content));
        }
    }
    let others =
        |files: &Files| -> Files { files.iter().filter(|(path, _)| !paths.contains(*path)).map(|(p, f)| (p.clone(), *f)).collect() };
    (others(&files) == others(to)).then_some(files)
}

/// A state, and the paths that are to be named when it is compared with the first one.
type Expected = (Files, BTreeSet<String>);

/// What an app's verdict has to be when some of the changed paths are taken back.
fn variants(old: &Files, new: &Files, named: &BTreeSet<String>, changed: &BTreeSet<String>) -> Vec<Expected> {
    let unnamed: BTreeSet<String> = changed.difference(named).cloned().collect();
    let mut all = vec![(with(new, old, named), BTreeSet::new()), (with(new, old, &unnamed), named.clone())];
    for path in named {
        let one = BTreeSet::from([path.clone()]);
        all.push((with(old, new, &one), one.clone()));
        all.push((with(new, old, &one), named - &one));
    }
    for path in unnamed {
        all.push((with(new, old, &BTreeSet::from([path.clone()])), named.clone()));
        all.push((with(old, new, &BTreeSet::from([path])), BTreeSet::new()));
    }
    all.into_iter().filter_map(|(files, named)| Some((files?, named))).collect()
}

#[test]
fn taking_back_what_is_named_flips_the_verdict_and_nothing_else_does() {
    let config = ProptestConfig { cases: cases(100), failure_persistence: None, max_shrink_iters: 500, ..ProptestConfig::default() };
    let edits = |most: usize| proptest::collection::vec(some_edit(ANY), 1..most);
    let world = (edits(12), edits(10), some_rules());
    let workshop = RefCell::new(Workshop::open());
    // How often each kind of question was put: a property about nothing would hold, too.
    let asked = RefCell::new([0_usize; 2]);
    let outcome = TestRunner::new(config).run(&world, |(first, second, rules)| {
        let mut workshop = workshop.borrow_mut();
        workshop.next();
        let mut old = Files::new();
        first.iter().for_each(|edit| apply(&mut old, edit));
        let mut new = old.clone();
        second.iter().for_each(|edit| apply(&mut new, edit));
        let inputs = workshop.inputs(&rules);
        let commits = workshop.import(&[old.clone(), new.clone()]);
        let history = Git::open(&workshop.repo.root).unwrap().unwrap();
        let changes = history.changes(&commits[0].0, &commits[1].0).unwrap();
        let changed: BTreeSet<String> = changes.iter().map(|change| change.path.to_string()).collect();
        let found = affected(&inputs, &changes);
        for app in &inputs {
            let reasons = found.reasons.get(&app.app).into_iter().flatten();
            let named: BTreeSet<String> = reasons.map(|reason| reason.change.path.to_string()).collect();
            let (states, expected): (Vec<Files>, Vec<BTreeSet<String>>) = variants(&old, &new, &named, &changed).into_iter().unzip();
            let all: Vec<Files> = std::iter::once(old.clone()).chain(states).collect();
            let commits: Vec<CommitId> = workshop.import(&all).into_iter().map(|(commit, _)| commit).collect();
            let history = Git::open(&workshop.repo.root).unwrap().unwrap();
            let print = |commit: &CommitId| fingerprint(&history, commit, app, "digest", &[]).unwrap();
            for (commit, expected) in commits[1..].iter().zip(expected) {
                let found = affected(&inputs, &history.changes(&commits[0], commit).unwrap());
                let named = found.reasons.get(&app.app).into_iter().flatten().map(|reason| reason.change.path.to_string());
                prop_assert_eq!(&named.collect::<BTreeSet<String>>(), &expected, "{}", app.app);
                prop_assert_eq!(print(commit) == print(&commits[0]), expected.is_empty(), "the fingerprint of {}", app.app);
                asked.borrow_mut()[usize::from(expected.is_empty())] += 1;
            }
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    assert!(asked.borrow().iter().all(|asked| *asked > 50), "{asked:?}");
}
