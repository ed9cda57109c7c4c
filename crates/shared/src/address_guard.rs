//! Which addresses scripts may reach: public ones. Decides on an `IpAddr`, whatever text it came
//! from; sources are the IANA special-purpose registries (RFC 6890 and its updates).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A range that is refused.
struct Range<A> {
    first: A,
    bits: u8,
    category: &'static str,
    shown: &'static str,
}

macro_rules! v4 {
    ($($address:literal / $bits:literal $category:literal),* $(,)?) => {
        [$(Range {
            first: parse_v4($address),
            bits: $bits,
            category: $category,
            shown: concat!($address, "/", $bits),
        }),*]
    };
}

macro_rules! v6 {
    ($($shown:literal [$a:literal, $b:literal, $c:literal, $d:literal, $e:literal, $f:literal] / $bits:literal $category:literal),* $(,)?) => {
        [$(Range {
            first: Ipv6Addr::new($a, $b, $c, $d, $e, $f, 0, 0),
            bits: $bits,
            category: $category,
            shown: $shown,
        }),*]
    };
}

const fn parse_v4(text: &str) -> Ipv4Addr {
    let bytes = text.as_bytes();
    let mut octets = [0_u8; 4];
    let (mut at, mut octet) = (0, 0);
    while at < bytes.len() {
        if bytes[at] == b'.' {
            octet += 1;
        } else {
            octets[octet] = octets[octet] * 10 + (bytes[at] - b'0');
        }
        at += 1;
    }
    Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3])
}

static V4: [Range<Ipv4Addr>; 17] = v4![
    "0.0.0.0" / 8 "unspecified",
    "10.0.0.0" / 8 "private",
    "100.64.0.0" / 10 "shared",
    "127.0.0.0" / 8 "loopback",
    "169.254.0.0" / 16 "link-local",
    "172.16.0.0" / 12 "private",
    "192.0.0.0" / 24 "reserved",
    "192.0.2.0" / 24 "documentation",
    "192.88.99.0" / 24 "reserved",
    "192.168.0.0" / 16 "private",
    "198.18.0.0" / 15 "benchmarking",
    "198.51.100.0" / 24 "documentation",
    "203.0.113.0" / 24 "documentation",
    "255.255.255.255" / 32 "broadcast",
    "224.0.0.0" / 4 "multicast",
    "240.0.0.0" / 4 "reserved",
    "168.63.129.16" / 32 "metadata",
];

static V6: [Range<Ipv6Addr>; 15] = v6![
    "::/96" [0, 0, 0, 0, 0, 0] / 96 "reserved",
    "::ffff:0:0/96" [0, 0, 0, 0, 0, 0xffff] / 96 "mapped IPv4",
    "::ffff:0:0:0/96" [0, 0, 0, 0, 0xffff, 0] / 96 "translated IPv4",
    "64:ff9b::/96" [0x64, 0xff9b, 0, 0, 0, 0] / 96 "NAT64",
    "64:ff9b:1::/48" [0x64, 0xff9b, 1, 0, 0, 0] / 48 "NAT64",
    "100::/64" [0x100, 0, 0, 0, 0, 0] / 64 "discard",
    "2001::/23" [0x2001, 0, 0, 0, 0, 0] / 23 "reserved",
    "2001:db8::/32" [0x2001, 0xdb8, 0, 0, 0, 0] / 32 "documentation",
    "2002::/16" [0x2002, 0, 0, 0, 0, 0] / 16 "6to4",
    "3fff::/20" [0x3fff, 0, 0, 0, 0, 0] / 20 "documentation",
    "5f00::/16" [0x5f00, 0, 0, 0, 0, 0] / 16 "reserved",
    "fc00::/7" [0xfc00, 0, 0, 0, 0, 0] / 7 "private",
    "fe80::/10" [0xfe80, 0, 0, 0, 0, 0] / 10 "link-local",
    "fec0::/10" [0xfec0, 0, 0, 0, 0, 0] / 10 "private",
    "ff00::/8" [0xff00, 0, 0, 0, 0, 0] / 8 "multicast",
];

