//! Who sent a delivery: signatures over the body as it came, compared in constant time.

use axum::http::HeaderMap;
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD},
};
use hmac::{Hmac, KeyInit, Mac};
use picloud_shared::sdk::SecretValue;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Headers that carry a bare hexadecimal HMAC-SHA-256 (docs.gitea.com and forgejo.org, "Webhooks").
const HEX_HEADERS: [&str; 3] = [
    "x-gitea-signature",
    "x-forgejo-signature",
    "x-gogs-signature",
];
/// Headers that carry `sha256=` and the same: GitHub (docs.github.com, "Validating webhook
/// deliveries") and Bitbucket (support.atlassian.com, "Manage webhooks": secure webhooks).
const PREFIXED_HEADERS: [&str; 2] = ["x-hub-signature-256", "x-hub-signature"];
/// GitLab's secret token, in clear (docs.gitlab.com, "Webhooks").
const TOKEN_HEADER: &str = "x-gitlab-token";
/// Standard Webhooks, which GitLab's signing token follows.
const STANDARD_HEADERS: [&str; 3] = ["webhook-id", "webhook-timestamp", "webhook-signature"];
/// What a signing token begins with.
const SIGNING_TOKEN: &str = "whsec_";
/// Seconds that a signed timestamp may be away from now (Standard Webhooks: five minutes).
const TOLERANCE: i64 = 300;

type HmacSha256 = Hmac<Sha256>;

/// Whether there is anything that could be a signature: if not, the body needn't be read.
pub(super) fn is_signed(headers: &HeaderMap) -> bool {
    HEX_HEADERS
        .iter()
        .chain(&PREFIXED_HEADERS)
        .chain(&[TOKEN_HEADER, STANDARD_HEADERS[2]])
        .any(|name| headers.contains_key(*name))
}

/// Whether one of the secrets signed the delivery. Every signature that is there must be right.
/// `now`: Unix seconds.
pub(super) fn verify(headers: &HeaderMap, body: &[u8], secrets: &[SecretValue], now: i64) -> bool {
    // Each secret is tried, whichever holds: what takes how long tells nothing.
    secrets
        .iter()
        .filter(|secret| !secret.0.is_empty())
        .fold(false, |found, secret| {
            found | signed_by(headers, body, secret.0.as_ref(), now)
        })
}

fn signed_by(headers: &HeaderMap, body: &[u8], secret: &str, now: i64) -> bool {
    let mut checks = Vec::new();
    let one = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or(""));
    for name in HEX_HEADERS {
        if let Some(value) = one(name) {
            checks.push(hex_matches(secret.as_bytes(), &[body], value));
        }
    }
    for name in PREFIXED_HEADERS {
        match one(name) {
            // The older digest, which GitHub and Gitea send beside the newer: it proves nothing.
            Some(value) if name == "x-hub-signature" && value.starts_with("sha1=") => {}
            Some(value) => {
                let hex = value.strip_prefix("sha256=").unwrap_or("");
                checks.push(hex_matches(secret.as_bytes(), &[body], hex));
            }
            None => {}
        }
    }
    // A signing token is never sent in clear; who shows it so isn't GitLab.
    let is_signing_token = secret.starts_with(SIGNING_TOKEN);
    if is_signing_token && headers.contains_key(STANDARD_HEADERS[2]) {
        checks.push(standard(headers, body, secret, now));
    } else if let Some(token) = one(TOKEN_HEADER) {
        let same = Sha256::digest(token).ct_eq(&Sha256::digest(secret));
        checks.push(!is_signing_token && bool::from(same));
    }
    !checks.is_empty() && checks.into_iter().all(|right| right)
}

fn hex_matches(key: &[u8], parts: &[&[u8]], given: &str) -> bool {
    let mac = mac(key, parts);
    decode_hex(given).is_some_and(|given| mac.verify_slice(&given).is_ok())
}

fn mac(key: &[u8], parts: &[&[u8]]) -> HmacSha256 {
    let mut mac = HmacSha256::new_from_slice(key)
        .unwrap_or_else(|_| unreachable!("HMAC takes keys of any length"));
    for part in parts {
        mac.update(part);
    }
    mac
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok())
        .collect()
}

