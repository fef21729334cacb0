//! The meaning of a rule, independent of iptables and nftables. Our rules are written from these
//! terms, and foreign rules are read into them.

use std::collections::BTreeMap;

use heddle_core::address::Family;
use ipnet::IpNet;

use crate::FamilyRules;

/// kube-proxy's mark for packets that it masquerades itself (`pkg/trafficmngr/trafficmngr.go` of
/// flannel).
pub(crate) const KUBE_PROXY_MARK: u32 = 0x4000;

/// The purpose of a chain of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    /// Source NAT of packets that leave the overlay, and of packets that enter it from elsewhere.
    Masquerade,
    /// Acceptance of packets that are forwarded for the overlay.
    Forward,
}

impl Purpose {
    pub(crate) const ALL: [Self; 2] = [Self::Masquerade, Self::Forward];

    /// Returns the comment of its rules, the same as flannel's.
    pub(crate) const fn comment(self) -> &'static str {
        match self {
            Self::Masquerade => "flanneld masq",
            Self::Forward => "flanneld forward",
        }
    }

    /// Returns its rules, in order (`masqRules` and `forwardRules` in `pkg/trafficmngr/iptables` of
    /// flannel).
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
                // A packet from an outside client to a local container keeps its source address.
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

/// Returns the multicast addresses of a family (RFC 5771, RFC 4291).
fn multicast(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::new_assert([224, 0, 0, 0].into(), 4),
        Family::V6 => IpNet::new_assert([0xff00, 0, 0, 0, 0, 0, 0, 0].into(), 8),
    }
}

/// A rule of ours. All given conditions have to match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Bits that must all be set in the packet's mark.
    pub(crate) mark: Option<u32>,
    pub(crate) source: Option<Side>,
    pub(crate) destination: Option<Side>,
    pub(crate) action: Action,
}

/// A condition on an address: inside a network, or outside it if negated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Side {
    pub(crate) network: IpNet,
    pub(crate) negated: bool,
}

impl Side {
    /// Returns true if the condition holds for every address of a network.
    fn covers(self, all_of: IpNet) -> bool {
        if self.negated {
            !self.network.contains(&all_of) && !all_of.contains(&self.network)
        } else {
            self.network.contains(&all_of)
        }
    }
}

/// The action on a packet that matches a rule of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Accept,
    Return,
    Masquerade { random_fully: bool },
}

/// A rule of any author, reduced to its effect on packets of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) source: Option<Side>,
    pub(crate) destination: Option<Side>,
    /// True if it has conditions besides source and destination.
    pub(crate) narrower: bool,
    pub(crate) verdict: Verdict,
}

impl Step {
    /// Returns true if it refuses every packet.
    pub(crate) fn refuses_everything(&self) -> bool {
        self.verdict == Verdict::Refuse
            && !self.narrower
            && self.source.is_none()
            && self.destination.is_none()
    }

    /// Returns true if it applies to every one of these packets for certain.
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

/// The effect on a packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accept,
    /// Dropped or rejected.
    Refuse,
    Return,
    /// Calls another chain and returns at its end.
    Jump(String),
    /// Continues in another chain without returning.
    Goto(String),
    /// Continues with the next rule.
    #[default]
    Continue,
    /// Decided by something that cannot be evaluated, such as a program in user space.
    Unknown,
}

/// The packets in question.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Packets {
    /// All with a source in this network.
    From(IpNet),
    /// All with a destination in this network.
    To(IpNet),
}

/// Chains by name.
pub(crate) type Chains = BTreeMap<String, Vec<Step>>;

/// The maximum call depth of chains in the kernel (`NFT_JUMP_STACK_SIZE` in
/// `net/netfilter/nf_tables_core.c`).
const DEEPEST: usize = 16;

/// Evaluates a chain for these packets. Returns true if it accepts all of them, false if it refuses
/// them, and `None` if it does neither; then the chain's policy or the calling chain decides.
///
/// Skips rules that apply to only some of the packets: their verdict says nothing about all of
/// them.
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
            Verdict::Continue | Verdict::Unknown => continue,
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
    fn rule_concerns_all_packets_only_if_network_is_wider() {
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
    fn negated_network_concerns_only_networks_outside() {
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
    fn rule_with_other_conditions_is_skipped() {
        let drop = Step { narrower: true, verdict: Verdict::Refuse, ..Step::default() };
        let chains = chains(&[("FORWARD", &[drop, from(PACKETS, Verdict::Accept)])]);
        assert_eq!(accepted(&chains, "FORWARD", Packets::From(net(PACKETS))), Some(true));
    }

    #[test]
    fn jump_returns_and_goto_does_not() {
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
    fn chain_recursion_is_limited() {
        let call = |to: &str| [Step { verdict: Verdict::Jump(to.into()), ..Step::default() }];
        let chains = chains(&[("A", &call("B")), ("B", &call("A"))]);
        assert_eq!(accepted(&chains, "A", Packets::From(net(PACKETS))), None);
    }
}
