//! The packet path, through the generated traits: those of the SDK do not allow answers of the
//! wrong length.

use std::cell::RefCell;

use heddle_sdk::bindings::backend::heddle::overlay::types as wit;
use heddle_sdk::bindings::steering::exports::heddle::overlay::steering;
use heddle_sdk::bindings::transform::exports::heddle::overlay::transform;

use crate::{Misbehaving, hang, hoard};

/// Bytes added to each packet.
const TAG: [u8; 16] = [7; 16];

thread_local! {
    /// The kind of misbehaviour: the first peer's backend type.
    static KIND: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Misbehaves in the ways that all functions have in common, and returns the kind.
#[expect(clippy::disallowed_macros, reason = "a guest's standard output is the host's to handle")]
fn misbehave() -> String {
    let kind = KIND.with_borrow(Clone::clone);
    match kind.as_str() {
        "panic" => panic!("at the disco"),
        "loop" => hang(),
        "hoard" => hoard(),
        "talk" => println!("hello"),
        _ => {}
    }
    kind
}

impl steering::Guest for Misbehaving {
    fn update(_: wit::NetworkConfig, _: wit::Node, _: wit::Lease, peers: Vec<wit::Lease>) {
        let kind = peers.into_iter().next().and_then(|peer| peer.backend_type).unwrap_or_default();
        if kind == "update" {
            panic!("at the disco");
        }
        KIND.replace(kind);
    }

    fn steer(destinations: Vec<wit::IpAddress>) -> Vec<Option<wit::PeerIndex>> {
        let count = destinations.len();
        match misbehave().as_str() {
            "short" => vec![Some(0); count - 1],
            "long" => vec![Some(0); count + 1],
            "avalanche" => vec![Some(0); 2_000_000],
            "range" => vec![Some(1); count],
            _ => vec![Some(0); count],
        }
    }
}

impl transform::Guest for Misbehaving {
    fn overhead(config: wit::NetworkConfig) -> Result<u32, wit::ConfigError> {
        match config.backend {
            backend if backend.contains("huge") => Ok(2000),
            backend if backend.contains("wrong") => {
                let (key, message) = ("Backend.Key".into(), "is missing".into());
                Err(wit::ConfigError { key, message })
            }
            _ => Ok(TAG.len().try_into().unwrap()),
        }
    }

    fn encapsulate(_: wit::PeerIndex, packets: transform::Packets) -> transform::Packets {
        let mut tagged = each(&packets, |packet| [packet, &TAG].concat());
        match misbehave().as_str() {
            "fewer" => drop(tagged.lengths.pop()),
            "sum" => tagged.bytes.push(0),
            "long" => tagged = each(&tagged, |packet| [packet, &[0]].concat()),
            _ => {}
        }
        tagged
    }

    fn decapsulate(_: wit::PeerIndex, payloads: transform::Packets) -> transform::Packets {
        let long = misbehave() == "long";
        each(&payloads, |payload| match payload.strip_suffix(&TAG) {
            Some(_) if long => vec![0; 65_536],
            Some(packet) => packet.to_vec(),
            None => vec![],
        })
    }
}

fn each(packets: &transform::Packets, change: impl Fn(&[u8]) -> Vec<u8>) -> transform::Packets {
    let (mut bytes, mut lengths) = (Vec::new(), Vec::new());
    let mut rest = packets.bytes.as_slice();
    for length in &packets.lengths {
        let (packet, behind) = rest.split_at(*length as usize);
        rest = behind;
        let changed = change(packet);
        lengths.push(changed.len().try_into().unwrap());
        bytes.extend(changed);
    }
    transform::Packets { bytes, lengths }
}

#[cfg(target_family = "wasm")]
const _: () = {
    use heddle_sdk::bindings;
    bindings::steering::export!(Misbehaving with_types_in bindings::steering);
    bindings::transform::export!(Misbehaving with_types_in bindings::transform);
};
