//! Sends a run's spans to an OpenTelemetry collector when the environment names one: once, when the run is over, over HTTP as JSON.
//! What cannot be sent is a warning and fails nothing.

use super::notify::post;
use super::tell;
use super::world::World;
use crate::event::{EventKind, Events};
use crate::report::otlp::{self, Parent};
use crate::report::state::RunState;
use crate::secret::Secret;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

/// Where the spans of a run go.
pub(super) struct Exporter {
    url: Secret,
    headers: HeaderMap,
    service: String,
    parent: Option<Parent>,
}

impl Exporter {
    /// What the environment asks for, as OpenTelemetry's SDKs read it; `None` without an endpoint. Headers are masked from
    /// now on; what is wrong with them is a notice.
    pub(super) fn of(world: &World, events: &Events) -> Option<Self> {
        let value = |name: &str| (world.env)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let base = || value("OTEL_EXPORTER_OTLP_ENDPOINT").map(|base| format!("{}/v1/traces", base.trim_end_matches('/')));
        let url = value("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(base)?;
        let mut headers = HeaderMap::new();
        let written = value("OTEL_EXPORTER_OTLP_TRACES_HEADERS").or_else(|| value("OTEL_EXPORTER_OTLP_HEADERS")).unwrap_or_default();
        for pair in written.split(',').filter(|pair| !pair.trim().is_empty()) {
            let Some((name, value)) = header(pair) else {
                let message = "a header for the OpenTelemetry collector is not sent: it is not written as `NAME=VALUE`".to_owned();
                events.send(EventKind::Notice { step: None, message });
                continue;
            };
            // As it is written, as it is sent, and without the `Bearer` before it: a hook may show any of them. Plain words are the
            // names of data sets and the like.
            let sent = value.to_str().unwrap_or_default();
            let written = pair.split_once('=').map_or("", |(_, written)| written.trim());
            for spelled in [written, sent, sent.rsplit(' ').next().unwrap_or_default()] {
                world.redactor.register_variable("SECRET", spelled);
            }
            headers.insert(name, value);
        }
        Some(Self {
            url: Secret::new(url),
            headers,
            service: value("OTEL_SERVICE_NAME").unwrap_or_else(|| "offbuild".to_owned()),
            parent: value("TRACEPARENT").as_deref().and_then(Parent::parse),
        })
    }

    /// Sends the spans of a run that is over.
    pub(super) async fn send(&self, state: &RunState) {
        let Some(spans) = otlp::render(state, &self.service, self.parent.as_ref()) else { return };
        if let Err(why) = post(&self.url, self.headers.clone(), &spans).await {
            tell(format!("warning: the run's trace could not be sent to the OpenTelemetry collector: {why}"));
        }
    }
}

/// A header as `OTEL_EXPORTER_OTLP_HEADERS` has it: the value percent-encoded, as in W3C's `baggage`.
fn header(pair: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = pair.split_once('=')?;
    let value = percent_encoding::percent_decode_str(value.trim()).decode_utf8().ok()?;
    let mut value = HeaderValue::from_str(&value).ok()?;
    value.set_sensitive(true);
    Some((HeaderName::from_bytes(name.trim().as_bytes()).ok()?, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_sdks_read_them() {
        for (pair, wanted) in [
            ("authorization=Bearer%20abc", Some(("authorization", "Bearer abc"))),
            (" x-key = a=b ", Some(("x-key", "a=b"))),
            ("novalue", None),
            ("bad name=x", None),
            ("x=%0a", None),
        ] {
            let read = header(pair);
            let read = read.as_ref().map(|(name, value)| (name.as_str(), value.to_str().unwrap()));
            assert_eq!(read, wanted, "{pair}");
        }
    }
}
