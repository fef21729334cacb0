//! Leases: which subnet belongs to which node, in flannel's format.
//!
//! A lease is one etcd key, `<prefix>/subnets/10.244.8.0-24`, whose value is a JSON object
//! (flannel's `pkg/subnet/subnet.go` and `pkg/lease/lease.go`). [`LeaseKey`] and [`Lease`] parse
//! and format both.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::address::{Family, MacAddress, is_host};
use crate::family::{InFamily, PerFamily};
use crate::node::NodeId;
use crate::text::{LONGEST, one_line};

/// Length limit of a record's value in bytes. A lease at all its other limits takes less than half
/// of it.
pub const VALUE_LIMIT: usize = 64 << 10;

/// Length limit of a record's key in bytes. The longest lease key has 62.
pub const KEY_LIMIT: usize = 128;

/// Length limit of `NodeName` in characters, from DNS names (RFC 1035, section 2.3.4). Longer names
/// are cut.
pub const NODE_NAME_LIMIT: usize = 253;

/// Length limit of `BackendType` in bytes.
pub const BACKEND_TYPE_LIMIT: usize = 64;

/// Length limit of `BackendData` and of `BackendV6Data` as JSON text, in bytes.
pub const BACKEND_DATA_LIMIT: usize = 8192;

/// Length limit of a parser's message about foreign text, in characters.
const REASON_LIMIT: usize = 200;

/// The key of a lease: the subnets of one node.
///
/// As text `10.244.8.0-24`, dual stack `10.244.8.0-24&fc00:0:0:8::-64`, and IPv6 alone
/// `0.0.0.0-0&fc00:0:0:8::-64`, because flannel writes an empty IPv4 network in that place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseKey {
    // Unlike a `PerFamily<IpNet>`, these cannot hold a network of the other family, which would
    // print as another key.
    v4: Option<Ipv4Net>,
    v6: Option<Ipv6Net>,
}

impl LeaseKey {
    /// The smallest key: sorts before all others.
    pub(crate) const FIRST: Self = Self { v4: None, v6: None };

    /// Returns the key for these subnets; None without any subnet.
    ///
    /// Host bits are truncated. An IPv4 network of length 0 counts as none, because the text form
    /// uses it for IPv6-only keys.
    pub fn new(subnets: PerFamily<IpNet>) -> Option<Self> {
        let v4 = match subnets.v4 {
            Some(IpNet::V4(network)) if network.prefix_len() > 0 => Some(network.trunc()),
            _ => None,
        };
        let v6 = match subnets.v6 {
            Some(IpNet::V6(network)) => Some(network.trunc()),
            _ => None,
        };
        (v4.is_some() || v6.is_some()).then_some(Self { v4, v6 })
    }

    /// Returns the subnets.
    pub fn subnets(&self) -> PerFamily<IpNet> {
        PerFamily { v4: self.v4.map(IpNet::V4), v6: self.v6.map(IpNet::V6) }
    }
}

impl fmt::Display for LeaseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.v4 {
            Some(v4) => write!(f, "{}-{}", v4.addr(), v4.prefix_len())?,
            None => f.write_str("0.0.0.0-0")?,
        }
        match self.v6 {
            Some(v6) => write!(f, "&{}-{}", v6.addr(), v6.prefix_len()),
            None => Ok(()),
        }
    }
}

/// A text below `<prefix>/subnets/` that is not a lease key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a lease key: expected `10.244.8.0-24` or `10.244.8.0-24&fc00:0:0:8::-64`")]
pub struct InvalidLeaseKey(pub String);

impl FromStr for LeaseKey {
    type Err = InvalidLeaseKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        fn network<A: FromStr, N>(text: &str, new: impl Fn(A, u8) -> Option<N>) -> Option<N> {
            let (address, length) = text.rsplit_once('-')?;
            new(address.parse().ok()?, length.parse().ok()?)
        }
        let parse = || {
            let (first, second) = match text.split_once('&') {
                Some((first, second)) => (first, Some(second)),
                None => (text, None),
            };
            let v4 = network(first, |a, l| Ipv4Net::new(a, l).ok())?;
            let v6 = match second {
                Some(second) => Some(network(second, |a, l| Ipv6Net::new(a, l).ok())?),
                None => None,
            };
            Self::new(PerFamily { v4: Some(v4.into()), v6: v6.map(IpNet::V6) })
        };
        // Two spellings of one key would be two records of one peer.
        let canonical = |key: &Self| key.to_string() == text;
        parse().filter(canonical).ok_or_else(|| InvalidLeaseKey(one_line(text, LONGEST)))
    }
}

