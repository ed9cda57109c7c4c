//! Scripts, compiled once a content.

use std::{collections::HashMap, sync::Arc};

use parking_lot::RwLock;
use picloud_shared::{BlobId, run::RunError, snapshot::ScriptSource};
use rhai::{AST, Engine, EvalAltResult};

use crate::{engine, error};

/// Scripts that are kept compiled; above it, all are dropped and compiled again as they are run.
const MAX_COMPILED: usize = 16_384;

/// All compiled scripts of a process.
#[derive(Default)]
pub(crate) struct CompiledScripts {
    scripts: RwLock<HashMap<BlobId, Arc<Compiled>>>,
}

/// One of them.
pub(crate) struct Compiled {
    pub(crate) ast: AST,
    /// Whether it can see `ctx` at all; a script that can't is spared the making of it.
    pub(crate) wants_context: bool,
}

impl CompiledScripts {
    /// The script, compiled now where it wasn't yet.
    pub(crate) fn get(
        &self,
        engine: &Engine,
        source: &ScriptSource,
    ) -> Result<Arc<Compiled>, Box<RunError>> {
        if let Some(compiled) = self.scripts.read().get(&source.blob) {
            return Ok(Arc::clone(compiled));
        }
        let ast = engine::compile(engine, source).map_err(|error| {
            let error = EvalAltResult::from(error);
            Box::new(error::run_error(&error, &source.path, None))
        })?;
        let compiled = Arc::new(Compiled {
            ast,
            wants_context: source.text.contains("ctx"),
        });
        let mut all = self.scripts.write();
        if all.len() >= MAX_COMPILED {
            all.clear();
        }
        all.insert(source.blob.clone(), Arc::clone(&compiled));
        Ok(compiled)
    }
}
