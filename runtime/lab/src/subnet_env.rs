//! The `subnet.env` that a daemon writes for the container runtime.

use ipnet::IpNet;

/// The contents of a daemon's `subnet.env`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubnetEnv {
    /// `FLANNEL_SUBNET` and `FLANNEL_IPV6_SUBNET`, if present: the bridge's addresses.
    pub subnets: Vec<IpNet>,
    /// `FLANNEL_MTU`, if present.
    pub mtu: Option<u32>,
}

impl SubnetEnv {
    pub(crate) fn parse(text: &str) -> Self {
        let value = |key: &str| {
            text.lines()
                .filter_map(|line| line.split_once('='))
                .find_map(|(name, value)| (name == key).then_some(value))
        };
        Self {
            subnets: ["FLANNEL_SUBNET", "FLANNEL_IPV6_SUBNET"]
                .into_iter()
                .filter_map(|key| value(key)?.parse().ok())
                .collect(),
            mtu: value("FLANNEL_MTU").and_then(|mtu| mtu.parse().ok()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnet_file_yields_bridge_addresses_and_mtu() {
        let env = SubnetEnv::parse(
            "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.8.1/24\n\
             FLANNEL_IPV6_SUBNET=2001:cafe:42::1/64\nFLANNEL_MTU=1430\nFLANNEL_IPMASQ=false\n",
        );
        assert_eq!(
            env,
            SubnetEnv {
                subnets: vec![
                    "10.244.8.1/24".parse().unwrap(),
                    "2001:cafe:42::1/64".parse().unwrap()
                ],
                mtu: Some(1430),
            }
        );
    }
}