/// The store's counts of when a record was created and last written: smaller is earlier. Events
/// that the store cannot tell apart have equal counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Age {
    /// Creation. etcd: `create_revision`; directory store: the file's modification time.
    pub made: u64,
    /// Last write. etcd: `mod_revision`; directory store: the same as `made`.
    pub written: u64,
}

/// A record of the store, which may or may not be a valid lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The part of the key below `<prefix>/subnets/`.
    pub key: &'a str,
    /// The value; empty if it was not read.
    pub value: &'a [u8],
    /// The reason why the value was not read. None if it was.
    pub unread: Option<Unread>,
    /// The creation and the last write of the record.
    pub age: Age,
}

impl Record<'_> {
    /// Parses the value as the lease of this key.
    ///
    /// # Errors
    ///
    /// [`InvalidLease`], naming the field or the reason why the value was not read.
    pub fn lease(&self, key: LeaseKey) -> Result<Lease, InvalidLease> {
        match self.unread {
            Some(unread) => Err(unread.into()),
            None => Lease::from_value(key, self.value),
        }
    }
}

/// The reason why a store does not deliver a record's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Unread {
    /// The value is longer than [`VALUE_LIMIT`].
    #[error("its value is too long: {0} bytes or more, and the limit is {VALUE_LIMIT}")]
    TooLong(u64),
    /// The file of a directory store is a FIFO, a device or a socket.
    #[error("it is not a regular file: replace it by one, or delete it")]
    NotAFile,
    /// The file of a directory store cannot be read.
    #[error("its file cannot be read ({0}): correct it, or delete it")]
    Unreadable(std::io::ErrorKind),
}

impl Unread {
    /// Returns the reason not to read a value of this length, if it is too long.
    pub fn of_length(bytes: usize) -> Option<Self> {
        (bytes > VALUE_LIMIT).then_some(Self::TooLong(bytes as u64))
    }
}

/// One family of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseFamily {
    /// The node's subnet of the overlay.
    pub subnet: IpNet,
    /// The underlay address at which the node is reached. Of the same family as the subnet.
    pub public_address: IpAddr,
    /// `BackendData` or `BackendV6Data`, as JSON text.
    pub backend_data: Option<String>,
}

impl InFamily for LeaseFamily {
    fn family(&self) -> Family {
        self.subnet.family()
    }
}

/// A lease: the subnets of a node, and the addresses at which the node is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The record's key. It may have a subnet of a family that the value lacks an address for.
    pub key: LeaseKey,
    /// The families with both a subnet and an address. Never empty.
    pub families: PerFamily<LeaseFamily>,
    /// `BackendType`. flannel's udp backend omits it.
    pub backend_type: Option<String>,
    /// Heddle's identity of the node. Absent in leases of flannel nodes.
    pub node_id: Option<NodeId>,
    /// The node's host name, for people. Absent in leases of flannel nodes.
    pub node_name: Option<String>,
}

/// The value as JSON, in flannel's order of fields, followed by Heddle's own fields.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Wire<'a> {
    #[serde(rename = "PublicIP")]
    public_ip: Ipv4Addr,
    #[serde(rename = "PublicIPv6")]
    public_ipv6: Option<Ipv6Addr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend_data: Option<&'a RawValue>,
    #[serde(rename = "BackendV6Data", skip_serializing_if = "Option::is_none")]
    backend_v6_data: Option<&'a RawValue>,
    #[serde(rename = "NodeID", skip_serializing_if = "Option::is_none")]
    node_id: Option<&'a NodeId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_name: Option<&'a str>,
}

