//! Bodies, read whole: a signature is over all of it.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, header},
};
use bytes::BytesMut;
use futures_util::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A sender that sends nothing for so long is given up.
const STALLED: Duration = Duration::from_secs(30);
/// Bytes of a refused body that are read, so that the sender comes to see the refusal.
const DISCARDED: usize = 64 << 20;
/// How long that may take.
const DISCARD_TIME: Duration = Duration::from_secs(10);
/// Bytes of all bodies together that are in memory, at the least.
const ROOM: usize = 64 << 20;
const KIB: usize = 1 << 10;

/// Why there is no body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BodyError {
    TooLarge,
    Broken(String),
}

/// Reads bodies within bounds: of each, and of all together.
pub(super) struct Bodies {
    max: usize,
    /// One permit a KiB.
    room: Arc<Semaphore>,
}

impl Bodies {
    pub(super) fn new(max: usize) -> Self {
        let room = ROOM.max(max * 2) / KIB;
        Self {
            max,
            room: Arc::new(Semaphore::new(room.min(Semaphore::MAX_PERMITS))),
        }
    }

    pub(super) fn max(&self) -> usize {
        self.max
    }

    /// The body, and the room that it takes: to be held for as long as it is.
    pub(super) async fn read(
        &self,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<(Bytes, Option<OwnedSemaphorePermit>), BodyError> {
        let told = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        if told.is_some_and(|told| told > self.max) {
            discard(body).await;
            return Err(BodyError::TooLarge);
        }
        let wanted = told.unwrap_or(self.max).div_ceil(KIB);
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
        // Never closed; without room it would be read all the same.
        let room = Arc::clone(&self.room).acquire_many_owned(wanted).await.ok();
        let mut read = BytesMut::new();
        let mut stream = body.into_data_stream();
        loop {
            let next = tokio::time::timeout(STALLED, stream.next()).await;
            let next = next.map_err(|_| BodyError::Broken("the body does not come".to_owned()))?;
            match next {
                Some(Ok(chunk)) if read.len() + chunk.len() > self.max => {
                    drop(read);
                    discard(Body::from_stream(stream)).await;
                    return Err(BodyError::TooLarge);
                }
                Some(Ok(chunk)) => read.extend_from_slice(&chunk),
                Some(Err(error)) => return Err(BodyError::Broken(error.to_string())),
                None => return Ok((read.freeze(), room)),
            }
        }
    }
}

/// Reads what nobody wants, within bounds: who is still sending when the connection is closed
/// sees a broken connection and not the answer.
pub(super) async fn discard(body: Body) {
    let mut stream = body.into_data_stream();
    let all = async {
        let mut seen = 0;
        while let Some(Ok(chunk)) = stream.next().await {
            seen += chunk.len();
            if seen > DISCARDED {
                break;
            }
        }
    };
    // However it ends: the answer is the same.
    let _ = tokio::time::timeout(DISCARD_TIME, all).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(max: usize, told: Option<&str>, body: &'static [u8]) -> Result<usize, BodyError> {
        let mut headers = HeaderMap::new();
        if let Some(told) = told {
            headers.insert(header::CONTENT_LENGTH, told.parse().expect("a number"));
        }
        let read = Bodies::new(max).read(&headers, Body::from(body)).await;
        read.map(|(body, _)| body.len())
    }

    #[tokio::test]
    async fn a_body_is_bounded_whatever_its_length_is_said_to_be() {
        assert_eq!(read(4, Some("4"), b"1234").await, Ok(4));
        assert_eq!(read(4, None, b"1234").await, Ok(4));
        assert_eq!(read(4, None, b"12345").await, Err(BodyError::TooLarge));
        assert_eq!(read(4, Some("5"), b"12345").await, Err(BodyError::TooLarge));
        assert_eq!(read(4, Some("3"), b"12345").await, Err(BodyError::TooLarge));
        assert_eq!(read(4, None, b"").await, Ok(0));
    }
}
