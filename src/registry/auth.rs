//! How a registry wants to be asked: without a login, with Basic, or with a token from the place it names.
//!
//! One `GET /v2/` per registry tells which; tokens are kept per scope until shortly before they expire. The token
//! protocol is <https://distribution.github.io/distribution/spec/auth/token/>, the form with an identity token
//! <https://distribution.github.io/distribution/spec/auth/oauth/>.

use super::credentials::DockerLogins;
use super::ecr::EcrApi;
use super::http::{Answer, Http, Request};
use super::shared::{Fetched, Shared};
use super::{Login, RegistryError};
use crate::secret::{Redactor, Secret};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::WWW_AUTHENTICATE;
use reqwest::{Method, StatusCode, Url};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The user that stands for "the password is an identity token".
pub const TOKEN_USER: &str = "<token>";

/// Where a registry's login comes from.
pub enum Logins {
    /// Docker's config file and its helpers.
    Docker(DockerLogins),
    /// ECR's token.
    Ecr(Arc<EcrApi>),
}

impl Logins {
    /// The login; `fresh` asks for one that is newer than this call.
    pub async fn get(&self, fresh: bool) -> Result<Option<Login>, RegistryError> {
        match self {
            Self::Docker(docker) => docker.get(fresh).await,
            Self::Ecr(ecr) => ecr.token(fresh).await.map(Some),
        }
    }

    fn redactor(&self) -> &Redactor {
        match self {
            Self::Docker(docker) => docker.redactor(),
            Self::Ecr(ecr) => ecr.redactor(),
        }
    }
}

/// What a registry's `WWW-Authenticate` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// User and password with each request.
    Basic,
    /// A token from another place.
    Bearer {
        /// Where tokens come from.
        realm: String,
        /// The registry's name there.
        service: Option<String>,
    },
}

/// The logins of one registry, as headers.
pub struct Auth {
    host: String,
    base: Url,
    http: Arc<Http>,
    logins: Logins,
    challenge: Shared<Option<Challenge>>,
    tokens: Mutex<BTreeMap<String, Arc<Shared<Secret>>>>,
}

impl Auth {
    /// For the registry called `host` that answers at `base`. Asks nothing yet.
    pub fn new(host: String, base: Url, http: Arc<Http>, logins: Logins) -> Self {
        Self { host, base, http, logins, challenge: Shared::default(), tokens: Mutex::default() }
    }

    /// The registry's login, as it is.
    pub async fn login(&self, fresh: bool) -> Result<Option<Login>, RegistryError> {
        self.logins.get(fresh).await
    }

    /// The `Authorization` header for requests that need `scope`, `None` when the registry wants none. After a 401,
    /// `refused` is its answer, and everything is asked for again.
    pub async fn header(&self, scope: &str, refused: Option<&Answer>) -> Result<Option<Secret>, RegistryError> {
        let fresh = refused.is_some();
        let challenge = match refused.and_then(challenge) {
            Some(asked_now) => self.challenge.get(true, async { Ok(Fetched { value: Some(asked_now), until: None }) }).await?,
            None => self.challenge.get(fresh, self.ask()).await?,
        };
        match challenge {
            None => Ok(None),
            Some(Challenge::Basic) => Ok(self.login(fresh).await?.map(|login| basic(&login))),
            Some(Challenge::Bearer { realm, service }) => {
                let slot = {
                    let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
                    Arc::clone(tokens.entry(scope.to_owned()).or_default())
                };
                slot.get(fresh, self.token(&realm, service.as_deref(), scope, fresh)).await.map(Some)
            }
        }
    }

    async fn ask(&self) -> Result<Fetched<Option<Challenge>>, RegistryError> {
        let url = self.base.join("/v2/").map_err(|error| self.failed(error))?;
        let answer = self.http.send(&Request::new(Method::GET, url)).await.map_err(|message| self.unreachable(message))?;
        let value = if answer.status == StatusCode::UNAUTHORIZED { challenge(&answer) } else { None };
        Ok(Fetched { value, until: None })
    }

    /// Fetches a token and returns it as a header.
    async fn token(&self, realm: &str, service: Option<&str>, scope: &str, fresh: bool) -> Result<Fetched<Secret>, RegistryError> {
        let mut url = Url::parse(realm).map_err(|_| self.failed(format!("it names `{realm}` as the place for tokens, which is no URL")))?;
        let login = self.login(fresh).await?;
        if login.is_some() && self.base.scheme() == "https" && url.scheme() != "https" {
            return Err(self.failed(format!("it wants the login sent to `{realm}` without TLS")));
        }
        let mut parameters = vec![("scope", scope)];
        parameters.extend(service.map(|service| ("service", service)));
        let request = match &login {
            Some(login) if login.user == TOKEN_USER => {
                parameters.extend([("grant_type", "refresh_token"), ("client_id", "offbuild"), ("refresh_token", login.password.expose())]);
                let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
                let body = Some((form.into_bytes(), "application/x-www-form-urlencoded".to_owned()));
                Request { body, ..Request::new(Method::POST, url) }
            }
            login => {
                url.query_pairs_mut().extend_pairs(parameters);
                Request { authorization: login.as_ref().map(basic), ..Request::new(Method::GET, url) }
            }
        };
        let asked = Instant::now();
        let answer =
            self.http.send(&request).await.map_err(|message| self.unreachable(format!("its tokens come from `{realm}`: {message}")))?;
        if matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(self.refused(&answer, login.is_some()));
        }
        if !answer.status.is_success() {
            return Err(self.failed(format!("no token from `{realm}`: {}", answer.problem())));
        }

