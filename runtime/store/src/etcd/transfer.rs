//! Copies of single keys into etcd, with the time that they have left. For imports; a node's own
//! lease is in [`acquire`](crate::acquire()) and [`own_lease`](crate::own_lease).

use std::time::Duration;

use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp};

use super::error::EtcdError;
use super::{EtcdStore, version};

/// A key below the prefix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The network config.
    Config,
    /// A record, by its key below `<prefix>/subnets/`.
    Record(String),
}

/// The content of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// The value.
    pub value: Vec<u8>,
    /// The version that a write replaces.
    pub version: u64,
    /// The time until it expires. None for a key that never does.
    pub remaining: Option<Duration>,
}

impl EtcdStore {
    /// Returns the content of a key, if it exists.
    ///
    /// # Errors
    ///
    /// [`EtcdError`], when etcd cannot be read.
    pub async fn content(&self, place: &Place) -> Result<Option<Content>, EtcdError> {
        let key = self.path(place);
        let reading =
            self.0.connector.call("read a key", |mut c| async move { c.kv.get(key, None).await });
        let Some(found) = reading.await?.take_kvs().pop() else { return Ok(None) };
        let (version, lease) = (version(found.mod_revision()), found.lease());
        let remaining = match lease {
            0 => None,
            id => Some(self.remaining(id).await?),
        };
        Ok(Some(Content { value: found.into_key_value().1, version, remaining }))
    }

    /// Returns the time until an etcd lease expires; zero if it is gone.
    ///
    /// # Errors
    ///
    /// [`EtcdError`], when etcd cannot be read.
    pub async fn remaining(&self, lease_id: i64) -> Result<Duration, EtcdError> {
        let asking = self.0.connector.call("read the time of an etcd lease", |mut c| async move {
            c.lease.time_to_live(lease_id, None).await
        });
        // -1 for a lease that is gone.
        Ok(Duration::from_secs(u64::try_from(asking.await?.ttl()).unwrap_or(0)))
    }

    /// Writes a key that expires after `ttl`, or never. `before` is the version that it replaces;
    /// None creates it. Returns false if somebody else has written it since it was read.
    ///
    /// # Errors
    ///
    /// [`EtcdError`], when etcd cannot be reached or written.
    pub async fn transfer(
        &self,
        place: &Place,
        value: &[u8],
        ttl: Option<Duration>,
        before: Option<u64>,
    ) -> Result<bool, EtcdError> {
        let key = self.path(place);
        let condition = match before {
            None => Compare::version(key.clone(), CompareOp::Equal, 0),
            Some(version) => {
                Compare::mod_revision(key.clone(), CompareOp::Equal, version.cast_signed())
            }
        };
        let lease = match ttl {
            Some(ttl) => Some(self.grant(ttl).await?),
            None => None,
        };
        // A key that is put without an etcd lease is detached from the one that it had.
        let options = PutOptions::new().with_lease(lease.unwrap_or(0));
        let put = TxnOp::put(key, value, Some(options));
        let txn = Txn::new().when([condition]).and_then([put]);
        let writing =
            self.0.connector.call("write a key", |mut c| async move { c.kv.txn(txn).await });
        let written = writing.await.map(|answer| answer.succeeded());
        if let (Some(id), Ok(false) | Err(_)) = (lease, &written) {
            self.revoke(id).await;
        }
        written
    }

    pub(super) async fn grant(&self, ttl: Duration) -> Result<i64, EtcdError> {
        let ttl = i64::try_from(ttl.as_secs().max(1)).unwrap_or(i64::MAX);
        let granting = self
            .0
            .connector
            .call("grant an etcd lease", |mut c| async move { c.lease.grant(ttl, None).await });
        Ok(granting.await?.id())
    }

    /// Revokes an etcd lease that came to nothing, also when it is unknown whether its key was
    /// written: the key then goes with it. One that cannot be revoked expires by itself.
    pub(super) async fn revoke(&self, id: i64) {
        let revoking = self
            .0
            .connector
            .call("revoke an unused etcd lease", |mut c| async move { c.lease.revoke(id).await });
        let _ = revoking.await;
    }

    fn path(&self, place: &Place) -> String {
        match place {
            Place::Config => self.0.keyspace.config(),
            Place::Record(key) => self.0.keyspace.lease(key),
        }
    }
}
