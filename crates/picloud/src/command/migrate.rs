//! `picloud migrate`

use anyhow::{Context, Result};
use picloud_store::Store;

use super::{Ending, print, wait};
use crate::cli::MigrateArgs;

/// Brings the database's schema up to date, or lists what would be done.
pub fn run(args: &MigrateArgs) -> Result<Ending> {
    wait(async {
        let store = Store::connect(&args.database_url, crate::server::store_options(2))
            .await
            .context("cannot reach the database")?;
        let pending = store.pending_migrations().await?;
        if pending.is_empty() {
            return print("The database is up to date.\n");
        }
        for name in &pending {
            print(&format!(
                "{} {name}\n",
                if args.dry_run {
                    "would apply"
                } else {
                    "applying"
                }
            ))?;
        }
        if !args.dry_run {
            store
                .migrate()
                .await
                .context("a migration failed; nothing of it was kept")?;
            print("Done.\n")?;
        }
        Ok(())
    })?;
    Ok(Ending::Done)
}
