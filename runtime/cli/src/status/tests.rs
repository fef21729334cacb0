use heddle_control::{
    Changes, Device, EventKind, LinkCounters, NodeIdentity, OwnLeaseStatus, UnderlayStatus,
    UnmetCondition,
};

use super::*;

#[expect(clippy::too_many_lines, reason = "one value, with all fields")]
fn joined() -> Status {
    Status {
        version: "0.1.0".into(),
        network: "/coreos.com/network".into(),
        ready: true,
        uptime: 11_520,
        node: NodeIdentity { id: "4f3c".into(), name: Some("a".into()) },
        underlay: Some(UnderlayStatus {
            interface: "eth0".into(),
            mtu: 1500,
            public_addresses: vec!["192.168.0.72".parse().unwrap()],
        }),
        lease: Some(OwnLeaseStatus {
            key: "10.244.8.0-24".into(),
            subnets: vec!["10.244.8.0/24".parse().unwrap()],
            backend: Some("vxlan".into()),
            mtu: 1450,
            ..OwnLeaseStatus::default()
        }),
        backend: Some(Plugin {
            name: "vxlan".into(),
            version: "0.1.0".into(),
            digest: "9a".repeat(4),
            calls: 12,
            seconds: 0.0031,
            ..Plugin::default()
        }),
        emitters: vec![Emitter {
            plugin: Plugin {
                name: "subnet-env".into(),
                version: "0.1.0".into(),
                source: PluginSource::File("/etc/heddle/plugins/subnet-env.wasm".into()),
                ..Plugin::default()
            },
            files: vec!["/run/flannel/subnet.env".into()],
            problem: None,
        }],
        rules: Some(TrafficRules { masquerade: true, forward: true, ..Default::default() }),
        devices: vec![Device {
            name: "flannel.1".into(),
            kind: "vxlan".into(),
            mtu: 1450,
            counters: Some(LinkCounters {
                rx_packets: 7,
                tx_dropped: 2,
                ..LinkCounters::default()
            }),
        }],
        peers: vec![
            Peer {
                key: "10.244.36.0-24".into(),
                node_name: Some("b".into()),
                public_addresses: vec!["192.168.0.99".parse().unwrap()],
                backend: Some("vxlan".into()),
                changed: 1000,
                objects: 3,
                state: PeerState::InKernel,
                ..Peer::default()
            },
            Peer {
                key: "garb\x1b[2Jage".into(),
                state: PeerState::NotUsed,
                reason: Some("not a lease key".into()),
                ..Peer::default()
            },
        ],
        changes: Changes {
            put: 5,
            repairs: [("link".into(), 0), ("route".into(), 2)].into(),
            ..Changes::default()
        },
        events: (0..11)
            .map(|number| Event {
                time: 1000 + 15 * number,
                kind: EventKind::PeerChanged,
                text: format!("event {number}"),
            })
            .collect(),
        ..Status::default()
    }
}

#[test]
fn joined_node_is_shown_with_devices_and_peers() {
    assert_eq!(
            render(&joined(), 1185),
            "\
heddled    0.1.0, ready, running for 3h12m
peers      2 (1 not used)
node       a, node id 4f3c
network    /coreos.com/network
interface  eth0, mtu 1500, public address 192.168.0.72
lease      10.244.8.0/24, backend vxlan, mtu 1450 for containers
backend    vxlan 0.1.0, built in
           sha256 9a9a9a9a
           12 calls in 0.003 s, 0 failed, 0 answers refused
emitter    subnet-env 0.1.0, /etc/heddle/plugins/subnet-env.wasm: /run/flannel/subnet.env
rules      iptables, masquerade and forward: in place
changes    5 put, 0 replaced, 0 removed, 0 refused
           drift repairs: route 2

DEVICE     KIND   MTU   RX-PACKETS  RX-BYTES  RX-ERRORS  RX-DROPPED  TX-PACKETS  TX-BYTES  TX-ERRORS  TX-DROPPED
flannel.1  vxlan  1450  7           0         0          0           0           0         0          2

PEER            ADDRESS       NODE  BACKEND  CHANGED  OBJECTS  STATE
10.244.36.0-24  192.168.0.99  b     vxlan    3m5s     3        in the kernel
garb [2Jage     -             -     -        -        0        not used: not a lease key

WHEN       WHAT
35s ago    event 10
50s ago    event 9
1m5s ago   event 8
1m20s ago  event 7
1m35s ago  event 6
1m50s ago  event 5
2m5s ago   event 4
2m20s ago  event 3
2m35s ago  event 2
2m50s ago  event 1
"
        );
}

#[test]
fn unjoined_node_shows_what_is_missing() {
    let status = Status {
        version: "0.1.0".into(),
        network: "/x".into(),
        unmet: vec![UnmetCondition {
            condition: "network config".into(),
            reason: "/x/config does not exist".into(),
        }],
        node: NodeIdentity { id: "4f3c".into(), name: None },
        ..Status::default()
    };
    assert_eq!(
        render(&status, 0),
        "\
heddled    0.1.0, not ready, running for 0s
not met    network config: /x/config does not exist
node       node id 4f3c
network    /x
changes    0 put, 0 replaced, 0 removed, 0 refused

no peers
"
    );
}

#[test]
fn missing_values_and_problems_are_shown_in_place() {
    let mut status = joined();
    status.devices[0].counters = None;
    status.emitters[0].problem = Some("/run is read-only".into());
    status.rules.as_mut().unwrap().problem = Some("iptables is missing".into());
    status.packets = Some([("sent_packets".into(), 3), ("icmp".into(), 0)].into());
    let text = render(&status, 1185);
    for line in [
        "emitter    subnet-env 0.1.0, /etc/heddle/plugins/subnet-env.wasm: /run is read-only\n",
        "rules      iptables, masquerade and forward: iptables is missing\n",
        "packets    sent_packets 3\n",
        "flannel.1  vxlan  1450  -  ",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
}
