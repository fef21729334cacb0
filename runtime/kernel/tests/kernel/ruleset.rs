//! Tests of ruleset notifications.

use std::time::Duration;

use heddle_requires::requires;
use tokio::time::timeout;

use crate::host::{on_a_host, run};

#[test]
fn ruleset_change_is_reported_once() {
    requires!(Namespaces, Program("nft"), Program("iptables-nft"));
    on_a_host(async |kernel| {
        let mut changes = kernel.ruleset_changes().unwrap();
        let moment = Duration::from_millis(200);
        assert!(timeout(moment, changes.next()).await.is_err(), "nothing has happened yet");
        for change in
            ["add table ip one", "delete table ip one", "add table ip two", "flush ruleset"]
        {
            run("nft", change);
            let told = timeout(Duration::from_secs(5), changes.next()).await;
            told.expect(change);
        }
        run("iptables-nft", "-P FORWARD DROP");
        timeout(Duration::from_secs(5), changes.next()).await.unwrap();
        while timeout(moment, changes.next()).await.is_ok() {}
        run("ip", "link set lo up");
        assert!(timeout(moment, changes.next()).await.is_err(), "no rule was changed");
    });
}
