//! Round-trip tests: encodes every kind of object as a request and decodes the bytes again, without
//! a kernel.

use std::convert::Infallible;

use heddle_core::diff::Scope;
use heddle_core::object::{
    Address, FdbEntry, Link, LinkKind, Metric, Neighbour, Object, Route, RouteAction, Vxlan,
};
use rtnetlink::LinkVxlan;
use rtnetlink::packet_core::{NetlinkDeserializable, NetlinkHeader, NetlinkSerializable};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::InfoVxlan;
use rtnetlink::packet_route::route::RouteProtocol;

use crate::addresses::{self, Assigned};
use crate::links::{self, Device, Devices};
use crate::socket::Request;
use crate::view::View;
use crate::{ROUTE_PROTOCOL, neighbours, routes};

const ALIAS: &str = "heddle /coreos.com/network";
const UNDERLAY: u32 = 2;
const DEVICE: u32 = 7;

/// Decodes the bytes of a request like a message from the kernel.
fn read_back(request: &Request) -> RouteNetlinkMessage {
    let mut bytes = vec![0; NetlinkSerializable::buffer_len(&request.message)];
    NetlinkSerializable::serialize(&request.message, &mut bytes);
    let mut header = NetlinkHeader::default();
    header.message_type = request.message.message_type();
    RouteNetlinkMessage::deserialize(&header, &bytes).unwrap()
}

fn device(index: u32, name: &str, kind: &str) -> Device {
    Device {
        index,
        name: name.parse().unwrap(),
        alias: String::new(),
        mtu: 1500,
        mac: None,
        up: true,
        loopback: false,
        kind: kind.into(),
        controller: None,
        bare: false,
        vxlan: None,
    }
}

fn view() -> View {
    View {
        scope: Scope {
            networks: vec!["10.244.0.0/16".parse().unwrap(), "fd42::/48".parse().unwrap()],
            granted: vec![],
            reserved: vec![],
            own: vec![],
            links: ["flannel.1".parse().unwrap()].into(),
            alias: ALIAS.into(),
        },
        devices: Devices::from_iter([
            device(UNDERLAY, "eth0", ""),
            device(DEVICE, "flannel.1", "vxlan"),
        ]),
    }
}

/// Builds the request for an object on the devices of [`view`].
fn put(object: &Object) -> Request {
    match object {
        Object::Address(address) => addresses::put(DEVICE, address.network),
        Object::Neighbour(neighbour) => neighbours::put_neighbour(DEVICE, neighbour),
        Object::FdbEntry(entry) => neighbours::put_fdb_entry(DEVICE, entry),
        Object::Route(route) => {
            routes::put(route, |_| Ok::<_, Infallible>(DEVICE)).unwrap().unwrap()
        }
        other => panic!("{other}"),
    }
}

fn objects(address: &str, destination: &str) -> Vec<Object> {
    let (link, mac) = ("flannel.1".parse().unwrap(), "3a:8b:71:f2:2e:de".parse().unwrap());
    let destination: ipnet::IpNet = destination.parse().unwrap();
    let gateway = Some(destination.addr());
    let route = |action| Object::Route(Route { metric: Metric::Default, destination, action });
    vec![
        Object::Address(Address { link, network: address.parse().unwrap() }),
        Object::Neighbour(Neighbour { link, address: destination.addr(), mac }),
        Object::FdbEntry(FdbEntry { link, mac, destination: destination.addr() }),
        route(RouteAction::Forward { link, gateway, onlink: true }),
        route(RouteAction::Forward { link, gateway, onlink: false }),
        route(RouteAction::Forward { link, gateway: None, onlink: false }),
        route(RouteAction::Blackhole),
        Object::Route(Route::last_resort(destination)),
    ]
}

