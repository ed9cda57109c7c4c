//! Who is at the other end of a connection, as the ingress found it.

use std::net::IpAddr;

/// Goes with each request that the ingress hands to the platform's own endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The client's address: the socket's, or what a trusted proxy in front says.
    pub address: IpAddr,
    /// Whether a trusted proxy says that the client came by https.
    pub https: bool,
}
