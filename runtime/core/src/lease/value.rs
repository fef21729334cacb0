//! Values of leases: JSON in flannel's format.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::error::{InvalidLease, Unread};
use super::key::LeaseKey;
use super::{BACKEND_DATA_LIMIT, BACKEND_TYPE_LIMIT, Lease, LeaseFamily, NODE_NAME_LIMIT};
use crate::address::is_host;
use crate::family::PerFamily;
use crate::node::NodeId;
use crate::text::one_line;

/// Length limit of a parser's message about foreign text, in characters.
const REASON_LIMIT: usize = 200;

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

impl Lease {
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
