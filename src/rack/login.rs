//! Where a rack is and how to log in there.
//!
//! Looked at in this order, the first that names a host wins: the rack's entry in `apps.yaml`; `RACK_URL`; `CONVOX_HOST`;
//! the convox CLI's own files (`racks/NAME`, then the host it is logged in to). A host without a password gets the one its
//! own source knows, then the one the CLI's `auth` file has for that very host. A password never goes to a host other than
//! the one it was given for. Nothing here talks to a rack, and the environment and the home directory are arguments.

use crate::config::RackConfig;
use crate::error::{Error, Result};
use crate::secret::Secret;
use percent_encoding::percent_decode_str;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use url::Url;

/// The user name the convox CLI sends; racks take any but `jwt`, which says that the password is a token.
const USER: &str = "convox";
/// The hosted console: it relays to racks whose names are `ORG/RACK`.
const CONSOLE: &str = "console.convox.com";

/// How a rack is reached.
#[derive(Clone, PartialEq, Eq)]
pub struct RackLogin {
    /// Scheme, host and port; nothing else.
    pub url: Url,
    /// `convox`, or `jwt` when the password is a token.
    pub user: String,
    /// The password or token, as it is sent: percent-decoded.
    pub password: Secret,
    /// The `Rack` header's value for a rack behind the console (`ORG/RACK`).
    pub relayed: Option<String>,
    /// Where host and password came from, for people.
    pub source: String,
}

impl fmt::Debug for RackLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} for {:?} from {}", self.user, self.url, self.relayed, self.source)
    }
}

impl RackLogin {
    /// Host and port, as `CONVOX_HOST` and the CLI's `auth` file spell them.
    #[must_use]
    pub fn host(&self) -> String {
        host_of(&self.url)
    }
}

/// Finds host, user and password of a rack. `env` reads a variable, `home` is the user's home directory.
///
/// # Errors
/// A configuration error that lists what was looked at and says how to cure it.
pub fn resolve(config: &RackConfig, env: &dyn Fn(&str) -> Option<String>, home: Option<&Path>) -> Result<RackLogin> {
    let env = |name: &str| env(name).filter(|value| !value.trim().is_empty()).map(|value| value.trim().to_owned());
    let name = config.name.as_str();
    let files = CliFiles::new(&env, home);
    let mut looked = Vec::new();

    let lazy = |what: &str, missing: &String| {
        Error::config(format!("rack `{name}`: its `{what}` cannot be read: {missing}"))
            .hint("set the variable, in CI as a secret of the job; what asks no rack (validate, changed --base) does without")
    };
    let host = config.host.as_ref().map(|host| host.value.as_ref()).transpose().map_err(|missing| lazy("host", missing))?;
    let password = match &config.password {
        Some(password) => Some(password.value.clone().map_err(|missing| lazy("password", &missing))?),
        None => None,
    };

    let mut place = match host {
        Some(host) => Place::parse(host, &format!("`racks.{name}.host` in {}", config.place.file)).map_err(|why| refuse(name, &why))?,
        None => elsewhere(name, &env, &files, &mut looked)?.ok_or_else(|| nowhere(name, &looked))?,
    };
    let (password, source) = match (password, place.password.take()) {
        (Some(password), _) if host.is_some() => (password, place.source.clone()),
        (Some(password), _) => (password, format!("{}, password from `racks.{name}.password`", place.source)),
        (None, Some(password)) => (password, place.source.clone()),
        (None, None) => {
            let found = password_for(&place, &env, &files, &mut looked).ok_or_else(|| no_password(name, &place, &looked))?;
            place.user = place.user.or(found.user);
            (found.password, format!("{}, password from {}", place.source, found.source))
        }
    };
    Ok(RackLogin {
        url: place.url,
        user: place.user.unwrap_or_else(|| USER.to_owned()),
        password,
        relayed: name.contains('/').then(|| name.to_owned()),
        source,
    })
}

/// A host with what its source knows besides.
struct Place {
    url: Url,
    user: Option<String>,
    password: Option<Secret>,
    source: String,
}

