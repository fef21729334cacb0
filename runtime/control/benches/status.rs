//! The status document of a node with 10,000 peers.

use heddle_bench::Comparisons;
use heddle_control::{Peer, Status};

fn main() {
    let peer = |node: u16| {
        let [high, low] = node.to_be_bytes();
        Peer {
            key: format!("10.{high}.{low}.0-24"),
            node_name: Some(format!("node-{node}")),
            public_addresses: vec![[192, 168, high, low].into()],
            backend: Some("vxlan".into()),
            objects: 3,
            ..Peer::default()
        }
    };
    let status = Status { peers: (0..10_000).map(peer).collect(), ..Status::default() };

    let mut comparisons = Comparisons::from_arguments();
    comparisons.compare(
        ("status/serialize with 10,000 peers", || serde_json::to_string(&status).unwrap()),
        ("the same by way of a value", || serde_json::to_value(&status).unwrap().to_string()),
    );
    comparisons.print();
}
