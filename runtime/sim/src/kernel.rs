//! A model of one host's kernel: devices, addresses, routes, neighbours and FDB entries, with its faults.
//!
//! It has the kernel's rules that the reconcile loop relies on. Their sources: `net/core/rtnetlink.c`,
//! `net/ipv4/{arp,devinet,fib_frontend}.c` and `drivers/net/vxlan/vxlan_core.c`, and what `heddle-kernel` observes and refuses.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use heddle_core::address::LinkName;
use heddle_core::diff::{ObjectChange, Observed, Scope};
use heddle_core::host_network::{HostAddress, HostRouting};
use heddle_core::interface::Facts;
use heddle_core::link_counters::LinkCounters;
use heddle_core::object::{Address, Object, ObjectKey, Route, RouteAction, Sysctl};
use heddle_kernel::{Event, Failure, KernelError, Refusal};
use heddle_node::ports::{Dataplane, Events};
use ipnet::IpNet;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::trace::Trace;

mod state;

pub use state::{Maker, Mark, State};
use state::{Subscriber, Touched, connected};

/// The interface between hosts.
pub const UNDERLAY: &str = "eth0";

/// The MTU of [`UNDERLAY`].
const MTU: u32 = 1500;

/// Most calls that a node may make within one second. More is a busy loop.
const CALLS_PER_SECOND: u32 = 200;

/// A kernel. Clones are the same.
#[derive(Clone)]
pub struct ModelKernel {
    state: Arc<Mutex<State>>,
    trace: Trace,
    name: String,
}

impl fmt::Debug for ModelKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelKernel").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ModelKernel {
    /// Returns the kernel of a host with an address on the underlay.
    pub fn new(name: String, address: IpAddr, trace: Trace) -> Self {
        let state = State { address: Some(address), ..State::default() };
        Self { state: Arc::new(Mutex::new(state)), trace, name }
    }

    /// Adds a line about this host to the history.
    pub fn trace(&self, text: &str) {
        self.trace.note(&self.name, text);
    }

    /// Reads or changes the state, without events.
    pub fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes something on behalf of another program, with events.
    pub fn disturb(&self, text: &str, change: impl FnOnce(&mut State) -> Vec<ObjectKey>) {
        self.trace.note(&self.name, text);
        self.with(|state| {
            state.disturbed = Some(Instant::now());
            let before = state.snapshots();
            let keys = change(state);
            let mut touched = Touched::default();
            for key in keys {
                match key {
                    ObjectKey::Link(name) => _ = touched.links.insert(name),
                    key => _ = touched.keys.insert(key),
                }
            }
            state.tell(&before, &touched);
        });
    }

    /// Returns the kernel's routing that is not a daemon's.
    pub fn routing(&self, scope: &Scope) -> HostRouting {
        self.with(|state| state.host(scope))
    }

    /// Loses events from now on, or tells that it has.
    pub fn set_deaf(&self, deaf: bool) {
        self.with(|state| {
            if state.deaf && !deaf {
                // As far as the daemon knows, everything happens now that it did not hear of.
                state.disturbed = Some(Instant::now());
                for subscriber in &state.subscribers {
                    // Whoever subscribed may have ended.
                    let _ = subscriber.events.send(vec![Event::Lost]);
                }
            }
            state.deaf = deaf;
        });
    }

    async fn call(&self, what: &str) {
        let second = self.trace.elapsed().as_secs();
        self.with(|state| {
            if state.calls.0 != second {
                state.calls = (second, 0);
            }
            state.calls.1 += 1;
            assert!(
                state.calls.1 <= CALLS_PER_SECOND,
                "busy loop: {} calls within one second, the last is {what}",
                state.calls.1
            );
        });
        let slow = self.with(|state| state.slow);
        sleep(slow + Duration::from_millis(fastrand::u64(0..3))).await;
    }

    async fn read<T>(
        &self,
        what: &'static str,
        look: impl FnOnce(&mut State) -> T + Send,
    ) -> Result<T, KernelError> {
        self.call(what).await;
        self.with(|state| match state.unreadable_until {
            Some(until) if Instant::now() < until => {
                let refusal = refusal(105);
                Err(KernelError::Refused { what, refusal })
            }
            _ => Ok(look(state)),
        })
    }
}