impl Place {
    /// Reads a host or a URL with or without userinfo. A host alone is https, on loopback http.
    fn parse(text: &str, source: &str) -> Result<Self, String> {
        // The text may hold a password: no error repeats it.
        let wrong = |why: &str| format!("{source} is no host and no URL: {why}");
        let text = text.trim().trim_end_matches('/');
        let with_scheme = if text.contains("://") {
            text.to_owned()
        } else {
            let scheme = if is_loopback(text.rsplit('@').next().unwrap_or(text)) { "http" } else { "https" };
            format!("{scheme}://{text}")
        };
        let mut url = Url::parse(&with_scheme).map_err(|error| wrong(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("its scheme is neither `https` nor `http`"));
        }
        if url.host_str().is_none_or(str::is_empty) || url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("write `HOST`, `HOST:PORT` or `https://convox:PASSWORD@HOST`"));
        }
        let decode = |text: &str| percent_decode_str(text).decode_utf8().map(|text| text.into_owned());
        let not_text = |_| wrong("its user or password is not UTF-8 after percent-decoding");
        let user = decode(url.username()).map_err(not_text)?;
        let password = url.password().map(decode).transpose().map_err(not_text)?;
        // Both setters only fail for URLs without a host, which were refused above.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        Ok(Self {
            url,
            user: Some(user).filter(|user| !user.is_empty()),
            password: password.filter(|password| !password.is_empty()).map(Secret::new),
            source: source.to_owned(),
        })
    }

    fn host(&self) -> String {
        host_of(&self.url)
    }
}

fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// True when `host` (with or without a port) is this machine.
pub(super) fn is_loopback(host: &str) -> bool {
    let Ok(url) = Url::parse(&format!("http://{host}")) else { return false };
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(ip)) => IpAddr::V4(ip).is_loopback(),
        Some(url::Host::Ipv6(ip)) => IpAddr::V6(ip).is_loopback(),
        None => false,
    }
}

/// The places outside `apps.yaml` that may name the host.
fn elsewhere(name: &str, env: &dyn Fn(&str) -> Option<String>, files: &CliFiles, looked: &mut Vec<String>) -> Result<Option<Place>> {
    looked.push(format!("`racks.{name}.host` in apps.yaml: not set"));
    for variable in ["RACK_URL", "CONVOX_HOST"] {
        if let Some(value) = env(variable) {
            return Place::parse(&value, &format!("`{variable}`")).map(Some).map_err(|why| refuse(name, &why));
        }
        looked.push(format!("`{variable}`: not set"));
    }
    for dir in &files.dirs {
        let file = dir.join("racks").join(name);
        if file.is_dir() {
            looked.push(format!("{}: managed by terraform, its URL is not in it", file.display()));
        } else if let Some(text) = files.read(&file) {
            return Place::parse(&text, &file.display().to_string()).map(Some).map_err(|why| refuse(name, &why));
        } else {
            looked.push(format!("{}: not there", file.display()));
        }
    }
    for dir in &files.dirs {
        for file in ["console", "host"].map(|file| dir.join(file)) {
            if let Some(text) = files.read(&file) {
                return Place::parse(&text, &file.display().to_string()).map(Some).map_err(|why| refuse(name, &why));
            }
            looked.push(format!("{}: not there", file.display()));
        }
    }
    if name.contains('/') && files.password(CONSOLE, &mut Vec::new()).is_some() {
        return Place::parse(CONSOLE, "the console's usual address").map(Some).map_err(|why| refuse(name, &why));
    }
    Ok(None)
}

/// A password and what its source says besides.
struct Found {
    user: Option<String>,
    password: Secret,
    source: String,
}

