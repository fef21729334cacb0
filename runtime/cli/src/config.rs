//! `heddle config …`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use heddle_core::config::NetworkConfig;
use heddle_core::family::PerFamily;
use heddle_core::text::one_line;
use ipnet::IpNet;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::daemon::wait_for;
use crate::input;
use crate::output::{complain, json, print};
use crate::plugin::Places;
use crate::trial::try_out;

/// Longest line about a problem, in characters.
const LONGEST: usize = 1000;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Checks a network config before it is stored at <prefix>/config, including the backend's own keys. Prints the config
    /// with the defaults filled in, except for the backend's keys. Otherwise prints every problem, and exits with 1.
    Check(Check),
}

#[derive(Args)]
pub(crate) struct Check {
    /// File with the JSON object, or `-` for standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    places: Places,
}

pub(crate) fn run(command: Command) -> anyhow::Result<ExitCode> {
    let Command::Check(Check { file, places }) = command;
    let text = input::read(&file)?;
    let name = input::name(&file);
    for key in NetworkConfig::unknown_keys(&text) {
        complain(&format!("{name}: `{}` is not a known key; ignored", one_line(&key, LONGEST)));
    }
    match wait_for(check(&text, &places))? {
        Ok(config) => {
            print(&json(&Effective::of(&config)?)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(problems) => {
            for problem in problems {
                complain(&format!("{name}: {}", one_line(&problem, LONGEST)));
            }
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Returns the config, or all of its errors.
async fn check(text: &[u8], places: &Places) -> anyhow::Result<Result<NetworkConfig, Vec<String>>> {
    let checked = NetworkConfig::check(text);
    let mut problems: Vec<_> = match &checked {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    };
    // Other errors do not prevent the plugin from checking its own keys.
    if let Some(config) = checked.clone().ok().or_else(|| backend_alone(text)) {
        problems.extend(try_out(&config, &places.catalogue()?).await);
    }
    Ok(match checked {
        Ok(config) if problems.is_empty() => Ok(config),
        _ => Err(problems),
    })
}

/// Returns a config with this backend and a placeholder network.
fn backend_alone(text: &[u8]) -> Option<NetworkConfig> {
    let members: Map<String, Value> = serde_json::from_slice(text).ok()?;
    let backend = members.into_iter().filter(|(key, _)| key.eq_ignore_ascii_case("Backend"));
    let network = ("Network".to_owned(), Value::from("10.244.0.0/16"));
    let config: Map<_, _> = backend.chain([network]).collect();
    NetworkConfig::parse(Value::from(config).to_string().as_bytes()).ok()
}

/// The config in the form of the store, with the defaults filled in, except for those of the
/// backend's own keys.
#[derive(Serialize)]
struct Effective<'a> {
    #[serde(rename = "EnableIPv4")]
    enable_ipv4: bool,
    #[serde(rename = "Network", skip_serializing_if = "Option::is_none")]
    network: Option<IpNet>,
    #[serde(rename = "SubnetLen", skip_serializing_if = "Option::is_none")]
    subnet_length: Option<u8>,
    #[serde(rename = "SubnetMin", skip_serializing_if = "Option::is_none")]
    subnet_min: Option<IpAddr>,
    #[serde(rename = "SubnetMax", skip_serializing_if = "Option::is_none")]
    subnet_max: Option<IpAddr>,
    #[serde(rename = "EnableIPv6")]
    enable_ipv6: bool,
    #[serde(rename = "IPv6Network", skip_serializing_if = "Option::is_none")]
    ipv6_network: Option<IpNet>,
    #[serde(rename = "IPv6SubnetLen", skip_serializing_if = "Option::is_none")]
    ipv6_subnet_length: Option<u8>,
    #[serde(rename = "IPv6SubnetMin", skip_serializing_if = "Option::is_none")]
    ipv6_subnet_min: Option<IpAddr>,
    #[serde(rename = "IPv6SubnetMax", skip_serializing_if = "Option::is_none")]
    ipv6_subnet_max: Option<IpAddr>,
    #[serde(rename = "EnableNFTables")]
    enable_nftables: bool,
    #[serde(rename = "Backend")]
    backend: &'a RawValue,
}

impl<'a> Effective<'a> {
    fn of(config: &'a NetworkConfig) -> serde_json::Result<Self> {
        let PerFamily { v4, v6 } = config.networks;
        Ok(Self {
            enable_ipv4: v4.is_some(),
            network: v4.map(|overlay| overlay.network),
            subnet_length: v4.map(|overlay| overlay.subnet_length),
            subnet_min: v4.map(|overlay| overlay.subnet_min),
            subnet_max: v4.map(|overlay| overlay.subnet_max),
            enable_ipv6: v6.is_some(),
            ipv6_network: v6.map(|overlay| overlay.network),
            ipv6_subnet_length: v6.map(|overlay| overlay.subnet_length),
            ipv6_subnet_min: v6.map(|overlay| overlay.subnet_min),
            ipv6_subnet_max: v6.map(|overlay| overlay.subnet_max),
            enable_nftables: config.nftables,
            backend: serde_json::from_str(&config.backend.json)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(config: &str) -> Vec<String> {
        let places = Places::none();
        let checked = wait_for(check(config.as_bytes(), &places)).unwrap();
        checked.err().unwrap_or_default()
    }

    #[test]
    fn effective_config_parses_to_the_same() {
        for config in [
            r#"{"Network":"10.244.0.0/16"}"#,
            r#"{"network":"10.1.0.16/28","EnableNFTables":true,"Backend":{"type":"udp","Port":1}}"#,
            r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/48","Backend":{"Type":"alloc"}}"#,
            r#"{"Network":"10.244.0.0/16","SubnetMax":"10.244.9.0","EnableIPv6":true,
                "IPv6Network":"fd00::/48","IPv6SubnetLen":60}"#,
        ] {
            let config = NetworkConfig::parse(config.as_bytes()).unwrap();
            let text = json(&Effective::of(&config).unwrap()).unwrap();
            assert_eq!(NetworkConfig::parse(text.as_bytes()).unwrap(), config, "{text}");
        }
    }

    #[test]
    fn good_config_of_every_backend_has_no_problem() {
        for backend in ["vxlan", "host-gw", "udp", "alloc", "vxlan-tun"] {
            let config =
                format!(r#"{{"Network":"10.244.0.0/16","Backend":{{"Type":"{backend}"}}}}"#);
            assert_eq!(problems(&config), [""; 0], "{backend}");
        }
        let dual = r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00::/48"}"#;
        assert_eq!(problems(dual), [""; 0]);
    }

    #[test]
    fn backend_keys_are_checked_despite_other_errors() {
        let found = problems(r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan","VNI":-1}}"#);
        assert!(found.len() == 1 && found[0].starts_with("`Backend.VNI` is -1"), "{found:?}");
        let found =
            problems(r#"{"Network":"x","SubnetMin":1,"backend":{"Type":"vxlan","VNI":-1}}"#);
        assert_eq!(found.len(), 3, "{found:?}");
        let found = problems(r#"{"Network":"10.244.0.0/16","Backend":{"Type":"wormhole"}}"#);
        assert!(found.len() == 1 && found[0].contains("`wormhole`"), "{found:?}");
    }

    #[test]
    fn syntax_error_has_line_and_column() {
        assert!(
            problems("{\n  \"Network\": \"10.244.0.0/16\",\n}")[0].ends_with("at line 3 column 1")
        );
    }
}
