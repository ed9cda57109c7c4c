//! The functions that a test has beyond a script's.

use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use picloud_shared::sdk::HttpAnswer;
use rhai::{Array, Dynamic, Engine, ImmutableString, Map};

use super::{CALL, HttpMock, SentRequest, TestAnswer, TestHost, TestRequest, compare};
use crate::{
    json,
    sdk::{self, Native, invalid, throw},
};

pub(super) fn register(engine: &mut Engine, host: &Arc<dyn TestHost>) {
    engine.register_fn("assert", |condition: Dynamic| check(&condition, None));
    engine.register_fn("assert", |condition: Dynamic, message: ImmutableString| {
        check(&condition, Some(&message))
    });
    engine.register_fn(
        "assert_eq",
        |left: Dynamic, right: Dynamic| match compare::difference(&left, &right) {
            Ok(None) => Ok(()),
            Ok(Some(shown)) => Err(failed(&shown)),
            Err(reason) => Err(invalid(reason)),
        },
    );
    let own = Arc::clone(host);
    engine.register_fn(CALL, move |script: ImmutableString| {
        call(own.as_ref(), &script, &Map::new())
    });
    let own = Arc::clone(host);
    engine.register_fn(CALL, move |script: ImmutableString, request: Map| {
        call(own.as_ref(), &script, &request)
    });
    let own = Arc::clone(host);
    engine.register_fn("fire", move |trigger: ImmutableString| {
        fire(own.as_ref(), &trigger, &Dynamic::UNIT)
    });
    let own = Arc::clone(host);
    engine.register_fn("fire", move |trigger: ImmutableString, payload: Dynamic| {
        fire(own.as_ref(), &trigger, &payload)
    });
    register_modules(engine, host);
}

fn register_modules(engine: &mut Engine, host: &Arc<dyn TestHost>) {
    let mut http = sdk::http::module();
    let own = Arc::clone(host);
    sdk::function(
        &mut http,
        "mock",
        move |url: ImmutableString, answer: Map| own.mock_http(&url, mock(&answer)?).map_err(throw),
    );
    let own = Arc::clone(host);
    sdk::function(&mut http, "sent", move || {
        Ok(own.sent().into_iter().map(sent).collect::<Array>())
    });
    sdk::refuse_other_types(&mut http, "http");
    engine.register_static_module("http", http.into());

    let mut secrets = sdk::secrets::module();
    let own = Arc::clone(host);
    sdk::function(
        &mut secrets,
        "mock",
        move |name: ImmutableString, value: ImmutableString| {
            own.mock_secret(&name, &value).map_err(throw)
        },
    );
    sdk::refuse_other_types(&mut secrets, "secrets");
    engine.register_static_module("secrets", secrets.into());

    let mut clock = rhai::Module::new();
    let own = Arc::clone(host);
    sdk::function(&mut clock, "set", move |at: ImmutableString| {
        own.set_clock(&at).map_err(throw)
    });
    let own = Arc::clone(host);
    sdk::function(&mut clock, "advance", move |by: Dynamic| {
        own.advance_clock(sdk::duration("the duration", &by)?)
            .map_err(throw)
    });
    engine.register_static_module("clock", clock.into());
}

fn failed(message: &str) -> Box<rhai::EvalAltResult> {
    let mut map = Map::new();
    map.insert("code".into(), "assertion".into());
    map.insert("message".into(), message.into());
    Box::new(rhai::EvalAltResult::ErrorRuntime(
        map.into(),
        rhai::Position::NONE,
    ))
}

fn check(condition: &Dynamic, message: Option<&str>) -> Native<()> {
    match condition.as_bool() {
        Ok(true) => Ok(()),
        Ok(false) => Err(failed(message.unwrap_or("the assertion does not hold"))),
        Err(kind) => Err(invalid(format!(
            "assert takes true or false; this is {kind}"
        ))),
    }
}