/// Standard Webhooks: HMAC-SHA-256 over `id.timestamp.body` in base64, one of a list.
fn standard(headers: &HeaderMap, body: &[u8], secret: &str, now: i64) -> bool {
    let mut values = STANDARD_HEADERS.map(|name| headers.get(name)?.to_str().ok());
    let [Some(id), Some(at), Some(signatures)] = &mut values else {
        return false;
    };
    let fresh = at
        .parse::<i64>()
        .is_ok_and(|at| now.abs_diff(at) <= TOLERANCE.unsigned_abs());
    let encoded = secret.trim_start_matches(SIGNING_TOKEN);
    let key = STANDARD
        .decode(encoded)
        .or_else(|_| STANDARD_NO_PAD.decode(encoded));
    let Ok(key) = key else {
        return false;
    };
    let parts = [id.as_bytes(), b".", at.as_bytes(), b".", body];
    let matches = |signature: &str| {
        let given = signature.strip_prefix("v1,").unwrap_or("");
        STANDARD
            .decode(given)
            .is_ok_and(|given| mac(&key, &parts).verify_slice(&given).is_ok())
    };
    fresh & signatures.split(' ').any(matches)
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                let name: HeaderName = name.parse().expect("a header's name");
                (name, HeaderValue::from_str(value).expect("its value"))
            })
            .collect()
    }

    fn is_right(pairs: &[(&str, &str)], body: &[u8], secrets: &[&str], now: i64) -> bool {
        let secrets: Vec<SecretValue> = secrets
            .iter()
            .map(|secret| SecretValue((*secret).into()))
            .collect();
        verify(&headers(pairs), body, &secrets, now)
    }

    /// docs.github.com, "Validating webhook deliveries": testing.
    const GITHUB: (&str, &[u8], &str) = (
        "It's a Secret to Everybody",
        b"Hello, World!",
        "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
    );
    /// Standard Webhooks, the specification's example of a signature.
    const STANDARD_EXAMPLE: [&str; 4] = [
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "1614265330",
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    ];

    /// Each way of signing, with a body and the instant that it is good at.
    type Signed = (&'static str, Vec<(&'static str, String)>, Vec<u8>);

    fn all() -> Vec<Signed> {
        let (secret, body, hex) = GITHUB;
        let prefixed = format!("sha256={hex}");
        let mut all = vec![
            (secret, vec![("x-hub-signature-256", prefixed.clone())]),
            (secret, vec![("x-hub-signature", prefixed.clone())]),
            (secret, vec![("x-gitea-signature", hex.to_owned())]),
            (secret, vec![("x-forgejo-signature", hex.to_owned())]),
            (secret, vec![("x-gitlab-token", secret.to_owned())]),
        ]
        .into_iter()
        .map(|(secret, headers)| (secret, headers, body.to_vec()))
        .collect::<Vec<_>>();
        let [secret, id, at, signature] = STANDARD_EXAMPLE;
        all.push((
            secret,
            vec![
                ("webhook-id", id.to_owned()),
                ("webhook-timestamp", at.to_owned()),
                ("webhook-signature", signature.to_owned()),
            ],
            br#"{"test": 2432232314}"#.to_vec(),
        ));
        all
    }

    const NOW: i64 = 1_614_265_330;

    fn check(secret: &str, headers: &[(&str, String)], body: &[u8], now: i64) -> bool {
        let pairs: Vec<(&str, &str)> = headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        is_right(&pairs, body, &[secret], now)
    }

    #[test]
    fn documented_signatures_are_right_and_one_flipped_bit_is_not() {
        for (secret, headers, body) in all() {
            assert!(check(secret, &headers, &body, NOW), "{headers:?}");
            assert!(!check("another", &headers, &body, NOW), "{headers:?}");
            for (nth, (name, value)) in headers.iter().enumerate() {
                for at in 0..value.len() {
                    // The lowest bit of base64's last digits before padding isn't part of the value.
                    let mut flipped = headers.clone();
                    let mut bytes = value.clone().into_bytes();
                    bytes[at] ^= 1;
                    let Ok(text) = String::from_utf8(bytes) else {
                        continue;
                    };
                    flipped[nth].1 = text;
                    assert!(
                        !check(secret, &flipped, &body, NOW),
                        "{name} {}",
                        flipped[nth].1
                    );
                }
            }
            if headers[0].0 == "x-gitlab-token" {
                continue;
            }
            for at in 0..body.len() {
                let mut flipped = body.clone();
                flipped[at] ^= 1;
                assert!(!check(secret, &headers, &flipped, NOW), "{headers:?}");
            }
        }
    }

    #[test]
    fn nothing_is_signed_without_a_signature_or_a_secret() {
        let (secret, body, hex) = GITHUB;
        let right = format!("sha256={hex}");
        assert!(!is_right(&[], body, &[secret], NOW));
        assert!(!is_right(
            &[("x-hub-signature-256", &right)],
            body,
            &[],
            NOW
        ));
        assert!(!is_right(&[("x-gitlab-token", "")], body, &[""], NOW));
        // SHA-1 proves nothing, alone or beside another.
        assert!(!is_right(
            &[("x-hub-signature", "sha1=00")],
            body,
            &[secret],
            NOW
        ));
        let both = [
            ("x-hub-signature", "sha1=00"),
            ("x-hub-signature-256", right.as_str()),
        ];
        assert!(is_right(&both, body, &[secret], NOW));
        // Gitea sends several: each must be right.
        let wrong = [
            ("x-gitea-signature", "00"),
            ("x-hub-signature-256", right.as_str()),
        ];
        assert!(!is_right(&wrong, body, &[secret], NOW));
    }

    #[test]
    fn the_secret_before_is_accepted_for_as_long_as_it_is_kept() {
        let (secret, body, hex) = GITHUB;
        let right = format!("sha256={hex}");
        let headers = [("x-hub-signature-256", right.as_str())];
        assert!(is_right(&headers, body, &["new", secret], NOW));
        assert!(!is_right(&headers, body, &["new"], NOW));
    }

    #[test]
    fn a_stale_timestamp_is_refused_and_a_signing_token_is_never_shown() {
        let [secret, id, at, signature] = STANDARD_EXAMPLE;
        let body = br#"{"test": 2432232314}"#;
        let headers = [
            ("webhook-id", id),
            ("webhook-timestamp", at),
            ("webhook-signature", signature),
        ];
        for (now, right) in [
            (0, true),
            (300, true),
            (-300, true),
            (301, false),
            (-301, false),
        ] {
            assert_eq!(
                is_right(&headers, body, &[secret], NOW + now),
                right,
                "{now}"
            );
        }
        // One of several signatures is enough: a token is rotated so.
        let several = format!("v1,AAAA v1a,xx {signature}");
        let mut listed = headers;
        listed[2].1 = &several;
        assert!(is_right(&listed, body, &[secret], NOW));
        // Beside it GitLab may send the other kind of token, which is another secret.
        let beside = [
            headers[0],
            headers[1],
            headers[2],
            ("x-gitlab-token", "else"),
        ];
        assert!(is_right(&beside, body, &[secret], NOW));
        assert!(!is_right(
            &[("x-gitlab-token", secret)],
            body,
            &[secret],
            NOW
        ));
    }
}
