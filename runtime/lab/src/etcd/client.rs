//! The client for etcd's JSON interface (`/v3/…`, see "gRPC gateway" in etcd's documentation).

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::{CLIENT_PORT, Etcd, PREFIX};
use crate::Error;

/// The maximum number of operations that etcd accepts in one transaction (`--max-txn-ops`).
const TRANSACTION_LIMIT: usize = 128;

/// A key in etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The whole key.
    pub key: String,
    /// The value.
    pub value: String,
    /// The etcd lease to which it is attached; 0 without one.
    pub lease: i64,
    /// The revision of its last modification.
    pub revision: i64,
}

/// Requests to this etcd.
impl Etcd {
    /// Sets a key.
    ///
    /// # Errors
    ///
    /// [`Error::Http`], also if etcd refuses it.
    pub fn put<K, V>(&self, key: &K, value: &V) -> Result<(), Error>
    where
        K: AsRef<[u8]> + ?Sized,
        V: AsRef<[u8]> + ?Sized,
    {
        self.call("kv/put", json!({"key": encode(key), "value": encode(value)}))?;
        Ok(())
    }

    /// Sets a key and attaches it to an etcd lease.
    ///
    /// # Errors
    ///
    /// [`Error::Http`].
    pub fn put_with_lease(&self, key: &str, value: &str, lease: i64) -> Result<(), Error> {
        let request =
            json!({"key": encode(key), "value": encode(value), "lease": lease.to_string()});
        self.call("kv/put", request)?;
        Ok(())
    }

    /// Sets many keys, `per_transaction` of them in each transaction (1 to 128).
    ///
    /// # Errors
    ///
    /// [`Error::Http`].
    pub fn put_all(&self, pairs: &[(String, String)], per_transaction: usize) -> Result<(), Error> {
        self.transactions(
            pairs,
            per_transaction,
            |(key, value)| json!({"requestPut": {"key": encode(key), "value": encode(value)}}),
        )
    }

    /// Removes many keys, in as few transactions as possible.
    ///
    /// # Errors
    ///
    /// [`Error::Http`].
    pub fn delete_all(&self, keys: &[String]) -> Result<(), Error> {
        self.transactions(
            keys,
            TRANSACTION_LIMIT,
            |key| json!({"requestDeleteRange": {"key": encode(key)}}),
        )
    }

    fn transactions<T: Sync>(
        &self,
        items: &[T],
        size: usize,
        operation: impl Fn(&T) -> Value + Sync,
    ) -> Result<(), Error> {
        // A single thread in the namespace sends all of them.
        self.host.namespace().enter(|| {
            for chunk in items.chunks(size) {
                let operations: Vec<Value> = chunk.iter().map(&operation).collect();
                self.call_here("kv/txn", &json!({"success": operations}))?;
            }
            Ok(())
        })?
    }

    /// Reads a key.
    ///
    /// # Errors
    ///
    /// [`Error::Http`].
    pub fn get(&self, key: &str) -> Result<Option<KeyValue>, Error> {
        Ok(self.range(json!({"key": encode(key)}))?.pop())
    }

    /// Removes a key.
    ///
    /// # Errors
    ///
    /// [`Error::Http`].
    pub fn delete(&self, key: &(impl AsRef<[u8]> + ?Sized)) -> Result<(), Error> {
        self.call("kv/deleterange", json!({"key": encode(key)}))?;
        Ok(())
    }

    /// Returns all keys that begin with `prefix`, in order.
    ///
    /// # Errors
    ///
    /// [`Error::Http`].
    pub fn list(&self, prefix: &str) -> Result<Vec<KeyValue>, Error> {
        let mut end = prefix.as_bytes().to_vec();
        // The prefixes used here end in ASCII, so that the last byte has a successor.
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        self.range(json!({"key": encode(prefix), "range_end": BASE64_STANDARD.encode(end)}))
    }

