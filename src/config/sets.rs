//! Named sets of paths, taken apart, and cycles in anything that refers to something.

use super::file::{File, SharedSet};
use std::collections::{BTreeMap, BTreeSet};

/// A word of a `uses`, after the sets it names have been taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leaf<'f> {
    /// The path, or a word that names no set.
    pub word: &'f str,
    /// The set it is written in and its keys and index there; `None` when it stands in the `uses` itself.
    pub set: Option<(&'f str, &'static [&'static str])>,
    /// Its index in that list.
    pub index: usize,
    /// The sets it came through, outermost first.
    pub through: Vec<String>,
    /// It stands where only sets may stand.
    pub only_set: bool,
}

/// Takes the sets of a `uses` apart. Each set is visited once, by the shortest way in the order written; cycles end.
pub(super) fn expand<'f>(file: &'f File, uses: &'f [String]) -> Vec<Leaf<'f>> {
    let mut leaves = Vec::new();
    let mut seen = BTreeSet::new();
    for (index, word) in uses.iter().enumerate() {
        let leaf = Leaf { word, set: None, index, through: Vec::new(), only_set: false };
        walk(file, leaf, &mut seen, &mut leaves);
    }
    leaves
}

fn walk<'f>(file: &'f File, leaf: Leaf<'f>, seen: &mut BTreeSet<&'f str>, leaves: &mut Vec<Leaf<'f>>) {
    let Some((name, set)) = file.shared.iter().find(|(name, _)| *name == leaf.word) else {
        leaves.push(leaf);
        return;
    };
    if !seen.insert(name) {
        return;
    }
    let mut through = leaf.through;
    through.push(name.to_owned());
    let mut enter = |list: &'f [String], keys: &'static [&'static str], sets: bool, paths: bool| {
        for (index, word) in list.iter().enumerate() {
            let leaf = Leaf { word, set: Some((name, keys)), index, through: through.clone(), only_set: sets && !paths };
            if sets { walk(file, leaf, seen, leaves) } else { leaves.push(leaf) }
        }
    };
    match set {
        SharedSet::Paths(list) => enter(list, &[], true, true),
        SharedSet::Set(set) => {
            enter(&set.paths, &["paths"], false, true);
            enter(&set.uses, &["uses"], true, false);
        }
    }
}

/// The sets a set refers to.
pub(super) fn references(set: &SharedSet) -> &[String] {
    match set {
        SharedSet::Paths(list) => list,
        SharedSet::Set(set) => &set.uses,
    }
}

/// Every cycle that a walk in order meets, each as the names on it, the first one again at the end.
pub(super) fn cycles<'g>(graph: &BTreeMap<&'g str, Vec<&'g str>>) -> Vec<Vec<&'g str>> {
    fn visit<'g>(
        node: &'g str,
        graph: &BTreeMap<&'g str, Vec<&'g str>>,
        way: &mut Vec<&'g str>,
        done: &mut BTreeSet<&'g str>,
        found: &mut Vec<Vec<&'g str>>,
    ) {
        if let Some(at) = way.iter().position(|on_way| *on_way == node) {
            let mut cycle = way[at..].to_vec();
            cycle.push(node);
            found.push(cycle);
            return;
        }
        if done.contains(node) {
            return;
        }
        way.push(node);
        for next in graph.get(node).into_iter().flatten() {
            visit(next, graph, way, done, found);
        }
        way.pop();
        done.insert(node);
    }
    let (mut done, mut found) = (BTreeSet::new(), Vec::new());
    for node in graph.keys() {
        visit(node, graph, &mut Vec::new(), &mut done, &mut found);
    }
    found
}

/// A cycle for people: `a` → `b` → `a`.
pub(super) fn arrows(cycle: &[&str]) -> String {
    cycle.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" → ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cycle_is_found_once() {
        let graph = BTreeMap::from([("a", vec!["b"]), ("b", vec!["c", "d"]), ("c", vec!["a"]), ("d", vec!["d"]), ("e", vec!["a"])]);
        let found: Vec<String> = cycles(&graph).iter().map(|cycle| arrows(cycle)).collect();
        assert_eq!(found, ["`a` → `b` → `c` → `a`", "`d` → `d`"]);
    }
}
