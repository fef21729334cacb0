//! What a rule says, apart from how iptables or nftables put it: the terms in which ours are written and everybody's
//! are read.

use std::collections::BTreeMap;

use heddle_core::address::Family;
use ipnet::IpNet;

use crate::FamilyRules;

/// kube-proxy's mark for packets that it masquerades itself (`pkg/trafficmngr/trafficmngr.go` of flannel).
pub(crate) const KUBE_PROXY_MARK: u32 = 0x4000;

/// What a chain of ours is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    /// Source NAT of what leaves the overlay, and of what enters it from elsewhere.
    Masquerade,
    /// Letting through what the overlay forwards.
    Forward,
}

impl Purpose {
    pub(crate) const ALL: [Self; 2] = [Self::Masquerade, Self::Forward];

    /// The comment that flannel gives its rules, and so do we.
    pub(crate) const fn comment(self) -> &'static str {
        match self {
            Self::Masquerade => "flanneld masq",
            Self::Forward => "flanneld forward",
        }
    }

    /// The rules for it, in their order (`masqRules` and `forwardRules` in `pkg/trafficmngr/iptables` of flannel).
    pub(crate) fn rules(self, family: &FamilyRules, random_fully: bool) -> Vec<Rule> {
        let (network, subnet) = (family.network.trunc(), family.subnet.trunc());
        let rule = |source, destination, action| Rule { mark: None, source, destination, action };
        let is = |network| Some(Side { network, negated: false });
        let is_not = |network| Some(Side { network, negated: true });
        let masquerade = Action::Masquerade { random_fully };
        match self {
            Self::Masquerade => vec![
                Rule {
                    mark: Some(KUBE_PROXY_MARK),
                    source: None,
                    destination: None,
                    action: Action::Return,
                },
                rule(is(subnet), is(network), Action::Return),
                rule(is(network), is(subnet), Action::Return),
                // What a client outside sends to a container here keeps its source address.
                rule(is_not(network), is(subnet), Action::Return),
                rule(is(network), is_not(multicast(Family::of_network(network))), masquerade),
                rule(is_not(network), is(network), masquerade),
            ],
            Self::Forward => vec![
                rule(is(network), None, Action::Accept),
                rule(None, is(network), Action::Accept),
            ],
        }
    }
}

/// All group addresses of a family (RFC 5771, RFC 4291).
fn multicast(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::new_assert([224, 0, 0, 0].into(), 4),
        Family::V6 => IpNet::new_assert([0xff00, 0, 0, 0, 0, 0, 0, 0].into(), 8),
    }
}

/// A rule of ours. All that is given has to match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// All of these bits are set in the packet's mark.
    pub(crate) mark: Option<u32>,
    pub(crate) source: Option<Side>,
    pub(crate) destination: Option<Side>,
    pub(crate) action: Action,
}

/// Whether an address is in a network, or is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Side {
    pub(crate) network: IpNet,
    pub(crate) negated: bool,
}

impl Side {
    /// Whether it holds for every address of a network.
    fn covers(self, all_of: IpNet) -> bool {
        if self.negated {
            !self.network.contains(&all_of) && !all_of.contains(&self.network)
        } else {
            self.network.contains(&all_of)
        }
    }
}

/// What becomes of a packet that a rule of ours matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Accept,
    Return,
    Masquerade { random_fully: bool },
}

/// A rule of anybody's, as far as it says where packets of a network go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) source: Option<Side>,
    pub(crate) destination: Option<Side>,
    /// It has conditions besides source and destination.
    pub(crate) narrower: bool,
    pub(crate) verdict: Verdict,
}

impl Step {
    /// Whether it refuses every packet that comes to it.
    pub(crate) fn refuses_everything(&self) -> bool {
        self.verdict == Verdict::Refuse
            && !self.narrower
            && self.source.is_none()
            && self.destination.is_none()
    }

    /// Whether it certainly concerns every packet of a kind.
    fn concerns(&self, packets: Packets) -> bool {
        let holds = |side: Option<Side>, known: Option<IpNet>| match (side, known) {
            (None, _) => true,
            (Some(side), Some(network)) => side.covers(network),
            (Some(_), None) => false,
        };
        let (source, destination) = match packets {
            Packets::From(network) => (Some(network), None),
            Packets::To(network) => (None, Some(network)),
        };
        !self.narrower && holds(self.source, source) && holds(self.destination, destination)
    }
}

/// Where a packet goes next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accept,
    /// Dropped or rejected.
    Refuse,
    Return,
    /// To another chain, and back from there at its end.
    Jump(String),
    /// To another chain, without coming back here.
    Goto(String),
    /// To the next rule.
    #[default]
    Continue,
}

