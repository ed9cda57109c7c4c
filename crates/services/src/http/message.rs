//! What is sent, what comes back, and what a script is told of a request that failed.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use picloud_shared::{
    address_guard::Refused,
    outgoing::blocked,
    sdk::{HttpAnswer, SdkError, SdkErrorCode, SdkResult},
};
use reqwest::{
    Response, Url,
    header::{self, HeaderMap, HeaderName, HeaderValue},
};
use tokio::time::timeout;

/// Characters of all headers of a request.
const MAX_HEADERS: usize = 64 << 10;
/// Headers that frame a message or speak for somebody else are not a script's to set.
const OWN_HEADERS: [&str; 12] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "upgrade",
    "te",
    "trailer",
    "expect",
    "proxy-authorization",
    "proxy-connection",
    "user-agent",
];

pub(super) fn header_map(pairs: &[(String, String)]) -> SdkResult<HeaderMap> {
    let mut headers = HeaderMap::with_capacity(pairs.len() + 2);
    let size: usize = pairs
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    if size > MAX_HEADERS {
        return Err(SdkError::new(
            SdkErrorCode::TooLarge,
            format!("the headers have {size} bytes; at most {MAX_HEADERS} are sent"),
        ));
    }
    for (name, value) in pairs {
        let parsed = HeaderName::from_bytes(name.as_bytes())
            .ok()
            .filter(|name| !OWN_HEADERS.contains(&name.as_str()))
            .ok_or_else(|| {
                invalid(format!(
                    "`{}` is no header that a script sets",
                    name.escape_debug()
                ))
            })?;
        let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| {
            invalid(format!(
                "the header `{name}` holds a character that cannot be sent"
            ))
        })?;
        headers.append(parsed, value);
    }
    Ok(headers)
}

/// Where a redirect leads.
pub(super) fn location(response: &Response, from: &Url) -> Option<SdkResult<Url>> {
    let redirects = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let to = response
        .headers()
        .get(header::LOCATION)
        .filter(|_| redirects)?;
    let url = std::str::from_utf8(to.as_bytes())
        .ok()
        .and_then(|to| from.join(to).ok());
    Some(url.ok_or_else(|| SdkError::new(SdkErrorCode::Failed, "the redirect leads to no address")))
}

/// Reads an answer's body, decompressed, and not a byte more than it may have; `idle` is how long
/// it may stop in the middle.
pub(super) async fn read(
    mut response: Response,
    max: u64,
    idle: Duration,
) -> SdkResult<HttpAnswer> {
    let status = response.status().as_u16();
    let headers = response
        .headers()
        .iter()
        .map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.as_str().to_owned(), value)
        })
        .collect();
    let mut body = BytesMut::new();
    loop {
        let chunk = timeout(idle, response.chunk())
            .await
            .map_err(|_| too_long("the answer stopped in the middle"))?;
        let Some(chunk) = chunk.map_err(|error| told(&error))? else {
            break;
        };
        if (body.len() + chunk.len()) as u64 > max {
            return Err(SdkError::new(
                SdkErrorCode::TooLarge,
                format!("the answer has more than {max} bytes"),
            ));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(HttpAnswer {
        status,
        headers,
        body: Bytes::from(body),
    })
}

/// What a script is told of a request that failed: never an address.
pub(super) fn told(error: &reqwest::Error) -> SdkError {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    let mut last = String::new();
    while let Some(at) = cause {
        if let Some(Refused(why)) = at.downcast_ref::<Refused>() {
            return blocked(why);
        }
        last = at.to_string();
        cause = at.source();
    }
    if error.is_timeout() {
        return too_long("the connection was not made in time");
    }
    tracing::debug!(%error, cause = last, "a script's request failed");
    let message = if error.is_connect() && last.contains("lookup") {
        "the name cannot be resolved"
    } else if error.is_connect() {
        "the connection failed"
    } else if error.is_decode() {
        "the answer could not be decoded"
    } else {
        "the request failed"
    };
    SdkError::new(SdkErrorCode::Failed, message)
}

/// Throws `timeout`.
pub(super) fn too_long(what: &str) -> SdkError {
    SdkError::new(SdkErrorCode::Timeout, what)
}

pub(super) fn invalid(message: impl Into<String>) -> SdkError {
    SdkError::new(SdkErrorCode::Invalid, message)
}