/// The fields that are read. Each is parsed separately so that an error can name the field.
#[derive(Default)]
struct Fields<'a> {
    public_ip: Option<&'a RawValue>,
    public_ipv6: Option<&'a RawValue>,
    backend_type: Option<&'a RawValue>,
    backend_data: Option<&'a RawValue>,
    backend_v6_data: Option<&'a RawValue>,
    node_id: Option<&'a RawValue>,
    node_name: Option<&'a RawValue>,
}

/// The reason why a lease's value cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLease {
    /// The value was not read.
    #[error(transparent)]
    Unread(#[from] Unread),
    /// A field is longer than its limit.
    #[error("`{field}` is too long: {length} bytes, and the limit is {limit}")]
    TooLong {
        /// Name of the field, in flannel's spelling.
        field: &'static str,
        /// Its length in bytes; for backend data, the length of its JSON text.
        length: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The value is not a JSON object.
    #[error("not a JSON object: {0}")]
    NotAnObject(String),
    /// A field has the wrong type or form.
    #[error("`{field}` is {found}: expected {expected}")]
    Field {
        /// Name of the field, in flannel's spelling.
        field: &'static str,
        /// The value found, truncated if long.
        found: String,
        /// The type or form that is accepted.
        expected: &'static str,
    },
    /// The node's address cannot be that of a host.
    #[error(
        "`{field}` is {address}, which is a loopback, multicast or broadcast address: expected the address at which other \
         hosts reach the node"
    )]
    NoHost {
        /// Name of the field, in flannel's spelling.
        field: &'static str,
        /// The address found.
        address: IpAddr,
    },
    /// No family has both a subnet in the key and an address in the value.
    #[error(
        "no public address: expected `{0}` to be the node's address, because the key has a subnet of that family"
    )]
    NoAddress(&'static str),
}

impl Lease {
    /// Returns the node's public addresses.
    pub fn public_addresses(&self) -> PerFamily<IpAddr> {
        self.families.as_ref().map(|part| part.public_address)
    }

    /// Returns true if the two leases have a public address in common. flannel identifies nodes by
    /// their address.
    pub fn shares_address(&self, other: &Self) -> bool {
        let theirs = other.public_addresses();
        self.public_addresses().iter().any(|own| theirs.contains(own))
    }

    /// Returns the Ethernet addresses found anywhere in the backend data.
    pub fn published_macs(&self) -> BTreeSet<MacAddress> {
        fn collect(value: &Value, found: &mut BTreeSet<MacAddress>) {
            match value {
                Value::String(text) => found.extend(text.parse::<MacAddress>().ok()),
                Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
                Value::Object(members) => members.values().for_each(|item| collect(item, found)),
                Value::Null | Value::Bool(_) | Value::Number(_) => {}
            }
        }
        let mut found = BTreeSet::new();
        for data in self.families.iter().filter_map(|family| family.backend_data.as_deref()) {
            // The data is JSON, since it is part of a record that was parsed. serde_json bounds its
            // depth.
            if let Ok(value) = serde_json::from_str(data) {
                collect(&value, &mut found);
            }
        }
        found
    }

    /// Returns the node's name for messages: its host name or id with its address, or the address
    /// alone.
    pub fn owner(&self) -> String {
        let addresses = self.public_addresses().map(|address| address.to_string());
        let address = addresses.into_iter().collect::<Vec<_>>().join(", ");
        let name = self.node_name.as_ref().map(|name| one_line(name, LONGEST));
        match (name, &self.node_id) {
            (Some(name), Some(id)) => format!("{name} (node id {id}) at {address}"),
            (Some(name), None) => format!("{name} at {address}"),
            (None, Some(id)) => format!("node id {id} at {address}"),
            (None, None) => address,
        }
    }