fn refusal(errno: i32) -> Refusal {
    Refusal::from(io::Error::from_raw_os_error(errno))
}

/// Parses the name of a device.
pub fn name(text: &str) -> LinkName {
    text.parse().expect("a name of a few letters fits the kernel")
}

#[async_trait]
impl Dataplane for ModelKernel {
    async fn facts(&self, _: Option<IpAddr>) -> Result<Facts, KernelError> {
        self.read("the interfaces", |state| state.facts()).await
    }

    async fn egress(&self, _: IpAddr, _: Vec<IpAddr>) -> Result<BTreeSet<LinkName>, KernelError> {
        // The underlay of a model carries its packets itself.
        Ok([name(UNDERLAY)].into())
    }

    async fn observe(&self, scope: &Scope, _: &[Sysctl]) -> Result<Observed, KernelError> {
        self.read("links, addresses, neighbours and routes", |state| {
            state.known_devices = state.devices.keys().copied().collect();
            state.looks += 1;
            state.observe(scope)
        })
        .await
    }

    async fn host_routing(&self, scope: &Scope) -> Result<HostRouting, KernelError> {
        self.read("the host's routes", |state| state.host(scope)).await
    }

    async fn own_routes(&self, _: &Scope) -> Result<Vec<Route>, KernelError> {
        let route = |(object, maker): &(Object, Maker)| match object {
            Object::Route(route) if *maker == Maker::Heddle => Some(*route),
            _ => None,
        };
        self.read("Heddle's routes", |state| state.entries.values().filter_map(route).collect())
            .await
    }

    async fn connected_networks(&self) -> Result<BTreeSet<(IpNet, LinkName)>, KernelError> {
        let route = |(object, _): &(Object, Maker)| match object {
            Object::Route(Route {
                destination,
                action: RouteAction::Forward { link, gateway: None, .. },
                ..
            }) => Some((*destination, *link)),
            _ => None,
        };
        self.read("the connected routes", |state| {
            state.entries.values().filter_map(route).collect()
        })
        .await
    }

    async fn restore_connected(
        &self,
        addresses: Vec<HostAddress>,
    ) -> Result<Vec<(HostAddress, Refusal)>, KernelError> {
        self.read("the devices", |state| {
            for HostAddress { link, network, .. } in addresses {
                let route = connected(&Address { link, network });
                state.entries.insert(route.key(), (route, Maker::Kernel));
            }
            Vec::new()
        })
        .await
    }

    async fn apply(&self, _: &Scope, changes: Vec<ObjectChange>) -> Vec<Failure> {
        self.call("apply").await;
        self.with(|state| {
            let mut failures = Vec::new();
            for change in changes {
                let before = state.snapshots();
                let mut touched = Touched::default();
                match change.object() {
                    Object::Link(link) => _ = touched.links.insert(link.name),
                    object => _ = touched.keys.insert(object.key()),
                }
                let result = state.change(&change);
                self.trace.note(&self.name, &format!("{change:?}: {result:?}"));
                match result {
                    Ok(()) => {
                        state.made += 1;
                        state.tell(&before, &touched);
                    }
                    Err(error) => failures.push(Failure { change, error }),
                }
            }
            failures
        })
    }

    fn link_counters(&self) -> BTreeMap<LinkName, LinkCounters> {
        BTreeMap::new()
    }

    async fn subscribe(&self, scope: &Scope) -> Result<Box<dyn Events>, KernelError> {
        let scope = scope.clone();
        self.read("events", |state| {
            state.forget_knowledge();
            let (events, receiver) = mpsc::unbounded_channel();
            state.subscribers.push(Subscriber { scope, events });
            Box::new(ModelEvents(receiver)) as Box<dyn Events>
        })
        .await
    }
}

struct ModelEvents(mpsc::UnboundedReceiver<Vec<Event>>);

#[async_trait]
impl Events for ModelEvents {
    async fn next_batch(&mut self) -> Vec<Event> {
        let Some(mut events) = self.0.recv().await else {
            return std::future::pending().await;
        };
        while let Ok(more) = self.0.try_recv() {
            events.extend(more);
        }
        events
    }
}
