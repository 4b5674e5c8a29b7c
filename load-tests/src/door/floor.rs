//! The door of the floor: no signalling at all.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use futures_util::future::BoxFuture;

use super::{Door, JOIN_WITHIN, Visit, is_set};
use crate::floor::Hello;
use crate::srtp::Profile;

/// Clients of `load-test floor`.
pub struct FloorDoor {
    server: SocketAddr,
    profile: Profile,
}

impl FloorDoor {
    /// To the floor at this address.
    pub fn new(server: SocketAddr, profile: Profile) -> FloorDoor {
        FloorDoor { server, profile }
    }

    async fn stay(&self, mut visit: Visit) -> Result<()> {
        let hello = Hello {
            client: visit.client,
            room: visit.room,
            receives: visit.receives,
        };
        let connection = visit
            .media
            .open_plain(
                visit.stay,
                self.server,
                hello,
                self.profile,
                visit.sends.clone(),
            )
            .await?;
        tokio::time::timeout(JOIN_WITHIN, visit.media.connected(connection))
            .await
            .with_context(|| format!("the floor at {} does not answer", self.server))??;
        visit.has_entered();
        is_set(&mut visit.leave).await;
        Ok(())
    }
}

impl Door for FloorDoor {
    fn attend(&self, visit: Visit) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.stay(visit))
    }
}
