//! Masquerade and forwarding rules of an overlay network, kept in iptables or in nftables.
//!
//! [`Firewall::ensure`] looks at what there is and puts right what is not as [`Rules`] say. It changes nothing else, and
//! nothing at all if all is right. Every change is one step of the kernel's, so there is no moment without rules: one
//! `iptables-restore --noflush` that declares our chains anew and fixes the jumps to them, or one transaction of nftables.
//! What is wanted comes first, what is left over goes last.
//!
//! # Where rules are
//!
//! A packet passes two filters of the kernel, and in each of them all chains at a hook; one that drops it is enough.
//!
//! | place | with iptables | with nftables |
//! | --- | --- | --- |
//! | the flavour of iptables that `iptables` is | both chains | forwarding, if refused there |
//! | the other flavour | forwarding, if refused there | forwarding, if refused there |
//! | tables of our own in nftables | none | both chains |
//!
//! Forwarding is *refused* in a place where the policy of `FORWARD` is `DROP`, which Docker sets in the flavour of its
//! choice, or where a rule of `FORWARD` refuses everything, as distributions ship it. It is answered there, since an accept
//! in one place does not undo a drop in another. Tables that others wrote for nftables are not touched;
//! [`forward_verdicts`] says where they refuse.
//!
//! Our jumps are at the end of `POSTROUTING` and `FORWARD`, as flannel's are, so that what an operator decides there
//! comes first. Only a rule that refuses everything stays behind them.
//!
//! # Whose rules
//!
//! Chains and tables are ours by their names, which depend on the network: that of flannel's default prefix has
//! flannel's names, so that flannel's rules are taken over in one step; every other has names of its own. In chains and
//! tables of these names there is nothing but our rules.
//!
//! # Means
//!
//! iptables is spoken to with its own programs and in its own text. The crate `iptables` (0.6.0) runs `iptables` once for
//! each rule, which cannot change two rules in one step, and knows no `iptables-restore`; there is no other kept one. For
//! nftables see the module `nft`.
//!
//! | module | job |
//! | --- | --- |
//! | `rule` | what a rule says, ours and everybody's; what rules make of a packet |
//! | `names` | what our chains and tables are called |
//! | `iptables::saved`, `iptables::repair` | what `iptables-save` printed; what `iptables-restore` is given |
//! | `nft::table`, `nft::listing` | our tables and everybody's chains as JSON |
//! | `verdict` | where packets are refused |
//! | `repair` | putting right what others change as well |
//! | `program` | running programs |
//!
//! All but `program`, and the few functions of `iptables`, `nft` and `verdict` that call it, are pure.

mod error;
mod firewall;
mod iptables;
mod names;
mod nft;
mod program;
mod repair;
mod rule;
mod verdict;

use ipnet::IpNet;

pub use error::FirewallError;
pub use firewall::Firewall;
pub use verdict::{Filter, ForwardRefusal, Refusal, forward_verdicts};

/// What should hold on this host for one overlay network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The name of the network, an etcd prefix. It tells apart the rules of several daemons on one host.
    pub network_name: String,
    /// The families that the network has, each at most once.
    pub families: Vec<FamilyRules>,
    /// Whether what leaves the network is given this host's address (`--ip-masq`).
    pub masquerade: Option<Masquerade>,
    /// Whether what the network forwards is accepted (`--iptables-forward-rules`).
    pub forward: bool,
    /// What the rules are written with (`EnableNFTables`).
    pub mode: Mode,
}

/// A network in one address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FamilyRules {
    /// The whole network.
    pub network: IpNet,
    /// This node's part of it.
    pub subnet: IpNet,
}

/// How packets are masqueraded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Masquerade {
    /// Whether source ports are chosen at random, where iptables can (from 1.6.2; nftables always can). Without it, two
    /// connections may be given one port at the same time, and one of them loses its first packet.
    pub random_fully: bool,
}

/// What rules are written with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// iptables, in the flavour that `iptables` and `ip6tables` are.
    Iptables,
    /// nftables, in tables of our own.
    Nftables,
}
