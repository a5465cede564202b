//! How a call fails, told apart: the rack said no, it never got the call, or nobody knows.

use crate::secret::Redactor;
use reqwest::header::WWW_AUTHENTICATE;

/// No answer of a rack is larger, in bytes; a build's stored log may be, and then is not read.
const LARGEST_BODY: usize = 64 << 20;
/// Longest text taken out of an error answer, in bytes.
const LONGEST_MESSAGE: usize = 600;

/// Why a call has no good answer.
#[derive(Debug, Clone)]
pub(super) enum CallError {
    /// The rack (or the balancer before it) answered an error.
    Answered {
        /// The status of the answer.
        status: u16,
        /// Its text, without the JSON around it; empty when there was none.
        message: String,
    },
    /// No connection: the rack never got it.
    NotSent {
        /// Why.
        message: String,
        /// The certificate was refused: trying again cannot help.
        certificate: bool,
    },
    /// It was sent, and the answer did not come or could not be read.
    Lost {
        /// Why.
        message: String,
    },
}

impl CallError {
    /// The object does not exist. Version 3 says so with 500 for builds, releases and processes.
    pub(super) fn is_not_found(&self) -> bool {
        match self {
            Self::Answered { status: 404, message } => !message.is_empty(),
            Self::Answered { status: 500, message } => message.ends_with("\" not found"),
            _ => false,
        }
    }

    /// The answer came from the balancer: the rack is not there just now, or did not answer it in time.
    pub(super) fn is_balancer(&self) -> bool {
        matches!(self, Self::Answered { status: 502..=504, .. })
    }

    /// AWS asks to come back later.
    pub(super) fn is_throttled(&self) -> bool {
        matches!(self, Self::Answered { status: 429, .. })
            || matches!(self, Self::Answered { status: 500, message } if message.contains("Throttling") || message.contains("Rate exceeded"))
    }

    /// Nobody knows whether a change that ended like this was carried out.
    pub(super) fn is_unsure(&self) -> bool {
        matches!(self, Self::Lost { .. }) || self.is_balancer() || self.is_throttled()
    }

    /// How often a call that can be repeated is tried when it ends like this.
    pub(super) fn tries(&self) -> u32 {
        match self {
            Self::NotSent { certificate: true, .. } => 1,
            Self::NotSent { .. } => 3,
            Self::Lost { .. } => 4,
            _ if self.is_balancer() || self.is_throttled() => 5,
            Self::Answered { status: 500, .. } if !self.is_not_found() => 2,
            Self::Answered { .. } => 1,
        }
    }

    /// What it said.
    pub(super) fn message(&self) -> &str {
        match self {
            Self::Answered { message, .. } | Self::NotSent { message, .. } | Self::Lost { message } => message,
        }
    }
}

/// The body of an answer. One that does not end is given up, when it is larger than memory should hold, or by the call's time limit.
pub(super) async fn body(mut response: reqwest::Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| chain(&error))? {
        if body.len() + chunk.len() > LARGEST_BODY {
            return Err(format!("the answer is larger than {} MiB", LARGEST_BODY >> 20));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// An error answer: its text or the JSON around it, the console's demand for a session, nothing of a balancer's page.
pub(super) async fn answered(response: reqwest::Response) -> CallError {
    let status = response.status().as_u16();
    let session = response.headers().get(WWW_AUTHENTICATE).is_some_and(|value| value.as_bytes().starts_with(b"Session"));
    // Of an error without end, nothing is shown.
    let text = body(response).await.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned()).unwrap_or_default();
    let message =
        if session { "the console asks for a second factor; use a deploy key, which needs none".to_owned() } else { message_of(&text) };
    CallError::Answered { status, message }
}

fn message_of(text: &str) -> String {
    #[derive(serde::Deserialize)]
    struct Wrapped {
        error: String,
    }
    let text = serde_json::from_str::<Wrapped>(text).map_or_else(|_| text.to_owned(), |wrapped| wrapped.error);
    if text.starts_with('<') {
        return String::new();
    }
    // AWS's texts have a second line with a request id.
    let text = Redactor::of_process().redact(&text).into_owned();
    let line = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    Redactor::of_process().shortened(&line, LONGEST_MESSAGE)
}

/// A failure without an answer: was it before or after the call was sent?
pub(super) fn transport(error: &reqwest::Error) -> CallError {
    let message = chain(error);
    if error.is_connect() || error.is_builder() {
        CallError::NotSent { message, certificate: is_tls(error) }
    } else {
        CallError::Lost { message }
    }
}

/// True when TLS, not the network, refused the connection.
fn is_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<rustls::Error>() {
            return true;
        }
        // An I/O error's source is the source of what it wraps, so what it wraps has to be asked for.
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = wrapped.map(|wrapped| wrapped as &(dyn std::error::Error + 'static)).or_else(|| error.source());
    }
    false
}

/// The innermost causes of a transport error in one line. The outer text only repeats the URL.
pub(super) fn chain(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut causes: Vec<String> = Vec::new();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        let text = cause.to_string();
        // Many crates repeat their source in their own text; "client error (Connect)" only says which call of hyper's it was.
        causes.retain(|outer| !outer.contains(&text) && !outer.starts_with("client error ("));
        causes.push(text);
        next = cause.source();
    }
    if causes.is_empty() { error.to_string() } else { causes.join(": ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    #[test]
    fn the_message_is_taken_out_of_whatever_is_around_it() {
        let table = [
            ("{\"error\":\"app not found: web\"}", "app not found: web"),
            ("app not found: web\n", "app not found: web"),
            ("ValidationError: no.\n\tstatus code: 400, request id: 1\n", "ValidationError: no.; status code: 400, request id: 1"),
            ("<html><body>502</body></html>", ""),
            ("", ""),
        ];
        for (text, expected) in table {
            assert_eq!(message_of(text.trim()), expected);
        }
    }

    #[test]
    fn a_long_message_is_not_cut_within_a_secret() {
        Redactor::of_process().register(&Secret::new("hunter22-cut-hunter22"));
        for lead in LONGEST_MESSAGE - 20..LONGEST_MESSAGE {
            let message = message_of(&format!("{}hunter22-cut-hunter22 and more", "x".repeat(lead)));
            assert!(!message.contains("hunter"), "{lead}: {message}");
        }
    }

    #[test]
    fn a_missing_object_is_told_from_a_missing_endpoint() {
        let table = [
            (404, "app not found: web", true),
            (404, "", false),
            (500, "builds.convox.com \"bx\" not found", true),
            (500, "stack not found: rack-web", false),
            (400, "x", false),
        ];
        for (status, message, expected) in table {
            assert_eq!(CallError::Answered { status, message: message.to_owned() }.is_not_found(), expected, "{status} {message}");
        }
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let answered = |status, message: &str| CallError::Answered { status, message: message.to_owned() };
        let table = [
            (answered(503, ""), 5),
            (answered(500, "Throttling: Rate exceeded"), 5),
            (answered(500, "what"), 2),
            (answered(500, "pods \"x\" not found"), 1),
            (answered(401, "invalid authentication"), 1),
            (CallError::NotSent { message: String::new(), certificate: true }, 1),
            (CallError::NotSent { message: String::new(), certificate: false }, 3),
        ];
        for (error, expected) in table {
            assert_eq!(error.tries(), expected, "{error:?}");
        }
    }
}
