//! Maintains the masquerade and forwarding rules of an overlay network in iptables or nftables.
//!
//! [`Firewall::ensure`] compares the host's rules with the wanted [`Rules`] and repairs drift. It
//! changes nothing else, and writes nothing if there is no drift. Every change is atomic in the
//! kernel, so there is no moment without rules: either one `iptables-restore --noflush` that
//! redeclares our chains and fixes the jumps to them, or one nftables transaction. Wanted rules are
//! written first, stale ones removed last.
//!
//! # Places
//!
//! A packet passes two filters of the kernel, and in each of them all chains at a hook. A drop in
//! any one of them is final.
//!
//! | place | with iptables | with nftables |
//! | --- | --- | --- |
//! | the flavour of the installed `iptables` | both chains | forwarding, if refused there |
//! | the other flavour | forwarding, if refused there | forwarding, if refused there |
//! | tables of our own in nftables | none | both chains |
//!
//! Forwarding is *refused* in a place if the policy of `FORWARD` is `DROP`, which Docker sets in
//! the flavour that it uses, or if a rule of `FORWARD` refuses everything, as in the rules that
//! some distributions ship. In such a place Heddle adds accept rules, since an accept in one place
//! does not undo a drop in another. Tables that others wrote with nftables are left alone;
//! [`forward_verdicts`] reports those that refuse.
//!
//! Like flannel's, our jumps are at the end of `POSTROUTING` and `FORWARD`, so that an operator's
//! rules there take precedence. Only a rule that refuses everything stays after them.
//!
//! # Ownership
//!
//! Chains and tables are ours if they have our names, which depend on the network: the network with
//! flannel's default prefix has flannel's names, so that flannel's rules are taken over atomically;
//! every other network has its own names. Chains and tables of these names contain only our rules.
//!
//! # Tools
//!
//! iptables is driven through its own programs and text format. The crate `iptables` (0.6.0) runs
//! `iptables` once for each rule, which cannot change two rules atomically, and does not support
//! `iptables-restore`; there is no other maintained crate. For nftables see the module `nft`.
//!
//! | module | job |
//! | --- | --- |
//! | `firewall` | checks the rules and repairs them |
//! | `rule` | the meaning of a rule, ours or foreign; the verdict of rules on a packet |
//! | `names` | the names of our chains and tables |
//! | `iptables::saved` | parses the output of `iptables-save` |
//! | `iptables::repair` | computes the input of `iptables-restore` |
//! | `nft::table`, `nft::listing` | our tables, and everybody's chains, as JSON |
//! | `verdict` | finds where forwarded packets are refused |
//! | `datagram` | finds where datagrams between a node and its peers are dropped |
//! | `repair` | retries repairs until they settle, as others write too |
//! | `error` | errors that name the place of the rules |
//! | `program` | runs programs |
//!
//! All modules are pure, except for `program` and the few functions of `iptables`, `nft`, `verdict`
//! and `datagram` that call it.

#![forbid(unsafe_code)]

mod datagram;
mod error;
mod firewall;
mod iptables;
mod names;
mod nft;
mod program;
mod repair;
mod rule;
mod verdict;

use heddle_core::address::Family;
use heddle_core::family::{InFamily, PerFamily};
use ipnet::IpNet;

pub use datagram::condition::{Datagrams, Direction};
pub use datagram::verdict::{DatagramDrop, DatagramVerdict, DropCause, Manager, datagram_verdicts};
pub use error::FirewallError;
pub use firewall::Firewall;
pub use verdict::{Filter, ForwardRefusal, Refusal, forward_verdicts};

/// The wanted rules on this host for one overlay network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The name of the network, an etcd prefix. It distinguishes the rules of several daemons on
    /// one host.
    pub network_name: String,
    /// The network in its address families.
    pub families: PerFamily<FamilyRules>,
    /// Masquerading of packets that leave the network (`--ip-masq`). `None` disables it.
    pub masquerade: Option<Masquerade>,
    /// True to accept packets that are forwarded for the network (`--iptables-forward-rules`).
    pub forward: bool,
    /// The tool that writes the rules (`EnableNFTables`).
    pub mode: Mode,
}

/// A network in one address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FamilyRules {
    /// The whole network.
    pub network: IpNet,
    /// This node's subnet of it.
    pub subnet: IpNet,
}

impl InFamily for FamilyRules {
    fn family(&self) -> Family {
        self.network.family()
    }
}

/// Options of masquerading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Masquerade {
    /// True to choose source ports at random, if iptables supports it (from 1.6.2; nftables always
    /// does). Without it, two connections may get the same port at the same time, and one of them
    /// loses its first packet.
    pub random_fully: bool,
}

/// The tool that rules are written with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// iptables, in the flavour of the installed `iptables` and `ip6tables`.
    Iptables,
    /// nftables, in tables of our own.
    Nftables,
}
