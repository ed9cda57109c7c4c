//! Calls of the same kind that come while others are under way are asked together: one statement
//! and one commit for all of them, so that a busy app costs the database less and not more.
//!
//! A call that comes alone is asked at once. Each app has queues of its own, so that one that waits
//! for a lock holds up nobody else.

use std::{
    collections::{HashMap, VecDeque},
    future::Future,
    sync::Arc,
};

use parking_lot::Mutex;
use picloud_shared::AppId;
use sqlx::PgPool;
use tokio::sync::oneshot;

use crate::StoreError;

/// Statements of one kind and app that are under way at once.
const LANES: usize = 2;
/// Calls in a statement.
const TOGETHER: usize = 32;

/// A call that can be asked together with its like.
pub(crate) trait Gathered: std::fmt::Debug + Send + Sync + Sized + 'static {
    /// What it gives.
    type Answer: std::fmt::Debug + Send + 'static;

    /// Whether it may be in one statement with those.
    fn fits(&self, others: &[Self]) -> bool;

    /// Asks for all of them; the answers in their order.
    fn ask(
        pool: &PgPool,
        app: AppId,
        calls: &[Self],
    ) -> impl Future<Output = Result<Vec<Self::Answer>, StoreError>> + Send;
}

/// The queues of one kind of call.
#[derive(Debug)]
pub(crate) struct Gatherer<C: Gathered> {
    apps: Arc<Mutex<HashMap<AppId, Queue<C>>>>,
}

#[derive(Debug)]
struct Queue<C: Gathered> {
    lanes: usize,
    // As many as there are runs at the most: each waits for its call.
    waiting: VecDeque<Waiting<C>>,
}

#[derive(Debug)]
struct Waiting<C: Gathered> {
    call: C,
    answer: Answer<C>,
}

type Answer<C> = oneshot::Sender<Result<<C as Gathered>::Answer, StoreError>>;

impl<C: Gathered> Clone for Gatherer<C> {
    fn clone(&self) -> Self {
        Self {
            apps: Arc::clone(&self.apps),
        }
    }
}

impl<C: Gathered> Default for Gatherer<C> {
    fn default() -> Self {
        Self {
            apps: Arc::default(),
        }
    }
}

impl<C: Gathered> Gatherer<C> {
    /// Asks, together with whoever else asks now. A caller that goes away before its call was
    /// begun takes it back.
    pub(crate) async fn ask(
        &self,
        pool: &PgPool,
        app: AppId,
        call: C,
    ) -> Result<C::Answer, StoreError> {
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { call, answer };
        if self.join(app, waiting) {
            let lane = Lane {
                gatherer: self.clone(),
                app,
                open: true,
            };
            tokio::spawn(lane.drive(pool.clone()));
        }
        // Only a runtime that ends drops a lane before it has answered.
        answered
            .await
            .map_err(|_| StoreError::Database(sqlx::Error::WorkerCrashed))?
    }

    /// Whether a lane is to be opened for it.
    fn join(&self, app: AppId, waiting: Waiting<C>) -> bool {
        let mut apps = self.apps.lock();
        let queue = apps.entry(app).or_insert_with(|| Queue {
            lanes: 0,
            waiting: VecDeque::new(),
        });
        queue.waiting.push_back(waiting);
        let opens = queue.lanes < LANES;
        queue.lanes += usize::from(opens);
        opens
    }

    /// What is to be asked next; `None` closes the lane, so that whoever joins from then on opens one.
    fn next(&self, app: AppId) -> Option<(Vec<C>, Vec<Answer<C>>)> {
        let mut apps = self.apps.lock();
        let queue = apps.get_mut(&app)?;
        let mut calls = Vec::with_capacity(queue.waiting.len().min(TOGETHER));
        let mut answers = Vec::with_capacity(calls.capacity());
        let mut later = VecDeque::new();
        for Waiting { call, answer } in queue.waiting.drain(..) {
            if answer.is_closed() {
                continue;
            }
            if calls.len() < TOGETHER && call.fits(&calls) {
                calls.push(call);
                answers.push(answer);
            } else {
                later.push_back(Waiting { call, answer });
            }
        }
        queue.waiting = later;
        if calls.is_empty() {
            close(&mut apps, app);
            return None;
        }
        Some((calls, answers))
    }
}

/// Asks for one app until nobody waits.
struct Lane<C: Gathered> {
    gatherer: Gatherer<C>,
    app: AppId,
    open: bool,
}

impl<C: Gathered> Lane<C> {
    async fn drive(mut self, pool: PgPool) {
        while let Some((calls, answers)) = self.gatherer.next(self.app) {
            self.ask(&pool, calls, answers).await;
        }
        self.open = false;
    }

    async fn ask(&self, pool: &PgPool, calls: Vec<C>, answers: Vec<Answer<C>>) {
        match C::ask(pool, self.app, &calls).await {
            Ok(given) => {
                for (answer, given) in answers.into_iter().zip(given) {
                    // A caller may have gone away meanwhile.
                    let _ = answer.send(Ok(given));
                }
            }
            // A statement that was refused did nothing: the call that it was refused for shall be
            // the only one that hears of it.
            Err(error) if calls.len() > 1 && !error.is_unavailable() => {
                for (call, answer) in calls.into_iter().zip(answers) {
                    let given = C::ask(pool, self.app, &[call]).await;
                    let _ = answer.send(given.and_then(only));
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for answer in answers {
                    let _ = answer.send(Err(StoreError::Shared(Arc::clone(&error))));
                }
            }
        }
    }
}

impl<C: Gathered> Drop for Lane<C> {
    fn drop(&mut self) {
        // A lane that ends before its time, with the runtime or by a fault: whoever it left hears so.
        if self.open {
            close(&mut self.gatherer.apps.lock(), self.app);
        }
    }
}

fn close<C: Gathered>(apps: &mut HashMap<AppId, Queue<C>>, app: AppId) {
    if let Some(queue) = apps.get_mut(&app) {
        queue.lanes -= 1;
        if queue.lanes == 0 {
            apps.remove(&app);
        }
    }
}

fn only<A>(answers: Vec<A>) -> Result<A, StoreError> {
    let answer = answers.into_iter().next();
    answer.ok_or_else(|| StoreError::Corrupt("a call was not answered".to_owned()))
}
