//! What becomes of an attempt: done, again later, or a dead letter; together with its record.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use chrono::{DateTime, TimeDelta, Utc};
use picloud_shared::{
    Clock, RunRecord,
    event::{Link, MAX_CHAIN},
    run::RunError,
};
use serde_json::{Value, json};
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use super::{DataEvent, LeaseId, LeasedEvent};
use crate::{
    Store, StoreError,
    notifications::{self, GivenUp},
    runs::{self, RunCount, bucket},
};

/// A transaction whose plans go by the indexes. Plans are kept: one that was made while the outbox
/// was empty would read it from end to end once a burst had filled it.
const BY_INDEX: &str = "BEGIN; SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off";

/// What became of an attempt.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The event.
    pub event: LeasedEvent,
    /// The record of its run; `None` where nothing could be run.
    pub record: Option<RunRecord>,
    /// Why nothing could be run.
    pub refused: Option<RunError>,
    /// What happens now.
    pub next: Next,
}

/// What happens after an attempt.
#[derive(Debug, Clone)]
pub enum Next {
    /// Nothing: it is done.
    Done,
    /// Another attempt, then.
    Retry(DateTime<Utc>),
    /// It is given up.
    Dead,
}

impl Finished {
    /// The attempt's error, as dead letters keep it.
    fn error(&self) -> Option<Value> {
        let record = self.record.as_ref();
        let error = record
            .and_then(|record| record.error.as_ref())
            .or(self.refused.as_ref())?;
        let mut value = serde_json::to_value(error).unwrap_or_default();
        value["attempt"] = self.event.attempt.into();
        value["run"] = json!(record.map(|record| record.id));
        Some(value)
    }
}

impl Store {
    /// Ends attempts together with the records and the counts of their runs. A result whose lease
    /// was lost meanwhile is refused: nothing of it is written. Gives the leases of those that were
    /// not refused.
    pub async fn finish_events(
        &self,
        finished: &[Finished],
        clock: &Arc<dyn Clock>,
    ) -> Result<Vec<LeaseId>, StoreError> {
        let now = clock.now();
        let mut transaction = self.pool().begin_with(BY_INDEX).await?;
        let of = |retried: bool| {
            let of = finished
                .iter()
                .filter(move |done| matches!(done.next, Next::Retry(_)) == retried);
            of.map(|done| (done.event.id.0, done.event.fence))
                .unzip::<Uuid, i64, Vec<_>, Vec<_>>()
        };
        let (ids, fences) = of(false);
        let deleted = sqlx::query!(
            "DELETE FROM outbox o USING unnest($1::uuid[], $2::bigint[]) AS d (id, fence)
             WHERE o.id = d.id AND o.fence = d.fence RETURNING o.id, o.fence",
            &ids,
            &fences,
        )
        .fetch_all(&mut *transaction)
        .await?;
        // By lease and not by event alone: the result of a lost lease may be in the same batch.
        let mut held: HashSet<(Uuid, i64)> =
            deleted.iter().map(|row| (row.id, row.fence)).collect();
        let (ids, fences) = of(true);
        if !ids.is_empty() {
            let retried = sqlx::query!(
                "SELECT o.id, o.fence FROM outbox o JOIN unnest($1::uuid[], $2::bigint[]) AS d (id, fence)
                   ON o.id = d.id AND o.fence = d.fence ORDER BY o.id FOR UPDATE OF o",
                &ids,
                &fences,
            )
            .fetch_all(&mut *transaction)
            .await?;
            held.extend(retried.iter().map(|row| (row.id, row.fence)));
        }
        let own: Vec<&Finished> = finished
            .iter()
            .filter(|done| held.contains(&(done.event.id.0, done.event.fence)))
            .collect();
        for done in &own {
            match &done.next {
                Next::Done => {}
                Next::Retry(at) => again(&mut transaction, done, *at).await?,
                Next::Dead => bury(&mut transaction, done, clock, now).await?,
            }
        }
        let records: Vec<&RunRecord> = own.iter().filter_map(|done| done.record.as_ref()).collect();
        runs::insert(&mut transaction, &records).await?;
        runs::add_counts(&mut transaction, &counts(&records)).await?;
        transaction.commit().await?;
        Ok(own.iter().map(|done| done.event.lease()).collect())
    }
}

