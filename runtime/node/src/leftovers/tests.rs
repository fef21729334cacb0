use heddle_core::object::Address;

use crate::testing::{ScriptedKernel, device, name, net, route};

use super::*;

fn scope() -> Scope {
    Scope {
        networks: vec![net("10.244.0.0/16")],
        links: [name("flannel0")].into(),
        ..Scope::default()
    }
}

async fn removed_routes(kernel: &ScriptedKernel, former: &[&str]) -> Vec<Object> {
    let former = former.iter().map(|network| net(network)).collect();
    remove_routes(kernel, &scope(), former).await.unwrap();
    kernel.removed()
}

#[tokio::test]
async fn own_device_that_is_not_planned_is_removed() {
    let kernel = ScriptedKernel::default();
    kernel.add(device("flannel.1"), true);
    kernel.add(device("flannel0"), true);
    remove_devices(&kernel, &scope()).await.unwrap();
    assert_eq!(kernel.removed(), [device("flannel.1")]);
}

#[tokio::test]
async fn device_of_another_program_stays() {
    let kernel = ScriptedKernel::default();
    kernel.add(device("docker0"), false);
    remove_devices(&kernel, &scope()).await.unwrap();
    assert_eq!(kernel.removed(), []);
}

#[tokio::test]
async fn objects_other_than_devices_are_left_to_the_first_plan() {
    let kernel = ScriptedKernel::default();
    kernel.add(Object::Route(route("10.244.7.0/24", "eth0")), true);
    let stray = Address { link: name("flannel0"), network: net("10.244.9.9/32") };
    kernel.add(Object::Address(stray), true);
    remove_devices(&kernel, &scope()).await.unwrap();
    assert_eq!(kernel.removed(), []);
}

#[tokio::test]
async fn route_to_a_former_network_is_removed() {
    let kernel = ScriptedKernel::default();
    let former = Object::Route(route("10.99.7.0/24", "eth0"));
    kernel.add(former.clone(), true);
    assert_eq!(removed_routes(&kernel, &["10.99.0.0/16"]).await, [former]);
    let scope = kernel.with(|script| script.scopes[0].clone());
    assert_eq!(scope.networks, [net("10.99.0.0/16")]);
}

#[tokio::test]
async fn foreign_route_to_a_former_network_stays() {
    let kernel = ScriptedKernel::default();
    kernel.add(Object::Route(route("10.99.7.0/24", "eth0")), false);
    assert_eq!(removed_routes(&kernel, &["10.99.0.0/16"]).await, []);
}

#[tokio::test]
async fn route_inside_the_present_network_is_left_to_the_first_plan() {
    let kernel = ScriptedKernel::default();
    kernel.add(Object::Route(route("10.244.7.0/24", "eth0")), true);
    assert_eq!(removed_routes(&kernel, &["10.0.0.0/8"]).await, []);
}

#[tokio::test]
async fn unchanged_network_needs_no_look() {
    let kernel = ScriptedKernel::default();
    kernel.add(Object::Route(route("10.244.7.0/24", "eth0")), true);
    for former in [&["10.244.0.0/16"][..], &["10.244.0.0/17"], &[]] {
        assert_eq!(removed_routes(&kernel, former).await, []);
    }
    assert_eq!(kernel.with(|script| script.scopes.len()), 0);
}

#[tokio::test]
async fn refused_removal_does_not_keep_the_node_from_starting() {
    let kernel = ScriptedKernel::default();
    kernel.with(|script| script.refuses = true);
    kernel.add(device("flannel.1"), true);
    assert!(remove_devices(&kernel, &scope()).await.is_ok());
    assert_eq!(kernel.removed().len(), 1);
}

#[tokio::test]
async fn unreadable_kernel_is_an_error() {
    let kernel = ScriptedKernel::default();
    kernel.with(|script| script.unreadable = true);
    assert!(remove_devices(&kernel, &scope()).await.is_err());
    assert!(remove_routes(&kernel, &scope(), [net("10.99.0.0/16")].into()).await.is_err());
}
