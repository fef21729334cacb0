use heddle_core::family::PerFamily;
use heddle_firewall::Mode;
use heddle_plugin::Catalogue;

use crate::testing::{config, lease, name, net, node, parsed, site};

use super::*;

fn plugins() -> CataloguePlugins {
    let nowhere = "/nonexistent/heddle-cache".into();
    CataloguePlugins::new(Catalogue::new(Vec::new(), None, nowhere).unwrap())
}

/// Starts a built-in backend and emitter.
async fn started(backend: &str, emitter: &str) -> Started {
    plugins().start(backend, &[emitter.to_owned()]).await.unwrap()
}

#[tokio::test]
async fn built_in_plugins_are_found_with_their_manifests() {
    let started = started("host-gw", "subnet-env").await;
    assert_eq!(started.backend_found.manifest.name, "host-gw");
    assert!(matches!(started.backend_found.source, heddle_plugin::PluginSource::Embedded));
    assert_eq!(started.backend_found.digest.len(), 64);
    assert_eq!(started.backend.name(), "host-gw");
    assert!(started.packets.is_none());
    let (found, emitter) = &started.emitters[0];
    assert_eq!((found.manifest.name.as_str(), emitter.name()), ("subnet-env", "subnet-env"));
}

#[tokio::test]
async fn backend_in_user_space_opens_a_packet_path() {
    assert!(started("udp", "subnet-env").await.packets.is_some());
}

#[tokio::test]
async fn missing_backend_and_missing_emitter_are_named() {
    let error = |backend: &'static str, emitter: &'static str| async move {
        let started = plugins().start(backend, &[emitter.to_owned()]).await;
        started.err().expect("a plugin is missing").to_string()
    };
    assert!(error("nonesuch", "subnet-env").await.starts_with("there is no plugin `nonesuch`"));
    let expected = "--emit=nonesuch: there is no plugin `nonesuch`";
    assert!(error("vxlan", "nonesuch").await.starts_with(expected));
}

#[tokio::test]
async fn emitter_is_no_backend() {
    assert!(plugins().start("subnet-env", &[]).await.is_err());
}

#[tokio::test]
async fn backend_advertises_and_plans_through_the_port() {
    let started = started("host-gw", "subnet-env").await;
    let (backend, site) = (started.backend, Site::new(config(), node()));
    let advertised = backend.advertise(&site).await.unwrap();
    assert_eq!(advertised.backend_type.as_deref(), Some("host-gw"));
    let own = advertised.lease(lease(1).key, &site.node, None);
    let site = Arc::new(site.with_lease(own));
    let plan = backend.plan_node(&site).await.unwrap();
    assert_eq!((plan.mtu, plan.links()), (1500, vec![]));
    let mut peer = lease(7);
    peer.backend_type = Some("host-gw".to_owned());
    let plans = backend.plan_peers(&site, Vec::new(), vec![peer, lease(8)]).await;
    let routes: Vec<_> =
        plans[0].as_ref().unwrap().objects.iter().map(ToString::to_string).collect();
    assert_eq!(routes, ["route 10.244.7.0/24 via 192.0.2.7 dev eth0"]);
    // flannel's udp backend omits the type.
    assert!(plans[1].is_err());
    assert!(backend.metrics().calls() >= 3);
}

#[tokio::test]
async fn emitter_emits_through_the_port() {
    let started = started("host-gw", "subnet-env").await;
    let (_, emitter) = &started.emitters[0];
    let view = View { site: Arc::new(site(config(), lease(7))), mtu: 1500, ip_masq: true };
    let path = "/run/flannel/subnet.env".to_owned();
    let files = emitter.emit(&view, &[Setting { name: "path".into(), value: path }]).await.unwrap();
    let text = String::from_utf8(files[0].contents.clone()).unwrap();
    assert!(text.contains("FLANNEL_SUBNET=10.244.7.1/24\n"), "{text}");
    assert_eq!(emitter.metrics().calls(), 1);
}

#[tokio::test]
async fn config_that_the_backend_rejects_is_an_error_of_the_call() {
    let started = started("vxlan", "subnet-env").await;
    let config = parsed(r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan","VNI":-1}}"#);
    let error = started.backend.advertise(&Site::new(config, node())).await.unwrap_err();
    assert!(error.to_string().starts_with("plugin vxlan, advertise: Backend.VNI"), "{error}");
}

/// The network of this host, which these tests only read.
fn host() -> ThisHost {
    ThisHost::new(Kernel::open().unwrap())
}

/// A scope in which no host has anything.
fn scope() -> Scope {
    Scope {
        networks: vec![net("198.18.77.0/24")],
        links: [name("heddle-none")].into(),
        alias: "heddle /none".to_owned(),
        ..Scope::default()
    }
}

#[tokio::test]
async fn facts_of_this_host_include_its_loopback_interface() {
    let facts = host().facts(None).await.unwrap();
    assert!(facts.interfaces.iter().any(|found| found.loopback), "{facts:?}");
    assert_eq!(facts.route_to, None);
}

#[tokio::test]
async fn scope_that_nobody_uses_is_observed_as_empty() {
    let host = host();
    assert!(host.observe(&scope(), &[]).await.unwrap().objects.is_empty());
    assert_eq!(host.host_routing(&scope()).await.unwrap().addresses.len(), 0);
    let inside = |route: &Route| scope().covers(route.destination);
    assert!(!host.own_routes(&scope()).await.unwrap().iter().any(inside));
    let connected = host.connected_networks().await.unwrap();
    assert!(!connected.iter().any(|(network, _)| scope().covers(*network)));
}

#[tokio::test]
async fn no_change_is_no_failure() {
    let host = host();
    assert!(host.apply(&scope(), Vec::new()).await.is_empty());
    assert!(host.restore_connected(Vec::new()).await.unwrap().is_empty());
}

#[tokio::test]
async fn subscription_to_a_quiet_scope_waits() {
    let mut events = host().subscribe(&scope()).await.unwrap();
    let quiet = Duration::from_millis(50);
    // Other programs may change devices at the same time, which any subscription shows.
    if let Ok(batch) = tokio::time::timeout(quiet, events.next_batch()).await {
        let only_links = |event: &Event| matches!(event, Event::LinkChanged(_) | Event::Lost);
        assert!(batch.iter().all(only_links), "{batch:?}");
    }
}

/// No rules at all.
fn no_rules() -> Rules {
    Rules {
        network_name: "/none".to_owned(),
        families: PerFamily::NONE,
        masquerade: None,
        forward: false,
        mode: Mode::Nftables,
    }
}

#[tokio::test]
async fn ruleset_is_deaf_if_changes_cannot_be_monitored() {
    let host = host();
    let monitored = host.kernel.ruleset_changes().map_err(|error| error.to_string());
    assert_eq!(host.ruleset(no_rules()).deaf(), monitored.err().as_deref());
}

#[tokio::test(start_paused = true)]
async fn deaf_ruleset_hears_of_no_change() {
    let firewall = Arc::new(Mutex::new(Firewall::new(no_rules())));
    let mut ruleset = KernelRuleset { firewall, changes: None, deaf: Some("denied".to_owned()) };
    assert_eq!(ruleset.deaf(), Some("denied"));
    let waited = tokio::time::timeout(Duration::from_secs(3600), ruleset.changed()).await;
    assert!(waited.is_err());
}
