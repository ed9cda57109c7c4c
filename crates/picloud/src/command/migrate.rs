//! `picloud migrate`

use anyhow::{Context, Result};
use picloud_store::Store;
use serde_json::json;

use super::{Ending, print, print_json, wait};
use crate::cli::{Format, MigrateArgs};

/// Brings the database's schema up to date, or lists what would be done.
pub fn run(args: &MigrateArgs) -> Result<Ending> {
    wait(async {
        let store = Store::connect(&args.database_url, crate::server::store_options(2))
            .await
            .context("cannot reach the database")?;
        let pending = store.pending_migrations().await?;
        let json_wanted = args.format == Format::Json;
        if pending.is_empty() && !json_wanted {
            print("The database is up to date.\n")?;
        }
        for name in pending.iter().filter(|_| !json_wanted) {
            print(&format!(
                "{} {name}\n",
                if args.dry_run {
                    "would apply"
                } else {
                    "applying"
                }
            ))?;
        }
        if !args.dry_run && !pending.is_empty() {
            store
                .migrate()
                .await
                .context("a migration failed; nothing of it was kept")?;
            if !json_wanted {
                print("Done.\n")?;
            }
        }
        if json_wanted {
            print_json(&json!({ "pending": pending, "applied": !args.dry_run }))?;
        }
        Ok(())
    })?;
    Ok(Ending::Done)
}
