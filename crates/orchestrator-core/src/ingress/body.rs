//! Reading a request's body within its limit, while it streams.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};

use crate::problem::{Whole, problem};

/// How long a client may take to send a body.
const READ_TIME: Duration = Duration::from_secs(30);

/// The body, or the answer that says why there is none.
pub(super) async fn read(
    body: Incoming,
    headers: &HeaderMap,
    max: u64,
) -> Result<Bytes, Box<Response<Whole>>> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let declared = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > max) {
        return Err(too_large(max));
    }
    let limited = Limited::new(body, usize::try_from(max).unwrap_or(usize::MAX));
    match tokio::time::timeout(READ_TIME, limited.collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(max)),
        Ok(Err(_)) => Err(Box::new(problem(
            StatusCode::BAD_REQUEST,
            "bad_request",
            "the body broke off",
        ))),
        Err(_) => {
            let detail = "the body did not arrive in time";
            Err(Box::new(problem(
                StatusCode::REQUEST_TIMEOUT,
                "request_timeout",
                detail,
            )))
        }
    }
}

fn too_large(max: u64) -> Box<Response<Whole>> {
    let detail = format!("the body is larger than the {max} bytes that this route takes");
    Box::new(problem(
        StatusCode::PAYLOAD_TOO_LARGE,
        "payload_too_large",
        &detail,
    ))
}
