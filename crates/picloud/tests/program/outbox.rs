//! The outbox by itself: who gets which event, and when not.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use picloud::{private_postgres::PrivatePostgres, server::store_options};
use picloud_shared::{
    AppId, Clock, EventId, NodeId, RunId, RunRecord, RunStatus, SystemClock, TriggerId,
    app::{RetryPolicy, TriggerKind, TriggerSpec},
    run::{RunError, RunErrorKind, RunKind},
};
use picloud_store::{
    Store,
    outbox::{Finished, LeaseRequest, LeasedEvent, NewEvent, Next},
};
use picloud_test_support::reachable_folder;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

struct Outbox {
    store: Store,
    pool: PgPool,
    clock: Arc<dyn Clock>,
    apps: Vec<AppId>,
}

impl Outbox {
    async fn new(url: &str) -> Self {
        let store = Store::connect(url, store_options(4))
            .await
            .expect("a store");
        store.migrate().await.expect("the schema");
        let pool = PgPool::connect(url).await.expect("a connection");
        let this = Self {
            store,
            pool,
            clock: Arc::new(SystemClock),
            apps: (0..3).map(|_| AppId(SystemClock.new_id())).collect(),
        };
        let source = SystemClock.new_id();
        this.sql(&format!(
            "INSERT INTO sources (id, name, kind, url, created_at) VALUES ('{source}', 's', 'hosted', '', now())"
        ))
        .await;
        for (number, app) in this.apps.iter().enumerate() {
            this.sql(&format!(
                "INSERT INTO apps (id, source_id, name, dir, touched, created_at, concurrency)
                 VALUES ('{app}', '{source}', 'app{number}', '', 0, now(), {})",
                [4, 2, 50][number]
            ))
            .await;
        }
        this
    }

    async fn sql(&self, sql: &str) {
        sqlx::query(sqlx::AssertSqlSafe(sql.to_owned()))
            .execute(&self.pool)
            .await
            .expect(sql);
    }

    /// A trigger of app 2, which has room for many.
    async fn trigger(
        &self,
        name: &str,
        overlap: &str,
        most: Option<u32>,
    ) -> (TriggerId, TriggerSpec) {
        let (id, app) = (TriggerId(SystemClock.new_id()), self.apps[2]);
        let spec: TriggerSpec = serde_json::from_value(json!({
            "kind": { "kind": "cron", "schedule": "@hourly", "timezone": "UTC", "overlap": overlap, "catch_up": "latest" },
            "script": "scripts/a.rhai", "enabled": true, "max_concurrency": most,
            "retry": { "attempts": 2, "backoff_ms": 0, "max_backoff_ms": 0 },
        }))
        .expect("a trigger");
        let name = name.parse().expect("a name");
        self.store
            .put_trigger(app, &name, &spec, id.0, false)
            .await
            .expect("written");
        (id, spec)
    }

    async fn put(&self, app: usize, count: usize) -> Vec<EventId> {
        let mut ids = Vec::new();
        for _ in 0..count {
            let id = EventId(SystemClock.new_id());
            let event = NewEvent::new(
                id,
                self.apps[app],
                "enqueue",
                "scripts/a.rhai",
                &Value::Null,
                SystemClock.now(),
            );
            ids.push(self.store.enqueue(&event).await.expect("written"));
        }
        ids
    }

    async fn fire(
        &self,
        name: &str,
        trigger: &(TriggerId, TriggerSpec),
        count: usize,
    ) -> Vec<EventId> {
        let mut ids = Vec::new();
        for _ in 0..count {
            let id = EventId(SystemClock.new_id());
            let event = NewEvent::new(
                id,
                self.apps[2],
                "cron",
                "scripts/a.rhai",
                &Value::Null,
                SystemClock.now(),
            )
            .of_trigger(trigger.0, name, &trigger.1);
            ids.push(self.store.enqueue(&event).await.expect("written"));
        }
        ids
    }

    async fn lease(&self, node: u128, most: i32) -> Vec<LeasedEvent> {
        let request = LeaseRequest {
            most,
            ..LeaseRequest::default()
        };
        self.lease_as(node, &request).await
    }

    async fn lease_as(&self, node: u128, request: &LeaseRequest) -> Vec<LeasedEvent> {
        let node = NodeId(Uuid::from_u128(node));
        let mut leasing = self.store.leasing().await.expect("a connection");
        let leased = leasing.lease(node, request, self.clock.now()).await;
        leased.expect("leased")
    }