    /// Returns the JSON text for the store.
    pub fn to_value(&self) -> String {
        fn data(part: Option<&LeaseFamily>) -> Option<&RawValue> {
            serde_json::from_str(part?.backend_data.as_deref()?).ok()
        }
        let PerFamily { v4, v6 } = self.families.as_ref();
        let wire = Wire {
            public_ip: match v4.map(|part| part.public_address) {
                Some(IpAddr::V4(address)) => address,
                _ => Ipv4Addr::UNSPECIFIED,
            },
            public_ipv6: match v6.map(|part| part.public_address) {
                Some(IpAddr::V6(address)) => Some(address),
                _ => None,
            },
            backend_type: self.backend_type.as_deref(),
            backend_data: data(v4),
            backend_v6_data: data(v6),
            node_id: self.node_id.as_ref(),
            node_name: self.node_name.as_deref(),
        };
        serde_json::to_string(&wire).expect("a struct of plain fields always serializes")
    }

    /// Parses a value written by any version of flannel or Heddle.
    ///
    /// Field names are matched ignoring case, as Go does, and unknown ones are ignored. A family
    /// counts if the key has its subnet and the value its address. A `NodeName` longer than
    /// [`NODE_NAME_LIMIT`] is truncated, because nothing depends on it; any other field that is
    /// longer than its limit makes the lease invalid.
    ///
    /// # Errors
    ///
    /// [`InvalidLease`], naming the field.
    pub fn from_value(key: LeaseKey, value: &[u8]) -> Result<Self, InvalidLease> {
        if let Some(unread) = Unread::of_length(value.len()) {
            return Err(unread.into());
        }
        let fields = Fields::read(value)?;
        fields.check_lengths()?;
        let public_ip: Option<Ipv4Addr> =
            read("PublicIP", "an IPv4 address as text", fields.public_ip)?;
        let public_ipv6: Option<Ipv6Addr> =
            read("PublicIPv6", "an IPv6 address as text, or null", fields.public_ipv6)?;
        let text = |raw: Option<&RawValue>| {
            raw.map(RawValue::get).filter(|text| *text != "null").map(str::to_owned)
        };
        let addresses = PerFamily {
            v4: host("PublicIP", public_ip)?.map(IpAddr::V4),
            v6: host("PublicIPv6", public_ipv6)?.map(IpAddr::V6),
        };
        let mut data =
            PerFamily { v4: text(fields.backend_data), v6: text(fields.backend_v6_data) };
        let parts = key.subnets().zip(addresses);
        let families = parts.map_with(|family, (subnet, public_address)| LeaseFamily {
            subnet,
            public_address,
            backend_data: data.take(family),
        });
        if families.is_empty() {
            let field = if key.v4.is_some() { "PublicIP" } else { "PublicIPv6" };
            return Err(InvalidLease::NoAddress(field));
        }
        let backend_type = read::<String>("BackendType", "a text", fields.backend_type)?
            .filter(|backend| !backend.is_empty());
        let length = backend_type.as_ref().map_or(0, String::len);
        check_length("BackendType", length, BACKEND_TYPE_LIMIT)?;
        Ok(Self {
            key,
            families,
            backend_type,
            node_id: read("NodeID", "a node id", fields.node_id)?,
            node_name: read::<String>("NodeName", "a text", fields.node_name)?
                .map(bounded_node_name),
        })
    }

    /// Returns true if the node's name was truncated to [`NODE_NAME_LIMIT`].
    pub fn is_name_cut(&self) -> bool {
        self.node_name
            .as_ref()
            .is_some_and(|name| name.ends_with(CUT) && name.chars().count() == NODE_NAME_LIMIT)
    }
}

/// Validates a node's address. Returns None for the unspecified address, which flannel writes for a
/// family that the node does not have.
fn host<A: Copy + Into<IpAddr>>(
    field: &'static str,
    address: Option<A>,
) -> Result<Option<A>, InvalidLease> {
    let Some(found) = address.filter(|found| !(*found).into().is_unspecified()) else {
        return Ok(None);
    };
    let address = found.into();
    if is_host(address) { Ok(Some(found)) } else { Err(InvalidLease::NoHost { field, address }) }
}

/// Marker at the end of a truncated text.
const CUT: char = '…';

/// Returns the name, truncated to [`NODE_NAME_LIMIT`] characters of which the last is `…` if it is
/// longer.
fn bounded_node_name(name: String) -> String {
    if name.chars().nth(NODE_NAME_LIMIT).is_none() {
        return name;
    }
    name.chars().take(NODE_NAME_LIMIT - 1).chain([CUT]).collect()
}

