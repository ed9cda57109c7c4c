//! `picloud run ID`

use anyhow::Result;
use serde_json::Value;

use super::{Ending, print, print_json, text, wait};
use crate::{
    cli::{Format, RunArgs},
    client::Client,
    terminal::{Style, milliseconds},
};

/// Shows one run with its logs.
pub fn run(args: &RunArgs) -> Result<Ending> {
    let client = Client::connect(&args.remote.connection)?;
    let record = wait(client.get(&format!("/runs/{}", crate::url_encode(&args.id))))?;
    if args.remote.format == Format::Json {
        print_json(&record)?;
    } else {
        print(&human(&record, Style::stdout()))?;
    }
    Ok(Ending::Done)
}

pub(super) fn human(record: &Value, style: Style) -> String {
    let mut out = String::new();
    let mut field = |name: &str, value: &str| {
        if !value.is_empty() {
            out.push_str(&format!("{}  {value}\n", style.dim(&format!("{name:>9}"))));
        }
    };
    field("run", &text(record, "id"));
    field("status", &style.status(&text(record, "status")));
    field("app", &text(record, "app"));
    field("script", &text(record, "script"));
    field("kind", &text(record, "kind"));
    field("trigger", &text(record, "trigger"));
    field("commit", &text(record, "commit"));
    field("started", &text(record, "started_at"));
    field(
        "took",
        &record["duration_ms"]
            .as_f64()
            .map_or_else(String::new, milliseconds),
    );
    field(
        "waited",
        &record["queue_ms"]
            .as_f64()
            .map_or_else(String::new, milliseconds),
    );
    field("ops", &text(record, "operations"));
    field(
        "memory",
        &record["peak_memory"]
            .as_u64()
            .map_or_else(String::new, |bytes| format!("{} KiB", bytes / 1024)),
    );
    let error = &record["error"];
    if !error.is_null() {
        let place = format!(
            "{}:{}:{}",
            text(error, "script"),
            text(error, "line"),
            text(error, "column")
        );
        field("error", &style.red(&text(error, "message")));
        field("at", place.trim_end_matches(':'));
    }
    for line in record["logs"].as_array().into_iter().flatten() {
        let level = text(line, "level");
        let fields = if line["fields"].is_null() {
            String::new()
        } else {
            format!("  {}", text(line, "fields"))
        };
        out.push_str(&format!(
            "{} {level:>5}  {}{fields}\n",
            style.dim(&text(line, "at")),
            text(line, "message")
        ));
    }
    out
}
