//! What a proxy says of the client, as far as it can be trusted.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;

/// What proxies tell, by custom and by RFC 7239.
const HEADERS: [&str; 5] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
];

/// Takes the word of anybody but a trusted proxy out of a request: whoever reads these headers from
/// here on, a script or the platform, may believe them.
pub(super) fn settle(headers: &mut HeaderMap, peer: SocketAddr, trusted: &[IpAddr]) {
    if trusted.contains(&peer.ip().to_canonical()) {
        return;
    }
    for name in HEADERS {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_trusted_proxys_word_stays() {
        let trusted = ["10.0.0.1".parse().expect("an address")];
        for (peer, stays) in [
            ("10.0.0.1:1", true),
            ("[::ffff:10.0.0.1]:1", true),
            ("10.0.0.2:1", false),
        ] {
            let mut headers = HeaderMap::new();
            for name in HEADERS {
                headers.insert(name, "https".parse().expect("a value"));
            }
            headers.insert("host", "a".parse().expect("a value"));
            settle(&mut headers, peer.parse().expect("an address"), &trusted);
            assert_eq!(
                headers.len(),
                if stays { HEADERS.len() + 1 } else { 1 },
                "{peer}"
            );
        }
    }
}