    async fn end(&self, events: Vec<LeasedEvent>, next: Next) -> usize {
        let finished: Vec<Finished> = events
            .into_iter()
            .map(|event| Finished {
                record: Some(record(&event, matches!(next, Next::Done))),
                refused: None,
                next: next.clone(),
                event,
            })
            .collect();
        let held = self.store.finish_events(&finished, &self.clock);
        held.await.expect("finished").len()
    }

    async fn count(&self, sql: &str) -> i64 {
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql.to_owned()))
            .fetch_one(&self.pool)
            .await
            .expect(sql)
    }

    async fn clear(&self) {
        self.sql("DELETE FROM outbox").await;
    }
}

fn record(event: &LeasedEvent, ok: bool) -> RunRecord {
    RunRecord {
        id: RunId(SystemClock.new_id()),
        app_id: event.app,
        app: "app2".parse().expect("a name"),
        script: event.script.parse().expect("a path"),
        kind: RunKind::parse(&event.kind).expect("a kind"),
        trigger: event.trigger.as_deref().and_then(|name| name.parse().ok()),
        route: None,
        commit: "0".repeat(40).parse().expect("a commit"),
        attempt: 1,
        status: if ok { RunStatus::Ok } else { RunStatus::Failed },
        started_at: SystemClock.now(),
        duration_ms: 1.0,
        queue_ms: 0.0,
        operations: 0,
        peak_memory: 0,
        error: (!ok).then(|| RunError {
            kind: RunErrorKind::Script,
            message: "no".to_owned(),
            script: None,
            line: None,
            column: None,
            trace: Vec::new(),
        }),
        logs: Vec::new(),
        dropped_logs: 0,
        cause: event.cause,
        input: json!({}),
    }
}

fn ids(events: &[LeasedEvent]) -> Vec<EventId> {
    events.iter().map(|event| event.id).collect()
}

fn with_outbox<F: Future<Output = ()>>(test: impl FnOnce(Outbox) -> F) {
    let folder = reachable_folder();
    let postgres = PrivatePostgres::start(folder.path()).expect("a database");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let url = postgres.database_url();
    runtime.block_on(async { test(Outbox::new(&url).await).await });
    drop(runtime);
    postgres.stop();
}

#[test]
fn every_app_has_its_turn_and_no_more_than_its_concurrency_over_all_nodes() {
    with_outbox(|outbox| async move {
        let many = outbox.put(0, 200).await;
        let few = outbox.put(1, 3).await;
        let one = outbox.put(2, 1).await;
        let first = outbox.lease(1, 6).await;
        let of = |app: usize| {
            let of = first.iter().filter(|event| event.app == outbox.apps[app]);
            of.map(|event| event.id).collect::<Vec<_>>()
        };
        // Each app's first before anybody's second; then by age.
        assert_eq!(
            (of(0), of(1), of(2)),
            (many[..3].to_vec(), few[..2].to_vec(), one)
        );
        // Four run of the first app over all nodes, two of the second.
        let second = outbox.lease(2, 100).await;
        assert_eq!(ids(&second), [many[3]]);
        assert!(outbox.lease(3, 100).await.is_empty());
        assert_eq!(outbox.end(first, Next::Done).await, 6);
        let third = outbox.lease(2, 100).await;
        assert_eq!(
            ids(&third),
            [&many[4..7], &few[2..]]
                .concat()
                .into_iter()
                .collect::<std::collections::BTreeSet<_>>()
                .into_iter()
                .collect::<Vec<_>>()
        );
        // A node that ends them quickly has more at hand, but may not run more of them at a time.
        outbox.end([second, third].concat(), Next::Done).await;
        let quick = LeaseRequest {
            most: 500,
            quick: vec![outbox.apps[0].0],
            ahead: 16,
            ..LeaseRequest::default()
        };
        let at_hand = outbox.lease_as(2, &quick).await;
        assert_eq!(at_hand.len(), 64);
        assert!(at_hand.iter().all(|event| event.app_room == 4));
        assert!(outbox.lease(3, 100).await.is_empty());
        assert_eq!(
            outbox
                .count("SELECT sum(count)::bigint FROM run_counts")
                .await,
            11
        );
        assert_eq!(outbox.count("SELECT count(*) FROM runs").await, 11);
    });
}

