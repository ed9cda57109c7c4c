//! What a confined process asks for, done here.

use bytes::Bytes;
use picloud_shared::{
    Redactor,
    sdk::{
        EnqueueOptions, FindOptions, HttpCall, KvListOptions, KvSetOptions, SdkCallCx, SdkError,
        SdkErrorCode, SdkResult, Services,
    },
};

use crate::message::{Call, Doc, Got};

/// Content types that the SDK gives a body unless the script says otherwise.
const CONTENT_TYPES: [&str; 3] = [
    "text/plain; charset=utf-8",
    "application/octet-stream",
    "application/json",
];

/// Does it, on behalf of the run; secrets that are given out are remembered.
pub(crate) fn answer(
    services: &Services,
    cx: &SdkCallCx,
    secrets: &mut Redactor,
    call: Call,
    body: Bytes,
) -> SdkResult<(Got, Bytes)> {
    let got = match call {
        Call::Secret(name) => {
            let value = present(services.secrets.as_ref())?.get(cx, &name)?;
            secrets.learn(&value);
            Got::Text(value.0.as_ref().to_owned())
        }
        Call::Http { .. } => return http(services, cx, call, body),
        Call::Enqueue {
            script,
            payload,
            delay_ms,
            key,
        } => {
            let options = EnqueueOptions { delay_ms, key };
            let invoke = present(services.invoke.as_ref())?;
            Got::Event(invoke.enqueue(cx, &script, &payload, &options)?)
        }
        other => match kv(services, cx, other)? {
            Ok(got) => got,
            Err(other) => docs(services, cx, other)?,
        },
    };
    Ok((got, Bytes::new()))
}

fn present<T>(service: Option<&T>) -> SdkResult<&T> {
    service.ok_or_else(|| {
        SdkError::new(
            SdkErrorCode::Unavailable,
            "the service is not available here",
        )
    })
}

/// `Err` gives back what is no call of `kv`.
fn kv(services: &Services, cx: &SdkCallCx, call: Call) -> SdkResult<Result<Got, Call>> {
    let kv = &services.kv;
    Ok(Ok(match call {
        Call::KvGet(collection, key) => {
            let found = kv.get(cx, &collection, &key)?;
            Got::Value(found.map(|found| (found.value, found.version)))
        }
        Call::KvGetMany(collection, keys) => Got::Values(kv.get_many(cx, &collection, &keys)?),
        Call::KvSet {
            collection,
            key,
            value,
            ttl_ms,
            if_version,
        } => {
            let options = KvSetOptions { ttl_ms, if_version };
            Got::Number(kv.set(cx, &collection, &key, &value, &options)?)
        }
        Call::KvDelete(collection, key) => Got::Flag(kv.delete(cx, &collection, &key)?),
        Call::KvIncr(collection, key, by) => Got::Number(kv.incr(cx, &collection, &key, by)?),
        Call::KvList {
            collection,
            prefix,
            after,
            limit,
        } => {
            let options = KvListOptions {
                prefix,
                after,
                limit,
            };
            let entries = kv.list(cx, &collection, &options)?.into_iter();
            Got::Entries(
                entries
                    .map(|entry| (entry.key, entry.value, entry.version))
                    .collect(),
            )
        }
        other => return Ok(Err(other)),
    }))
}

fn docs(services: &Services, cx: &SdkCallCx, call: Call) -> SdkResult<Got> {
    let docs = present(services.docs.as_ref())?;
    Ok(match call {
        Call::DocsCreate(collection, body) => Got::Text(docs.create(cx, &collection, &body)?),
        Call::DocsGet(collection, id) => {
            let found = docs.get(cx, &collection, &id)?;
            Got::Documents(found.into_iter().map(Doc::from).collect())
        }
        Call::DocsUpdate {
            collection,
            id,
            body,
            if_version,
        } => Got::Number(docs.update(cx, &collection, &id, &body, if_version)?),
        Call::DocsPatch(collection, id, merge) => {
            Got::Number(docs.patch(cx, &collection, &id, &merge)?)
        }
        Call::DocsDelete(collection, id) => Got::Flag(docs.delete(cx, &collection, &id)?),
        Call::DocsFind {
            collection,
            filter,
            sort,
            limit,
            after,
        } => {
            let options = FindOptions { sort, limit, after };
            let found = docs.find(cx, &collection, &filter, &options)?;
            Got::Documents(found.into_iter().map(Doc::from).collect())
        }
        Call::DocsCount(collection, filter) => Got::Number(docs.count(cx, &collection, &filter)?),
        _ => {
            return Err(SdkError::new(
                SdkErrorCode::Invalid,
                "the call is not known",
            ));
        }
    })
}

fn http(services: &Services, cx: &SdkCallCx, call: Call, body: Bytes) -> SdkResult<(Got, Bytes)> {
    let Call::Http {
        method,
        url,
        query,
        headers,
        content_type,
        timeout_ms,
        max_body,
        follow_redirects,
    } = call
    else {
        return Err(SdkError::new(
            SdkErrorCode::Invalid,
            "the call is not known",
        ));
    };
    let content_type = content_type.map(|given| {
        let known = CONTENT_TYPES.into_iter().find(|known| *known == given);
        known.unwrap_or("application/octet-stream")
    });
    let sent = HttpCall {
        method,
        url,
        query,
        headers,
        body: content_type.map(|content_type| (body, content_type)),
        timeout_ms,
        max_body,
        follow_redirects,
    };
    let got = present(services.http.as_ref())?.request(cx, sent)?;
    Ok((Got::Http(got.status, got.headers), got.body))
}
