//! Typed identifiers: all are UUIDv7 (RFC 9562), so they sort by the time they were made.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }
    };
}

id!(/// An app, for as long as it exists; kept when it is pruned and comes back.
    AppId);
id!(/// One commit of a source, planned and applied.
    DeploymentId);
id!(/// An event: the same on every retry, so it serves as the idempotency key.
    EventId);
id!(/// An API key.
    KeyId);
id!(/// A process that serves endpoints.
    NodeId);
id!(/// One execution of a script, whatever started it.
    RunId);
id!(/// A git repository, a branch and a path in it.
    SourceId);
id!(/// A trigger of an app.
    TriggerId);