impl<'a> Fields<'a> {
    fn read(value: &'a [u8]) -> Result<Self, InvalidLease> {
        let entries: Entries<'a> = serde_json::from_slice(value).map_err(|error| {
            InvalidLease::NotAnObject(one_line(&error.to_string(), REASON_LIMIT))
        })?;
        let mut fields = Self::default();
        for (name, value) in entries.0 {
            let slot = match name.to_ascii_lowercase().as_str() {
                "publicip" => &mut fields.public_ip,
                "publicipv6" => &mut fields.public_ipv6,
                "backendtype" => &mut fields.backend_type,
                "backenddata" => &mut fields.backend_data,
                "backendv6data" => &mut fields.backend_v6_data,
                "nodeid" => &mut fields.node_id,
                "nodename" => &mut fields.node_name,
                _ => continue,
            };
            *slot = Some(value);
        }
        Ok(fields)
    }

    /// Checks the lengths of the fields that are kept unparsed.
    fn check_lengths(&self) -> Result<(), InvalidLease> {
        let fields = [("BackendData", self.backend_data), ("BackendV6Data", self.backend_v6_data)];
        for (field, raw) in fields {
            let length = raw.map_or(0, |raw| raw.get().len());
            check_length(field, length, BACKEND_DATA_LIMIT)?;
        }
        Ok(())
    }
}

fn check_length(field: &'static str, length: usize, limit: usize) -> Result<(), InvalidLease> {
    match length > limit {
        true => Err(InvalidLease::TooLong { field, length, limit }),
        false => Ok(()),
    }
}

/// The members of a JSON object in their original order, with unparsed values.
struct Entries<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