/// Decides which addresses may be reached.
#[derive(Debug, Clone, Copy, Default)]
pub struct AddressGuard {
    /// Whether the operator lets scripts reach any address.
    pub allow_private: bool,
}

/// Why an address is refused: the category and the range, never the address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("blocked: {0}")]
pub struct Refused(pub String);

impl AddressGuard {
    /// Whether an address may be reached.
    pub fn check(&self, address: IpAddr) -> Result<(), Refused> {
        if self.allow_private {
            return Ok(());
        }
        let refused = match address {
            IpAddr::V4(address) => V4
                .iter()
                .find(|range| {
                    is_in(
                        u32::from(range.first).into(),
                        u32::from(address).into(),
                        range.bits,
                        32,
                    )
                })
                .map(|range| (range.category, range.shown)),
            IpAddr::V6(address) if address == Ipv6Addr::LOCALHOST => Some(("loopback", "::1/128")),
            IpAddr::V6(address) if address.is_unspecified() => Some(("unspecified", "::/128")),
            IpAddr::V6(address) if is_isatap(address) => Some(("ISATAP", "RFC 5214")),
            IpAddr::V6(address) => V6
                .iter()
                .find(|range| is_in(range.first.into(), address.into(), range.bits, 128))
                .map(|range| (range.category, range.shown)),
        };
        match refused {
            Some((category, range)) => Err(Refused(format!("{category} ({range})"))),
            None => Ok(()),
        }
    }
}

fn is_in(first: u128, address: u128, bits: u8, width: u8) -> bool {
    let below = u32::from(width - bits);
    first.checked_shr(below) == address.checked_shr(below)
}

/// An interface identifier that wraps an IPv4 address: `…:0:5efe:a.b.c.d`, with the `u` bit or not.
fn is_isatap(address: Ipv6Addr) -> bool {
    let parts = address.segments();
    parts[5] == 0x5efe && parts[4] & !0x0200 == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_of_each_range_is_refused_and_what_lies_outside_is_not() {
        let refused = [
            "0.0.0.0",
            "0.255.255.255",
            "10.0.0.0",
            "10.255.255.255",
            "100.64.0.0",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.0.0",
            "169.254.169.254",
            "172.16.0.0",
            "172.31.255.255",
            "192.0.0.0",
            "192.0.0.255",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.0",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.255",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.0",
            "255.255.255.255",
            "168.63.129.16",
            "::",
            "::1",
            "::7f00:1",
            "::8.8.8.8",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::ffff:0:127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "64:ff9b:1:ffff::1",
            "100::1",
            "2001::1",
            "2001:1ff:ffff::",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "3fff:fff::1",
            "5f00::1",
            "fc00::1",
            "fdff:ffff::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "feff::1",
            "ff00::1",
            "ff02::1",
            "2a00:1450::5efe:7f00:1",
            "2a00:1450::200:5efe:7f00:1",
            "fe80::5efe:10.0.0.1",
        ];
        let guard = AddressGuard::default();
        for text in refused {
            let address: IpAddr = text.parse().expect("an address");
            assert!(guard.check(address).is_err(), "{text}");
        }
        let public = [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "168.63.129.15",
            "2001:200::1",
            "2606:4700::1",
            "2a00:1450:4001::1",
            "2003::1",
        ];
        for text in public {
            let address: IpAddr = text.parse().expect("an address");
            assert_eq!(guard.check(address), Ok(()), "{text}");
        }
    }

    #[test]
    fn an_error_names_the_category_and_never_the_address() {
        let refused = AddressGuard::default().check(IpAddr::from([10, 1, 2, 3]));
        let message = refused.expect_err("private").to_string();
        assert_eq!(message, "blocked: private (10.0.0.0/8)");
    }
}