#[test]
fn triggers_keep_their_limits_and_their_order_whatever_becomes_of_attempts() {
    with_outbox(|outbox| async move {
        let limited = outbox.trigger("limited", "allow", Some(2)).await;
        let events = outbox.fire("limited", &limited, 5).await;
        let first = outbox.lease(1, 100).await;
        assert_eq!(ids(&first), events[..2]);
        assert!(outbox.lease(2, 100).await.is_empty());
        // One that waits for its next attempt leaves its place to others.
        let later = SystemClock.now() + TimeDelta::hours(1);
        outbox.end(first, Next::Retry(later)).await;
        let second = outbox.lease(2, 100).await;
        assert_eq!(ids(&second), events[2..4]);
        outbox.clear().await;

        let queue = outbox.trigger("queue", "queue", None).await;
        let events = outbox.fire("queue", &queue, 3).await;
        let first = outbox.lease(1, 100).await;
        assert_eq!(ids(&first), events[..1]);
        let soon = SystemClock.now() + TimeDelta::milliseconds(100);
        outbox.end(first, Next::Retry(soon)).await;
        assert!(
            outbox.lease(1, 100).await.is_empty(),
            "the first one's retry comes first"
        );
        let mut leasing = outbox.store.leasing().await.expect("a connection");
        let due = leasing.next_due(NodeId::default(), SystemClock.now());
        let due: Option<DateTime<Utc>> = due.await.expect("a time");
        assert_eq!(
            due.map(|at| at.timestamp_millis()),
            Some(soon.timestamp_millis())
        );
        tokio::time::sleep(std::time::Duration::from_millis(120)).await;
        let again = outbox.lease(1, 100).await;
        assert_eq!((ids(&again), again[0].attempt), (events[..1].to_vec(), 2));
        outbox.end(again, Next::Dead).await;
        assert_eq!(ids(&outbox.lease(1, 100).await), events[1..2]);
        let letter = outbox
            .store
            .dead_letter(events[0])
            .await
            .expect("asked")
            .expect("a letter");
        assert_eq!(
            (letter.attempts, letter.errors.as_array().map(Vec::len)),
            (2, Some(2))
        );
        let moved = outbox.store.redrive(&[letter.id], SystemClock.now()).await;
        assert_eq!(moved.expect("moved"), [letter.id]);
        outbox.clear().await;

        // Switched off: events wait. On again: they run. Gone: they are told to be.
        let on = outbox.trigger("on-off", "allow", None).await;
        let events = outbox.fire("on-off", &on, 3).await;
        outbox
            .sql("UPDATE triggers SET enabled = false WHERE name = 'on-off'")
            .await;
        let other = outbox.put(2, 1).await;
        assert_eq!(ids(&outbox.lease(1, 2).await), other);
        outbox
            .sql("UPDATE triggers SET enabled = true WHERE name = 'on-off'")
            .await;
        let running = outbox.lease(1, 2).await;
        assert_eq!(ids(&running), events[..2]);
        outbox.store.delete_trigger(on.0).await.expect("deleted");
        let gone = outbox.lease(1, 2).await;
        assert_eq!(
            (ids(&gone), gone[0].trigger_gone),
            (events[2..].to_vec(), true)
        );
        outbox.clear().await;

        // Of a pruned app nothing runs; nothing is lost either.
        outbox.put(2, 1).await;
        outbox
            .sql("UPDATE apps SET pruned_at = now() WHERE name = 'app2'")
            .await;
        assert!(outbox.lease(1, 2).await.is_empty());
        outbox
            .sql("UPDATE apps SET pruned_at = NULL WHERE name = 'app2'")
            .await;
        assert_eq!(outbox.lease(1, 2).await.len(), 1);
    });
}