/// Parses one field. An absent field and `null` are equivalent.
fn read<'a, T: Deserialize<'a>>(
    field: &'static str,
    expected: &'static str,
    raw: Option<&'a RawValue>,
) -> Result<Option<T>, InvalidLease> {
    let Some(raw) = raw else { return Ok(None) };
    serde_json::from_str(raw.get()).map_err(|_| InvalidLease::Field {
        field,
        found: one_line(raw.get(), 60),
        expected,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(key: &str, value: &str) -> Result<Lease, InvalidLease> {
        Lease::from_value(key.parse().unwrap(), value.as_bytes())
    }

    #[test]
    fn lease_key_parsed_displays_as_written() {
        for key in
            ["10.244.8.0-24", "10.244.8.0-24&fc00:0:0:8::-64", "0.0.0.0-0&2001:cafe:42:8::-64"]
        {
            assert_eq!(key.parse::<LeaseKey>().unwrap().to_string(), key);
        }
        let v6 = "0.0.0.0-0&fc00::-64".parse::<LeaseKey>().unwrap();
        assert_eq!(v6.subnets(), ["fc00::/64".parse::<IpNet>().unwrap()].into());
    }

    #[test]
    fn lease_key_of_all_ipv4_is_none() {
        let all = "0.0.0.0/0".parse().unwrap();
        assert_eq!(LeaseKey::new([all].into()), None);
        let key = LeaseKey::new([all, "fc00::/64".parse().unwrap()].into()).unwrap();
        assert_eq!(key.to_string().parse(), Ok(key));
    }

    #[test]
    fn malformed_or_noncanonical_keys_are_rejected() {
        for key in [
            "",
            "nonsense",
            "0.0.0.0-0",
            "10.244.8.0",
            "10.244.8.0-33",
            "10.244.8.0-+24",
            "10.244.8.1-24",
            "10.244.8.0-024",
            "10.244.8.0-24&FC00:0:0:8::-64",
            "10.244.8.0-24&fc00:0:0:8:0:0:0:0-64",
            "10.244.8.0-24/x",
            "10.244.8.0-24&",
            "10.244.8.0-24&fc00::1-64",
            "fc00::-64",
        ] {
            assert_eq!(key.parse::<LeaseKey>(), Err(InvalidLeaseKey(key.into())), "{key}");
        }
    }

    #[test]
    fn vxlan_lease_is_written_as_flannel_writes_it() {
        let value = r#"{"PublicIP":"192.168.0.72","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"3a:8b:71:f2:2e:de"}}"#;
        let lease = read("10.244.8.0-24", value).unwrap();
        assert_eq!(lease.to_value(), value);
        assert_eq!(lease.key.to_string(), "10.244.8.0-24");
    }

    #[test]
    fn dual_stack_lease_has_data_per_family() {
        let value = r#"{"PublicIP":"192.168.0.72","PublicIPv6":"fd00::72","BackendType":"vxlan","BackendData":{"VNI":1},"BackendV6Data":{"VNI":2}}"#;
        let lease = read("10.244.8.0-24&fc00:0:0:8::-64", value).unwrap();
        assert_eq!(lease.to_value(), value);
        assert_eq!(
            lease.families.v6.as_ref().unwrap().backend_data.as_deref(),
            Some(r#"{"VNI":2}"#)
        );
    }

    #[test]
    fn ipv6_only_lease_writes_unspecified_ipv4_address() {
        let value = r#"{"PublicIP":"0.0.0.0","PublicIPv6":"fd00::72","BackendType":"vxlan","BackendV6Data":{"VNI":1}}"#;
        let lease = read("0.0.0.0-0&fc00::-64", value).unwrap();
        assert_eq!(lease.to_value(), value);
        assert_eq!(lease.families.len(), 1);
    }

    #[test]
    fn lease_of_flannel_0_14_is_parsed() {
        let lease = read(
            "10.1.16.0-21",
            r#"{"PublicIP":"192.168.1.132","BackendType":"vxlan","BackendData":{"VtepMAC":"12:b9:d6:fb:f8:e3"}}"#,
        )
        .unwrap();
        assert_eq!(lease.backend_type.as_deref(), Some("vxlan"));
        assert_eq!(
            lease.families.v4.unwrap().backend_data.as_deref(),
            Some(r#"{"VtepMAC":"12:b9:d6:fb:f8:e3"}"#)
        );
    }

    #[test]
    fn udp_lease_has_no_backend_type() {
        let value = r#"{"PublicIP":"192.168.0.72","PublicIPv6":null}"#;
        let lease = read("10.244.8.0-24", value).unwrap();
        assert_eq!(lease.backend_type, None);
        assert_eq!(lease.to_value(), value);
    }

    #[test]
    fn family_without_address_keeps_the_key_unchanged() {
        let lease = read("10.244.8.0-24&fc00::-64", r#"{"PublicIP":"1.2.3.4"}"#).unwrap();
        assert_eq!(
            (lease.key.to_string().as_str(), lease.families.len()),
            ("10.244.8.0-24&fc00::-64", 1)
        );
    }

    #[test]
    fn node_name_with_newline_cannot_forge_a_log_line() {
        let value = r#"{"PublicIP":"1.2.3.4","NodeName":"x\n<3>y"}"#;
        assert_eq!(read("10.244.8.0-24", value).unwrap().owner(), "x <3>y at 1.2.3.4");
    }

    #[test]
    fn field_names_ignore_case_and_unknown_fields_are_skipped() {
        let lease =
            read("10.244.8.0-24", r#"{"publicip":"192.168.0.72","Future":{"a":[1]}}"#).unwrap();
        assert_eq!(lease.families.v4.unwrap().public_address.to_string(), "192.168.0.72");
    }

    #[test]
    fn invalid_field_is_named_in_the_error() {
        assert_eq!(
            read("10.244.8.0-24", r#"{"PublicIP":"192.168.0.720"}"#).unwrap_err().to_string(),
            "`PublicIP` is \"192.168.0.720\": expected an IPv4 address as text"
        );
        assert_eq!(
            read("10.244.8.0-24", r#"{"PublicIP":"1.2.3.4","BackendType":7}"#)
                .unwrap_err()
                .to_string(),
            "`BackendType` is 7: expected a text"
        );
        for (field, address) in [
            ("PublicIP", "127.0.0.1"),
            ("PublicIP", "224.0.0.9"),
            ("PublicIP", "255.255.255.255"),
            ("PublicIPv6", "::1"),
            ("PublicIPv6", "ff02::1"),
            ("PublicIPv6", "::ffff:127.0.0.1"),
        ] {
            let value = format!(r#"{{"{field}":"{address}"}}"#);
            let found = read("10.244.8.0-24&fc00::-64", &value).unwrap_err().to_string();
            assert!(found.starts_with(&format!("`{field}` is {address}, which is a ")), "{found}");
        }
        assert!(matches!(read("10.244.8.0-24", "[1]"), Err(InvalidLease::NotAnObject(_))));
        assert_eq!(read("10.244.8.0-24", "{}"), Err(InvalidLease::NoAddress("PublicIP")));
        assert_eq!(
            read("0.0.0.0-0&fc00::-64", r#"{"PublicIP":"1.2.3.4"}"#),
            Err(InvalidLease::NoAddress("PublicIPv6"))
        );
    }

    #[test]
    fn value_beyond_limit_is_rejected_unparsed() {
        let value = |length: usize| {
            let head = r#"{"PublicIP":"1.2.3.4","Future":""#;
            format!("{head}{}\"}}", "x".repeat(length - head.len() - 2))
        };
        assert_eq!(value(VALUE_LIMIT).len(), VALUE_LIMIT);
        assert!(read("10.244.8.0-24", &value(VALUE_LIMIT)).is_ok());
        let error = read("10.244.8.0-24", &value(VALUE_LIMIT + 1)).unwrap_err();
        assert_eq!(error, InvalidLease::Unread(Unread::TooLong(65_537)));
        assert_eq!(
            error.to_string(),
            "its value is too long: 65537 bytes or more, and the limit is 65536"
        );
    }

    #[test]
    fn field_beyond_limit_is_rejected_by_name() {
        let field = |name: &str, length: usize| {
            let text = "x".repeat(length);
            let value =
                format!(r#"{{"PublicIP":"1.2.3.4","PublicIPv6":"fd00::1","{name}":"{text}"}}"#);
            read("10.244.8.0-24&fc00::-64", &value)
        };
        for (name, longest, limit) in [
            ("BackendType", BACKEND_TYPE_LIMIT, BACKEND_TYPE_LIMIT),
            // The length includes the quotes.
            ("BackendData", BACKEND_DATA_LIMIT - 2, BACKEND_DATA_LIMIT),
            ("BackendV6Data", BACKEND_DATA_LIMIT - 2, BACKEND_DATA_LIMIT),
        ] {
            assert!(field(name, longest).is_ok(), "{name}");
            assert_eq!(
                field(name, longest + 1).unwrap_err().to_string(),
                format!("`{name}` is too long: {} bytes, and the limit is {limit}", limit + 1)
            );
        }
        assert!(matches!(field("NodeID", 65), Err(InvalidLease::Field { field: "NodeID", .. })));
    }

    #[test]
    fn node_name_beyond_limit_is_cut_and_lease_kept() {
        for (length, cut) in [(NODE_NAME_LIMIT, false), (NODE_NAME_LIMIT + 1, true), (60_000, true)]
        {
            let name = "ü".repeat(length);
            let value = format!(
                r#"{{"PublicIP":"1.2.3.4","NodeName":"{}"}}"#,
                &name[..length.min(30_000) * 2]
            );
            let lease = read("10.244.8.0-24", &value).unwrap();
            assert_eq!(lease.is_name_cut(), cut, "{length}");
            assert!(lease.node_name.as_ref().unwrap().chars().count() <= NODE_NAME_LIMIT);
            assert_eq!(read("10.244.8.0-24", &lease.to_value()), Ok(lease));
        }
    }

    #[test]
    fn error_about_foreign_text_is_short() {
        let error = read("10.244.8.0-24", &format!("\"{}\"", "x".repeat(60_000))).unwrap_err();
        assert!(error.to_string().len() < 300, "{error}");
    }

    #[test]
    fn ipv6_data_without_an_ipv6_subnet_is_ignored() {
        let lease = read(
            "10.244.8.0-24",
            r#"{"PublicIP":"1.2.3.4","PublicIPv6":"fd00::1","BackendV6Data":{}}"#,
        )
        .unwrap();
        assert_eq!(lease.families.len(), 1);
    }
}
