//! `ctx.request.query` and `ctx.request.form`: names and values, however they are sent.

use http::{HeaderMap, header};
use percent_encoding::percent_decode_str;
use rhai::{Array, Dynamic, Map};

/// Parts of a body of `multipart/form-data` that are read.
const MAX_PARTS: usize = 1_000;

/// The fields of a body, as its type says: of `application/x-www-form-urlencoded`, or of
/// `multipart/form-data` (RFC 7578), where a file is `#{filename, content_type, body}`. Another
/// body, or a damaged one, has none.
pub(crate) fn form(headers: &HeaderMap, body: &[u8]) -> Map {
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let media = kind.split(';').next().unwrap_or_default().trim();
    if media.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return std::str::from_utf8(body).map(pairs).unwrap_or_default();
    }
    if media.eq_ignore_ascii_case("multipart/form-data")
        && let Some(boundary) = parameter(kind, "boundary")
    {
        return parts(body, &boundary).unwrap_or_default();
    }
    Map::new()
}

/// `a=1&a=2&b=3` (WHATWG URL, section 5.1): a repeated key is an array, else text.
pub(crate) fn pairs(text: &str) -> Map {
    let mut map = Map::new();
    for part in text.split('&').filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        add(&mut map, decode(key), decode(value).into());
    }
    map
}

fn decode(text: &str) -> String {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
}

fn add(map: &mut Map, key: String, value: Dynamic) {
    let Some(there) = map.get_mut(key.as_str()) else {
        map.insert(key.into(), value);
        return;
    };
    if !there.is_array() {
        let first = std::mem::take(there);
        *there = Dynamic::from_array(vec![first]);
    }
    if let Some(mut array) = there.write_lock::<Array>() {
        array.push(value);
    }
}

/// The parts of a multipart body (RFC 2046, section 5.1.1). `None`: it is damaged.
fn parts(body: &[u8], boundary: &str) -> Option<Map> {
    if boundary.is_empty() || boundary.len() > 70 {
        return None;
    }
    let delimiter = format!("\r\n--{boundary}");
    let mut rest = match body.strip_prefix(&delimiter.as_bytes()[2..]) {
        Some(rest) => rest,
        // What comes before the first is nobody's.
        None => split(body, delimiter.as_bytes())?.1,
    };
    let mut map = Map::new();
    for _ in 0..MAX_PARTS {
        if rest.starts_with(b"--") {
            return Some(map);
        }
        let (_, after) = split(rest, b"\r\n")?;
        let (part, next) = split(after, delimiter.as_bytes())?;
        // A part may have no header at all, but then it has no name.
        let (head, content) = split(part, b"\r\n\r\n")?;
        let (name, value) = field(std::str::from_utf8(head).ok()?, content)?;
        add(&mut map, name, value);
        rest = next;
    }
    None
}

/// A part's name, and its text, or its file.
fn field(head: &str, content: &[u8]) -> Option<(String, Dynamic)> {
    let header = |wanted: &str| {
        let mut lines = head.split("\r\n").filter_map(|line| line.split_once(':'));
        let found = lines.find(|(name, _)| name.trim().eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.trim())
    };
    let disposition = header("content-disposition")?;
    let name = parameter(disposition, "name")?;
    let Some(filename) = parameter(disposition, "filename") else {
        return Some((name, String::from_utf8_lossy(content).into_owned().into()));
    };
    let kind = header("content-type").unwrap_or("application/octet-stream");
    let mut file = Map::new();
    file.insert("filename".into(), filename.into());
    file.insert("content_type".into(), kind.into());
    file.insert("body".into(), Dynamic::from_blob(content.to_vec()));
    Some((name, file.into()))
}

/// A parameter of a header's value: `name=token` or `name="quoted"`. Browsers escape `"` as `%22`,
/// and line breaks as `%0D%0A` (WHATWG HTML, section 4.10.21.8).
fn parameter(value: &str, wanted: &str) -> Option<String> {
    let mut rest = value.split_once(';')?.1;
    loop {
        let (name, after) = rest.split_once('=')?;
        let (found, next) = if let Some(quoted) = after.trim_start().strip_prefix('"') {
            let (found, next) = quoted.split_once('"')?;
            let found = found.replace("%22", "\"").replace("%0D", "\r");
            (found.replace("%0A", "\n"), next)
        } else {
            let (token, _) = after.split_once(';').unwrap_or((after, ""));
            (token.trim().to_owned(), &after[token.len()..])
        };
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(found);
        }
        rest = next.split_once(';')?.1;
    }
}

fn split<'b>(bytes: &'b [u8], by: &[u8]) -> Option<(&'b [u8], &'b [u8])> {
    let at = bytes.windows(by.len()).position(|part| part == by)?;
    Some((&bytes[..at], &bytes[at + by.len()..]))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::{Value, json};

    use super::*;

    fn read(kind: &str, body: &[u8]) -> Value {
        let mut headers = HeaderMap::new();
        let kind = HeaderValue::from_str(kind).expect("a value");
        headers.insert(header::CONTENT_TYPE, kind);
        crate::json::to_json(&form(&headers, body).into()).expect("JSON")
    }

    #[test]
    fn parts_are_fields_and_files() {
        let body = "before\r\n--x y\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n\
            --x y\r\ncontent-disposition: form-data; name=a\r\nContent-Type: text/plain\r\n\r\n\r\n2\r\n\r\n\
            --x y\r\nContent-Disposition: form-data; filename=\"q%22.txt\"; name=\"f\"\r\nContent-Type: text/x\r\n\r\nAB\r\n\
            --x y\r\nContent-Disposition: form-data; name=\"\"\r\n\r\n\r\n--x y--\r\nafter";
        let expected = json!({
            "a": ["1", "\r\n2\r\n"], "": "",
            "f": { "filename": "q\".txt", "content_type": "text/x", "body": [65, 66] },
        });
        let kind = "Multipart/Form-Data; charset=utf-8; boundary=\"x y\"";
        assert_eq!(read(kind, body.as_bytes()), expected);
        assert_eq!(read(kind, b"--x y--"), json!({}));
    }

    #[test]
    fn what_is_damaged_has_no_fields() {
        let kind = "multipart/form-data; boundary=x";
        for body in [
            "",
            "--x",
            "--x\r\n",
            "--x\r\nContent-Disposition: form-data; name=a\r\n\r\n1",
            "--x\r\n\r\n1\r\n--x--",
            "--x\r\nContent-Disposition: form-data\r\n\r\n1\r\n--x--",
            "--y\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--y--",
        ] {
            assert_eq!(read(kind, body.as_bytes()), json!({}), "{body:?}");
        }
        for kind in [
            "multipart/form-data",
            "multipart/form-data; boundary=",
            "multipart/form-data; boundary=\"x",
            "multipart/mixed; boundary=x",
        ] {
            let body = b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--x--";
            assert_eq!(read(kind, body), json!({}), "{kind}");
        }
    }
}