#[test]
fn requested_objects_read_back_equal_and_ours() {
    let view = view();
    let v4 = objects("10.244.8.0/32", "10.244.36.0/24");
    let v6 = objects("fd42:0:0:8::/128", "fd42:0:0:24::/64");
    for object in v4.into_iter().chain(v6) {
        let seen = match read_back(&put(&object)) {
            RouteNetlinkMessage::NewAddress(m) => view.address(&Assigned::decode(&m).unwrap()),
            RouteNetlinkMessage::NewNeighbour(m) => view.neighbour(&m).unwrap().1,
            RouteNetlinkMessage::NewRoute(m) => view.route(&m),
            other => panic!("{other:?}"),
        };
        let seen = seen.unwrap_or_else(|| panic!("{object}"));
        assert_eq!(seen.object, object);
        assert!(seen.ours, "{object}");
    }
}

#[test]
fn requested_device_reads_back_equal() {
    for local in ["192.168.0.72", "2001:db8::72"] {
        let vxlan = Vxlan {
            vni: 0x00ff_ffff,
            local: local.parse().unwrap(),
            underlay: "eth0".parse().unwrap(),
            port: 8472,
            learning: true,
            gbp: true,
        };
        let link = Link {
            name: "flannel.1".parse().unwrap(),
            mtu: 1450,
            mac: Some("02:42:0a:f4:08:00".parse().unwrap()),
            up: false,
            kind: LinkKind::Vxlan(vxlan),
        };
        let RouteNetlinkMessage::NewLink(message) =
            read_back(&links::create(&link, &vxlan, UNDERLAY))
        else {
            panic!("not a link");
        };
        assert_eq!(Device::decode(&message).unwrap().link(&view().devices), link);
    }
}

#[test]
fn device_with_unplannable_option_is_of_other_kind() {
    let decoded = |extra: InfoVxlan| {
        let message = LinkVxlan::new("flannel.1", 1)
            .local([192, 168, 0, 72].into())
            .dev(UNDERLAY)
            .port(8472)
            .append_info_data(extra)
            .build();
        Device::decode(&message).unwrap().link(&view().devices).kind
    };
    assert!(matches!(decoded(InfoVxlan::L2Miss(false)), LinkKind::Vxlan(_)));
    for extra in [
        InfoVxlan::Group([192, 168, 0, 9].into()),
        InfoVxlan::CollectMetadata(true),
        InfoVxlan::L2Miss(true),
        InfoVxlan::Gpe,
        InfoVxlan::Link(99),
    ] {
        assert_eq!(decoded(extra), LinkKind::Other("vxlan".into()));
    }
}

#[test]
fn route_owner_follows_protocol_device_and_destination() {
    let view = view();
    let seen = |destination: &str, index: u32, protocol: RouteProtocol| {
        let route = Route {
            metric: Metric::Default,
            destination: destination.parse().unwrap(),
            action: RouteAction::Forward {
                link: "flannel.1".parse().unwrap(),
                gateway: None,
                onlink: false,
            },
        };
        let request = routes::put(&route, |_| Ok::<_, Infallible>(index)).unwrap().unwrap();
        let RouteNetlinkMessage::NewRoute(mut message) = read_back(&request) else {
            panic!("not a route");
        };
        message.header.protocol = protocol;
        view.route(&message).map(|observation| observation.ours)
    };
    let heddle = RouteProtocol::from(ROUTE_PROTOCOL);
    let (inside, outside) = ("10.244.36.0/24", "10.99.0.0/16");
    for (destination, device, protocol, ours) in [
        (inside, DEVICE, heddle, Some(true)),
        (inside, UNDERLAY, heddle, Some(true)),
        (outside, DEVICE, heddle, Some(true)),
        (outside, UNDERLAY, heddle, Some(false)),
        (inside, DEVICE, RouteProtocol::Boot, Some(true)),
        (inside, DEVICE, RouteProtocol::Static, Some(true)),
        (inside, DEVICE, RouteProtocol::Kernel, Some(false)),
        (inside, DEVICE, RouteProtocol::Ra, Some(false)),
        (inside, DEVICE, RouteProtocol::Bird, Some(false)),
        (inside, UNDERLAY, RouteProtocol::Boot, Some(false)),
        (outside, DEVICE, RouteProtocol::Boot, Some(false)),
        (outside, UNDERLAY, RouteProtocol::Boot, None),
    ] {
        let found = seen(destination, device, protocol);
        assert_eq!(found, ours, "{destination} on {device} by {protocol}");
    }
}
