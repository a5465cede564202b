//! What a registry's host name tells: whether it is ECR, whose, and where.

/// Which ECR a host name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EcrHost {
    /// The account; `None` for the one of the credentials.
    pub account: Option<String>,
    /// The region.
    pub region: String,
    /// The FIPS endpoints are to be used.
    pub fips: bool,
}

impl EcrHost {
    /// Parses `ACCOUNT.dkr.ecr[-fips].REGION.amazonaws.com` and its kin in other partitions (`.cn`, `amazonaws.eu`, the
    /// dual-stack `ACCOUNT.dkr-ecr[-fips].REGION.on.aws`); `None` for any other host. The forms are those of
    /// amazon-ecr-credential-helper's `ecr-login/api/client.go`.
    #[must_use]
    pub fn parse(host: &str) -> Option<Self> {
        let (account, rest) = host.split_once(".dkr.ecr").or_else(|| host.split_once(".dkr-ecr"))?;
        let (fips, rest) = match rest.strip_prefix("-fips") {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let (region, suffix) = rest.strip_prefix('.')?.split_once('.')?;
        let known =
            ["amazonaws.com", "amazonaws.com.cn", "amazonaws.eu", "on.aws", "on.amazonwebservices.com.cn", "c2s.ic.gov", "sc2s.sgov.gov"];
        let fits = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit()) && !region.is_empty() && known.contains(&suffix);
        fits.then(|| Self { account: Some(account.to_owned()), region: region.to_owned(), fips })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ecr_host_tells_account_and_region() {
        let at = |region: &str, fips| Some(EcrHost { account: Some("123456789012".into()), region: region.into(), fips });
        let table = [
            ("123456789012.dkr.ecr.us-east-1.amazonaws.com", at("us-east-1", false)),
            ("123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com", at("us-gov-west-1", true)),
            ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", at("cn-north-1", false)),
            ("123456789012.dkr.ecr.eusc-de-east-1.amazonaws.eu", at("eusc-de-east-1", false)),
            ("123456789012.dkr-ecr.eu-west-1.on.aws", at("eu-west-1", false)),
            ("123456789012.dkr-ecr-fips.us-east-1.on.aws", at("us-east-1", true)),
            ("12345678901.dkr.ecr.us-east-1.amazonaws.com", None),
            ("123456789012.dkr.ecr.us-east-1.amazonaws.com.evil.example", None),
            ("123456789012.dkr.ecr.us-east-1.example.com", None),
            ("123456789012.dkr.ecr..amazonaws.com", None),
            ("public.ecr.aws", None),
            ("localhost:5000", None),
        ];
        for (host, expected) in table {
            assert_eq!(EcrHost::parse(host), expected, "{host}");
        }
    }
}
