use std::net::IpAddr;
use std::sync::Mutex;

use async_trait::async_trait;
use heddle_core::address::LinkName;
use heddle_core::family::PerFamily;
use heddle_core::node::{Node, Underlay};
use heddle_core::object::{Link, LinkKind, Object};
use heddle_plugin::{Metrics, Reason};

use super::*;

/// A backend that plans one device, and records its calls.
#[derive(Debug, Default)]
struct Scripted {
    metrics: Arc<Metrics>,
    calls: Mutex<Vec<String>>,
    fails: Option<&'static str>,
}

impl Scripted {
    fn call(&self, call: &'static str, told: String) -> Result<(), CallError> {
        self.calls.lock().unwrap().push(format!("{call} {told}"));
        let reason = Reason::Trapped("unreachable".to_owned());
        let error = CallError { plugin: "scripted".to_owned(), call, peer: None, reason };
        if self.fails == Some(call) { Err(error) } else { Ok(()) }
    }
}

#[async_trait]
impl Planner for Scripted {
    fn name(&self) -> &str {
        "scripted"
    }

    fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    async fn advertise(&self, site: &Site<NoLease>) -> Result<Advertisements, CallError> {
        self.call("advertise", site.node.id.to_string())?;
        let backend_data = PerFamily { v4: Some("1".to_owned()), v6: Some("2".to_owned()) };
        Ok(Advertisements { backend_type: Some("scripted".to_owned()), backend_data })
    }

    async fn plan_node(&self, site: &Arc<Site>) -> Result<NodePlan, CallError> {
        self.call("plan-node", site.lease.to_value())?;
        let name = "tun0".parse().unwrap();
        let link = Link { name, mtu: 1400, mac: None, up: true, kind: LinkKind::Tun };
        let plan = Plan { objects: vec![Object::Link(link)] };
        Ok(NodePlan { plan, tunnel: None, mtu: 1400 })
    }

    async fn plan_peers(
        &self,
        site: &Arc<Site>,
        links: Vec<LinkName>,
        peers: Vec<Lease>,
    ) -> Vec<Result<Plan, CallError>> {
        let told = format!("{} {links:?} {}", site.lease.key, peers.len());
        peers
            .iter()
            .map(|_| self.call("plan-peers", told.clone()).map(|()| Plan::default()))
            .collect()
    }
}

fn site() -> Site<NoLease> {
    let config = network_config("/n/config", Some(br#"{"Network":"10.244.0.0/16"}"#)).unwrap();
    let underlay = Underlay {
        link: "eth0".parse().unwrap(),
        mtu: 1500,
        addresses: Vec::new(),
        public_addresses: ["192.0.2.1".parse::<IpAddr>().unwrap()].into(),
    };
    Site::new(config, Node { id: "a".parse().unwrap(), underlay, links: Vec::new() })
}

fn key() -> LeaseKey {
    "10.244.8.0-24".parse().unwrap()
}

#[test]
fn missing_and_invalid_configs_are_named_by_their_key() {
    let error = |value| network_config("/n/config", value).unwrap_err().to_string();
    assert_eq!(error(None), "/n/config does not exist");
    assert!(error(Some(b"{}")).starts_with("/n/config: `Network` is missing"));
}

#[tokio::test]
async fn calls_are_told_of_the_lease_with_what_was_advertised() {
    let scripted = Scripted::default();
    let advertised = Loaded { site: site(), planner: &scripted }.advertise().await.unwrap();
    let lease = advertised.lease(key(), None);
    let planned = advertised.with_lease(lease.clone()).plan().await.unwrap();
    let answers = planned.plan_peers(vec![lease]).await;
    assert!(answers.len() == 1 && answers[0].is_ok());
    assert_eq!(
        *scripted.calls.lock().unwrap(),
        [
            "advertise a",
            r#"plan-node {"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"scripted","BackendData":1,"NodeID":"a"}"#,
            r#"plan-peers 10.244.8.0-24 ["tun0"] 1"#,
        ]
    );
}

#[tokio::test]
async fn failed_call_is_the_last_one() {
    let scripted = Scripted { fails: Some("advertise"), ..Scripted::default() };
    let error = Loaded { site: site(), planner: &scripted }.advertise().await.unwrap_err();
    assert_eq!(error.call, "advertise");
    let scripted = Scripted { fails: Some("plan-node"), ..Scripted::default() };
    let advertised = Loaded { site: site(), planner: &scripted }.advertise().await.unwrap();
    let lease = advertised.lease(key(), None);
    assert_eq!(advertised.with_lease(lease).plan().await.unwrap_err().call, "plan-node");
    assert_eq!(scripted.calls.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn claimant_has_the_addresses_of_the_chosen_underlay() {
    let scripted = Scripted::default();
    let advertised = Loaded { site: site(), planner: &scripted }.advertise().await.unwrap();
    let host = HostNetwork::default();
    let (marks, holders) = Default::default();
    let claimant = advertised.claimant(Some(key()), &host, &marks, &holders);
    assert_eq!(claimant.public_addresses, advertised.site().node.underlay.public_addresses);
    assert_eq!((claimant.underlay.as_str(), claimant.previous), ("eth0", Some(key())));
}
