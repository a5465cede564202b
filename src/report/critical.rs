//! The critical path: the steps that the end of the run waited for, one after the other.
//!
//! Events tell when steps began and ended, not what each waited for. What it can have waited for is known all the same: a step of
//! a lane for the one before it in the lane and for images, an image's step for the app's own and for a place among the builds.
//! Of those, the one that ended last before it began is what it waited for.

use crate::event::Step;
use crate::report::state::{RunState, StepState};
use time::OffsetDateTime;

/// The path, first step first; empty when nothing was begun.
pub(super) fn path(state: &RunState) -> Vec<(&Step, &StepState)> {
    let mut left = state.steps_in_order();
    let Some(end) = state.last else { return Vec::new() };
    let ended = |known: &StepState| known.ended.unwrap_or(end);
    let mut path: Vec<(&Step, &StepState)> = Vec::new();
    loop {
        let before = |(_, (step, known)): &(usize, &(&Step, &StepState))| match path.last() {
            None => true,
            Some((next, then)) => ended(known) <= then.started && may_wait(next, then.started, step, state),
        };
        // Of two that ended together, the one that began later: a step that took no time hides none before it.
        let last = left.iter().enumerate().filter(before).max_by_key(|(_, (_, known))| (ended(known), known.order));
        let Some(place) = last.map(|(place, _)| place) else { break };
        path.push(left.remove(place));
    }
    path.reverse();
    path
}

/// True when `step`, begun at `began`, can have waited for `before`.
fn may_wait(step: &Step, began: OffsetDateTime, before: &Step, state: &RunState) -> bool {
    match (&step.rack, &before.rack) {
        (_, None) => true,
        (None, Some(_)) => false,
        // One rack after another: only what comes first on a rack waits for another one.
        (Some(rack), Some(other)) => {
            let first = || !state.steps.iter().any(|(known, is)| known.rack.as_ref() == Some(rack) && is.started < began);
            rack == other || first()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    #[test]
    fn it_goes_from_the_first_step_to_the_end_of_the_run_and_no_step_begins_before_the_last_one_ended() {
        for (name, events) in samples::all() {
            let state = RunState::replay(&events);
            let path = path(&state);
            assert_eq!(path.is_empty(), state.steps.is_empty(), "{name}");
            for pair in path.windows(2) {
                assert!(pair[0].1.ended.unwrap() <= pair[1].1.started, "{name}: {:?} {:?}", pair[0].0, pair[1].0);
            }
        }
    }

    #[test]
    fn a_lane_waits_for_images_and_an_image_for_no_lane() {
        use crate::event::{Stage, StepOutcome::Done};
        let mut run = samples::Stream::start();
        run.begin("slow/web", Stage::Build, "").begin("fast/web", Stage::Build, "").pass(10).end("fast/web", Stage::Build, 10, Done);
        run.begin("fast@one", Stage::Stage, "").pass(10).end("fast@one", Stage::Stage, 10, Done).pass(10);
        run.end("slow/web", Stage::Build, 30, Done).begin("slow/web", Stage::Push, "").pass(5).end("slow/web", Stage::Push, 5, Done);
        run.begin("slow@one", Stage::Stage, "").begin("fast@two", Stage::Stage, "").pass(1).end("fast@two", Stage::Stage, 1, Done);
        run.pass(8).end("slow@one", Stage::Stage, 9, Done);
        let state = RunState::replay(&run.events());
        let names: Vec<String> = path(&state).iter().map(|(step, _)| format!("{} {}", step.subject(), step.stage.name())).collect();
        assert_eq!(names, ["slow/web build", "slow/web push", "slow@one stage"]);
    }
}
