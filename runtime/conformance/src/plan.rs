//! A backend's plans in a scenario.

use std::fmt::Write;

use heddle_core::lease::Lease;
use heddle_core::object::{Object, Plan};
use heddle_join::Loaded;
use heddle_plugin::{Advertisements, Backend, CallError, NodePlan};

use crate::Scenario;

/// A backend's results in one scenario, as far as the calls succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plans {
    /// Advertisements of this node.
    pub advertised: Result<Advertisements, CallError>,
    /// Plan of the node; None if the advertisements, which the node's lease needs, failed.
    pub node: Option<Result<NodePlan, CallError>>,
    /// All other leases: those of the scenario, and those that the plugin advertises for other
    /// nodes, in the order of their keys.
    pub peers: Result<Vec<Lease>, CallError>,
    /// Plan of each peer.
    pub answers: Vec<Result<Plan, CallError>>,
}

impl Plans {
    /// Calls a backend.
    pub async fn of(backend: &Backend, scenario: &Scenario) -> Self {
        let (key, node) = &scenario.node;
        let loaded = Loaded { site: scenario.site(node), planner: backend };
        let advertised = loaded.advertise().await;
        let mut plans = Self {
            advertised: advertised
                .as_ref()
                .map(|own| own.advertisements().clone())
                .map_err(Clone::clone),
            node: None,
            peers: Ok(Vec::new()),
            answers: Vec::new(),
        };
        let Ok(advertised) = advertised else { return plans };
        let own = advertised.lease(*key, None);
        let planned = advertised.with_lease(own).plan().await;
        plans.peers = peers(backend, scenario).await;
        if let (Ok(planned), Ok(peers)) = (&planned, &plans.peers) {
            plans.answers = planned.plan_peers(peers.clone()).await;
        }
        plans.node = Some(planned.map(|planned| planned.plan));
        plans
    }

    /// Formats everything as text: the advertisements, the plan of the node, and that of each peer;
    /// instead of a plan, the error after `!`. The SDK's test kit gives the same text for a plugin
    /// that runs natively.
    pub fn text(&self) -> String {
        let mut text = "advertise\n".to_owned();
        match &self.advertised {
            Ok(said) => {
                for line in said.backend_type.iter().chain(&said.backend_data) {
                    let _ = writeln!(text, "  {line}");
                }
            }
            Err(error) => complain(&mut text, error),
        }
        match &self.node {
            None => return text,
            Some(Err(error)) => {
                text.push_str("node\n");
                complain(&mut text, error);
                return text;
            }
            Some(Ok(planned)) => {
                let _ = writeln!(text, "node\n  mtu {}", planned.mtu);
                for line in lines(planned) {
                    let _ = writeln!(text, "  {line}");
                }
            }
        }
        match &self.peers {
            Err(error) => complain(&mut text, error),
            Ok(peers) => {
                for (peer, answer) in peers.iter().zip(&self.answers) {
                    let _ = writeln!(text, "peer {}", peer.key);
                    match answer {
                        Err(error) => complain(&mut text, error),
                        Ok(plan) => {
                            for line in sorted(plan, |_| true) {
                                let _ = writeln!(text, "  {line}");
                            }
                        }
                    }
                }
            }
        }
        text
    }
}

/// Returns the other leases of a scenario.
async fn peers(backend: &Backend, scenario: &Scenario) -> Result<Vec<Lease>, CallError> {
    let mut peers = scenario.leases.clone();
    for (key, node) in &scenario.nodes {
        let loaded = Loaded { site: scenario.site(node), planner: backend };
        let mut lease = loaded.advertise().await?.lease(*key, None);
        // Plugins do not get node ids.
        lease.node_id = None;
        peers.push(lease);
    }
    peers.sort_by_key(|lease| lease.key.to_string());
    Ok(peers)
}

fn complain(text: &mut String, error: &CallError) {
    let _ = writeln!(text, "  ! {}", error.reason);
}

/// Formats a node's plan, one object per line: devices, the objects on them, and routes.
fn lines(planned: &NodePlan) -> Vec<String> {
    let is_link = |object: &Object| matches!(object, Object::Link(_));
    let mut lines = sorted(&planned.plan, is_link);
    if let Some(tunnel) = &planned.tunnel {
        let local: Vec<_> = tunnel.local.iter().map(ToString::to_string).collect();
        lines.push(format!(
            "tunnel {} local {} port {}",
            tunnel.link,
            local.join(","),
            tunnel.port
        ));
    }
    lines.extend(sorted(&planned.plan, |object| !is_link(object)));
    lines
}

/// Formats objects in the order of their kinds, and alphabetically within a kind.
fn sorted(plan: &Plan, wanted: impl Fn(&Object) -> bool) -> Vec<String> {
    let rank = |object: &Object| match object {
        Object::Link(_) => 0,
        Object::Sysctl(_) => 1,
        Object::Address(_) => 2,
        Object::FdbEntry(_) => 3,
        Object::Neighbour(_) => 4,
        Object::Route(_) => 5,
    };
    let mut objects: Vec<_> = plan
        .objects
        .iter()
        .filter(|object| wanted(object))
        .map(|object| (rank(object), object.to_string()))
        .collect();
    objects.sort_unstable();
    objects.into_iter().map(|(_, line)| line).collect()
}
