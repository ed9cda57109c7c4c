//! Content codings of static files (RFC 9110, section 8.4.1).

use std::io::Write;

use brotli::enc::BrotliEncoderParams;
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, header};

/// How hard brotli tries, of 11: near gzip's time at a better size.
const BROTLI_QUALITY: i32 = 5;

/// How a content is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Coding {
    Identity,
    Gzip,
    Brotli,
}

impl Coding {
    /// Those that compress, the better one first.
    pub(super) const COMPRESSED: [Self; 2] = [Self::Brotli, Self::Gzip];

    /// As in `Content-Encoding`.
    pub(super) fn name(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some("gzip"),
            Self::Brotli => Some("br"),
        }
    }

    /// What the name of a file that is compressed already ends in.
    pub(super) fn ending(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some("gz"),
            Self::Brotli => Some("br"),
        }
    }

    /// What tells the `ETag`s of a file's forms apart.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::Identity => "",
            Self::Gzip => "-gzip",
            Self::Brotli => "-br",
        }
    }

    /// The content in this coding.
    pub(super) fn compress(self, plain: &[u8]) -> std::io::Result<Bytes> {
        match self {
            Self::Identity => Ok(Bytes::copy_from_slice(plain)),
            Self::Gzip => {
                let room = Vec::with_capacity(plain.len() / 2);
                let mut encoder = GzEncoder::new(room, Compression::default());
                encoder.write_all(plain)?;
                encoder.finish().map(Bytes::from)
            }
            Self::Brotli => {
                let mut packed = Vec::with_capacity(plain.len() / 2);
                let params = BrotliEncoderParams {
                    quality: BROTLI_QUALITY,
                    ..BrotliEncoderParams::default()
                };
                let mut input = plain;
                brotli::BrotliCompress(&mut input, &mut packed, &params)?;
                Ok(packed.into())
            }
        }
    }
}

/// The one of the offered codings that the client likes best (RFC 9110, section 12.5.3); where it
/// likes two equally, the first.
pub(super) fn choose(headers: &HeaderMap, offered: impl Iterator<Item = Coding>) -> Coding {
    let mut best = (Coding::Identity, 0.0_f32);
    for coding in offered {
        let weight = coding.name().map_or(0.0, |name| weight(headers, name));
        if weight > best.1 {
            best = (coding, weight);
        }
    }
    best.0
}

fn weight(headers: &HeaderMap, coding: &str) -> f32 {
    let values = headers
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let (mut named, mut any) = (None, None);
    for part in values.flat_map(|value| value.split(',')) {
        let mut fields = part.split(';').map(str::trim);
        let name = fields.next().unwrap_or_default();
        let weight = fields
            .find_map(|field| {
                let (key, value) = field.split_once('=')?;
                key.trim()
                    .eq_ignore_ascii_case("q")
                    .then(|| value.trim().parse::<f32>().unwrap_or(0.0))
            })
            .unwrap_or(1.0);
        if name.eq_ignore_ascii_case(coding) {
            named = Some(weight);
        } else if name == "*" {
            any = Some(weight);
        }
    }
    named.or(any).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_s_wish_decides() {
        let cases = [
            ("gzip, br", "br"),
            ("gzip", "gzip"),
            ("br;q=0.1, gzip", "gzip"),
            ("*", "br"),
            ("*;q=0", ""),
            ("br;q=0, *", "gzip"),
            ("identity", ""),
            ("GZIP ; Q=0.5", "gzip"),
            ("", ""),
        ];
        for (wish, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, wish.parse().expect("a value"));
            let chosen = choose(&headers, Coding::COMPRESSED.into_iter());
            assert_eq!(chosen.name().unwrap_or_default(), expected, "{wish:?}");
        }
    }
}
