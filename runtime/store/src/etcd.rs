//! A lease store in etcd (v3 API) with flannel's key layout.
//!
//! `<prefix>/config` holds the network config, and each `<prefix>/subnets/<key>` holds one lease,
//! attached to an etcd lease with a TTL of [`LEASE_TTL`]. A key without an etcd lease is a
//! reservation.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{Compare, CompareOp, GetOptions, KeyValue, KvClient, PutOptions, Txn, TxnOp};
use heddle_core::record::{Age, Record, Unread};

mod connection;
mod diagnosis;
mod dial;
mod error;
mod options;
mod pages;
mod tls;
mod transfer;
mod v2;
mod watch;

pub use error::{EtcdError, EtcdFailure};
pub use options::{EtcdOptions, EtcdTiming, PEM_LIMIT};
pub use transfer::{Content, Place};
pub use v2::{V2Node, V2Reader};

use crate::{Handle, LeaseStore, Page, Renewal, StoreError, Stored, Watch, bounded_key};
use connection::{Connector, MESSAGE_LIMIT};
use pages::Pages;

/// Length limit, in bytes, of a response that holds nothing but one key. The key may be as long as
/// a request to etcd (`--max-request-bytes`).
const KEY_MESSAGE_LIMIT: usize = 64 << 20;

/// Time to live of a lease that is not renewed: a day, as in flannel
/// (`pkg/subnet/etcd/local_manager.go`).
pub const LEASE_TTL: Duration = Duration::from_secs(86_400);

/// A lease store in etcd.
#[derive(Clone)]
pub struct EtcdStore(Arc<Shared>);

/// State shared by the store and its watches.
struct Shared {
    connector: Connector,
    keyspace: Keyspace,
}

impl EtcdStore {
    /// Returns a store that connects at the first call.
    ///
    /// # Errors
    ///
    /// [`EtcdError`], when an endpoint is invalid or flags contradict each other.
    pub fn new(options: EtcdOptions) -> Result<Self, EtcdError> {
        Ok(Self(Arc::new(Shared {
            keyspace: Keyspace::new(options.prefix()),
            connector: Connector::new(options)?,
        })))
    }

    /// Writes the key in a transaction if `condition` holds. Returns the new record, or None if it
    /// does not hold.
    async fn put_if(
        &self,
        operation: &'static str,
        condition: Compare,
        key: &str,
        value: &[u8],
        put: Put<'_>,
    ) -> Result<Option<Stored>, EtcdError> {
        let (options, lease_id, made) = match put {
            Put::New(id) => (PutOptions::new().with_lease(id), Some(id), None),
            Put::InPlaceOf(current) => {
                let keep = PutOptions::new().with_ignore_lease();
                (keep, current.handle.lease_id, Some(current.record.age.made))
            }
        };
        let put = TxnOp::put(self.0.keyspace.lease(key), value, Some(options));
        let txn = Txn::new().when([condition]).and_then([put]);
        let answer =
            self.0.connector.call(operation, |mut c| async move { c.kv.txn(txn).await }).await?;
        let written = version(answer.header().map_or(0, etcd_client::ResponseHeader::revision));
        let age = Age { made: made.unwrap_or(written), written };
        Ok(answer.succeeded().then(|| Stored {
            record: Record { key: key.to_owned(), value: value.to_owned(), unread: None, age },
            handle: Handle { version: written, lease_id },
        }))
    }

    fn unchanged(&self, current: &Stored) -> Compare {
        let key = self.0.keyspace.lease(current.key());
        Compare::mod_revision(key, CompareOp::Equal, current.handle.version.cast_signed())
    }
}

/// The kind of a write.
enum Put<'a> {
    /// Creates a key and attaches it to this etcd lease.
    New(i64),
    /// Replaces the value of a key, which stays attached to its etcd lease, if it has one.
    InPlaceOf(&'a Stored),
}

impl Shared {
    /// Returns the network config, and the revision at which it was read.
    async fn config(&self) -> Result<(Option<Vec<u8>>, i64), EtcdError> {
        let key = self.keyspace.config();
        let mut answer = self
            .connector
            .call("read the network config", |mut c| async move { c.kv.get(key, None).await })
            .await?;
        let revision = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
        Ok((answer.take_kvs().pop().map(|kv| kv.into_key_value().1), revision))
    }
}