/// The packets that are asked about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Packets {
    /// All with a source in this network.
    From(IpNet),
    /// All with a destination in this network.
    To(IpNet),
}

/// Chains by name.
pub(crate) type Chains = BTreeMap<String, Vec<Step>>;

/// How deep the kernel lets chains call each other (`NFT_JUMP_STACK_SIZE` in `net/netfilter/nf_tables_core.c`).
const DEEPEST: usize = 16;

/// What rules make of packets that only rules without further conditions concern: whether a chain accepts or refuses
/// them, or neither (then the chain's policy decides, or the chain that it was called from).
///
/// A rule that concerns some of these packets only is passed over: what it makes of those is nothing that can be said
/// of all.
pub(crate) fn accepted(chains: &Chains, chain: &str, packets: Packets) -> Option<bool> {
    walk(chains, chain, packets, DEEPEST)
}

fn walk(chains: &Chains, chain: &str, packets: Packets, depth: usize) -> Option<bool> {
    let deeper = depth.checked_sub(1)?;
    for step in chains.get(chain)?.iter().filter(|step| step.concerns(packets)) {
        match &step.verdict {
            Verdict::Accept => return Some(true),
            Verdict::Refuse => return Some(false),
            Verdict::Return => return None,
            Verdict::Goto(target) => return walk(chains, target, packets, deeper),
            Verdict::Jump(target) => match walk(chains, target, packets, deeper) {
                Some(accepted) => return Some(accepted),
                None => continue,
            },
            Verdict::Continue => continue,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn from(text: &str, verdict: Verdict) -> Step {
        Step {
            source: Some(Side { network: net(text), negated: false }),
            verdict,
            ..Step::default()
        }
    }

    fn chains(of: &[(&str, &[Step])]) -> Chains {
        of.iter().map(|(name, steps)| ((*name).to_owned(), steps.to_vec())).collect()
    }

    const PACKETS: &str = "10.244.0.0/16";

    #[test]
    fn a_rule_for_a_wider_network_concerns_all_packets_and_one_for_a_narrower_does_not() {
        for (source, expected) in
            [("10.0.0.0/8", Some(true)), ("10.244.0.0/16", Some(true)), ("10.244.8.0/24", None)]
        {
            let chains = chains(&[("FORWARD", &[from(source, Verdict::Accept)])]);
            assert_eq!(
                accepted(&chains, "FORWARD", Packets::From(net(PACKETS))),
                expected,
                "{source}"
            );
            assert_eq!(accepted(&chains, "FORWARD", Packets::To(net(PACKETS))), None, "{source}");
        }
    }

    #[test]
    fn a_negated_network_concerns_what_lies_wholly_outside() {
        for (other, expected) in
            [("192.168.0.0/16", Some(true)), ("10.244.8.0/24", None), ("10.0.0.0/8", None)]
        {
            let step = Step {
                source: Some(Side { network: net(other), negated: true }),
                verdict: Verdict::Accept,
                ..Step::default()
            };
            let chains = chains(&[("FORWARD", &[step])]);
            assert_eq!(
                accepted(&chains, "FORWARD", Packets::From(net(PACKETS))),
                expected,
                "{other}"
            );
        }
    }

    #[test]
    fn a_rule_with_further_conditions_is_passed_over() {
        let drop = Step { narrower: true, verdict: Verdict::Refuse, ..Step::default() };
        let chains = chains(&[("FORWARD", &[drop, from(PACKETS, Verdict::Accept)])]);
        assert_eq!(accepted(&chains, "FORWARD", Packets::From(net(PACKETS))), Some(true));
    }

    #[test]
    fn a_jump_comes_back_and_a_goto_does_not() {
        let accept = from(PACKETS, Verdict::Accept);
        for (call, expected) in
            [(Verdict::Jump("A".into()), Some(true)), (Verdict::Goto("A".into()), None)]
        {
            let call = Step { verdict: call, ..Step::default() };
            let back = Step { verdict: Verdict::Return, ..Step::default() };
            let chains = chains(&[
                ("FORWARD", &[call, accept.clone()]),
                ("A", &[back, from(PACKETS, Verdict::Refuse)]),
            ]);
            assert_eq!(accepted(&chains, "FORWARD", Packets::From(net(PACKETS))), expected);
        }
    }

    #[test]
    fn chains_that_call_each_other_come_to_an_end() {
        let call = |to: &str| [Step { verdict: Verdict::Jump(to.into()), ..Step::default() }];
        let chains = chains(&[("A", &call("B")), ("B", &call("A"))]);
        assert_eq!(accepted(&chains, "A", Packets::From(net(PACKETS))), None);
    }
}
