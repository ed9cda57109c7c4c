//! `git push -o …`: what a pusher may ask for.

use picloud_gitops_core::render::Layout;

/// What stands before each line on the pusher's terminal.
const REMOTE: usize = "remote: ".len();
/// The columns of a terminal of which nothing is known.
const COLUMNS: usize = 100;

/// What a pusher asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PushOptions {
    /// What would be held is let go.
    pub(super) approve: bool,
    /// The plan is shown, and nothing is pushed.
    pub(super) dry_run: bool,
    /// Colours are shown. Git tells no server whether there is a terminal.
    pub(super) color: bool,
    /// Its columns.
    pub(super) width: usize,
}

impl PushOptions {
    /// Reads options. One that isn't known is refused: a misspelt `dry-run` must not deploy.
    pub(super) fn parse(options: &[String]) -> Result<Self, String> {
        let mut read = Self {
            approve: false,
            dry_run: false,
            color: false,
            width: COLUMNS,
        };
        for option in options {
            match option.split_once('=').unwrap_or((option, "")) {
                ("approve", "") => read.approve = true,
                ("dry-run", "") => read.dry_run = true,
                ("color" | "colour", "") => read.color = true,
                ("width", columns)
                    if columns
                        .parse()
                        .is_ok_and(|n: usize| (40..=1000).contains(&n)) =>
                {
                    read.width = columns.parse().unwrap_or(COLUMNS);
                }
                _ => {
                    return Err(format!(
                        "the push option `{}` is unknown; there are approve, dry-run, color and width=COLUMNS",
                        option.escape_debug()
                    ));
                }
            }
        }
        Ok(read)
    }

    /// How the plan is laid out.
    pub(super) fn layout(self) -> Layout {
        Layout {
            color: self.color,
            width: self.width.saturating_sub(REMOTE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_misspelt_is_refused() {
        let parse = |options: &[&str]| {
            let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
            PushOptions::parse(&options)
        };
        let read = parse(&["dry-run", "approve", "width=80", "color"]).expect("known");
        assert_eq!(
            (read.dry_run, read.approve, read.color, read.layout().width),
            (true, true, true, 72)
        );
        for wrong in ["dryrun", "dry-run=1", "width=", "width=7", "width=x", ""] {
            assert!(parse(&[wrong]).is_err(), "{wrong}");
        }
    }
}
