//! `heddle config …`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use heddle_core::config::{ConfigWarning, NetworkConfig};
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
use crate::trial::{Trial, try_out};

/// Longest line about a problem, in characters.
const LONGEST: usize = 1000;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Checks a network config before it is stored at <prefix>/config, including the backend's own keys. Prints the config
    /// with the defaults filled in, except for the backend's keys, and on standard error warnings and how many subnets and
    /// addresses there are. Otherwise prints every problem, and exits with 1.
    Check(Check),
}

#[derive(Args)]
pub(crate) struct Check {
    /// File with the JSON object, or `-` for standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Exit with 1 if there is a warning, such as an unknown key.
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    places: Places,
}

pub(crate) fn run(command: Command) -> anyhow::Result<ExitCode> {
    let Command::Check(Check { file, strict, places }) = command;
    let text = input::read(&file)?;
    let name = input::name(&file);
    let note = |note: &str| complain(&format!("{name}: {}", one_line(note, LONGEST)));
    let Checked { warnings, result } = wait_for(check(&text, &places))?;
    for warning in &warnings {
        note(&format!("warning: {warning}"));
    }
    match result {
        Ok(config) => {
            print(&json(&Effective::of(&config)?)?)?;
            for overlay in &config.networks {
                note(&format!("{}: {}", overlay.network, overlay.capacity()));
            }
            Ok(if strict && !warnings.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        }
        Err(problems) => {
            for problem in problems {
                note(&problem);
            }
            Ok(ExitCode::FAILURE)
        }
    }
}

/// The outcome of a check.
struct Checked {
    warnings: Vec<ConfigWarning>,
    /// The config, or all of its errors.
    result: Result<NetworkConfig, Vec<String>>,
}

async fn check(text: &[u8], places: &Places) -> anyhow::Result<Checked> {
    let mut warnings = NetworkConfig::warnings(text);
    let parsed = NetworkConfig::parse(text);
    let errors = parsed.clone().err().into_iter().flatten();
    let mut problems: Vec<_> = errors.map(|error| error.to_string()).collect();
    // Other errors do not prevent the plugin from checking its own keys.
    if let Some(config) = parsed.clone().ok().or_else(|| backend_alone(text)) {
        let Trial { unknown, objection } = try_out(&config, &places.catalogue()?).await;
        warnings.extend(unknown);
        problems.extend(objection);
    }
    let result = match parsed {
        Ok(config) if problems.is_empty() => Ok(config),
        _ => Err(problems),
    };
    Ok(Checked { warnings, result })
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

/// Returns all problems and warnings of a config with a built-in backend.
#[cfg(test)]
pub(crate) fn problems_and_warnings(config: &str) -> Vec<String> {
    let checked = wait_for(check(config.as_bytes(), &Places::none())).unwrap();
    let warnings = checked.warnings.iter().map(ToString::to_string);
    warnings.chain(checked.result.err().unwrap_or_default()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(config: &str) -> Checked {
        wait_for(check(config.as_bytes(), &Places::none())).unwrap()
    }

    fn problems(config: &str) -> Vec<String> {
        checked(config).result.err().unwrap_or_default()
    }

    fn warnings(config: &str) -> Vec<String> {
        checked(config).warnings.iter().map(ToString::to_string).collect()
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
    fn every_wrong_key_of_a_backend_is_reported() {
        let found = problems(
            r#"{"Network":"10.244.0.0/16","SubnetLen":33,"Backend":{"Type":"vxlan","VNI":-1,"Port":"x","GBP":1,"MTU":60}}"#,
        );
        let found = found.join("\n");
        for key in ["SubnetLen", "Backend.VNI", "Backend.Port", "Backend.GBP", "Backend.MTU"] {
            assert!(found.contains(key), "{key}: {found}");
        }
        let found = problems(
            r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan-tun","VNI":-1,"Port":"x"}}"#,
        );
        assert!(found.len() == 1 && found[0].contains("; Backend.Port is \"x\""), "{found:?}");
    }

    #[test]
    fn unknown_keys_of_every_backend_have_a_warning() {
        for (backend, meant) in [
            ("vxlan", " (did you mean `Port`?)"),
            ("udp", " (did you mean `Port`?)"),
            ("vxlan-tun", " (did you mean `Port`?)"),
            ("host-gw", ""),
            ("alloc", ""),
        ] {
            let config = format!(
                r#"{{"Network":"10.244.0.0/16","Backend":{{"type":"{backend}","Prot":8472}}}}"#
            );
            let expected =
                format!("`Backend.Prot` is not a known key of {backend}; ignored{meant}");
            assert_eq!(warnings(&config), [expected]);
            assert_eq!(problems(&config), [""; 0]);
        }
        let both = r#"{"Network":"x","Backend":{"Type":"VXLAN","DirectRoutng":true,"vni":-1}}"#;
        assert_eq!(problems(both).len(), 2);
        assert!(warnings(both)[0].ends_with("(did you mean `DirectRouting`?)"));
        let good =
            r#"{"Network":"10.1.0.0/16","Backend":{"TYPE":"Vxlan","vni":2,"directROUTING":true}}"#;
        assert_eq!((problems(good), warnings(good)), (vec![], vec![]));
    }

    #[test]
    fn syntax_error_has_line_and_column() {
        assert!(
            problems("{\n  \"Network\": \"10.244.0.0/16\",\n}")[0].ends_with("at line 3 column 1")
        );
    }
}