#[async_trait]
impl LeaseStore for EtcdStore {
    async fn network_config(&self) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.config().await?.0)
    }

    async fn scan(&self, visit: &mut (dyn FnMut(Page) + Send)) -> Result<(), StoreError> {
        let mut pages = Pages::of_records(&self.0);
        while let Some(page) = pages.next().await? {
            visit(page);
        }
        Ok(())
    }

    async fn find_key(
        &self,
        wanted: &(dyn for<'k> Fn(&'k str) -> bool + Sync),
    ) -> Result<Option<String>, StoreError> {
        let mut pages = Pages::of_keys(&self.0);
        while let Some(page) = pages.next().await? {
            if let Some(found) = page.records.into_iter().find(|stored| wanted(stored.key())) {
                return Ok(Some(found.record.key));
            }
        }
        Ok(None)
    }

    async fn get(&self, key: &str) -> Result<Option<Stored>, StoreError> {
        const OPERATION: &str = "read a lease";
        let key = &self.0.keyspace.lease(key);
        let reading =
            self.0.connector.call(OPERATION, |mut c| async move { c.kv.get(&**key, None).await });
        let (mut answer, unread) = match reading.await {
            Err(error) if error.is_too_large() => {
                let options = GetOptions::new().with_keys_only();
                let reading = self
                    .0
                    .connector
                    .call(OPERATION, |mut c| async move { c.kv.get(&**key, Some(options)).await });
                (reading.await?, Some(Unread::TooLong(MESSAGE_LIMIT as u64)))
            }
            answer => (answer?, None),
        };
        let mut found = answer.take_kvs().pop().and_then(|kv| self.0.keyspace.stored(kv));
        if let (Some(found), Some(unread)) = (&mut found, unread) {
            found.record.unread = Some(unread);
        }
        Ok(found)
    }

    async fn create(&self, key: &str, value: &[u8]) -> Result<Option<Stored>, StoreError> {
        let id = self.grant(LEASE_TTL).await?;
        let absent = Compare::version(self.0.keyspace.lease(key), CompareOp::Equal, 0);
        let created = self.put_if("create a lease", absent, key, value, Put::New(id)).await;
        if !matches!(created, Ok(Some(_))) {
            self.revoke(id).await;
        }
        Ok(created?)
    }

    async fn replace(&self, current: &Stored, value: &[u8]) -> Result<Option<Stored>, StoreError> {
        let unchanged = self.unchanged(current);
        let put = Put::InPlaceOf(current);
        Ok(self.put_if("replace a lease", unchanged, current.key(), value, put).await?)
    }

    async fn rename(
        &self,
        current: &Stored,
        key: &str,
        value: &[u8],
    ) -> Result<Option<Stored>, StoreError> {
        let absent = Compare::version(self.0.keyspace.lease(key), CompareOp::Equal, 0);
        let lease_id = current.handle.lease_id;
        let options = lease_id.map(|id| PutOptions::new().with_lease(id));
        // In this order: who handles the events one by one, as flannel does, would otherwise remove
        // the routes of the new record with the old one.
        let operations = [
            TxnOp::delete(self.0.keyspace.lease(current.key()), None),
            TxnOp::put(self.0.keyspace.lease(key), value, options),
        ];
        let txn = Txn::new().when([self.unchanged(current), absent]).and_then(operations);
        let answer = self
            .0
            .connector
            .call("rename a lease", |mut c| async move { c.kv.txn(txn).await })
            .await?;
        let written = version(answer.header().map_or(0, etcd_client::ResponseHeader::revision));
        let age = Age { made: written, written };
        Ok(answer.succeeded().then(|| Stored {
            record: Record { key: key.to_owned(), value: value.to_owned(), unread: None, age },
            handle: Handle { version: written, lease_id },
        }))
    }

    async fn delete(&self, current: &Stored) -> Result<bool, StoreError> {
        let delete = TxnOp::delete(self.0.keyspace.lease(current.key()), None);
        let txn = Txn::new().when([self.unchanged(current)]).and_then([delete]);
        let answer = self
            .0
            .connector
            .call("delete a lease", |mut c| async move { c.kv.txn(txn).await })
            .await?;
        Ok(answer.succeeded())
    }

    async fn renew(&self, current: &Stored) -> Result<Renewal, StoreError> {
        let Some(id) = current.handle.lease_id else {
            return Ok(Renewal::Permanent);
        };
        let ttl = self
            .0
            .connector
            .call("renew a lease", |mut c| async move {
                // The library reads the answer itself and keeps only whether the lease exists. A
                // second keep-alive would tell the TTL, but etcd's gRPC proxy answers that after a
                // third of the TTL.
                match c.lease.keep_alive(id).await {
                    Ok(_) => {}
                    Err(etcd_client::Error::LeaseKeepAliveError(_)) => return Ok(0),
                    Err(error) => return Err(error),
                }
                let answer = c.lease.time_to_live(id, None).await?;
                // -1 for a lease that is gone. Otherwise its rest in whole seconds, rounded down.
                Ok(if answer.ttl() < 0 { 0 } else { answer.granted_ttl() })
            })
            .await?;
        Ok(match u64::try_from(ttl) {
            Ok(seconds @ 1..) => Renewal::Renewed { remaining: Duration::from_secs(seconds) },
            _ => Renewal::Gone,
        })
    }

    fn hosts(&self) -> Vec<String> {
        self.0.connector.options.hosts().collect()
    }

    async fn has_v2_config(&self) -> bool {
        let options = self.0.connector.options.clone();
        match V2Reader::new(options) {
            Ok(reader) => reader.has_config().await,
            Err(_) => false,
        }
    }

    async fn reload(&self) -> Result<(), StoreError> {
        Ok(self.0.connector.reconnect().await?)
    }

    fn watch(&self) -> Watch {
        Watch::spawn(|events, pulse| watch::run(self.0.clone(), events, pulse))
    }
}

