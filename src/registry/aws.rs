//! The AWS SDK as ECR needs it: its client over the one TLS stack of the program, and its errors as people read them.
//!
//! Credentials come from the SDK's whole chain: environment, profiles, SSO, `credential_process`, web identity (GitHub's
//! OIDC), container and instance roles. `AWS_ENDPOINT_URL_ECR`, `AWS_PROFILE` and the rest work because the SDK reads them.

use super::RegistryError;
use aws_config::identity::IdentityCache;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_ecr::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, Connector};
use std::time::Duration;

/// How often a call is tried: AWS throttles by the second, and a monorepo asks about many repositories at once.
const TRIES: u32 = 5;

/// Makes a client for ECR in a region, whose calls are given `answer` each time they are tried. Sends nothing; credentials are
/// looked for with the first call.
///
/// The SDK tries again what AWS throttled or failed and what got no answer, with backoff and jitter. That holds for every call
/// here: reads, a repository that is there already and a tag that stands already are told apart from failures by their callers.
pub async fn client(region: &str, fips: bool, answer: Duration) -> aws_sdk_ecr::Client {
    // Asked to trust the system where that trusts nobody (a bare container), the SDK panics. Without, an endpoint behind HTTPS is
    // refused as it should be, and one on plain HTTP works.
    let trusts = !rustls_native_certs::load_native_certs().certs.is_empty();
    // The builder's own HTTPS client knows no proxies, which CI workers often sit behind.
    let http = Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = Connector::builder().proxy_config(ProxyConfig::from_env());
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
        let mut connector = connector.tls_provider(Provider::Rustls(CryptoMode::Ring));
        if let Some(nobody) = (!trusts).then(|| TlsContext::builder().with_trust_store(TrustStore::empty()).build().ok()).flatten() {
            connector = connector.tls_context(nobody);
        }
        connector.build()
    });
    let timeouts = TimeoutConfig::builder().connect_timeout(Duration::from_secs(5).min(answer)).operation_attempt_timeout(answer).build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new(region.to_owned()))
        .http_client(http)
        .timeout_config(timeouts)
        .retry_config(RetryConfig::standard().with_max_attempts(TRIES).with_initial_backoff(Duration::from_millis(500)))
        // A `credential_process` may ask for a fingerprint or a code; the default is 5 s.
        .identity_cache(IdentityCache::lazy().load_timeout(Duration::from_secs(60)).build());
    if fips {
        loader = loader.use_fips(true);
    }
    aws_sdk_ecr::Client::new(&loader.load().await)
}

/// True when a call that ended like this may go through when it is sent again; whether it was carried out is not known.
pub fn may_pass<E: ProvideErrorMetadata>(error: &SdkError<E>) -> bool {
    match error {
        SdkError::ServiceError(service) => {
            let throttled = service.err().code().is_some_and(|code| code.contains("Throttl") || code == "TooManyRequestsException");
            throttled || service.raw().status().is_server_error()
        }
        SdkError::DispatchFailure(_) | SdkError::TimeoutError(_) | SdkError::ResponseError(_) => true,
        _ => false,
    }
}

/// What AWS said to a call, as the registry's error. `action` is the IAM action the call needs.
pub fn failure<E>(host: &str, action: &str, error: &SdkError<E>) -> RegistryError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let host = host.to_owned();
    if let SdkError::ServiceError(service) = error {
        let Some(code) = service.err().code() else {
            let message = format!("its answer is none of AWS's: HTTP {} ({action})", service.raw().status().as_u16());
            return RegistryError::Failed { host, message };
        };
        let message = format!("{code}: {} ({action})", service.err().message().unwrap_or("no message"));
        return match login_hint(code, action) {
            Some(hint) => RegistryError::Login { host, message, hint },
            None => RegistryError::Failed { host, message },
        };
    }
    let message = causes(error);
    if let Some(hint) = credentials_hint(&message) {
        return RegistryError::Login { host, message, hint: hint.to_owned() };
    }
    match error {
        SdkError::DispatchFailure(_) | SdkError::TimeoutError(_) | SdkError::ResponseError(_) => {
            RegistryError::Unreachable { host, message }
        }
        _ => RegistryError::Failed { host, message },
    }
}

/// What to do about a refusal by AWS; `None` when the code is no refusal.
fn login_hint(code: &str, action: &str) -> Option<String> {
    match code {
        "AccessDeniedException" | "AccessDenied" | "UnauthorizedOperation" => {
            Some(format!("allow `{action}` for the identity the message names, in its IAM policy or the repository's policy"))
        }
        "ExpiredTokenException" | "ExpiredToken" | "RequestExpired" => {
            Some("the AWS credentials have expired: renew them (with SSO: `aws sso login`)".to_owned())
        }
        "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "MissingAuthenticationTokenException"
        | "IncompleteSignature" => {
            Some("the AWS credentials are wrong or of another partition: check with `aws sts get-caller-identity`".to_owned())
        }
        "OptInRequired" => Some("the AWS account has not enabled this region: check the registry's host name or its `region:`".to_owned()),
        _ => None,
    }
}

/// What to do when there were no credentials to sign a call with, told from the texts of the chain's providers: the SDK
/// has no public type for them at this level.
fn credentials_hint(message: &str) -> Option<&'static str> {
    let text = message.to_ascii_lowercase();
    // As a word: an `association` is no login.
    let sso = text.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == "sso");
    let about_credentials = ["credential", "identity", "assume role"];
    if !sso && !about_credentials.iter().any(|word| text.contains(word)) {
        return None;
    }
    if sso || text.contains("expired") {
        Some("the AWS login has expired: run `aws sso login` (with `--profile` when `AWS_PROFILE` is set)")
    } else {
        Some("give AWS credentials: `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, `AWS_PROFILE`, or a role of this machine")
    }
}

/// The error and all below it in one line, without what a cause repeats. Requests and responses are left out: they hold
/// signatures and tokens.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        // The credential chain lists what it tried one per line.
        let text = error.to_string().lines().map(str::trim).collect::<Vec<_>>().join("; ").replace(":; ", ": ");
        if !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
        next = error.source();
    }
    parts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_says_what_to_do() {
        assert!(login_hint("AccessDeniedException", "ecr:PutImage").is_some_and(|hint| hint.contains("allow `ecr:PutImage`")));
        assert!(login_hint("ExpiredTokenException", "ecr:PutImage").is_some_and(|hint| hint.contains("aws sso login")));
        assert_eq!(login_hint("ServerException", "ecr:PutImage"), None);
    }

    #[test]
    fn missing_credentials_are_told_from_a_network_that_is_down() {
        let table = [
            (
                "dispatch failure: other: the credential provider was not enabled: no providers in chain provided credentials",
                Some("AWS_ACCESS_KEY_ID"),
            ),
            ("dispatch failure: other: an error occurred while loading credentials: the SSO token is expired", Some("aws sso login")),
            ("dispatch failure: io error: client error (Connect): tcp connect error: Connection refused (os error 111)", None),
        ];
        for (message, expected) in table {
            let hint = credentials_hint(message);
            assert_eq!(hint.is_some(), expected.is_some(), "{message}");
            assert!(hint.unwrap_or_default().contains(expected.unwrap_or_default()), "{message}");
        }
    }
}
