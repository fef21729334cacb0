//! `heddle lease release`.

use anyhow::{Context, bail};
use clap::Args;
use heddle_core::lease::LeaseKey;
use heddle_core::text::one_line;
use heddle_store::{LeaseStore, OtherRelease, Stored, release_of_other};
use ipnet::IpNet;

use crate::daemon::wait_for;
use crate::daemon_flags::DaemonFlags;
use crate::output::print;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Subnet of the lease, such as 10.244.8.0/24, or its key
    #[arg(value_name = "SUBNET")]
    lease: String,
    /// Delete the lease without asking its node, which creates it again if it is there; must precede the daemon's flags
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    flags: DaemonFlags,
}

pub(super) fn release(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments { lease, force, flags } = arguments;
    let flags = flags.read();
    wait_for(async {
        let store = flags.lease.store.open(flags.lease.etcd_options())?;
        let found = find(store.as_ref(), &lease).await?;
        let found = found
            .with_context(|| format!("{lease}: no lease in {}", flags.lease.network_name()))?;
        let key = one_line(found.key(), 120);
        match release_of_other(store.as_ref(), &found, "heddle lease release", force).await? {
            OtherRelease::Released => print(&format!("lease {key}: released\n")),
            OtherRelease::Changed => {
                bail!("lease {key}: changed meanwhile; see \"heddle lease list\", and try again")
            }
            OtherRelease::Kept(owner) => bail!(
                "lease {key}: {owner} is there and keeps it; stop heddled on that node first, or use --force"
            ),
        }
    })
}

/// Returns the record with this key, or with this subnet in its key.
async fn find(store: &dyn LeaseStore, lease: &str) -> anyhow::Result<Option<Stored>> {
    let key = match lease.parse::<IpNet>() {
        Ok(subnet) => store.find_key(&|key| has(key, subnet)).await?,
        Err(_) => Some(lease.to_owned()),
    };
    Ok(match key {
        Some(key) => store.get(&key).await?,
        None => None,
    })
}

fn has(key: &str, subnet: IpNet) -> bool {
    key.parse::<LeaseKey>().is_ok_and(|key| key.subnets().contains(&subnet.trunc()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lease_is_found_by_each_of_its_subnets() {
        let key = "10.244.8.0-24&fd00:0:0:8::-64";
        for (subnet, expected) in [
            ("10.244.8.0/24", true),
            ("10.244.8.1/24", true),
            ("fd00:0:0:8::/64", true),
            ("10.244.8.0/25", false),
            ("10.244.9.0/24", false),
        ] {
            assert_eq!(has(key, subnet.parse().unwrap()), expected, "{subnet}");
        }
        assert!(!has("nonsense", "10.244.8.0/24".parse().unwrap()));
    }
}