impl fmt::Debug for EtcdStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EtcdStore").field(&self.0.connector.options).finish()
    }
}

/// Returns a client whose length limit fits a response with a single key.
fn wide(client: KvClient) -> KvClient {
    client.max_decoding_message_size(KEY_MESSAGE_LIMIT)
}

/// Converts a revision, which etcd counts from 1 in an `i64`, to a version.
fn version(revision: i64) -> u64 {
    revision.cast_unsigned()
}

/// Key layout in etcd.
struct Keyspace {
    prefix: String,
}

impl Keyspace {
    fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    fn config(&self) -> String {
        format!("{}/config", self.prefix)
    }

    /// Returns the prefix of the keys of all leases, and of no other key.
    fn leases(&self) -> String {
        format!("{}/subnets/", self.prefix)
    }

    /// Returns the first key after those of all leases: `0` follows `/` in ASCII.
    fn end_of_leases(&self) -> String {
        format!("{}/subnets0", self.prefix)
    }

    fn lease(&self, key: &str) -> String {
        format!("{}/subnets/{key}", self.prefix)
    }

    /// Returns the part of a key below the leases' prefix, truncated to a bounded length. None for
    /// a key outside the prefix.
    fn key_of(&self, key: &[u8]) -> Option<String> {
        Some(bounded_key(key.strip_prefix(self.leases().as_bytes())?))
    }

    fn stored(&self, kv: KeyValue) -> Option<Stored> {
        let key = self.key_of(kv.key())?;
        let (made, written) = (version(kv.create_revision()), version(kv.mod_revision()));
        let lease = kv.lease();
        let unread = Unread::of_length(kv.value().len());
        let value = if unread.is_some() { Vec::new() } else { kv.into_key_value().1 };
        Some(Stored {
            record: Record { key, value, unread, age: Age { made, written } },
            handle: Handle { version: written, lease_id: (lease != 0).then_some(lease) },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyspace_matches_flannels_layout() {
        let keyspace = Keyspace::new("/coreos.com/network");
        assert_eq!(keyspace.config(), "/coreos.com/network/config");
        assert_eq!(keyspace.lease("10.244.8.0-24"), "/coreos.com/network/subnets/10.244.8.0-24");
        assert_eq!(
            keyspace.key_of(b"/coreos.com/network/subnets/10.244.8.0-24").as_deref(),
            Some("10.244.8.0-24")
        );
        assert_eq!(keyspace.key_of(b"/coreos.com/network/subnets-old/x"), None);
        assert_eq!(keyspace.leases().strip_suffix('/'), keyspace.end_of_leases().strip_suffix('0'));
    }
}