/// The password for a host that came without one. The environment's is taken only when it was given for the same host.
fn password_for(place: &Place, env: &dyn Fn(&str) -> Option<String>, files: &CliFiles, looked: &mut Vec<String>) -> Option<Found> {
    let host = place.host();
    let same = |variable: &str| {
        env(variable).and_then(|value| Place::parse(&value, &format!("`{variable}`")).ok()).filter(|other| host_of(&other.url) == host)
    };
    if let Some(Place { user, password: Some(password), source, .. }) = same("RACK_URL") {
        return Some(Found { user, password, source });
    }
    match (same("CONVOX_HOST"), env("CONVOX_PASSWORD")) {
        (Some(_), Some(password)) => {
            return Some(Found { user: None, password: Secret::new(password), source: "`CONVOX_PASSWORD`".to_owned() });
        }
        (None, Some(_)) => looked.push(format!("`CONVOX_PASSWORD`: set, but `CONVOX_HOST` is not `{host}`")),
        (_, None) => looked.push("`CONVOX_PASSWORD`: not set".to_owned()),
    }
    files.password(&host, looked)
}

/// The convox CLI's own files.
struct CliFiles {
    dirs: Vec<PathBuf>,
}

impl CliFiles {
    /// The directories both CLIs and their older versions use, in the order they are looked at.
    fn new(env: &dyn Fn(&str) -> Option<String>, home: Option<&Path>) -> Self {
        let mut dirs: Vec<PathBuf> = env("CONVOX_CONFIG").map(PathBuf::from).into_iter().collect();
        if let Some(home) = home {
            let usual = [".config/convox2", ".config/convox", "Library/Application Support/convox", ".convox"];
            // The third is where the CLI keeps them on macOS; elsewhere its name would only puzzle.
            dirs.extend(usual.iter().map(|dir| home.join(dir)).filter(|dir| !dir.starts_with(home.join("Library")) || dir.is_dir()));
        }
        Self { dirs }
    }

