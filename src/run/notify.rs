//! Sends what `notify` asks for. Nothing waits for it but the program's end, and that no longer than [`LIMIT`]; what cannot be sent
//! is one notice and fails nothing.

use super::world::World;
use crate::config::NotifyConfig;
use crate::config::file::{NotifyFormat, NotifyOn};
use crate::event::{EventKind, Events};
use crate::report::Sink;
use crate::report::notify::{Message, Notify, Wish};
use crate::secret::Secret;
use reqwest::header::HeaderMap;
use serde_json::Value;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;

/// How long a message may take, and how long the program's end waits for the last ones.
const LIMIT: Duration = Duration::from_secs(5);

/// The listeners of a run.
#[derive(Default)]
pub(super) struct Listeners {
    /// Each ends when its sink is gone, with what nobody could be told of any more when it failed.
    sending: Vec<JoinHandle<Vec<String>>>,
    /// Why some listeners cannot be told anything.
    pub(super) unheard: Vec<String>,
}

impl Listeners {
    /// The listeners of the configuration, each with a sink of its own.
    pub(super) fn of(world: &World, events: &Events) -> (Self, Vec<Box<dyn Sink>>) {
        let (mut listeners, mut sinks) = (Self::default(), Vec::<Box<dyn Sink>>::new());
        for config in &world.config.notify {
            let url = match &config.url.value {
                Ok(url) => url.clone(),
                Err(why) => {
                    listeners.unheard.push(format!("nobody is told as `notify` at {} asks: {why}", config.place));
                    continue;
                }
            };
            world.redactor.register(&url);
            let (out, messages) = unbounded_channel();
            sinks.push(Box::new(Notify::new(wish(config), out)));
            listeners.sending.push(tokio::spawn(send_all(format!("`notify` at {}", config.place), url, messages, events.clone())));
        }
        (listeners, sinks)
    }

    /// Waits until the last messages are sent, or for [`LIMIT`]; tells people what could not be.
    pub(super) async fn end(self) {
        let deadline = tokio::time::Instant::now() + LIMIT;
        for mut sending in self.sending {
            let problems = match tokio::time::timeout_at(deadline, &mut sending).await {
                Ok(sent) => sent.unwrap_or_default(),
                Err(_) => {
                    sending.abort();
                    vec![format!("`notify` was not told of the run's end within {} s", LIMIT.as_secs())]
                }
            };
            problems.iter().for_each(|problem| super::tell(format!("warning: {problem}")));
        }
    }
}

fn wish(config: &NotifyConfig) -> Wish {
    let on = |moment: NotifyOn| config.on.contains(&moment);
    Wish {
        slack: config.format == NotifyFormat::Slack,
        start: on(NotifyOn::Start),
        end: on(NotifyOn::End),
        failure: on(NotifyOn::Failure),
        racks: config.racks.clone(),
    }
}

/// Sends the messages of a listener in their order. The end of the run is told by journal and screen, so what fails after it is
/// returned, not recorded.
async fn send_all(name: String, url: Secret, mut messages: UnboundedReceiver<Message>, events: Events) -> Vec<String> {
    let mut failed = Vec::new();
    while let Some(message) = messages.recv().await {
        let Err(why) = post(&url, HeaderMap::new(), &message.body).await else { continue };
        let problem = format!("{name} could not be told of the run's {}: {why}", if message.last { "end" } else { "start" });
        if message.last || events.is_over() {
            failed.push(events.redactor().redact(&problem).into_owned());
        } else {
            events.send(EventKind::Notice { step: None, message: problem });
        }
    }
    failed
}

/// Posts one body of JSON. No error names the address: who knows it can post, too.
pub(super) async fn post(url: &Secret, headers: HeaderMap, body: &Value) -> Result<(), String> {
    let client = reqwest::Client::builder()
        .user_agent(concat!("offbuild/", env!("CARGO_PKG_VERSION")))
        // The address is a secret, and a redirect would turn the message into a question.
        .redirect(reqwest::redirect::Policy::none())
        .timeout(LIMIT)
        .build();
    let client = client.map_err(|error| error.without_url().to_string())?;
    let answer = client.post(url.expose()).headers(headers).json(body).send().await.map_err(|error| {
        if error.is_timeout() { format!("no answer within {} s", LIMIT.as_secs()) } else { causes(&error.without_url()) }
    })?;
    if answer.status().is_success() { Ok(()) } else { Err(format!("it answered {}", answer.status())) }
}

/// An error with what lies behind it, in one line.
fn causes(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
