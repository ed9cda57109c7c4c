//! The sources that this process deploys, as they come and go.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use parking_lot::RwLock;
use picloud_shared::{SourceId, SourceName};
use picloud_store::{SourceKind, SourceRecord, StoreError};
use tokio::{
    sync::{Notify, broadcast},
    task::JoinHandle,
};

use crate::{
    git::{GitError, LocalPath},
    mirror::{self, Mirror},
    origin::Origin,
    reconcile::{Deployer, DeployerOptions, Finished},
    work_tree::WorkTree,
};

/// All sources of this process.
pub struct Sources {
    options: DeployerOptions,
    /// Holds the repositories that are ours.
    data_dir: PathBuf,
    running: RwLock<BTreeMap<SourceName, Running>>,
}

struct Running {
    deployer: Arc<Deployer>,
    task: Option<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Why a source can't be added.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Its repository can't be used.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Sources {
    /// None yet.
    pub fn new(options: DeployerOptions, data_dir: PathBuf) -> Arc<Self> {
        Arc::new(Self {
            options,
            data_dir,
            running: RwLock::default(),
        })
    }

    /// Tells of each deployment that ends, of any source.
    pub fn subscribe(&self) -> broadcast::Receiver<Finished> {
        self.options.finished.subscribe()
    }

    /// Tells of each look at any source's repository.
    pub(crate) fn looked(&self) -> Arc<Notify> {
        Arc::clone(&self.options.looked)
    }

    /// What deployers of this process need.
    pub(crate) fn options(&self) -> DeployerOptions {
        self.options.clone()
    }

    /// The deployer of a source.
    pub fn get(&self, name: &SourceName) -> Option<Arc<Deployer>> {
        self.running
            .read()
            .get(name)
            .map(|running| Arc::clone(&running.deployer))
    }

    /// The deployer of the source of that id.
    pub fn by_id(&self, id: SourceId) -> Option<Arc<Deployer>> {
        self.all()
            .into_iter()
            .find(|deployer| deployer.source().id == id)
    }

    /// All deployers, by the names of their sources.
    pub fn all(&self) -> Vec<Arc<Deployer>> {
        let running = self.running.read();
        running
            .values()
            .map(|running| Arc::clone(&running.deployer))
            .collect()
    }

    /// Takes up the sources that the database knows. One that can't be used is told, and doesn't
    /// keep the others.
    pub async fn open(&self) -> Result<(), StoreError> {
        for record in self.options.store.sources().await? {
            if self.get(&record.name).is_some() {
                continue;
            }
            let name = record.name.clone();
            if let Err(error) = self.take(record, None) {
                tracing::error!(source = %name, %error, "a source cannot be deployed from");
            }
        }
        Ok(())
    }

    /// Adds a source, or changes the one of that name; nothing is deployed before
    /// [`Sources::run`].
    pub async fn put(&self, record: &SourceRecord) -> Result<Arc<Deployer>, SourceError> {
        // Looked at first: a source that can't be used isn't kept.
        self.origin(record)?;
        let record = self.options.store.upsert_source(record).await?;
        Ok(self.take(record, None)?)
    }

    /// As [`Sources::put`], but what is deployed are a folder's files as they are saved.
    pub async fn put_work_tree(
        &self,
        record: &SourceRecord,
        tree: WorkTree,
    ) -> Result<Arc<Deployer>, SourceError> {
        let record = self.options.store.upsert_source(record).await?;
        Ok(self.take(record, Some(Origin::WorkTree(Arc::new(tree))))?)
    }

    /// Deploys what each source's branch becomes, from now on.
    pub fn run(&self) {
        for running in self.running.write().values_mut() {
            if running.task.is_none() {
                running.task = Some(tokio::spawn(Arc::clone(&running.deployer).run()));
            }
        }
    }

    /// Stops deploying from a source.
    pub fn remove(&self, name: &SourceName) {
        self.running.write().remove(name);
    }

    fn take(
        &self,
        record: SourceRecord,
        origin: Option<Origin>,
    ) -> Result<Arc<Deployer>, GitError> {
        let origin = match origin {
            Some(origin) => origin,
            None => self.origin(&record)?,
        };
        let name = record.name.clone();
        let deployer = Deployer::new(self.options.clone(), record, origin);
        let mut all = self.running.write();
        all.insert(
            name,
            Running {
                deployer: Arc::clone(&deployer),
                task: None,
            },
        );
        Ok(deployer)
    }

    fn origin(&self, record: &SourceRecord) -> Result<Origin, GitError> {
        Ok(match record.kind {
            SourceKind::Local => {
                let path = PathBuf::from(&record.url);
                let below = path.join(&record.path);
                match Origin::local(&path)? {
                    // The folder in the repository, by itself or as a path below a repository.
                    Origin::Local(path, prefix) if prefix == record.path => {
                        Origin::Local(path, prefix)
                    }
                    _ if below.is_dir() => Origin::local(&below)?,
                    Origin::Local(path, _) => Origin::Local(path, record.path.clone()),
                    other => other,
                }
            }
            SourceKind::Hosted => {
                let git_dir = self.hosted_dir(&record.name);
                mirror::make_bare(&git_dir)?;
                Origin::Hosted(LocalPath {
                    common_dir: git_dir.clone(),
                    git_dir,
                    prefix: record.path.clone(),
                })
            }
            SourceKind::Remote => {
                let git_dir = self
                    .data_dir
                    .join("mirrors")
                    .join(format!("{}.git", record.id));
                let mirror =
                    Mirror::new(git_dir, &record.url, record.forge.as_ref(), record.interval)
                        .with_reference(record.branch.as_deref());
                Origin::Remote(Arc::new(mirror), record.path.clone())
            }
        })
    }

    /// Where the repository of a hosted source is.
    pub fn hosted_dir(&self, name: &SourceName) -> PathBuf {
        self.data_dir.join("git").join(format!("{name}.git"))
    }
}
