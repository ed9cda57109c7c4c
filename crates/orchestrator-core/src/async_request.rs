//! Requests of routes with `mode: async`: kept in the outbox, and made whole again for their run.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue};
use picloud_shared::invocation::RequestData;
use serde_json::{Value, json};

use crate::request_record;

/// A request, as the outbox keeps it. What proves who called isn't kept.
pub(crate) fn write(data: &RequestData) -> Value {
    let headers: Vec<Value> = data
        .headers
        .iter()
        .filter(|(name, _)| request_record::may_keep(name))
        .map(|(name, value)| json!([name.as_str(), STANDARD.encode(value.as_bytes())]))
        .collect();
    let params: Vec<Value> = data
        .params
        .iter()
        .map(|(name, value)| json!([name, value]))
        .collect();
    json!({
        "method": data.method.as_str(),
        "uri": data.uri.to_string(),
        "path_offset": data.path_offset,
        "route": data.route,
        "params": params,
        "headers": headers,
        "body": STANDARD.encode(&data.body),
        "client_ip": data.client_ip,
    })
}

/// The request again. `Err` says what is damaged.
pub(crate) fn read(value: &Value) -> Result<RequestData, String> {
    let damaged = |what: &str| format!("the kept request's {what} is damaged");
    let text = |name: &str| value[name].as_str().ok_or_else(|| damaged(name));
    let pairs = |name: &str| {
        let items = value[name].as_array().ok_or_else(|| damaged(name))?;
        items
            .iter()
            .map(|pair| Some((pair[0].as_str()?, pair[1].as_str()?)))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| damaged(name))
    };
    let mut headers = HeaderMap::new();
    for (name, encoded) in pairs("headers")? {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| damaged("headers"))?;
        let bytes = STANDARD.decode(encoded).map_err(|_| damaged("headers"))?;
        let value = HeaderValue::from_bytes(&bytes).map_err(|_| damaged("headers"))?;
        headers.append(name, value);
    }
    let body = STANDARD
        .decode(text("body")?)
        .map_err(|_| damaged("body"))?;
    Ok(RequestData {
        method: text("method")?.parse().map_err(|_| damaged("method"))?,
        uri: text("uri")?.parse().map_err(|_| damaged("uri"))?,
        path_offset: value["path_offset"]
            .as_u64()
            .and_then(|offset| usize::try_from(offset).ok())
            .ok_or_else(|| damaged("path_offset"))?,
        route: Arc::from(text("route")?),
        params: pairs("params")?
            .into_iter()
            .map(|(name, value)| (Arc::from(name), value.to_owned()))
            .collect(),
        headers,
        body: body.into(),
        client_ip: text("client_ip")?
            .parse()
            .map_err(|_| damaged("client_ip"))?,
    })
}
