//! Values as the rack's API reads and writes them: Go's spellings, and Go's words for what does not parse.

use super::Refusal;
use hyper::header::HeaderMap;
use std::collections::BTreeMap;
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The options of a call. A form value may also stand in the query or, for the sake of `exec`, in a header of its name.
pub(super) struct Params {
    form: BTreeMap<String, String>,
    query: BTreeMap<String, String>,
    headers: HeaderMap,
}

fn pairs(text: &[u8]) -> BTreeMap<String, String> {
    // Of two equal keys Go takes the first.
    url::form_urlencoded::parse(text).into_owned().fold(BTreeMap::new(), |mut pairs, (key, value)| {
        pairs.entry(key).or_insert(value);
        pairs
    })
}

impl Params {
    pub(super) fn new(form: &[u8], query: Option<&str>, headers: HeaderMap) -> Self {
        Self { form: pairs(form), query: pairs(query.unwrap_or_default().as_bytes()), headers }
    }

    /// A form value that was given, even empty.
    pub(super) fn form(&self, name: &str) -> Option<&str> {
        let own = self.form.get(name).or_else(|| self.query.get(name)).map(String::as_str);
        own.or_else(|| self.header(name))
    }

    /// A form value; empty when it was not given.
    pub(super) fn text(&self, name: &str) -> String {
        self.form(name).unwrap_or_default().to_owned()
    }

    /// A form value that is true: only the word `true` is.
    pub(super) fn is_true(&self, name: &str) -> bool {
        self.form(name) == Some("true")
    }

    /// A header's value.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// A value of the query.
    pub(super) fn query(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }

    /// The `limit` of a list.
    pub(super) fn limit(&self) -> Result<usize, Refusal> {
        let Some(text) = self.query("limit").filter(|text| !text.is_empty()) else { return Ok(10) };
        text.parse().map_err(|_| Refusal::server(format!("strconv.Atoi: parsing {text:?}: invalid syntax")))
    }

    /// A time in a form value: `20060102.150405.000000000`, UTC.
    pub(super) fn time(&self, name: &str) -> Result<Option<OffsetDateTime>, Refusal> {
        let Some(text) = self.form(name).filter(|text| !text.is_empty()) else { return Ok(None) };
        let format = time::macros::format_description!("[year][month][day].[hour][minute][second].[subsecond digits:9]");
        let parsed = time::PrimitiveDateTime::parse(text, format);
        let wrong = |_| {
            Refusal::server(format!(
                "parsing time {text:?} as \"20060102.150405.000000000\": cannot parse {text:?} as \"20060102.150405.000000000\""
            ))
        };
        parsed.map(|time| Some(time.assume_utc())).map_err(wrong)
    }

    /// A duration in a header (`2m0s`).
    pub(super) fn duration(&self, name: &str) -> Result<Option<Duration>, Refusal> {
        let Some(text) = self.header(name).filter(|text| !text.is_empty()) else { return Ok(None) };
        duration(text).map(Some).ok_or_else(|| Refusal::server(format!("time: invalid duration {text:?}")))
    }
}

/// A map: a query string inside a value.
pub(super) fn map(text: &str) -> BTreeMap<String, String> {
    pairs(text.as_bytes())
}

/// A duration as Go writes it.
fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| digits + at);
        let seconds = match &rest[digits..unit_end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total += Duration::try_from_secs_f64(number * seconds).ok()?;
        rest = &rest[unit_end..];
    }
    (!text.is_empty()).then_some(total)
}

/// A time as the API's JSON has it; what has not happened is Go's zero time.
pub(super) fn shown(time: Option<OffsetDateTime>) -> String {
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| "0001-01-01T00:00:00Z".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        assert_eq!(duration("2m0s"), Some(Duration::from_secs(120)));
        assert_eq!(duration("1h1.5s"), Some(Duration::from_millis(3_601_500)));
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        for wrong in ["", "5", "5x", "s", "-1s"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn values_are_read_as_go_reads_them() {
        let params = Params::new(
            b"force=1&external=true&started=20261122.193736.867426953&ended=soon",
            Some("limit=x&force=true"),
            HeaderMap::new(),
        );
        assert!(!params.is_true("force"), "`1` is not true, and the form comes before the query");
        assert!(params.is_true("external"));
        assert_eq!(shown(params.time("started").unwrap()), "2026-11-22T19:37:36.867426953Z");
        assert_eq!(shown(params.time("never").unwrap()), "0001-01-01T00:00:00Z");
        assert!(params.time("ended").unwrap_err().message.starts_with("parsing time \"soon\""));
        assert_eq!(params.limit().unwrap_err().message, "strconv.Atoi: parsing \"x\": invalid syntax");
    }
}
