//! `ctx`: what a script sees of its run.

use picloud_shared::{
    AppSpec, Invocation, ScriptPath,
    event::EventKind,
    invocation::{Input, RequestData},
    sdk::SdkCallCx,
};
use rhai::{Dynamic, Map};
use serde_json::Value;

use crate::{
    form,
    json::{from_json, parse},
};

/// Makes `ctx`.
pub(crate) fn context(invocation: &Invocation) -> Dynamic {
    let mut ctx = Map::new();
    let (request, event, trigger) = match &invocation.input {
        Input::Request(data) => (request(data), Dynamic::UNIT, Dynamic::UNIT),
        Input::Event(event) => {
            let trigger = event
                .trigger
                .as_ref()
                .map_or(Dynamic::UNIT, |name| name.as_str().into());
            (Dynamic::UNIT, event_map(event), trigger)
        }
    };
    ctx.insert("request".into(), request);
    ctx.insert("event".into(), event);
    ctx.insert("trigger".into(), trigger);
    ctx.insert("app".into(), invocation.app.spec.name.as_str().into());
    ctx.insert("script".into(), invocation.script.path.as_str().into());
    ctx.insert("run_id".into(), invocation.run.to_string().into());
    ctx.insert("commit".into(), invocation.commit.as_str().into());
    ctx.insert("env".into(), env(&invocation.app.spec).into());
    ctx.into()
}

/// `ctx` of a handler that another handler runs.
pub(crate) fn invoked(cx: &SdkCallCx, script: &ScriptPath, payload: &Value, id: &str) -> Dynamic {
    let mut event = Map::new();
    event.insert("id".into(), id.into());
    event.insert("kind".into(), EventKind::Invoke.as_str().into());
    event.insert("attempt".into(), 1_i64.into());
    event.insert("trigger".into(), Dynamic::UNIT);
    event.insert("cause".into(), cx.run.to_string().into());
    event.insert("payload".into(), from_json(payload));
    let mut ctx = Map::new();
    ctx.insert("request".into(), Dynamic::UNIT);
    ctx.insert("event".into(), event.into());
    ctx.insert("trigger".into(), Dynamic::UNIT);
    ctx.insert("app".into(), cx.app.spec.name.as_str().into());
    ctx.insert("script".into(), script.as_str().into());
    ctx.insert("run_id".into(), cx.run.to_string().into());
    ctx.insert("commit".into(), cx.commit.as_str().into());
    ctx.insert("env".into(), env(&cx.app.spec).into());
    ctx.into()
}

fn env(spec: &AppSpec) -> Map {
    let env = spec.env.iter();
    env.map(|(name, value)| (name.as_str().into(), value.as_str().into()))
        .collect()
}

fn event_map(event: &picloud_shared::event::Event) -> Dynamic {
    let mut map = Map::new();
    map.insert("id".into(), event.id.to_string().into());
    map.insert("kind".into(), event.kind.as_str().into());
    map.insert("attempt".into(), i64::from(event.attempt).into());
    let trigger = event
        .trigger
        .as_ref()
        .map_or(Dynamic::UNIT, |name| name.as_str().into());
    map.insert("trigger".into(), trigger);
    map.insert(
        "cause".into(),
        event
            .cause
            .map_or(Dynamic::UNIT, |run| run.to_string().into()),
    );
    let field = match event.kind {
        EventKind::Invoke | EventKind::Enqueue => "payload",
        other => other.as_str(),
    };
    map.insert(field.into(), from_json(&event.detail));
    map.into()
}

fn request(data: &RequestData) -> Dynamic {
    let mut map = Map::new();
    map.insert("method".into(), data.method.as_str().into());
    map.insert("path".into(), data.path().into());
    map.insert("route".into(), (&*data.route).into());
    let params = data.params.iter();
    let params: Map = params
        .map(|(name, value)| ((&**name).into(), value.as_str().into()))
        .collect();
    map.insert("params".into(), params.into());
    map.insert(
        "query".into(),
        form::pairs(data.uri.query().unwrap_or_default()).into(),
    );
    map.insert("form".into(), form::form(&data.headers, &data.body).into());
    map.insert("headers".into(), headers(data));
    let text = String::from_utf8_lossy(&data.body);
    let json = if data.body.is_empty() {
        Dynamic::UNIT
    } else {
        parse(&data.body).unwrap_or_default()
    };
    map.insert("json".into(), json);
    map.insert("body".into(), text.as_ref().into());
    map.insert("body_raw".into(), Dynamic::from_blob(data.body.to_vec()));
    map.insert("client_ip".into(), data.client_ip.to_string().into());
    map.into()
}

/// A repeated header is joined as RFC 9110 section 5.2 says.
fn headers(data: &RequestData) -> Dynamic {
    let mut map = Map::new();
    for name in data.headers.keys() {
        let values: Vec<_> = data
            .headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
            .collect();
        let separator = if name == http::header::COOKIE {
            "; "
        } else {
            ", "
        };
        map.insert(name.as_str().into(), values.join(separator).into());
    }
    map.into()
}
