//! Rules for every backend.

use std::sync::Arc;

use heddle_core::address::Family;
use heddle_core::desired::{Desired, Owner, Priority};
use heddle_core::lease::{Lease, LeaseFamily, LeaseKey};
use heddle_core::object::Plan;
use heddle_plugin::{Backend, CallError, Plugin, PluginError, Reason};
use serde_json::Value;

use crate::arbitrary::Arbitrary;
use crate::baseline::Baseline;
use crate::report::{Report, Rule};
use crate::{Plans, Scenario, Thoroughness, on_thread, packets};

/// Number of repetitions of the same call.
const REPEATS: usize = 3;

/// Address families that an overlay can have, with a name for people.
const OVERLAYS: [(&str, &[Family]); 3] = [
    ("IPv4", &[Family::V4]),
    ("IPv6", &[Family::V6]),
    ("IPv4 and IPv6", &[Family::V4, Family::V6]),
];

pub(crate) async fn examine(
    plugin: &Plugin,
    settings: &Value,
    thoroughness: &Thoroughness,
) -> Result<Report, PluginError> {
    let backend = plugin.backend()?;
    let mut report = Report::default();
    let mut worked = Vec::new();
    for (name, families) in OVERLAYS {
        let scenario = match Scenario::ordinary(families, settings) {
            Ok(scenario) => scenario,
            Err(error) => {
                report.look(Rule::Works, false, || error.to_string());
                return Ok(report);
            }
        };
        let situation = Situation { name, scenario, backend: &backend };
        let Some(plans) = situation.works(&mut report).await else { continue };
        situation.pure(&plans, &mut report).await;
        situation.order(&plans, &mut report).await;
        situation.check_independence(&plans, &mut report);
        situation.others(&plans, &mut report).await;
        situation.robust(&plans, settings, thoroughness, &mut report).await;
        if let Some(packets) = plugin.packets()? {
            // Packet functions must not be called from asynchronous code.
            on_thread(|| {
                packets::examine(&packets, &situation.scenario, &plans, thoroughness, &mut report);
            });
        }
        worked.push(name);
    }
    report.look(Rule::Works, !worked.is_empty(), || {
        "it plans for none of IPv4, IPv6 and both: where it needs keys in `Backend`, give them with --backend".to_owned()
    });
    Ok(report)
}

struct Situation<'a> {
    name: &'static str,
    scenario: Scenario,
    backend: &'a Backend,
}