    fn read(&self, file: &Path) -> Option<String> {
        let text = std::fs::read_to_string(file).ok()?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    /// The password the `auth` files have for `host`.
    fn password(&self, host: &str, looked: &mut Vec<String>) -> Option<Found> {
        for dir in &self.dirs {
            let file = dir.join("auth");
            let Some(text) = self.read(&file) else {
                looked.push(format!("{}: not there", file.display()));
                continue;
            };
            // The parser's message could repeat a part of the file, which is all passwords.
            let Ok(auth) = serde_json::from_str::<BTreeMap<String, String>>(&text) else {
                looked.push(format!("{}: not a JSON object of hosts and passwords", file.display()));
                continue;
            };
            match auth.get(host).filter(|password| !password.is_empty()) {
                Some(password) => {
                    return Some(Found { user: None, password: Secret::new(password), source: file.display().to_string() });
                }
                None => looked.push(format!("{}: no entry for `{host}`", file.display())),
            }
        }
        None
    }
}

fn refuse(name: &str, why: &str) -> Error {
    Error::config(format!("rack `{name}`: {why}"))
}

fn listing(looked: &[String]) -> String {
    looked.iter().map(|line| format!("\n  {line}")).collect()
}

fn nowhere(name: &str, looked: &[String]) -> Error {
    Error::config(format!("rack `{name}`: no host is known; looked at{}", listing(looked))).hint(format!(
        "set `host` and `password` of `racks.{name}` in apps.yaml, or `CONVOX_HOST` and `CONVOX_PASSWORD`, or run `convox login HOST`"
    ))
}

fn no_password(name: &str, place: &Place, looked: &[String]) -> Error {
    let host = place.host();
    Error::config(format!("rack `{name}`: no password is known for `{host}` (from {}); looked at{}", place.source, listing(looked))).hint(
        format!(
            "set `password: ${{CONVOX_PASSWORD}}` of `racks.{name}` in apps.yaml and the variable with it, or run `convox login {host}`"
        ),
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::config::{Lazy, LazySecret};
    use crate::names::RackName;

    /// A rack as the configuration has it.
    pub(crate) fn rack(name: &str, host: Option<&str>, password: Option<&str>) -> RackConfig {
        RackConfig {
            answer: std::time::Duration::from_secs(60),
            poll: std::time::Duration::from_millis(20),
            name: RackName::new(name).unwrap(),
            place: crate::yaml::Place { file: "apps.yaml".to_owned(), line: 3, column: 3 },
            host: host.map(|host| Lazy { value: Ok(host.to_owned()) }),
            password: password.map(|password| LazySecret { value: Ok(Secret::new(password)) }),
            after: Vec::new(),
            protected: false,
            registry_cache: false,
            deliver: crate::rack::Deliver::Auto,
            env: name.to_owned(),
            ca_file: None,
        }
    }

    /// Resolves with these variables and files below the home directory, and tells the result in one line.
    fn told(config: &RackConfig, env: &[(&str, &str)], files: &[(&str, &str)]) -> String {
        let home = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = home.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let env = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        match resolve(config, &env, Some(home.path())) {
            Ok(login) => {
                let relayed = login.relayed.map(|rack| format!(" Rack: {rack}")).unwrap_or_default();
                let source = login.source.replace(&home.path().display().to_string(), "~");
                format!("{}:{} {}{relayed} ({source})", login.user, login.password.expose(), login.url)
            }
            Err(error) => format!("{:?}: {error}", error.kind).replace(&home.path().display().to_string(), "~"),
        }
    }

    #[test]
    fn the_first_place_that_names_the_host_wins() {
        let none = rack("prod", None, None);
        let here = rack("prod", Some("rack.example"), Some("pw"));
        let auth = r#"{"rack.example": "filed", "other.example:8443": "other"}"#;
        type Row<'a> = (&'a RackConfig, &'a [(&'a str, &'a str)], &'a [(&'a str, &'a str)], &'a str);
        let url_rack = rack("prod", Some("https://jwt:a%2Fb%2Bc@rack.example:8443/"), None);
        let bare = rack("prod", Some("rack.example"), None);
        let loopback = rack("prod", Some("127.0.0.1:5000"), Some("pw"));
        let written = rack("prod", Some("http://rack.internal"), Some("pw"));
        let console = rack("acme/prod", None, None);
        let only_password = rack("prod", None, Some("pw"));
        let table: &[Row] = &[
            (
                &here,
                &[("RACK_URL", "https://convox:x@else.example")],
                &[],
                "convox:pw https://rack.example/ (`racks.prod.host` in apps.yaml)",
            ),
            (&url_rack, &[], &[], "jwt:a/b+c https://rack.example:8443/ (`racks.prod.host` in apps.yaml)"),
            (&loopback, &[], &[], "convox:pw http://127.0.0.1:5000/ (`racks.prod.host` in apps.yaml)"),
            (&written, &[], &[], "convox:pw http://rack.internal/ (`racks.prod.host` in apps.yaml)"),
            (
                &none,
                &[("RACK_URL", "https://jwt:tok@a.example"), ("CONVOX_HOST", "b.example")],
                &[],
                "jwt:tok https://a.example/ (`RACK_URL`)",
            ),
            (
                &none,
                &[("CONVOX_HOST", "b.example"), ("CONVOX_PASSWORD", "secret")],
                &[],
                "convox:secret https://b.example/ (`CONVOX_HOST`, password from `CONVOX_PASSWORD`)",
            ),
            (
                &only_password,
                &[("CONVOX_HOST", "b.example")],
                &[],
                "convox:pw https://b.example/ (`CONVOX_HOST`, password from `racks.prod.password`)",
            ),
            (
                &none,
                &[("CONVOX_HOST", "rack.example")],
                &[(".convox/auth", auth)],
                "convox:filed https://rack.example/ (`CONVOX_HOST`, password from ~/.convox/auth)",
            ),
            (
                &bare,
                &[("CONVOX_HOST", "rack.example"), ("CONVOX_PASSWORD", "env")],
                &[(".convox/auth", auth)],
                "convox:env https://rack.example/ (`racks.prod.host` in apps.yaml, password from `CONVOX_PASSWORD`)",
            ),
            // A password given for another host stays at home.
            (
                &bare,
                &[("CONVOX_HOST", "b.example"), ("CONVOX_PASSWORD", "env")],
                &[(".config/convox2/auth", auth)],
                "convox:filed https://rack.example/ (`racks.prod.host` in apps.yaml, password from ~/.config/convox2/auth)",
            ),
            (
                &none,
                &[],
                &[(".config/convox/racks/prod", "https://convox:direct@d.example\n"), (".convox/host", "h.example")],
                "convox:direct https://d.example/ (~/.config/convox/racks/prod)",
            ),
            (
                &none,
                &[],
                &[(".config/convox2/host", "other.example:8443\n"), (".config/convox2/auth", auth)],
                "convox:other https://other.example:8443/ (~/.config/convox2/host, password from ~/.config/convox2/auth)",
            ),
            (
                &console,
                &[],
                &[(".config/convox/console", "console.example"), (".config/convox/auth", r#"{"console.example": "key"}"#)],
                "convox:key https://console.example/ Rack: acme/prod (~/.config/convox/console, password from ~/.config/convox/auth)",
            ),
        ];
        for (config, env, files, expected) in table {
            assert_eq!(told(config, env, files), *expected);
        }
    }

    #[test]
    fn what_was_looked_at_and_the_cure_are_said() {
        insta::assert_snapshot!(told(&rack("prod", None, None), &[], &[]), @r"
        Config: rack `prod`: no host is known; looked at
          `racks.prod.host` in apps.yaml: not set
          `RACK_URL`: not set
          `CONVOX_HOST`: not set
          ~/.config/convox2/racks/prod: not there
          ~/.config/convox/racks/prod: not there
          ~/.convox/racks/prod: not there
          ~/.config/convox2/console: not there
          ~/.config/convox2/host: not there
          ~/.config/convox/console: not there
          ~/.config/convox/host: not there
          ~/.convox/console: not there
          ~/.convox/host: not there
          next: set `host` and `password` of `racks.prod` in apps.yaml, or `CONVOX_HOST` and `CONVOX_PASSWORD`, or run `convox login HOST`
        ");
        insta::assert_snapshot!(
            told(&rack("prod", Some("rack.example"), None), &[("CONVOX_PASSWORD", "hush")], &[(".convox/auth", "{\"hush\"")]),
            @r"
        Config: rack `prod`: no password is known for `rack.example` (from `racks.prod.host` in apps.yaml); looked at
          `CONVOX_PASSWORD`: set, but `CONVOX_HOST` is not `rack.example`
          ~/.config/convox2/auth: not there
          ~/.config/convox/auth: not there
          ~/.convox/auth: not a JSON object of hosts and passwords
          next: set `password: ${CONVOX_PASSWORD}` of `racks.prod` in apps.yaml and the variable with it, or run `convox login rack.example`
        "
        );
    }

    #[test]
    fn a_host_that_is_none_is_refused_without_repeating_it() {
        for host in ["ftp://convox:hush@x.example", "https://convox:hush@x.example/path", "https://convox:hush@", "convox:hush@exa mple"] {
            let told = told(&rack("prod", Some(host), None), &[], &[]);
            assert!(told.starts_with("Config: rack `prod`: `racks.prod.host` in apps.yaml is no host and no URL"), "{told}");
            assert!(!told.contains("hush"), "{told}");
        }
    }

    #[test]
    fn a_variable_that_is_not_set_is_named() {
        let mut config = rack("prod", None, None);
        config.host = Some(Lazy { value: Err("`PROD_HOST` is not set (apps.yaml:4:11)".to_owned()) });
        let told = told(&config, &[], &[]);
        assert!(told.starts_with("Config: rack `prod`: its `host` cannot be read: `PROD_HOST` is not set (apps.yaml:4:11)\n"), "{told}");
    }

    #[test]
    fn a_login_does_not_print_its_password() {
        let config = rack("prod", Some("https://convox:hunter22@rack.example"), None);
        let login = resolve(&config, &|_| None, None).unwrap();
        assert!(!format!("{login:?}").contains("hunter22"));
    }
}
