//! The control endpoint: faults are listed, set and removed while the sandbox runs.
//!
//! `GET /faults` lists them, one a line as they are written on the command line; `POST /faults` adds those of its body;
//! `DELETE /faults` removes those of its body, or all when it is empty. Bad lines are 400 and change nothing.

use super::fault::{FaultAt, Faults};
use super::wire::{Answer, empty, text, whole};
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};

/// Answers a request.
pub(super) async fn answer(faults: Faults, request: Request<Incoming>) -> Answer {
    if request.uri().path() != "/faults" {
        return empty(StatusCode::NOT_FOUND);
    }
    let method = request.method().clone();
    let named = match whole(request.into_body()).await {
        Ok(body) => parse(&String::from_utf8_lossy(&body)),
        Err(error) => Err(error),
    };
    let named = match named {
        Ok(named) => named,
        Err(error) => return text(StatusCode::BAD_REQUEST, format!("{error}\n")),
    };
    match method {
        Method::GET => {}
        Method::POST => named.into_iter().for_each(|fault| faults.add(fault)),
        Method::DELETE if named.is_empty() => faults.clear(),
        Method::DELETE => {
            for fault in &named {
                faults.remove(fault);
            }
        }
        _ => return empty(StatusCode::METHOD_NOT_ALLOWED),
    }
    let list: String = faults.list().iter().map(|fault| format!("{fault}\n")).collect();
    text(StatusCode::OK, list)
}

fn parse(body: &str) -> Result<Vec<FaultAt>, String> {
    let lines = body.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(|line| line.parse::<FaultAt>().map_err(|error| error.to_string())).collect()
}