impl Situation<'_> {
    /// Checks that every node can plan every other.
    async fn works(&self, report: &mut Report) -> Option<Baseline> {
        let all = Plans::of(self.backend, &self.scenario).await;
        let ask = |call: &str| format!("{}, {call}", self.name);
        let advertised = report.sound(|| ask("advertise"), all.advertised.clone())?;
        // Not supporting a family is the plugin's choice.
        let declined = |reason: &Reason| format!("{}: it says: {reason}", self.name);
        let advertised = match advertised {
            Ok(advertised) => advertised,
            Err(reason) => {
                report.note(declined(&reason));
                return None;
            }
        };
        let node = match report.sound(|| ask("plan-node"), all.node.clone()?)? {
            Ok(node) => node,
            Err(reason) => {
                report.note(declined(&reason));
                return None;
            }
        };
        let underlay = self.scenario.node.1.underlay.mtu;
        report.look(Rule::Works, node.mtu <= underlay, || {
            format!(
                "{}: an MTU of {} for containers, and the interface's is {underlay}",
                self.name, node.mtu
            )
        });
        let peers = report.sound(|| ask("advertise for another node"), all.peers.clone())?.ok()?;
        let mut plans = Vec::new();
        for (peer, answer) in peers.iter().zip(&all.answers) {
            let ask = || ask(&format!("plan-peer for {}", peer.key));
            match report.sound(ask, answer.clone())? {
                Ok(plan) => plans.push(plan),
                Err(reason) => {
                    report.look(Rule::Works, false, || {
                        format!(
                            "{}: there is no plan for its own peer {}: {reason}",
                            self.name, peer.key
                        )
                    });
                    return None;
                }
            }
        }
        report.look(Rule::Works, true, String::new);
        let (key, own) = &self.scenario.node;
        let lease = advertised.lease(*key, own, None);
        let site = Arc::new(self.scenario.site(own).with_lease(lease));
        Some(Baseline { site, node, peers, plans, all })
    }

    /// Checks that the same input gives the same result.
    async fn pure(&self, good: &Baseline, report: &mut Report) {
        for _ in 0..REPEATS {
            let again = Plans::of(self.backend, &self.scenario).await;
            report.look(Rule::Pure, again == good.all, || {
                format!("{}: first it says {}, then {}", self.name, good.all.text(), again.text())
            });
        }
    }

    async fn plan_peers(&self, good: &Baseline, peers: Vec<Lease>) -> Vec<Result<Plan, CallError>> {
        self.backend.plan_peers(&good.site, good.node.links(), peers).await
    }

    /// Checks that results do not depend on the order of the peers, nor on the others in the
    /// request. One instance plans all peers of a request.
    async fn order(&self, good: &Baseline, report: &mut Report) {
        let mut orders: Vec<Vec<usize>> = (0..good.peers.len()).map(|one| vec![one]).collect();
        orders.push((0..good.peers.len()).rev().collect());
        orders.push((0..good.peers.len()).flat_map(|one| [one, one]).collect());
        for order in orders {
            let peers = order.iter().map(|index| good.peers[*index].clone()).collect();
            let answers = self.plan_peers(good, peers).await;
            for (index, answer) in order.iter().zip(answers) {
                let same = answer.as_ref().is_ok_and(|plan| *plan == good.plans[*index]);
                report.look(Rule::Order, same, || {
                    let peer = good.peers[*index].key;
                    format!(
                        "{}: the plan for peer {peer} depends on who was asked about before it",
                        self.name
                    )
                });
            }
        }
    }

    /// Adds and removes peers in the desired state, as the daemon does.
    fn check_independence(&self, good: &Baseline, report: &mut Report) {
        let mut desired = Desired::default();
        let priority = Priority::default();
        desired.set(Owner::Node, &priority, good.node.plan.clone());
        let alone = format!("{:?}", desired.objects());
        for (peer, plan) in good.peers.iter().zip(&good.plans) {
            let before = format!("{:?}", desired.objects());
            let owner = Owner::Peer(peer.key);
            desired.set(owner, &priority, plan.clone());
            let conflict = desired.conflicts(owner).next().map(|(object, _)| object.to_string());
            report.look(Rule::Apart, conflict.is_none(), || {
                let object = conflict.unwrap_or_default();
                format!(
                    "{}: the plan for peer {} has {object}, which is another's",
                    self.name, peer.key
                )
            });
            let mut without = desired.clone();
            without.remove(owner);
            report.look(Rule::Apart, format!("{:?}", without.objects()) == before, || {
                format!(
                    "{}: when peer {} is gone, not all is as it was before it came",
                    self.name, peer.key
                )
            });
        }
        for peer in &good.peers {
            desired.remove(Owner::Peer(peer.key));
        }
        report.look(Rule::Apart, format!("{:?}", desired.objects()) == alone, || {
            format!("{}: when all peers are gone, more is left than the node's plan", self.name)
        });
    }

    /// Checks that a lease of another backend gets no plan.
    async fn others(&self, good: &Baseline, report: &mut Report) {
        let other =
            |peer: &Lease| Lease { backend_type: Some("some-other".into()), ..peer.clone() };
        let peers: Vec<_> = good.peers.iter().map(other).collect();
        for (peer, answer) in peers.iter().zip(self.plan_peers(good, peers.clone()).await) {
            let ask = || format!("{}, plan-peer for a lease of another backend", self.name);
            let Some(answer) = report.sound(ask, answer) else { continue };
            let left_alone = match &answer {
                Ok(plan) => plan.objects.is_empty(),
                Err(reason) => matches!(reason, Reason::OtherBackend(_)),
            };
            report.look(Rule::Others, left_alone, || {
                format!(
                    "{}: lease {} is for the backend some-other, and it plans for it: expected `other-backend`",
                    self.name, peer.key
                )
            });
        }
    }

    /// Tries malformed configs and leases.
    async fn robust(
        &self,
        good: &Baseline,
        settings: &Value,
        thoroughness: &Thoroughness,
        report: &mut Report,
    ) {
        let mut arbitrary = Arbitrary::new(thoroughness.seed);
        for _ in 0..thoroughness.rounds {
            let mut site = self.scenario.site(&self.scenario.node.1);
            site.config.backend.json = arbitrary.disturbed(settings).to_string();
            let json = site.config.backend.json.clone();
            let ask = |call: &str| format!("{call} with `Backend` {json}");
            let advertised = self.backend.advertise(&site).await;
            self.blame(report, &ask("advertise"), advertised);
            let site = Arc::new(site.with_lease(good.site.lease.clone()));
            let planned = self.backend.plan_node(&site).await;
            self.blame(report, &ask("plan-node"), planned);
        }
        let strangers: Vec<_> =
            (0..thoroughness.rounds).filter_map(|_| self.stranger(good, &mut arbitrary)).collect();
        for (peer, answer) in strangers.iter().zip(self.plan_peers(good, strangers.clone()).await) {
            let ask = || {
                let data = peer.families.iter().map(|part| part.backend_data.as_deref());
                let data: Vec<_> = data.map(Option::unwrap_or_default).collect();
                format!(
                    "plan-peer for lease {} at {:?} of type {:?} with data {}",
                    peer.key,
                    peer.public_addresses().into_iter().collect::<Vec<_>>(),
                    peer.backend_type,
                    data.join(" and ")
                )
            };
            report.sound(ask, answer);
        }
    }

    /// Checks the result of a call with a generated config. A config error must name a key.
    fn blame<T>(&self, report: &mut Report, question: &str, answer: Result<T, CallError>) {
        if let Some(Err(Reason::Config { key, message })) =
            report.sound(|| question.to_owned(), answer)
        {
            let named = key == "Backend" || key.starts_with("Backend.");
            report.look(Rule::Robust, named && !message.is_empty(), || {
                format!("{question}: it complains about `{key}`: expected `Backend.` and the key that is wrong")
            });
        }
    }

    /// Returns a lease that a hostile or broken node could have published.
    fn stranger(&self, good: &Baseline, arbitrary: &mut Arbitrary) -> Option<Lease> {
        let honest = good.peers.first()?;
        let places = honest.families.as_ref().zip(self.scenario.config.networks);
        let families = places.map(|(part, overlay)| LeaseFamily {
            subnet: arbitrary.subnet(overlay.network, overlay.subnet_length),
            public_address: arbitrary.address(part.public_address),
            backend_data: arbitrary.backend_data(part.backend_data.as_deref()),
        });
        Some(Lease {
            key: LeaseKey::new(families.as_ref().map(|part| part.subnet))?,
            families,
            backend_type: arbitrary.backend_type(honest.backend_type.as_deref()),
            node_id: None,
            node_name: None,
        })
    }
}