    /// Returns the leases below [`PREFIX`]: the last part of the key, and the value.
    ///
    /// # Errors
    ///
    /// [`Error::Http`].
    pub fn leases(&self) -> Result<BTreeMap<String, String>, Error> {
        let prefix = format!("{PREFIX}/subnets/");
        let leases = self.list(&prefix)?;
        Ok(leases
            .into_iter()
            .map(|found| (found.key[prefix.len()..].to_owned(), found.value))
            .collect())
    }

    /// Returns the granted and the remaining time to live of an etcd lease, in seconds.
    ///
    /// # Errors
    ///
    /// [`Error::Http`].
    pub fn time_to_live(&self, lease: i64) -> Result<(i64, i64), Error> {
        let answer = self.call("lease/timetolive", json!({"ID": lease.to_string()}))?;
        Ok((integer(&answer["grantedTTL"]), integer(&answer["TTL"])))
    }

    /// Grants an etcd lease with this time to live in seconds, and returns its id.
    ///
    /// # Errors
    ///
    /// [`Error::Http`].
    pub fn grant(&self, seconds: i64) -> Result<i64, Error> {
        let answer = self.call("lease/grant", json!({"TTL": seconds.to_string()}))?;
        Ok(integer(&answer["ID"]))
    }

    /// Revokes an etcd lease, which deletes the keys attached to it.
    ///
    /// # Errors
    ///
    /// [`Error::Http`].
    pub fn revoke(&self, lease: i64) -> Result<(), Error> {
        self.call("lease/revoke", json!({"ID": lease.to_string()}))?;
        Ok(())
    }

    /// Makes etcd refuse any write that would grow its data, as if its quota were exceeded, or ends
    /// that.
    ///
    /// # Errors
    ///
    /// [`Error::Http`].
    pub fn set_full(&self, full: bool) -> Result<(), Error> {
        let action = if full { "ACTIVATE" } else { "DEACTIVATE" };
        self.call("maintenance/alarm", json!({"action": action, "alarm": "NOSPACE"}))?;
        Ok(())
    }

    /// Compacts all history, so that a watch that lags behind cannot catch up any more.
    ///
    /// # Errors
    ///
    /// [`Error::Http`].
    pub fn compact(&self) -> Result<(), Error> {
        let status = self.call("maintenance/status", json!({}))?;
        let revision = status["header"]["revision"].clone();
        self.call("kv/compaction", json!({"revision": revision, "physical": true}))?;
        Ok(())
    }

    fn range(&self, request: Value) -> Result<Vec<KeyValue>, Error> {
        let answer = self.call("kv/range", request)?;
        let found = answer["kvs"].as_array().map_or(&[][..], Vec::as_slice);
        Ok(found
            .iter()
            .map(|found| KeyValue {
                key: decode(&found["key"]),
                value: decode(&found["value"]),
                lease: integer(&found["lease"]),
                revision: integer(&found["mod_revision"]),
            })
            .collect())
    }

    pub(super) fn call(&self, method: &str, request: Value) -> Result<Value, Error> {
        self.host.namespace().enter(|| self.call_here(method, &request))?
    }

    /// Sends a request from a thread that is already in etcd's namespace.
    fn call_here(&self, method: &str, request: &Value) -> Result<Value, Error> {
        let url = format!("http://127.0.0.1:{CLIENT_PORT}/v3/{method}");
        let call = || {
            self.agent
                .post(&url)
                .send_json(request)?
                .body_mut()
                .with_config()
                .limit(1 << 28)
                .read_json()
        };
        call().map_err(|error: ureq::Error| Error::Http {
            request: format!("POST {url}"),
            problem: error.to_string(),
        })
    }
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64_STANDARD.encode(bytes)
}

/// Decodes a text field. Empty or zero fields are omitted from answers.
fn decode(field: &Value) -> String {
    let bytes = field.as_str().and_then(|text| BASE64_STANDARD.decode(text).ok());
    String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
}

/// Decodes an integer. 64-bit integers are strings in protobuf's JSON.
fn integer(field: &Value) -> i64 {
    field.as_str().and_then(|text| text.parse().ok()).unwrap_or(0)
}
