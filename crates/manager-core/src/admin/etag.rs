//! Entity tags (RFC 9110, section 8.8.3) of what can be edited, and the conditions of a write.

use axum::{
    Json,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::answer::{Answer, Problem};

/// The tag of what is declared: the same for the same declaration.
pub(super) fn of(declared: &Value) -> String {
    let digest = Sha256::digest(declared.to_string().as_bytes());
    let hex: String = digest
        .iter()
        .take(12)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("\"{hex}\"")
}

/// Refuses a write whose `If-Match` or `If-None-Match` doesn't hold. `current`: the tag of what
/// is there, if anything is.
pub(super) fn check(headers: &HeaderMap, current: Option<&str>) -> Answer<()> {
    let listed = |name: header::HeaderName| -> Answer<Vec<String>> {
        let values = headers.get_all(&name).iter();
        let lists = values.map(|value| tags(value.to_str().ok()?));
        let lists: Option<Vec<_>> = lists.collect();
        lists.map(|lists| lists.concat()).ok_or_else(|| {
            let detail = format!("{name} takes `*`, or entity tags in double quotes");
            Problem::new(StatusCode::BAD_REQUEST, "malformed", detail)
        })
    };
    let holds = |tags: &[String]| {
        tags.iter()
            .any(|tag| current.is_some_and(|current| tag == "*" || tag == current))
    };
    let wanted = listed(header::IF_MATCH)?;
    if !wanted.is_empty() && !holds(&wanted) {
        return Err(failed("it was changed since: get it anew, and try again"));
    }
    let unwanted = listed(header::IF_NONE_MATCH)?;
    if !unwanted.is_empty() && holds(&unwanted) {
        return Err(failed("it is there already"));
    }
    Ok(())
}

/// A list of entity tags (RFC 9110 section 8.8.3), without the marks of weak ones, or `*`.
fn tags(list: &str) -> Option<Vec<String>> {
    let mut rest = list.trim();
    if rest == "*" {
        return Some(vec![rest.to_owned()]);
    }
    let mut tags = Vec::new();
    loop {
        let opened = rest.strip_prefix("W/").unwrap_or(rest).strip_prefix('"')?;
        let (inner, after) = opened.split_once('"')?;
        if !inner.chars().all(|c| matches!(c, '!'..='~')) {
            return None;
        }
        tags.push(format!("\"{inner}\""));
        let after = after.trim_start();
        if after.is_empty() {
            return Some(tags);
        }
        rest = after.strip_prefix(',')?.trim_start();
    }
}

fn failed(detail: &str) -> Problem {
    Problem::new(
        StatusCode::PRECONDITION_FAILED,
        "precondition_failed",
        detail,
    )
}

/// An answer that says its tag.
pub(super) fn tagged(status: StatusCode, tag: &str, body: Value) -> Response {
    let mut response = (status, Json(body)).into_response();
    if let Ok(tag) = HeaderValue::from_str(tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_on_stale_knowledge_is_refused() {
        let tag = of(&serde_json::json!({"a": 1}));
        let other = of(&serde_json::json!({"a": 2}));
        for (name, value, there, good) in [
            ("if-match", tag.as_str(), true, true),
            ("if-match", other.as_str(), true, false),
            ("if-match", "*", true, true),
            ("if-match", "*", false, false),
            ("if-none-match", "*", true, false),
            ("if-none-match", "*", false, true),
            ("x-other", "x", true, true),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_str(value).expect("a value"));
            let result = check(&headers, there.then_some(tag.as_str()));
            assert_eq!(result.is_ok(), good, "{name}: {value}, there: {there}");
        }
        let mut headers = HeaderMap::new();
        let both = format!("{other}, {tag}");
        headers.insert(header::IF_MATCH, HeaderValue::from_str(&both).expect("one"));
        assert!(check(&headers, Some(&tag)).is_ok());
    }

    #[test]
    fn a_list_of_tags_is_one_or_it_is_refused() {
        let good = [
            ("*", vec!["*"]),
            (r#""a,b" , W/"c""#, vec![r#""a,b""#, r#""c""#]),
            (r#""""#, vec![r#""""#]),
        ];
        for (list, expected) in good {
            let expected = expected.into_iter().map(str::to_owned).collect();
            assert_eq!(tags(list), Some(expected), "{list}");
        }
        for list in [
            "",
            "a",
            r#""a"#,
            r#""a","#,
            r#"*, "a""#,
            r#""a b""#,
            r#""a" "b""#,
        ] {
            assert_eq!(tags(list), None, "{list}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_MATCH, HeaderValue::from_static(""));
        assert!(check(&headers, Some("\"x\"")).is_err());
    }
}
