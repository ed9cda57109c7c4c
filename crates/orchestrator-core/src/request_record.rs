//! What a run's record keeps of a request: enough to show it, and to make it again for a replay.
//! What proves who called isn't kept, nor a body that is long.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderName, StatusCode, header};
use picloud_shared::invocation::RequestData;
use serde_json::{Map, Value, json};

/// Bytes of a body that are kept.
const MAX_BODY: usize = 16 << 10;
/// Headers that prove who called.
const PROOFS: [HeaderName; 3] = [
    header::AUTHORIZATION,
    header::COOKIE,
    header::PROXY_AUTHORIZATION,
];

/// Whether a header may be kept.
pub(crate) fn may_keep(name: &HeaderName) -> bool {
    !PROOFS.contains(name)
}

pub(crate) fn write(request: &RequestData, answered: Option<StatusCode>) -> Value {
    let headers: Map<String, Value> = request
        .headers
        .keys()
        .filter(|name| may_keep(name))
        .map(|name| {
            let values = request.headers.get_all(name).iter();
            let values: Vec<_> = values
                .map(|value| String::from_utf8_lossy(value.as_bytes()))
                .collect();
            (name.as_str().to_owned(), values.join(", ").into())
        })
        .collect();
    let params: Map<String, Value> = request
        .params
        .iter()
        .map(|(name, value)| (name.to_string(), value.as_str().into()))
        .collect();
    let mut kept = json!({
        "method": request.method.as_str(),
        "path": request.path(),
        "query": request.uri.query(),
        "route": &*request.route,
        "params": params,
        "headers": headers,
        "client_ip": request.client_ip,
    });
    if let Some(status) = answered {
        kept["status"] = status.as_u16().into();
    }
    if request.body.len() > MAX_BODY {
        kept["body_bytes"] = request.body.len().into();
    } else {
        match std::str::from_utf8(&request.body) {
            Ok(text) => kept["body"] = text.into(),
            Err(_) => kept["body_base64"] = STANDARD.encode(&request.body).into(),
        }
    }
    kept
}
