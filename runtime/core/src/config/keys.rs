//! Names and bounds of the config's keys.

/// Names and bounds of one family's keys.
pub(super) struct FamilyKeys {
    pub(super) network: &'static str,
    pub(super) subnet_length: &'static str,
    pub(super) subnet_min: &'static str,
    pub(super) subnet_max: &'static str,
    /// Default subnet length, in bits, for networks at least two bits shorter.
    pub(super) default_length: u8,
    /// Prefix length limit of a network: longer networks have no room for subnets.
    pub(super) longest_network: u8,
    /// Prefix length limit of a subnet.
    pub(super) longest_subnet: u8,
    pub(super) missing: &'static str,
    /// A network that can be used, for errors.
    pub(super) example: &'static str,
    /// Form of a network, for errors.
    pub(super) network_form: &'static str,
    /// Form of an address, for errors.
    pub(super) address_form: &'static str,
}

pub(super) const V4: FamilyKeys = FamilyKeys {
    network: "Network",
    subnet_length: "SubnetLen",
    subnet_min: "SubnetMin",
    subnet_max: "SubnetMax",
    default_length: 24,
    longest_network: 28,
    longest_subnet: 30,
    missing: "expected the overlay's IPv4 network, such as 10.244.0.0/16, or `EnableIPv4` false",
    example: "10.244.0.0/16",
    network_form: "an IPv4 network as text, such as \"10.244.0.0/16\"",
    address_form: "an IPv4 address as text",
};

pub(super) const V6: FamilyKeys = FamilyKeys {
    network: "IPv6Network",
    subnet_length: "IPv6SubnetLen",
    subnet_min: "IPv6SubnetMin",
    subnet_max: "IPv6SubnetMax",
    default_length: 64,
    longest_network: 124,
    longest_subnet: 126,
    missing: "expected the overlay's IPv6 network, such as fd00:10:244::/48, or `EnableIPv6` false",
    example: "fd00:10:244::/48",
    network_form: "an IPv6 network as text, such as \"fd00:10:244::/48\"",
    address_form: "an IPv6 address as text",
};

pub(super) const ENABLE_V4: &str = "EnableIPv4";

pub(super) const ENABLE_V6: &str = "EnableIPv6";

pub(super) const ENABLE_NFTABLES: &str = "EnableNFTables";

pub(super) const BACKEND: &str = "Backend";

/// All keys of the network config.
pub const KEYS: [&str; 12] = [
    ENABLE_V4,
    ENABLE_V6,
    V4.network,
    V4.subnet_length,
    V4.subnet_min,
    V4.subnet_max,
    V6.network,
    V6.subnet_length,
    V6.subnet_min,
    V6.subnet_max,
    ENABLE_NFTABLES,
    BACKEND,
];
