//! `base64::*`, `base64url::*`, `hex::*`, `url::*`

use base64::{
    Engine as _,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use rhai::{Array, Blob, Dynamic, ImmutableString, Map, Module};

use super::{MAX_TEXT, Native, function, invalid, with_bytes};

functions! {
    "base64" :: "encode" [1], ["encode(data: Dynamic) -> String"], "Base64 (RFC 4648, section 4) of text or a blob, with padding.";
    "base64" :: "decode" [1], ["decode(text: String) -> Blob"], "The bytes of base64, with or without padding. Throws `invalid` where it is none.";
    "base64url" :: "encode" [1], ["encode(data: Dynamic) -> String"], "Base64 for URLs (RFC 4648, section 5) of text or a blob, without padding.";
    "base64url" :: "decode" [1], ["decode(text: String) -> Blob"], "The bytes of base64 for URLs, with or without padding.";
    "hex" :: "encode" [1], ["encode(data: Dynamic) -> String"], "Hexadecimal digits, in lower case, of text or a blob.";
    "hex" :: "decode" [1], ["decode(text: String) -> Blob"], "The bytes of hexadecimal digits in any case.";
    "url" :: "encode" [1], ["encode(text: String) -> String"], "Percent-encodes all but letters, digits and `-._~`.";
    "url" :: "decode" [1], ["decode(text: String) -> String"], "Decodes percent-encoding. Throws `invalid` where the result is not UTF-8.";
    "url" :: "parse" [1], ["parse(text: String) -> Map"], "The parts of an absolute URL: `#{scheme, host, port, path, query, params, fragment, username, password, origin}`.";
}

/// What RFC 3986 calls reserved is encoded, what it calls unreserved is not.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const PLAIN: GeneralPurpose = GeneralPurpose::new(&STANDARD, LENIENT);
const FOR_URLS: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, LENIENT.with_encode_padding(false));

/// Bytes of a URL that is taken apart.
const MAX_URL: usize = 64 << 10;

pub(super) fn base64() -> Module {
    codec(&PLAIN)
}

pub(super) fn base64url() -> Module {
    codec(&FOR_URLS)
}

fn codec(engine: &'static GeneralPurpose) -> Module {
    let mut module = Module::new();
    function(&mut module, "encode", move |data: Dynamic| {
        with_bytes("the data", &data, |bytes| {
            room(bytes.len(), bytes.len().saturating_mul(2))?;
            Ok(ImmutableString::from(engine.encode(bytes)))
        })?
    });
    function(&mut module, "decode", move |text: ImmutableString| {
        let decoded: Native<Blob> = engine
            .decode(text.as_bytes())
            .map_err(|error| invalid(format!("this is not base64: {error}")));
        decoded
    });
    module
}

fn room(size: usize, result: usize) -> Native<()> {
    if result > MAX_TEXT {
        return Err(super::throw(picloud_shared::sdk::SdkError::new(
            picloud_shared::sdk::SdkErrorCode::TooLarge,
            format!("{size} bytes are too many to encode at once"),
        )));
    }
    Ok(())
}

pub(super) fn hex() -> Module {
    let mut module = Module::new();
    function(&mut module, "encode", |data: Dynamic| {
        with_bytes("the data", &data, |bytes| {
            room(bytes.len(), bytes.len().saturating_mul(2))?;
            Ok(ImmutableString::from(to_hex(bytes)))
        })?
    });
    function(&mut module, "decode", |text: ImmutableString| {
        from_hex(&text).ok_or_else(|| invalid("this is not hexadecimal"))
    });
    module
}

/// Lower-case digits.
pub(super) fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// Digits in any case, two a byte.
pub(super) fn from_hex(text: &str) -> Option<Blob> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    if !text.len().is_multiple_of(2) {
        return None;
    }
    text.as_bytes()
        .chunks_exact(2)
        .map(|pair| u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok())
        .collect()
}

pub(super) fn url() -> Module {
    let mut module = Module::new();
    function(&mut module, "encode", |text: ImmutableString| {
        room(text.len(), text.len().saturating_mul(3))?;
        Ok(ImmutableString::from(
            utf8_percent_encode(&text, COMPONENT).to_string(),
        ))
    });
    function(&mut module, "decode", |text: ImmutableString| {
        let decoded = percent_decode_str(&text).decode_utf8();
        decoded
            .map(|text| ImmutableString::from(text.into_owned()))
            .map_err(|_| invalid("the decoded bytes are not UTF-8"))
    });
    function(&mut module, "parse", |text: ImmutableString| parse(&text));
    module
}

fn parse(text: &str) -> Native<Map> {
    if text.len() > MAX_URL {
        return Err(invalid(format!("a URL has at most {MAX_URL} bytes")));
    }
    let url = url::Url::parse(text).map_err(|error| invalid(format!("this is no URL: {error}")))?;
    let optional = |part: Option<&str>| part.map_or(Dynamic::UNIT, Into::into);
    let mut map = Map::new();
    map.insert("scheme".into(), url.scheme().into());
    map.insert("host".into(), optional(url.host_str()));
    let port = url.port_or_known_default();
    map.insert(
        "port".into(),
        port.map_or(Dynamic::UNIT, |port| i64::from(port).into()),
    );
    map.insert("path".into(), url.path().into());
    map.insert("query".into(), optional(url.query()));
    let mut params = Map::new();
    for (name, value) in url.query_pairs() {
        let value: Dynamic = value.into_owned().into();
        let Some(known) = params.get_mut(name.as_ref()) else {
            params.insert(name.as_ref().into(), value);
            continue;
        };
        // A repeated name has an array of values, as in `ctx.request.query`.
        let mut values = match known.take().try_cast_result::<Array>() {
            Ok(values) => values,
            Err(first) => vec![first],
        };
        values.push(value);
        *known = values.into();
    }
    map.insert("params".into(), params.into());
    map.insert("fragment".into(), optional(url.fragment()));
    map.insert("username".into(), url.username().into());
    map.insert("password".into(), optional(url.password()));
    map.insert("origin".into(), url.origin().ascii_serialization().into());
    Ok(map)
}
