//! The dashboard: its files, held in the program, served below `/dashboard/`.

use axum::{
    Router,
    extract::{Path, Request},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Redirect, Response},
    routing::get,
};

/// A file of the dashboard, and what it is when compressed.
struct File {
    /// Below `/dashboard/`.
    path: &'static str,
    /// Its media type.
    kind: &'static str,
    /// A digest of its content.
    tag: &'static str,
    plain: &'static [u8],
    brotli: Option<&'static [u8]>,
    gzip: Option<&'static [u8]>,
}

include!(concat!(env!("OUT_DIR"), "/dashboard.rs"));

/// Files whose names change with their content.
const IMMUTABLE: &str = "_app/immutable/";

/// Nothing but this server's own files, and no script or style within a page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; \
     form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'";

/// The routes of the dashboard.
pub fn router() -> Router {
    Router::new()
        .route(
            "/dashboard",
            get(|| async { Redirect::permanent("/dashboard/") }),
        )
        .route("/dashboard/", get(index))
        .route("/dashboard/{*path}", get(file))
        .layer(middleware::from_fn(protect))
}

async fn index(headers: HeaderMap) -> Response {
    match find("index.html") {
        Some(file) => serve(file, &headers),
        None => absent(),
    }
}

/// A file, or the page for what is no file: the router in the browser knows those paths.
async fn file(Path(path): Path<String>, headers: HeaderMap) -> Response {
    if let Some(file) = find(&path) {
        return serve(file, &headers);
    }
    if path.starts_with("_app/") {
        // A page of an earlier version asks for its files: it must not get a page instead.
        return (StatusCode::NOT_FOUND, "there is no such file\n").into_response();
    }
    index(headers).await
}

fn find(path: &str) -> Option<&'static File> {
    let at = FILES.binary_search_by(|file| file.path.cmp(path)).ok()?;
    FILES.get(at)
}

fn serve(file: &File, headers: &HeaderMap) -> Response {
    let (coding, body) = choose(file, headers);
    let tag = format!(
        "\"{}{}\"",
        file.tag,
        coding.map_or("", |coding| &coding[..1])
    );
    let caching = if file.path.starts_with(IMMUTABLE) {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    let known = headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|value| value.trim().trim_start_matches("W/") == tag);
    let mut response = if known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        body.into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(file.kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    if let Some(coding) = coding {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
    }
    response
}

/// The smallest form that the client takes.
fn choose(file: &File, headers: &HeaderMap) -> (Option<&'static str>, &'static [u8]) {
    let accepted: Vec<&str> = headers
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter(|value| !refused(value))
        .filter_map(|value| value.split(';').next())
        .map(str::trim)
        .collect();
    let takes = |coding: &str| {
        accepted
            .iter()
            .any(|name| name.eq_ignore_ascii_case(coding))
    };
    match (file.brotli, file.gzip) {
        (Some(body), _) if takes("br") => (Some("br"), body),
        (_, Some(body)) if takes("gzip") => (Some("gzip"), body),
        _ => (None, file.plain),
    }
}

/// Whether a coding comes with the weight zero.
fn refused(value: &str) -> bool {
    value
        .split(';')
        .filter_map(|part| part.trim().strip_prefix("q="))
        .any(|weight| weight.parse::<f32>().is_ok_and(|weight| weight <= 0.0))
}

/// What is served where the program was built without the dashboard.
fn absent() -> Response {
    let page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>PiCloud</title></head>\n\
         <body>\n<h1>PiCloud runs, without its dashboard</h1>\n<p>The dashboard is not built in: {}.</p>\n\
         <p>Install Node.js {NODE} or newer with npm, build the program again, and it is here. \
         Until then <code>picloud status</code> and the admin API at <code>/api/v1/admin</code> show the same.</p>\n\
         </body>\n</html>\n",
        escape(ABSENCE)
    );
    let kind = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (kind, page).into_response()
}

/// What `package.json` asks for.
const NODE: &str = "20.19";

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// The headers that keep other sites and injected text away.
async fn protect(request: Request, next: Next) -> Response {
    const HEADERS: [(HeaderName, &str); 7] = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "same-origin"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("permissions-policy"),
            "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
        ),
    ];
    let mut response = next.run(request).await;
    for (name, value) in HEADERS {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: File = File {
        path: "_app/immutable/x.js",
        kind: "text/javascript; charset=utf-8",
        tag: "0123456789abcdef",
        plain: b"plain",
        brotli: Some(b"br"),
        gzip: Some(b"gz"),
    };

    fn ask(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn a_client_gets_what_it_takes() {
        let cases = [
            ("", None),
            ("gzip, deflate, br", Some("br")),
            ("GZIP", Some("gzip")),
            ("br;q=0, gzip;q=0.5", Some("gzip")),
            ("br; q=0.0", None),
            ("brotli", None),
        ];
        for (accepted, coding) in cases {
            let headers = ask(header::ACCEPT_ENCODING, accepted);
            assert_eq!(choose(&FILE, &headers).0, coding, "{accepted:?}");
        }
    }

    #[test]
    fn what_a_client_has_is_not_sent_again() {
        let first = serve(&FILE, &ask(header::ACCEPT_ENCODING, "br"));
        assert_eq!(first.headers()[header::ETAG], "\"0123456789abcdefb\"");
        assert!(
            first.headers()[header::CACHE_CONTROL]
                .to_str()
                .is_ok_and(|it| it.contains("immutable"))
        );
        let mut headers = ask(header::IF_NONE_MATCH, "\"x\", W/\"0123456789abcdefb\"");
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("br"));
        assert_eq!(serve(&FILE, &headers).status(), StatusCode::NOT_MODIFIED);
        // The same tag names nothing in another coding.
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        assert_eq!(serve(&FILE, &headers).status(), StatusCode::OK);
    }
}
