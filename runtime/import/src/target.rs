//! The needs of an import of the v3 API.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use heddle_store::etcd::{Content, Place};
use heddle_store::{EtcdStore, LeaseStore, StoreError, Stored};

/// The v3 API of an etcd.
#[async_trait]
pub trait Target: Send + Sync + fmt::Debug {
    /// Returns all records, without the time until they expire.
    ///
    /// # Errors
    ///
    /// [`StoreError`], when etcd cannot be read.
    async fn records(&self) -> Result<Vec<Stored>, StoreError>;

    /// Returns the content of a key, if it exists.
    ///
    /// # Errors
    ///
    /// [`StoreError`], when etcd cannot be read.
    async fn content(&self, place: &Place) -> Result<Option<Content>, StoreError>;

    /// Writes a key that expires after `ttl`, or never. `before` is the version that it replaces;
    /// None creates it. Returns false if somebody else has written it since it was read.
    ///
    /// # Errors
    ///
    /// [`StoreError`], when etcd cannot be reached or written.
    async fn write(
        &self,
        place: &Place,
        value: &[u8],
        ttl: Option<Duration>,
        before: Option<u64>,
    ) -> Result<bool, StoreError>;
}

#[async_trait]
impl Target for EtcdStore {
    async fn records(&self) -> Result<Vec<Stored>, StoreError> {
        let mut records = Vec::new();
        let collect = &mut |page: heddle_store::Page| {
            if page.first {
                records.clear();
            }
            records.extend(page.records);
        };
        self.scan(collect).await?;
        Ok(records)
    }

    async fn content(&self, place: &Place) -> Result<Option<Content>, StoreError> {
        Ok(Self::content(self, place).await?)
    }

    async fn write(
        &self,
        place: &Place,
        value: &[u8],
        ttl: Option<Duration>,
        before: Option<u64>,
    ) -> Result<bool, StoreError> {
        Ok(self.transfer(place, value, ttl, before).await?)
    }
}
