//! The paths a rack serves.

use super::Version;
use hyper::Method;
use percent_encoding::percent_decode_str;

/// What a path and method ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Check,
    Auth,
    System,
    Token,
    Apps,
    App,
    AppCreate,
    AppUpdate,
    AppCancel,
    AppLogs,
    ObjectStore,
    ObjectFetch,
    ObjectExists,
    BuildCreate,
    Build,
    Builds,
    BuildUpdate,
    BuildLogs,
    BuildImport,
    BuildExport,
    ImageImport,
    ReleaseCreate,
    Release,
    Releases,
    Promote,
    Services,
    Processes,
    ProcessRun,
    Process,
    ProcessExec,
    ProcessStop,
    RegistryAdd,
    Registries,
    RegistryRemove,
    Event,
}

impl Call {
    /// True for calls that are websockets.
    pub(super) fn is_socket(self) -> bool {
        matches!(self, Self::AppLogs | Self::BuildLogs | Self::ProcessExec)
    }

    /// True for calls whose body is raw bytes, never a form.
    pub(super) fn takes_bytes(self) -> bool {
        matches!(self, Self::ObjectStore | Self::BuildImport)
    }
}

/// Method, pattern, call. `*` is one part and an argument, `**` the rest of the path, `*.tgz` a part with that end. The first
/// pattern that fits wins.
const ROUTES: &[(Method, &str, Call)] = &[
    (Method::GET, "check", Call::Check),
    (Method::GET, "auth", Call::Auth),
    (Method::GET, "system", Call::System),
    (Method::POST, "system/jwt/token", Call::Token),
    (Method::GET, "apps", Call::Apps),
    (Method::POST, "apps", Call::AppCreate),
    (Method::GET, "apps/*", Call::App),
    (Method::PUT, "apps/*", Call::AppUpdate),
    (Method::POST, "apps/*/cancel", Call::AppCancel),
    (Method::GET, "apps/*/logs", Call::AppLogs),
    (Method::POST, "apps/*/objects/**", Call::ObjectStore),
    (Method::GET, "apps/*/objects/**", Call::ObjectFetch),
    (Method::HEAD, "apps/*/objects/**", Call::ObjectExists),
    (Method::GET, "apps/*/builds", Call::Builds),
    (Method::POST, "apps/*/builds", Call::BuildCreate),
    (Method::POST, "apps/*/builds/import", Call::BuildImport),
    (Method::GET, "apps/*/builds/*.tgz", Call::BuildExport),
    (Method::GET, "apps/*/builds/*", Call::Build),
    (Method::PUT, "apps/*/builds/*", Call::BuildUpdate),
    (Method::GET, "apps/*/builds/*/logs", Call::BuildLogs),
    (Method::POST, "apps/*/builds/*/image", Call::ImageImport),
    (Method::GET, "apps/*/releases", Call::Releases),
    (Method::POST, "apps/*/releases", Call::ReleaseCreate),
    (Method::GET, "apps/*/releases/*", Call::Release),
    (Method::POST, "apps/*/releases/*/promote", Call::Promote),
    (Method::GET, "apps/*/services", Call::Services),
    (Method::POST, "apps/*/services/*/processes", Call::ProcessRun),
    (Method::GET, "apps/*/processes", Call::Processes),
    (Method::GET, "apps/*/processes/*", Call::Process),
    (Method::DELETE, "apps/*/processes/*", Call::ProcessStop),
    (Method::GET, "apps/*/processes/*/exec", Call::ProcessExec),
    (Method::GET, "registries", Call::Registries),
    (Method::POST, "registries", Call::RegistryAdd),
    (Method::DELETE, "registries/**", Call::RegistryRemove),
    (Method::POST, "events", Call::Event),
];

/// What a path and method lead to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A call and its path's arguments, decoded.
    Call(Call, Vec<String>),
    /// The path is known, the method is not.
    OtherMethod,
    /// The path is not known.
    Nothing,
}

/// Looks a request up.
pub(super) fn find(version: Version, method: &Method, path: &str) -> Found {
    let Some(path) = path.strip_prefix('/') else { return Found::Nothing };
    let mut found = Found::Nothing;
    for (route_method, pattern, call) in ROUTES {
        if *call == Call::ImageImport && version == Version::V2 {
            continue;
        }
        let Some(args) = fit(pattern, path) else { continue };
        if route_method == method {
            return Found::Call(*call, args);
        }
        found = Found::OtherMethod;
    }
    found
}

fn fit(pattern: &str, path: &str) -> Option<Vec<String>> {
    let decode = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
    let mut args = Vec::new();
    let mut path = Some(path);
    for expected in pattern.split('/') {
        let rest = path?;
        if expected == "**" {
            args.push(decode(rest));
            return (!rest.is_empty()).then_some(args);
        }
        let (part, next) = rest.split_once('/').map_or((rest, None), |(part, next)| (part, Some(next)));
        match expected.strip_prefix('*') {
            Some(end) => args.push(part.strip_suffix(end).filter(|part| !part.is_empty()).map(decode)?),
            None if part != expected => return None,
            None => {}
        }
        path = next;
    }
    path.is_none().then_some(args)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_calls() {
        let call = |call, args: &[&str]| Found::Call(call, args.iter().map(|arg| (*arg).to_owned()).collect());
        let table = [
            (Method::GET, "/apps", call(Call::Apps, &[])),
            (Method::GET, "/apps/web", call(Call::App, &["web"])),
            (Method::GET, "/apps/a%2Fb", call(Call::App, &["a/b"])),
            (Method::POST, "/apps/web/objects/tmp/x.tgz", call(Call::ObjectStore, &["web", "tmp/x.tgz"])),
            (Method::GET, "/apps/web/builds/BX.tgz", call(Call::BuildExport, &["web", "BX"])),
            (Method::GET, "/apps/web/builds/BX", call(Call::Build, &["web", "BX"])),
            (Method::POST, "/apps/web/builds/import", call(Call::BuildImport, &["web"])),
            (Method::DELETE, "/apps/web/builds/BX", Found::OtherMethod),
            (Method::GET, "/apps/", Found::Nothing),
            (Method::GET, "/racks", Found::Nothing),
            (Method::GET, "/apps/web/other", Found::Nothing),
        ];
        for (method, path, found) in table {
            assert_eq!(find(Version::V3, &method, path), found, "{method} {path}");
        }
    }

    #[test]
    fn a_rack_of_version_2_has_no_import_from_a_registry() {
        let path = "/apps/web/builds/BX/image";
        assert_eq!(find(Version::V2, &Method::POST, path), Found::Nothing);
        assert!(matches!(find(Version::V3, &Method::POST, path), Found::Call(Call::ImageImport, _)));
    }
}
