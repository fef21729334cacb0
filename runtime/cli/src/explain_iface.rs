//! `heddle explain-iface`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use heddle_core::address::Family;
use heddle_core::config::NetworkConfig;
use heddle_core::explanation::{Verdict, explain};
use heddle_core::interface::{Facts, Interface, Requirements, SelectionError, select};
use heddle_core::node::Underlay;
use heddle_core::text::one_line;
use heddle_flags::Flags;
use heddle_kernel::Kernel;
use heddle_store::EtcdOptions;
use heddle_store::etcd::EtcdTiming;

use crate::daemon::wait_for;
use crate::daemon_flags::DaemonFlags;
use crate::output::{list, print, table};

/// Time limit for reading the network config from the store.
const STORE_LIMIT: Duration = Duration::from_secs(10);

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    flags: DaemonFlags,
}

pub(crate) fn explain_iface(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let flags = arguments.flags.read();
    wait_for(async {
        let (requirements, origin) = match requirements(&flags).await {
            Ok(requirements) => (requirements, "by the network config".to_owned()),
            Err(reason) => {
                (Requirements::families_only(&[Family::V4]), format!("assumed: {reason}"))
            }
        };
        let selection = flags.interface.selection();
        let facts = Kernel::open()?.facts(selection.can_reach).await?;
        let verdicts = explain(&requirements, &selection, &facts);
        let selected = select(&requirements, &selection, &facts);
        let families = format!("{}, {}", list(requirements.families()), one_line(&origin, 1000));
        print(&render(&families, &facts, &verdicts, &selected))?;
        Ok(if selected.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

/// Returns the requirements of the network config, or the reason why it is unavailable.
async fn requirements(flags: &Flags) -> Result<Requirements, String> {
    let options = flags.lease.etcd_options();
    let timing = EtcdTiming::default().within(STORE_LIMIT * 4 / 5, options.endpoints.len());
    let store = flags.lease.store.open(EtcdOptions { timing, ..options });
    let store = store.map_err(|error| error.to_string())?;
    let name = flags.lease.network_name();
    let text = match tokio::time::timeout(STORE_LIMIT, store.network_config()).await {
        Ok(read) => read.map_err(|error| error.to_string())?,
        Err(_) => return Err(format!("no answer within {} s", STORE_LIMIT.as_secs())),
    };
    let text = text.ok_or_else(|| format!("{name}/config does not exist"))?;
    let config = NetworkConfig::parse(&text).map_err(|error| format!("{name}/config: {error}"))?;
    Ok(Requirements::of(&config.networks))
}

fn render(
    families: &str,
    facts: &Facts,
    verdicts: &[Verdict],
    selected: &Result<Underlay, SelectionError>,
) -> String {
    let row = |(interface, verdict): (&Interface, &Verdict)| {
        [
            interface.name.to_string(),
            if interface.up { "up" } else { "down" }.to_owned(),
            interface.mtu.to_string(),
            list(&interface.addresses),
            if verdict.chosen { "yes" } else { "no" }.to_owned(),
            verdict.reason.clone(),
        ]
    };
    let mut text = format!("families  {families}\n\n");
    text += &table(
        ["INTERFACE", "STATE", "MTU", "ADDRESSES", "CHOSEN", "WHY"],
        facts.interfaces.iter().zip(verdicts).map(row),
    );
    text += "\n";
    text += &match selected {
        Ok(underlay) => format!(
            "interface {}, mtu {}, public address {}\n",
            underlay.link,
            underlay.mtu,
            list(&underlay.public_addresses.into_iter().collect::<Vec<_>>())
        ),
        Err(error) if error.is_passing() => format!("heddled waits: {error}\n"),
        Err(error) => format!("heddled cannot start: {error}\n"),
    };
    text
}

#[cfg(test)]
mod tests {
    use heddle_core::interface::Selection;

    use super::*;

    fn rendered(selection: &Selection) -> String {
        let interface = |name: &str, up, addresses: &[&str]| Interface {
            name: name.parse().unwrap(),
            mtu: 1500,
            up,
            loopback: false,
            kind: String::new(),
            mac: None,
            local: None,
            alias: String::new(),
            unusable: vec![],
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        };
        let facts = Facts {
            interfaces: vec![
                interface("eth0", true, &["192.168.0.72/24", "192.168.0.73/24"]),
                interface("eth1", false, &[]),
            ],
            default_routes_v4: vec!["eth0".parse().unwrap()],
            ..Facts::default()
        };
        let requirements = Requirements::families_only(&[Family::V4]);
        let verdicts = explain(&requirements, selection, &facts);
        render("IPv4", &facts, &verdicts, &select(&requirements, selection, &facts))
    }

    #[test]
    fn every_interface_is_shown_with_its_reason() {
        assert_eq!(
            rendered(&Selection::default()),
            "\
families  IPv4

INTERFACE  STATE  MTU   ADDRESSES                        CHOSEN  WHY
eth0       up     1500  192.168.0.72/24,192.168.0.73/24  yes     the IPv4 default route goes through it
eth1       down   1500  -                                no      the IPv4 default route goes through eth0

interface eth0, mtu 1500, public address 192.168.0.72
"
        );
    }

    #[test]
    fn unusable_choice_is_shown_with_the_error() {
        let text = rendered(&Selection { names: vec!["eth1".into()], ..Selection::default() });
        for line in [
            "yes     --iface eth1 matches it, but it has no IPv4 address of global scope\n",
            "heddled cannot start: interface eth1 has no IPv4 address of global scope;",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}
