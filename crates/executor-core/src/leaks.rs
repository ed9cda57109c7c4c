//! What runs leave behind. A closure that is kept in a variable that it captures holds itself, and
//! is never freed. The usual ones are broken up when the handler ends; what is left counts against
//! the memory of the app's later runs, so that no app can fill the node.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering},
};

use parking_lot::RwLock;
use picloud_shared::{AppId, AppSnapshot};
use rhai::{Dynamic, Scope};

/// Compiled scripts and modules stay, too, and are no leak.
const FREE: u64 = 16 << 20;
/// What a run leaves in caches and in its outcome, unseen.
const SLACK: u64 = 8 << 10;

/// What runs left behind, by app.
#[derive(Default)]
pub(crate) struct Leaks {
    any: AtomicBool,
    apps: RwLock<HashMap<AppId, Left>>,
}

#[derive(Clone, Copy)]
struct Left {
    generation: i64,
    bytes: u64,
    told: u64,
}

impl Leaks {
    /// Bytes that an app's next run may not have.
    pub(crate) fn taken(&self, app: &AppSnapshot) -> u64 {
        if !self.any.load(Ordering::Relaxed) {
            return 0;
        }
        let apps = self.apps.read();
        let left = apps
            .get(&app.id)
            .filter(|left| left.generation == app.generation);
        left.map_or(0, |left| left.bytes.saturating_sub(FREE))
    }

    /// Takes note of what a run still held at its end, beside its outcome.
    pub(crate) fn note(&self, app: &AppSnapshot, held: u64) {
        if held <= SLACK {
            return;
        }
        self.any.store(true, Ordering::Relaxed);
        let mut apps = self.apps.write();
        let left = apps.entry(app.id).or_insert(Left {
            generation: app.generation,
            bytes: 0,
            told: FREE,
        });
        if left.generation != app.generation {
            // Another version of it: a new beginning.
            *left = Left {
                generation: app.generation,
                bytes: 0,
                told: FREE,
            };
        }
        left.bytes = left.bytes.saturating_add(held);
        if left.bytes >= left.told.saturating_mul(2) {
            left.told = left.bytes;
            tracing::warn!(app = %app.spec.name, bytes = left.bytes, "runs of this app leave memory behind: closures that are kept in variables that they capture; it counts against limits.memory");
        }
    }
}

/// Empties the variables that closures share with a handler that has ended.
pub(crate) fn break_cycles(scope: &Scope<'_>) {
    for (_, _, value) in scope.iter_raw() {
        if value.is_shared()
            && let Some(mut inner) = value.clone().write_lock::<Dynamic>()
        {
            let before = std::mem::take(&mut *inner);
            drop(inner);
            drop(before);
        }
    }
}
