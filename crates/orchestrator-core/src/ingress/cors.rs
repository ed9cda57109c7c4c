//! Cross-origin rules of routes (Fetch standard, section 3.2).

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use picloud_shared::app::Cors;

use crate::{
    problem::Whole,
    routes::{Route, allow},
};

/// Puts on an answer what lets its origin read it.
pub(super) fn apply(cors: Option<&Cors>, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
    let Some(cors) = cors else { return };
    let any = cors.origins.iter().any(|allowed| allowed == "*");
    if any {
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_ORIGIN,
            HeaderValue::from_static("*"),
        );
        return;
    }
    // Another origin gets another answer, also from a cache.
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    let Some(origin) = origin else { return };
    if cors
        .origins
        .iter()
        .any(|allowed| allowed.as_bytes() == origin.as_bytes())
    {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    }
}

/// `OPTIONS` on a path that no route answers itself: a preflight, or the question what is allowed.
pub(super) fn options(routes: &[&Route], request: &HeaderMap) -> Response<Whole> {
    let mut response = Response::new(Whole::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(header::ALLOW, allow(routes));
    let asked = request
        .get(header::ACCESS_CONTROL_REQUEST_METHOD)
        .and_then(|value| value.to_str().ok());
    let (Some(asked), Some(origin)) = (asked, request.get(header::ORIGIN)) else {
        return response;
    };
    let asked = if asked == "HEAD" { "GET" } else { asked };
    let route = routes
        .iter()
        .find(|route| route.spec.methods.contains(asked));
    let Some((route, cors)) = route.and_then(|route| Some((route, route.spec.cors.as_ref()?)))
    else {
        return response;
    };
    apply(Some(cors), Some(origin), headers);
    if !headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN) {
        return response;
    }
    let methods = match cors.methods.as_slice() {
        [] => route
            .spec
            .methods
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(", "),
        methods => methods.join(", "),
    };
    insert(headers, header::ACCESS_CONTROL_ALLOW_METHODS, &methods);
    match cors.headers.as_slice() {
        [] => {
            if let Some(asked) = request.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
                headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
                headers.append(
                    header::VARY,
                    HeaderValue::from_static("access-control-request-headers"),
                );
            }
        }
        names => insert(
            headers,
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            &names.join(", "),
        ),
    }
    if let Some(seconds) = cors.max_age {
        insert(
            headers,
            header::ACCESS_CONTROL_MAX_AGE,
            &seconds.to_string(),
        );
    }
    response
}

fn insert(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