/// How many runs these are, by app, minute, kind and status.
pub(crate) fn counts(records: &[&RunRecord]) -> Vec<RunCount> {
    let mut counts = BTreeMap::new();
    for record in records {
        let at = record.started_at;
        let minute = at
            - TimeDelta::nanoseconds(
                at.timestamp_nanos_opt()
                    .unwrap_or(0)
                    .rem_euclid(60_000_000_000),
            );
        let key = (
            record.app_id,
            minute,
            record.kind.as_str(),
            record.status.as_str(),
        );
        let count = counts.entry(key).or_insert_with(|| RunCount {
            app: record.app_id,
            minute,
            kind: record.kind,
            status: record.status,
            count: 0,
            duration_us: 0,
            histogram: [0; runs::BUCKETS],
        });
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a duration is not negative, and as many microseconds as fit"
        )]
        let micros = (record.duration_ms * 1000.0) as u64;
        count.count += 1;
        count.duration_us += micros;
        count.histogram[bucket(micros)] += 1;
    }
    counts.into_values().collect()
}

/// The errors of all attempts so far.
fn errors(done: &Finished) -> Vec<Value> {
    done.event
        .errors
        .iter()
        .cloned()
        .chain(done.error())
        .collect()
}

async fn again(
    connection: &mut PgConnection,
    done: &Finished,
    at: DateTime<Utc>,
) -> Result<(), StoreError> {
    // One that is in order keeps its place: those after it wait until it ended.
    sqlx::query!(
        "UPDATE outbox SET attempt = attempt + 1, errors = $2, due_at = $3, lease_until = NULL, lease_node = NULL,
             held = trigger_id IS NOT NULL AND max_concurrency IS NOT NULL AND NOT ordered
         WHERE id = $1",
        done.event.id.0,
        Json(errors(done)) as _,
        at,
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn bury(
    connection: &mut PgConnection,
    done: &Finished,
    clock: &Arc<dyn Clock>,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let event = &done.event;
    let error = done.error();
    let attempts = if done.record.is_some() {
        event.attempt
    } else {
        event.attempt - 1
    };
    sqlx::query!(
        "INSERT INTO dead_letters (id, app_id, source_kind, trigger, script, attempts, last_error, errors, event,
             chain, cause, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
         ON CONFLICT (id) DO NOTHING",
        event.id.0,
        event.app.0,
        event.kind,
        event.trigger,
        event.script,
        attempts,
        Json(&error) as _,
        Json(errors(done)) as _,
        Json(&event.payload) as _,
        Json(&event.chain) as _,
        event.cause.map(|run| run.0),
        now,
    )
    .execute(&mut *connection)
    .await?;
    if let Some(trigger) = &event.trigger {
        let given_up = GivenUp {
            app: event.app,
            trigger,
            script: &event.script,
            letter: event.id,
            error: error.as_ref().unwrap_or(&Value::Null),
        };
        notifications::tell_failing(connection, &given_up, clock.as_ref()).await?;
    }
    let mut chain = event.chain.clone();
    chain.extend(done.record.as_ref().map(Link::of));
    let cause = done.record.as_ref().map(|record| record.id).or(event.cause);
    let Some(cause) = cause.filter(|_| chain.len() < MAX_CHAIN) else {
        return Ok(());
    };
    let data = DataEvent {
        cause,
        chain,
        clock: Arc::clone(clock),
        now,
    };
    let detail = json!({
        "id": event.id, "source_kind": event.kind, "trigger": event.trigger, "script": event.script,
        "attempts": attempts, "last_error": error, "event": event.payload,
    });
    data.emit(
        connection,
        event.app,
        "dead_letter",
        &event.kind,
        "",
        &detail,
    )
    .await
}
