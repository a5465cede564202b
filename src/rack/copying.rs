//! Why a release is a copy of another one. The rack keeps no more of it than the copy's description, so that is where it is said:
//! a copy made by hand is a person's word, which the next deploy respects; one that offbuild made for a reason of its own is not.

use crate::names::{ReleaseId, RunId};

/// Why a release is copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Copying {
    /// Somebody asked for it (`offbuild rollback`): the next deploy leaves it alone.
    Rollback,
    /// What is live is put on top of a release that was left behind (`--heal`); it is not promoted.
    Heal,
    /// An app of the same group failed in this run; the next deploy is to try again.
    Group {
        /// The group.
        group: String,
        /// The run.
        run: RunId,
    },
}

/// What the descriptions of copies begin with that nobody asked for.
const HEAL: &str = "[offbuild heal]";
const GROUP: &str = "[offbuild group ";

impl Copying {
    /// The description of the copy of `of`.
    #[must_use]
    pub fn description(&self, of: &ReleaseId) -> String {
        match self {
            Self::Rollback => format!("rollback to {of}"),
            Self::Heal => format!("{HEAL} copy of {of}, the active release"),
            Self::Group { group, run } => format!("{GROUP}{group} run:{run}] back to {of}"),
        }
    }

    /// True for the description of a copy that says nothing about what people want: offbuild made it to clean up.
    #[must_use]
    pub fn is_cleanup(description: &str) -> bool {
        description.starts_with(HEAL) || description.starts_with(GROUP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_somebody_asked_for_counts_as_their_word() {
        let of = ReleaseId::new("RABC").unwrap();
        let group = Copying::Group { group: "checkout".to_owned(), run: RunId::new("20261122-213000-1f2e").unwrap() };
        assert_eq!(group.description(&of), "[offbuild group checkout run:20261122-213000-1f2e] back to RABC");
        assert_eq!(Copying::Rollback.description(&of), "rollback to RABC");
        let cleanup = [&Copying::Rollback, &Copying::Heal, &group].map(|copying| Copying::is_cleanup(&copying.description(&of)));
        assert_eq!(cleanup, [false, true, true]);
        assert!(!Copying::is_cleanup("Revert [offbuild heal]") && !Copying::is_cleanup("env add:A"));
    }
}
