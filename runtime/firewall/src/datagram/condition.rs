//! Compares the conditions of a rule with datagrams.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use heddle_core::address::{Family, LinkName};
use ipnet::IpNet;

/// UDP datagrams between this host and one peer, in one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagrams {
    /// Direction, as seen from this host.
    pub direction: Direction,
    /// Address of this host.
    pub own: IpAddr,
    /// Address of the peer; `None` for any peer.
    pub peer: Option<IpAddr>,
    /// Port that they are sent to.
    pub port: u16,
    /// True if they are also sent from that port. Both directions are then one connection.
    pub one_port: bool,
    /// Device that they pass; `None` if it is unknown.
    pub link: Option<LinkName>,
    /// Bridge, bond or VRF that the device belongs to, which a rule may name in its place.
    pub master: Option<LinkName>,
}

/// Direction of datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// From the peer to this host.
    In,
    /// From this host to the peer.
    Out,
}

impl Datagrams {
    /// Returns the family of the addresses.
    pub fn family(&self) -> Family {
        Family::of(self.own)
    }
}

/// The answer to a question about datagrams of which not everything is known, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Truth {
    No,
    Maybe,
    Yes,
}

impl Truth {
    fn of(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }

    fn not(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Maybe => Self::Maybe,
            Self::Yes => Self::No,
        }
    }
}

/// A property of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    InputDevice,
    OutputDevice,
    Source,
    Destination,
    /// Port of UDP.
    SourcePort,
    DestinationPort,
    Protocol,
    /// Family of the packet.
    Family,
    /// Property that only packets of another protocol have.
    Foreign,
    ConnectionState,
    ConnectionStatus,
    PacketType,
    /// Kind of route to the source, or the destination.
    SourceType,
    DestinationType,
    /// Property that nothing is known of.
    Unknown,
}

/// A set of values of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// A name in lower case, or of a device.
    Name(String),
    /// Devices whose names begin so.
    Beginning(String),
    Network(IpNet),
    Addresses(IpAddr, IpAddr),
    Numbers(RangeInclusive<u64>),
    Unknown,
}

/// A condition of a rule: the fields, taken together, have one of the values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) fields: Vec<Field>,
    /// The alternatives, each with one value for each field.
    pub(super) values: Vec<Vec<Value>>,
    pub(super) negated: bool,
}

impl Condition {
    /// Returns a condition on one field.
    pub(super) fn new(field: Field, values: impl IntoIterator<Item = Value>) -> Self {
        let values = values.into_iter().map(|value| vec![value]).collect();
        Self { fields: vec![field], values, negated: false }
    }

    /// Returns a condition that nothing is known of.
    pub(super) fn unknown() -> Self {
        Self::new(Field::Unknown, [Value::Unknown])
    }

    /// Evaluates the condition. `untracked` is true if rules may exempt the datagrams from
    /// connection tracking.
    pub(super) fn holds(&self, datagrams: &Datagrams, untracked: bool) -> Truth {
        let one_of = if self.fields == [Field::ConnectionState] {
            in_state(&self.values, &states(datagrams, untracked))
        } else {
            let alternative = |values: &Vec<Value>| {
                let pairs = self.fields.iter().zip(values);
                let each = pairs.map(|(field, value)| datagrams.has(*field, value, untracked));
                let complete = Truth::of(self.fields.len() == values.len()).max(Truth::Maybe);
                each.min().unwrap_or(Truth::Maybe).min(complete)
            };
            self.values.iter().map(alternative).max().unwrap_or(Truth::No)
        };
        // A condition on the protocol of another family or transport does not hold, negated or not:
        // reading the property fails, which ends the rule.
        if self.fields.iter().any(|field| datagrams.lack(*field)) {
            return Truth::No;
        }
        if self.negated { one_of.not() } else { one_of }
    }
}

/// Returns the states that connection tracking may see. Datagrams from changing ports are one
/// direction of a connection that is never answered.
fn states(datagrams: &Datagrams, untracked: bool) -> Vec<&'static str> {
    let mut states = vec!["new"];
    states.extend(datagrams.one_port.then_some("established"));
    states.extend(untracked.then_some("untracked"));
    states
}

