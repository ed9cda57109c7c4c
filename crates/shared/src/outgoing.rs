//! Which requests of scripts are sent at all: what may stand in a URL, and whom an app may reach.
//! Names are judged once more by their addresses, where they are resolved.

use std::net::IpAddr;

use url::{Host, Url};

use crate::{
    address_guard::{AddressGuard, Refused},
    sdk::{SdkError, SdkErrorCode, SdkResult},
};

/// Characters of a URL.
const MAX_URL: usize = 8 << 10;

/// Reads a URL of a script.
pub fn parse_url(text: &str) -> SdkResult<Url> {
    if text.len() > MAX_URL {
        return Err(invalid(format!("a URL has at most {MAX_URL} bytes")));
    }
    Url::parse(text).map_err(|error| invalid(format!("the URL: {error}")))
}

/// Whether a script may ask for a URL; `allow` is its app's `permissions.http.allow`.
pub fn check_url(url: &Url, guard: AddressGuard, allow: Option<&[String]>) -> SdkResult<()> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(blocked("only http and https are sent"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(blocked(
            "a URL must not hold a user name or password; send an Authorization header",
        ));
    }
    let port = url.port_or_known_default().unwrap_or(0);
    if !matches!(port, 80 | 443 | 1024..) {
        return Err(blocked(format!(
            "port {port}; only 80, 443 and 1024 to 65535 are reached"
        )));
    }
    let literal = match url.host() {
        Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
        Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
        Some(Host::Domain(_)) => None,
        None => return Err(invalid("the URL has no host")),
    };
    if let Some(address) = literal {
        guard.check(address).map_err(|Refused(why)| blocked(why))?;
    }
    let host = url.host_str().unwrap_or_default().trim_end_matches('.');
    if let Some(allow) = allow
        && !allow.iter().any(|pattern| matches_host(pattern, host))
    {
        return Err(blocked("the host is not in permissions.http.allow"));
    }
    Ok(())
}

/// A name matches itself; `*.x` any name below `x`, however deep, and not `x`.
fn matches_host(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(above) => host
            .strip_suffix(above)
            .is_some_and(|below| below.len() > 1 && below.ends_with('.')),
        None => pattern == host,
    }
}

/// What a refused request throws.
pub fn blocked(why: impl std::fmt::Display) -> SdkError {
    SdkError::new(SdkErrorCode::Blocked, format!("blocked: {why}"))
}

fn invalid(message: impl Into<String>) -> SdkError {
    SdkError::new(SdkErrorCode::Invalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_itself_or_what_is_below() {
        assert!(matches_host("a.com", "a.com"));
        assert!(!matches_host("a.com", "b.a.com"));
        assert!(matches_host("*.a.com", "b.a.com"));
        assert!(matches_host("*.a.com", "c.b.a.com"));
        assert!(!matches_host("*.a.com", "a.com"));
        assert!(!matches_host("*.a.com", ".a.com"));
        assert!(!matches_host("*.a.com", "ba.com"));
    }

    #[test]
    fn every_spelling_of_a_refused_address_is_refused_before_anything_is_sent() {
        let guard = AddressGuard::default();
        let spellings = [
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0177.0.0.1/",
            "http://127.1/",
            "http://0x7f.1/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://１２７.0.0.1/",
            "http://127。0。0。1/",
            "http://%31%32%37.0.0.1/",
            "http:\\\\127.0.0.1\\",
            "http:127.0.0.1",
            "http://127.0.0.1./",
            "http://0/",
            "http://[::]/",
            "http://[64:ff9b::7f00:1]/",
            "http://169.254.169.254/latest",
            "http://[fe80::1%25eth0]/",
            "http://1.1.1.1:22/",
            "http://1.1.1.1:25/",
            "ftp://1.1.1.1/",
            "file:///etc/passwd",
            "http://user@1.1.1.1/",
            "http://u:p@1.1.1.1/",
            "http://168.63.129.16/",
        ];
        for text in spellings {
            let refused = parse_url(text).and_then(|url| check_url(&url, guard, None));
            assert!(refused.is_err(), "{text} was let through");
        }
        for text in [
            "http://1.1.1.1/",
            "https://example.com:8443/",
            "http://example.com/",
        ] {
            let url = parse_url(text).expect("a URL");
            assert_eq!(check_url(&url, guard, None), Ok(()), "{text}");
        }
    }
}
