//! Lists by keyset: a cursor says after which row to go on, so that pages hold while rows come.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::{Stream, TryStreamExt};
use serde::Serialize;
use uuid::Uuid;

use crate::StoreError;

/// Bytes of a page's items, the last one not counted.
const MAX_BYTES: usize = 16 << 20;

/// A part of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// In the list's order.
    pub items: Vec<T>,
    /// Where to go on; `None` at the end.
    pub next_cursor: Option<String>,
}

/// Which part is wanted.
#[derive(Debug, Clone, Default)]
pub struct PageQuery {
    /// At most so many.
    pub limit: u32,
    /// From an earlier page.
    pub cursor: Option<String>,
}

impl PageQuery {
    /// The id after which to go on.
    pub(crate) fn after(&self) -> Result<Option<Uuid>, StoreError> {
        let Some(cursor) = &self.cursor else {
            return Ok(None);
        };
        let bytes = URL_SAFE_NO_PAD
            .decode(cursor)
            .map_err(|_| StoreError::BadCursor)?;
        Uuid::from_slice(&bytes)
            .map(Some)
            .map_err(|_| StoreError::BadCursor)
    }

    /// One row more than is wanted, which tells whether there is a next page.
    pub(crate) fn rows(&self) -> i64 {
        i64::from(self.limit) + 1
    }

    /// Makes a page of rows as they come. It ends early where its items are large together.
    pub(crate) async fn gather<R, T>(
        &self,
        mut rows: impl Stream<Item = Result<R, sqlx::Error>> + Unpin,
        id: impl Fn(&T) -> Uuid,
    ) -> Result<Page<T>, StoreError>
    where
        T: TryFrom<R, Error = StoreError> + Serialize,
    {
        let (mut items, mut size, mut more) = (Vec::<T>::new(), 0, false);
        while let Some(row) = rows.try_next().await? {
            more = items.len() == self.limit as usize || size > MAX_BYTES;
            if more {
                break;
            }
            let item = T::try_from(row)?;
            size += serde_json::to_vec(&item).map_or(0, |text| text.len());
            items.push(item);
        }
        Ok(Page {
            next_cursor: items
                .last()
                .filter(|_| more)
                .map(|item| URL_SAFE_NO_PAD.encode(id(item).as_bytes())),
            items,
        })
    }

    /// Makes a page of the rows, of which there may be one too many.
    pub(crate) fn page<T>(&self, mut items: Vec<T>, id: impl Fn(&T) -> Uuid) -> Page<T> {
        let more = items.len() > self.limit as usize;
        items.truncate(self.limit as usize);
        let last = items.last().filter(|_| more).map(id);
        Page {
            items,
            next_cursor: last.map(|id| URL_SAFE_NO_PAD.encode(id.as_bytes())),
        }
    }
}
