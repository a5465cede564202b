//! The known word nearest to one that is not known.

/// The candidate that `word` was most likely meant to be, when one is near enough.
pub fn nearest<'c>(word: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    let lower = word.to_lowercase();
    if lower.is_empty() {
        return None;
    }
    candidates
        .filter_map(|candidate| {
            let distance = strsim::damerau_levenshtein(&lower, &candidate.to_lowercase());
            let near = distance <= (word.len().max(candidate.len()) / 3).max(1);
            // `timeout` for `timeouts.build`, `prod` for `production`.
            let begins = word.len() >= 3 && candidate.to_lowercase().starts_with(&lower);
            (near || begins).then_some((distance, candidate))
        })
        .min()
        .map(|(_, candidate)| candidate)
}

/// "did you mean `…`?", when a candidate is near enough.
pub fn did_you_mean<'c>(word: &str, candidates: impl Iterator<Item = &'c str>) -> Option<String> {
    nearest(word, candidates).map(|candidate| format!("did you mean `{candidate}`?"))
}

/// What to say about a name that is not there: the nearest one, else all of them.
pub fn known<'c>(word: &str, candidates: impl Iterator<Item = &'c str> + Clone, none: &str) -> String {
    did_you_mean(word, candidates.clone()).unwrap_or_else(|| {
        let mut all: Vec<String> = candidates.map(|candidate| format!("`{candidate}`")).collect();
        let more = all.len().saturating_sub(10);
        all.truncate(10);
        match (all.is_empty(), more) {
            (true, _) => none.to_owned(),
            (false, 0) => format!("there are: {}", all.join(", ")),
            (false, more) => format!("there are: {} and {more} more", all.join(", ")),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_near() {
        let words = ["racks", "registry", "registries", "apps", "production"];
        for (word, expected) in [
            ("rack", Some("racks")),
            ("regsitry", Some("registry")),
            ("prod", Some("production")),
            ("App", Some("apps")),
            ("hooks", None),
            ("x", None),
        ] {
            assert_eq!(nearest(word, words.into_iter()), expected, "{word}");
        }
    }
}