fn in_state(values: &[Vec<Value>], states: &[&str]) -> Truth {
    let named = |state: &str| values.iter().any(|value| *value == [Value::Name(state.to_owned())]);
    match states.iter().filter(|state| named(state)).count() {
        0 if values.iter().flatten().any(|value| matches!(value, Value::Unknown)) => Truth::Maybe,
        0 => Truth::No,
        found if found == states.len() => Truth::Yes,
        _ => Truth::Maybe,
    }
}

impl Datagrams {
    /// Returns true if packets like these cannot have the property.
    fn lack(&self, field: Field) -> bool {
        field == Field::Foreign
    }

    /// Compares one of the properties with a value.
    fn has(&self, field: Field, value: &Value, untracked: bool) -> Truth {
        let incoming = self.direction == Direction::In;
        match (field, value) {
            (Field::Unknown, _) | (_, Value::Unknown) => Truth::Maybe,
            (Field::Foreign, _) => Truth::No,
            (Field::InputDevice, _) if incoming => self.on(value),
            (Field::OutputDevice, _) if !incoming => self.on(value),
            (Field::Source, _) if incoming => from(self.peer, value),
            (Field::Source, _) => from(Some(self.own), value),
            (Field::Destination, _) if incoming => from(Some(self.own), value),
            (Field::Destination, _) => from(self.peer, value),
            (Field::DestinationPort, Value::Numbers(ports)) => {
                Truth::of(ports.contains(&self.port.into()))
            }
            (Field::SourcePort, Value::Numbers(ports)) => self.sent_from(ports),
            (Field::Protocol, Value::Name(name)) => Truth::of(name == "udp"),
            (Field::Protocol, Value::Numbers(numbers)) => Truth::of(numbers.contains(&17)),
            (Field::Family, Value::Name(name)) => Truth::of(match self.family() {
                Family::V4 => name == "ipv4" || name == "ip",
                Family::V6 => name == "ipv6" || name == "ip6",
            }),
            (Field::ConnectionState, Value::Name(_)) => {
                in_state(&[vec![value.clone()]], &states(self, untracked))
            }
            // Nobody is taken to translate the addresses of these datagrams.
            (Field::ConnectionStatus, Value::Name(name)) if name == "dnat" || name == "snat" => {
                Truth::No
            }
            (Field::PacketType, Value::Name(name)) if incoming => {
                Truth::of(name == "host" || name == "unicast")
            }
            (Field::SourceType, Value::Name(name)) if !incoming => Truth::of(name == "local"),
            (Field::SourceType, Value::Name(name)) if name != "unicast" => Truth::No,
            (Field::DestinationType, Value::Name(name)) => {
                Truth::of(name == if incoming { "local" } else { "unicast" })
            }
            _ => Truth::Maybe,
        }
    }

    fn on(&self, value: &Value) -> Truth {
        let named = |link: Option<LinkName>| {
            link.is_some_and(|link| match value {
                Value::Name(name) => link.as_str() == name,
                Value::Beginning(beginning) => link.as_str().starts_with(beginning),
                _ => false,
            })
        };
        match self.link {
            Some(_) if named(self.link) => Truth::Yes,
            Some(_) if named(self.master) => Truth::Maybe,
            Some(_) => Truth::No,
            None => Truth::of(*value != Value::Name("lo".to_owned())).min(Truth::Maybe),
        }
    }

    fn sent_from(&self, ports: &RangeInclusive<u64>) -> Truth {
        // The kernel chooses the ports of VXLAN among the ephemeral ones of the host, which is the
        // peer or this one. Ports below 1024 never are among them.
        match self.one_port {
            true => Truth::of(ports.contains(&self.port.into())),
            false if *ports.start() <= 1024 && *ports.end() >= 65_535 => Truth::Yes,
            false if *ports.end() < 1024 => Truth::No,
            false => Truth::Maybe,
        }
    }
}

/// Returns true if an address is in the value; `None` is any address.
fn from(address: Option<IpAddr>, value: &Value) -> Truth {
    match (value, address) {
        (Value::Network(network), _) if network.prefix_len() == 0 => Truth::Yes,
        (Value::Network(network), Some(address)) => Truth::of(network.contains(&address)),
        (Value::Network(network), None) => {
            Truth::of(!network.addr().is_loopback()).min(Truth::Maybe)
        }
        (Value::Addresses(first, last), Some(address)) => {
            Truth::of((first..=last).contains(&&address))
        }
        _ => Truth::Maybe,
    }
}