        #[derive(serde::Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
            expires_in: Option<u64>,
        }
        let token: Option<Token> = serde_json::from_slice(&answer.body).ok();
        let (text, seconds) = token
            .and_then(|token| Some((token.token.or(token.access_token)?, token.expires_in)))
            .ok_or_else(|| self.failed(format!("`{realm}` answered without a token")))?;
        self.logins.redactor().register(&Secret::new(text.as_str()));
        // 60 s is the specification's default. A fifth is left for the request the token is for.
        let good_for = Duration::from_secs(seconds.unwrap_or(60).max(10)) * 4 / 5;
        Ok(Fetched { value: Secret::new(format!("Bearer {text}")), until: Some(asked + good_for) })
    }

    /// The error for a 401 or 403.
    pub async fn refusal(&self, answer: &Answer) -> RegistryError {
        let had_login = matches!(self.login(false).await, Ok(Some(_)));
        self.refused(answer, had_login)
    }

    fn refused(&self, answer: &Answer, had_login: bool) -> RegistryError {
        let host = &self.host;
        let hint = match (&self.logins, had_login) {
            (Logins::Ecr(_), _) => format!("check that the AWS identity in use may use the repositories of `{host}`"),
            (Logins::Docker(_), true) => {
                format!("the login in Docker's config file is wrong or may not do this: run `docker login {host}`")
            }
            (Logins::Docker(_), false) => format!("Docker's config file has no login for it: run `docker login {host}`"),
        };
        RegistryError::Login { host: host.clone(), message: answer.problem(), hint }
    }

    /// The error for a request that got no answer.
    pub fn unreachable(&self, message: String) -> RegistryError {
        RegistryError::Unreachable { host: self.host.clone(), message }
    }

    /// The error for everything else.
    pub fn failed(&self, message: impl std::fmt::Display) -> RegistryError {
        RegistryError::Failed { host: self.host.clone(), message: message.to_string() }
    }
}

fn basic(login: &Login) -> Secret {
    Secret::new(format!("Basic {}", STANDARD.encode(format!("{}:{}", login.user, login.password.expose()))))
}

/// The challenge of an answer; a Bearer one before a Basic one.
fn challenge(answer: &Answer) -> Option<Challenge> {
    let headers = answer.headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    let all: Vec<Challenge> = headers.flat_map(challenges).collect();
    all.iter().find(|one| matches!(one, Challenge::Bearer { .. })).or(all.first()).cloned()
}

/// The challenges of one header that offbuild knows (RFC 9110, section 11.6.1: several may share a header).
fn challenges(header: &str) -> Vec<Challenge> {
    let mut found: Vec<(String, BTreeMap<String, String>)> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            break;
        }
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let Some(value) = after.strip_prefix('=') else {
            found.push((word.to_ascii_lowercase(), BTreeMap::new()));
            rest = after;
            continue;
        };
        let (value, after) = parameter(value);
        if let Some((_, parameters)) = found.last_mut() {
            parameters.insert(word.to_ascii_lowercase(), value);
        }
        rest = after;
    }
    let known = |(scheme, mut parameters): (String, BTreeMap<String, String>)| match scheme.as_str() {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer { realm: parameters.remove("realm")?, service: parameters.remove("service") }),
        _ => None,
    };
    found.into_iter().filter_map(known).collect()
}

/// A parameter's value, quoted or not, and what comes behind it.
fn parameter(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t', ',']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_read_as_registries_write_it() {
        let bearer = |realm: &str, service: Option<&str>| Challenge::Bearer { realm: realm.into(), service: service.map(Into::into) };
        let table = [
            (r#"Basic realm="x""#, vec![Challenge::Basic]),
            ("basic", vec![Challenge::Basic]),
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
                vec![bearer("https://auth.docker.io/token", Some("registry.docker.io"))],
            ),
            (r#"BEARER Realm="https://a/t\"x" , service = y"#, vec![bearer("https://a/t\"x", None)]),
            (r#"Basic realm="x", Bearer realm=https://a/t"#, vec![Challenge::Basic, bearer("https://a/t", None)]),
            ("Negotiate", vec![]),
            (r#"Bearer service="x""#, vec![]),
            (r#"Bearer realm="open"#, vec![bearer("open", None)]),
            ("", vec![]),
        ];
        for (header, expected) in table {
            assert_eq!(challenges(header), expected, "{header}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_challenge_makes_the_reader_fail(header in "[ -~]{0,60}") {
            challenges(&header);
        }
    }
}
