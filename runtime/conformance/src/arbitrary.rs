//! Generated objects and bytes, determined by a seed.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt, SeedableRng};
use serde_json::{Map, Value, json};

/// Keys that backends use, and some that none uses.
const KEYS: [&str; 14] = [
    "Type",
    "VNI",
    "Port",
    "MTU",
    "GBP",
    "Learning",
    "DirectRouting",
    "VtepMAC",
    "vni",
    "PORT",
    "Key",
    "Peers",
    "",
    "\u{0}",
];

/// Generator of test inputs.
pub(crate) struct Arbitrary(StdRng);

impl Arbitrary {
    pub(crate) fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// Returns an unusual JSON value.
    fn value(&mut self, depth: usize) -> Value {
        let texts = [
            "",
            "vxlan",
            "-1",
            "0x10",
            "3a:8b:71:f2:2e:de",
            "ff:ff:ff:ff:ff:ff",
            "10.0.0.1",
            "::",
            "\u{1b}[2J\n",
        ];
        match self.0.random_range(0..if depth == 0 { 9 } else { 11 }) {
            0 => Value::Null,
            1 => self.0.random::<bool>().into(),
            2 => self.0.random_range(-2..70_000).into(),
            3 => self.0.random::<i64>().into(),
            4 => self.0.random::<u64>().into(),
            5 => json!(self.0.random_range(-1e300..1e300)),
            6 => (*texts.choose(&mut self.0).unwrap_or(&"")).into(),
            7 => "é".repeat(self.0.random_range(0..3000)).into(),
            8 => self.text(40).into(),
            9 => (0..self.0.random_range(0..5)).map(|_| self.value(depth - 1)).collect(),
            _ => self.object(depth - 1),
        }
    }

    fn object(&mut self, depth: usize) -> Value {
        let mut members = Map::new();
        for _ in 0..self.0.random_range(0..6) {
            let key = *KEYS.choose(&mut self.0).unwrap_or(&"");
            members.insert(key.to_owned(), self.value(depth));
        }
        members.into()
    }

    fn text(&mut self, longest: usize) -> String {
        (0..self.0.random_range(0..=longest)).map(|_| self.0.random::<char>()).collect()
    }

    /// Returns the object with some members changed and others added. `Type` is kept, because it
    /// names the plugin.
    pub(crate) fn disturbed(&mut self, object: &Value) -> Value {
        let mut members = object.as_object().cloned().unwrap_or_default();
        let own: Vec<_> = members.keys().filter(|key| *key != "Type").cloned().collect();
        for _ in 0..self.0.random_range(1..4) {
            let key = match own.choose(&mut self.0) {
                Some(key) if self.0.random() => key.clone(),
                _ => KEYS
                    .choose(&mut self.0)
                    .copied()
                    .filter(|key| *key != "Type")
                    .unwrap_or("Key")
                    .to_owned(),
            };
            members.insert(key, self.value(3));
        }
        members.into()
    }

    /// Returns backend data that a hostile node might publish, most of it JSON.
    pub(crate) fn backend_data(&mut self, honest: Option<&str>) -> Option<String> {
        let honest = honest.and_then(|text| serde_json::from_str(text).ok());
        match (self.0.random_range(0..8), honest) {
            (0, _) => None,
            (1, _) => Some(self.text(200)),
            (2..=4, Some(honest)) => Some(self.disturbed(&honest).to_string()),
            (5, _) => Some("[".repeat(self.0.random_range(1..4000))),
            _ => Some(self.value(4).to_string()),
        }
    }

    /// Returns a backend's name, or something similar.
    pub(crate) fn backend_type(&mut self, own: Option<&str>) -> Option<String> {
        match self.0.random_range(0..4) {
            0 => None,
            1 => Some(self.text(40)),
            _ => own.map(str::to_owned),
        }
    }

    pub(crate) fn address(&mut self, like: IpAddr) -> IpAddr {
        let odd = match like {
            IpAddr::V4(_) => {
                ["0.0.0.0", "255.255.255.255", "127.0.0.1", "224.0.0.1", "169.254.0.1"]
            }
            IpAddr::V6(_) => ["::", "::1", "ff02::1", "fe80::1", "::ffff:10.0.0.1"],
        };
        match (self.0.random_range(0..4), like) {
            (0, _) => odd.choose(&mut self.0).and_then(|text| text.parse().ok()).unwrap_or(like),
            (1, IpAddr::V4(_)) => IpAddr::V4(self.0.random::<u32>().into()),
            (1, IpAddr::V6(_)) => IpAddr::V6(self.0.random::<u128>().into()),
            _ => like,
        }
    }

    /// Returns a subnet in the same network, of the usual size or of another.
    pub(crate) fn subnet(&mut self, within: IpNet, length: u8) -> IpNet {
        let length = match self.0.random_range(0..4) {
            0 => self.0.random_range(within.prefix_len()..=within.max_prefix_len()),
            _ => length,
        };
        let subnet = match within {
            IpNet::V4(net) => {
                let host = self.0.random::<u32>() & u32::from(net.hostmask());
                let address = (u32::from(net.network()) | host).into();
                Ipv4Net::new(address, length).map(IpNet::V4)
            }
            IpNet::V6(net) => {
                let host = self.0.random::<u128>() & u128::from(net.hostmask());
                let address = (u128::from(net.network()) | host).into();
                Ipv6Net::new(address, length).map(IpNet::V6)
            }
        };
        subnet.map_or(within, |subnet| subnet.trunc())
    }

    /// Returns some packets, one after another, and their lengths.
    pub(crate) fn packets(&mut self, least: u32, longest: u32) -> (Vec<u8>, Vec<u32>) {
        let lengths: Vec<u32> =
            (0..self.0.random_range(1..=8)).map(|_| self.0.random_range(least..=longest)).collect();
        let mut bytes = vec![0; lengths.iter().sum::<u32>() as usize];
        self.0.fill_bytes(&mut bytes);
        (bytes, lengths)
    }

    /// Returns the name and value of a setting.
    pub(crate) fn setting(&mut self, names: &[String]) -> (String, String) {
        let name = match names.choose(&mut self.0) {
            Some(name) if self.0.random() => name.clone(),
            _ => self.text(20),
        };
        let values = ["", "true", "-1", "/etc/passwd", "../x", "/run/flannel/../x", "\u{0}"];
        let value = match values.choose(&mut self.0) {
            Some(value) if self.0.random() => (*value).to_owned(),
            _ => self.text(3000),
        };
        (name, value)
    }
}