fn call(host: &dyn TestHost, script: &str, request: &Map) -> Native<Map> {
    let mut parsed = TestRequest::default();
    for (name, value) in request {
        match name.as_str() {
            _ if value.is_unit() && name != "json" => {}
            "method" => {
                let method = sdk::text("method", value)?.to_ascii_uppercase();
                Method::from_bytes(method.as_bytes())
                    .map_err(|_| invalid(format!("`{method}` is no method")))?;
                parsed.method = Some(method);
            }
            "path" => parsed.path = Some(sdk::text("path", value)?),
            "params" => parsed.params = sdk::http::pairs("params", value)?,
            "query" => parsed.query = sdk::http::pairs("query", value)?,
            "headers" => parsed.headers = sdk::http::pairs("headers", value)?,
            "body" => parsed.body = sdk::http::content(value)?,
            "json" => {
                let mut out = Vec::new();
                json::write(value, &mut out, sdk::MAX_TEXT).map_err(invalid)?;
                parsed.body = Some((out.into(), "application/json"));
            }
            other => {
                let known = "method, path, params, query, headers, body, json";
                return Err(sdk::unknown("call", other, known));
            }
        }
    }
    if request.contains_key("json") && request.contains_key("body") {
        return Err(invalid("call takes body or json, not both"));
    }
    let answer = host.call(script, parsed).map_err(throw)?;
    Ok(shown(answer))
}

fn shown(answer: TestAnswer) -> Map {
    let json = serde_json::from_slice(&answer.answer.body)
        .map_or(Dynamic::UNIT, |value| json::from_json(&value));
    let mut map = sdk::http::shown(&answer.answer);
    map.insert("json".into(), json);
    if let Some(error) = answer.error {
        map.insert("error".into(), json::from_json(&error));
    }
    map
}

fn fire(host: &dyn TestHost, trigger: &str, payload: &Dynamic) -> Native<Dynamic> {
    let payload = json::to_json(payload)
        .map_err(|reason| invalid(format!("the payload is no JSON: {reason}")))?;
    let run = host.fire(trigger, &payload).map_err(throw)?;
    Ok(json::from_json(&run))
}

fn mock(answer: &Map) -> Native<HttpMock> {
    let mut mock = HttpMock {
        method: None,
        answer: HttpAnswer {
            status: 200,
            headers: Vec::new(),
            body: Bytes::new(),
        },
    };
    let mut kind = None;
    for (name, value) in answer {
        match name.as_str() {
            "status" => {
                let status = value.as_int().ok().and_then(|n| u16::try_from(n).ok());
                mock.answer.status = status
                    .filter(|status| (100..=599).contains(status))
                    .ok_or_else(|| invalid("status must be from 100 to 599"))?;
            }
            "headers" => mock.answer.headers = sdk::http::pairs("headers", value)?,
            "body" => {
                if let Some((bytes, of)) = sdk::http::content(value)? {
                    mock.answer.body = bytes;
                    kind = Some(of);
                }
            }
            "method" => mock.method = Some(sdk::text("method", value)?.to_ascii_uppercase()),
            other => {
                let known = "status, headers, body, method";
                return Err(sdk::unknown("http::mock", other, known));
            }
        }
    }
    for (name, _) in &mut mock.answer.headers {
        name.make_ascii_lowercase();
    }
    let named = |(name, _): &(String, String)| name == "content-type";
    if let Some(kind) = kind
        && !mock.answer.headers.iter().any(named)
    {
        let header = ("content-type".to_owned(), kind.to_owned());
        mock.answer.headers.push(header);
    }
    Ok(mock)
}

fn sent(request: SentRequest) -> Dynamic {
    let headers: Map = request
        .headers
        .into_iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    let kind = headers
        .get("content-type")
        .and_then(|kind| kind.clone().into_string().ok());
    let mut map = Map::new();
    map.insert("method".into(), request.method.into());
    map.insert("url".into(), request.url.into());
    map.insert(
        "body".into(),
        sdk::http::body(kind.as_deref().unwrap_or_default(), &request.body),
    );
    map.insert("headers".into(), headers.into());
    map.into()
}