#[test]
fn a_lease_that_ran_out_is_another_nodes_and_its_late_result_is_refused() {
    with_outbox(|outbox| async move {
        let event = NewEvent {
            dedup_key: Some("k"),
            ..NewEvent::new(
                EventId(SystemClock.new_id()),
                outbox.apps[0],
                "enqueue",
                "scripts/a.rhai",
                &Value::Null,
                SystemClock.now(),
            )
        };
        let waiting = outbox.store.enqueue(&event).await.expect("written");
        let newer = json!({ "newer": true });
        let same = NewEvent {
            id: EventId(SystemClock.new_id()),
            payload: &newer,
            ..event.clone()
        };
        assert_eq!(
            outbox.store.enqueue(&same).await.expect("written"),
            waiting,
            "one waiting job a key"
        );
        let lost = outbox.lease(1, 9).await;
        assert_eq!((ids(&lost), &lost[0].payload), (vec![waiting], &newer));
        // It runs; the next one of that key waits beside it.
        let beside = NewEvent {
            id: EventId(SystemClock.new_id()),
            ..event.clone()
        };
        assert_eq!(
            outbox.store.enqueue(&beside).await.expect("written"),
            beside.id
        );

        let expire = "UPDATE outbox SET lease_until = now() - interval '1 second' WHERE lease_until IS NOT NULL";
        outbox.sql(expire).await;
        // The node itself still runs it, and knows.
        let own = LeaseRequest {
            most: 9,
            own: vec![waiting.0],
            ..LeaseRequest::default()
        };
        assert_eq!(ids(&outbox.lease_as(1, &own).await), [beside.id]);
        outbox.sql(expire).await;
        let taken = outbox.lease(2, 9).await;
        assert_eq!(taken.len(), 2);
        let done = Next::Done;
        assert_eq!(outbox.end(lost, done.clone()).await, 0, "late");
        assert_eq!(outbox.count("SELECT count(*) FROM runs").await, 0);
        // A lease that no clock can have given: of before a clock was set back.
        outbox
            .sql("UPDATE outbox SET lease_until = now() + interval '1 hour'")
            .await;
        let again = outbox.lease(3, 9).await;
        assert_eq!(again.len(), 2);
        assert_eq!(
            outbox
                .store
                .release_leases(NodeId(Uuid::from_u128(3)))
                .await
                .expect("released"),
            2
        );
        let last = outbox.lease(1, 9).await;
        assert_eq!(outbox.end(again, done.clone()).await, 0);
        assert_eq!(outbox.end(last, done).await, 2);
        assert_eq!(outbox.count("SELECT count(*) FROM outbox").await, 0);
    });
}

#[test]
fn of_two_results_of_one_event_in_a_batch_the_one_of_the_lost_lease_is_refused() {
    with_outbox(|outbox| async move {
        let waiting = outbox.put(0, 1).await;
        let lost = outbox.lease(1, 9).await;
        let expire = "UPDATE outbox SET lease_until = now() - interval '1 second'";
        outbox.sql(expire).await;
        // A lease that was lost with the database: its node leases the event anew, and runs it twice.
        let held = outbox.lease(1, 9).await;
        assert_eq!((ids(&lost), ids(&held)), (waiting.clone(), waiting));
        let both = [lost, held].concat();
        assert_eq!(outbox.end(both, Next::Done).await, 1);
        assert_eq!(outbox.count("SELECT count(*) FROM runs").await, 1);
        let counted = "SELECT sum(count)::bigint FROM run_counts";
        assert_eq!(outbox.count(counted).await, 1);
    });
}

#[test]
fn a_dead_letter_goes_to_triggers_that_did_not_fail_on_it() {
    with_outbox(|outbox| async move {
        let mut letters = Vec::new();
        for name in ["first", "second"] {
            let id = TriggerId(SystemClock.new_id());
            let name = name.parse().expect("a name");
            let spec = TriggerSpec {
                kind: TriggerKind::DeadLetter { source_kind: None },
                script: "scripts/a.rhai".parse().expect("a path"),
                enabled: true,
                retry: RetryPolicy {
                    attempts: 1,
                    ..RetryPolicy::default()
                },
                max_concurrency: None,
                limits: picloud_shared::LimitsPatch::default(),
            };
            let put = outbox
                .store
                .put_trigger(outbox.apps[2], &name, &spec, id.0, false);
            letters.push(put.await.expect("written"));
        }
        outbox.put(2, 1).await;
        let mut handled = Vec::new();
        // The event itself, then letters that fail in turn, until nobody is left.
        loop {
            let events = outbox.lease(1, 100).await;
            if events.is_empty() {
                break;
            }
            handled.extend(events.iter().map(|event| event.trigger.clone()));
            outbox.end(events, Next::Dead).await;
        }
        handled.sort();
        let name = |text: &str| Some(text.to_owned());
        assert_eq!(
            handled,
            [
                None,
                name("first"),
                name("first"),
                name("second"),
                name("second")
            ]
        );
        assert_eq!(outbox.count("SELECT count(*) FROM dead_letters").await, 5);
    });
}
