//! The SDK's services, as a confined process has them: each call goes over the socket.

use std::{collections::BTreeMap, io, os::unix::net::UnixStream, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;
use picloud_shared::{
    EventId, ScriptPath,
    run::LogLine,
    sdk::{
        DocsService, Document, EnqueueOptions, FindOptions, HttpAnswer, HttpCall, HttpService,
        InvokeService, KvEntry, KvListOptions, KvService, KvSetOptions, LiveLogs, SdkCallCx,
        SdkError, SdkErrorCode, SdkResult, SecretValue, SecretsService, Services, Versioned,
    },
};
use serde_json::Value;

use crate::{
    frame,
    message::{Call, FromChild, Got, ToChild, sdk_error},
};

/// The socket to the process that supervises this one.
pub(crate) struct Port {
    stream: Mutex<(io::BufReader<UnixStream>, UnixStream)>,
}

impl Port {
    pub(crate) fn new(stream: UnixStream) -> io::Result<Arc<Self>> {
        let reader = io::BufReader::with_capacity(64 << 10, stream.try_clone()?);
        Ok(Arc::new(Self {
            stream: Mutex::new((reader, stream)),
        }))
    }

    pub(crate) fn read(&self) -> io::Result<(ToChild, Bytes)> {
        frame::read(&mut self.stream.lock().0)
    }

    pub(crate) fn write(&self, message: &FromChild, body: &[u8]) -> io::Result<()> {
        frame::write(&mut self.stream.lock().1, message, body)
    }

    /// All services.
    pub(crate) fn services(self: &Arc<Self>) -> Services {
        Services {
            kv: Arc::clone(self) as _,
            docs: Some(Arc::clone(self) as _),
            secrets: Some(Arc::clone(self) as _),
            http: Some(Arc::clone(self) as _),
            invoke: Some(Arc::clone(self) as _),
            live_logs: Some(Arc::clone(self) as _),
        }
    }

    fn call(&self, cx: &SdkCallCx, call: Call, body: &[u8]) -> SdkResult<(Got, Bytes)> {
        let message = FromChild::Call {
            script: cx.script.clone(),
            call,
        };
        let reply = self.write(&message, body).and_then(|()| self.read());
        match reply {
            Ok((ToChild::Reply(Ok(got)), body)) => Ok((got, body)),
            Ok((ToChild::Reply(Err(error)), _)) => Err(sdk_error(error)),
            // Nobody supervises this process any more.
            _ => std::process::exit(0),
        }
    }
}

fn unexpected() -> SdkError {
    SdkError::new(
        SdkErrorCode::Failed,
        "the call was answered with something else",
    )
}

macro_rules! expect {
    ($got:expr, $($pattern:pat => $value:expr),+) => {
        match $got? {
            $($pattern => Ok($value),)+
            _ => Err(unexpected()),
        }
    };
}

impl KvService for Port {
    fn get(&self, cx: &SdkCallCx, collection: &str, key: &str) -> SdkResult<Option<Versioned>> {
        let call = Call::KvGet(collection.to_owned(), key.to_owned());
        expect!(self.call(cx, call, &[]), (Got::Value(found), _) =>
            found.map(|(value, version)| Versioned { value, version }))
    }

    fn get_many(
        &self,
        cx: &SdkCallCx,
        collection: &str,
        keys: &[String],
    ) -> SdkResult<BTreeMap<String, Value>> {
        let call = Call::KvGetMany(collection.to_owned(), keys.to_vec());
        expect!(self.call(cx, call, &[]), (Got::Values(values), _) => values)
    }

    fn set(
        &self,
        cx: &SdkCallCx,
        collection: &str,
        key: &str,
        value: &Value,
        options: &KvSetOptions,
    ) -> SdkResult<i64> {
        let call = Call::KvSet {
            collection: collection.to_owned(),
            key: key.to_owned(),
            value: value.clone(),
            ttl_ms: options.ttl_ms,
            if_version: options.if_version,
        };
        expect!(self.call(cx, call, &[]), (Got::Number(version), _) => version)
    }

    fn delete(&self, cx: &SdkCallCx, collection: &str, key: &str) -> SdkResult<bool> {
        let call = Call::KvDelete(collection.to_owned(), key.to_owned());
        expect!(self.call(cx, call, &[]), (Got::Flag(was_there), _) => was_there)
    }

    fn incr(&self, cx: &SdkCallCx, collection: &str, key: &str, by: i64) -> SdkResult<i64> {
        let call = Call::KvIncr(collection.to_owned(), key.to_owned(), by);
        expect!(self.call(cx, call, &[]), (Got::Number(number), _) => number)
    }

    fn list(
        &self,
        cx: &SdkCallCx,
        collection: &str,
        options: &KvListOptions,
    ) -> SdkResult<Vec<KvEntry>> {
        let call = Call::KvList {
            collection: collection.to_owned(),
            prefix: options.prefix.clone(),
            after: options.after.clone(),
            limit: options.limit,
        };
        expect!(self.call(cx, call, &[]), (Got::Entries(entries), _) => entries
            .into_iter()
            .map(|(key, value, version)| KvEntry { key, value, version })
            .collect())
    }
}

impl DocsService for Port {
    fn create(&self, cx: &SdkCallCx, collection: &str, body: &Value) -> SdkResult<String> {
        let call = Call::DocsCreate(collection.to_owned(), body.clone());
        expect!(self.call(cx, call, &[]), (Got::Text(id), _) => id)
    }

    fn get(&self, cx: &SdkCallCx, collection: &str, id: &str) -> SdkResult<Option<Document>> {
        let call = Call::DocsGet(collection.to_owned(), id.to_owned());
        expect!(self.call(cx, call, &[]), (Got::Documents(found), _) =>
            found.into_iter().next().map(Document::from))
    }

    fn update(
        &self,
        cx: &SdkCallCx,
        collection: &str,
        id: &str,
        body: &Value,
        if_version: Option<i64>,
    ) -> SdkResult<i64> {
        let call = Call::DocsUpdate {
            collection: collection.to_owned(),
            id: id.to_owned(),
            body: body.clone(),
            if_version,
        };
        expect!(self.call(cx, call, &[]), (Got::Number(version), _) => version)
    }

    fn patch(&self, cx: &SdkCallCx, collection: &str, id: &str, merge: &Value) -> SdkResult<i64> {
        let call = Call::DocsPatch(collection.to_owned(), id.to_owned(), merge.clone());
        expect!(self.call(cx, call, &[]), (Got::Number(version), _) => version)
    }

    fn delete(&self, cx: &SdkCallCx, collection: &str, id: &str) -> SdkResult<bool> {
        let call = Call::DocsDelete(collection.to_owned(), id.to_owned());
        expect!(self.call(cx, call, &[]), (Got::Flag(was_there), _) => was_there)
    }

    fn find(
        &self,
        cx: &SdkCallCx,
        collection: &str,
        filter: &Value,
        options: &FindOptions,
    ) -> SdkResult<Vec<Document>> {
        let call = Call::DocsFind {
            collection: collection.to_owned(),
            filter: filter.clone(),
            sort: options.sort.clone(),
            limit: options.limit,
            after: options.after.clone(),
        };
        expect!(self.call(cx, call, &[]), (Got::Documents(found), _) =>
            found.into_iter().map(Document::from).collect())
    }

    fn count(&self, cx: &SdkCallCx, collection: &str, filter: &Value) -> SdkResult<i64> {
        let call = Call::DocsCount(collection.to_owned(), filter.clone());
        expect!(self.call(cx, call, &[]), (Got::Number(count), _) => count)
    }
}

impl SecretsService for Port {
    fn get(&self, cx: &SdkCallCx, name: &str) -> SdkResult<SecretValue> {
        let call = Call::Secret(name.to_owned());
        expect!(self.call(cx, call, &[]), (Got::Text(value), _) => SecretValue(value.into()))
    }
}

impl HttpService for Port {
    fn request(&self, cx: &SdkCallCx, sent: HttpCall) -> SdkResult<HttpAnswer> {
        let (body, content_type) = sent.body.unzip();
        let call = Call::Http {
            method: sent.method,
            url: sent.url,
            query: sent.query,
            headers: sent.headers,
            content_type: content_type.map(str::to_owned),
            timeout_ms: sent.timeout_ms,
            max_body: sent.max_body,
            follow_redirects: sent.follow_redirects,
        };
        expect!(self.call(cx, call, &body.unwrap_or_default()), (Got::Http(status, headers), body) =>
            HttpAnswer { status, headers, body })
    }
}

impl InvokeService for Port {
    fn enqueue(
        &self,
        cx: &SdkCallCx,
        script: &ScriptPath,
        payload: &Value,
        options: &EnqueueOptions,
    ) -> SdkResult<EventId> {
        let call = Call::Enqueue {
            script: script.clone(),
            payload: payload.clone(),
            delay_ms: options.delay_ms,
            key: options.key.clone(),
        };
        expect!(self.call(cx, call, &[]), (Got::Event(id), _) => id)
    }
}

impl LiveLogs for Port {
    /// A line is told when it is written: it is kept even where the script takes this process with
    /// it.
    fn line(&self, cx: &SdkCallCx, _: usize, line: &LogLine) {
        let message = FromChild::Log {
            script: cx.script.clone(),
            line: line.clone(),
        };
        if self.write(&message, &[]).is_err() {
            // Nobody supervises this process any more.
            std::process::exit(0);
        }
    }
}
