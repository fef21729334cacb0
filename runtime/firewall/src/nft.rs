//! nftables, through the JSON that the program `nft` reads and prints.
//!
//! The crate `nftables` (0.6.3) has types for that JSON, but cannot parse `"flags":
//! "fully-random"`, which is how nft prints our own masquerade rules, and rejects the whole listing
//! because of it. It runs nft without a time limit and discards nft's error output when a change
//! fails. What remains of it, building a dozen values, is as easy with `json!`.

pub(crate) mod listing;
pub(crate) mod table;

use serde_json::Value;

use crate::FirewallError;
use crate::program::{command_line, run};
use table::{WantedTable, family_name};

/// nft's listing of each wanted table; `None` if the table does not exist or has no chain.
pub(crate) type Seen = Vec<Option<Vec<Value>>>;

/// Lists our tables.
///
/// # Errors
///
/// Those of running nft, and output that cannot be parsed.
pub(crate) fn look(wanted: &[WantedTable]) -> Result<Seen, FirewallError> {
    // Finds tables by their chains. Listing the tables themselves makes nft 1.0.6 read every rule
    // of every table: with 3,000 foreign rules that takes ten times as long as everything else.
    let chains = list(&["-j", "list", "chains"])?;
    wanted
        .iter()
        .map(|table| {
            let family = family_name(table.family);
            let chains = chains.iter().filter_map(|object| object.get("chain"));
            let mut ours = chains
                .filter(|chain| chain["family"] == family && chain["table"] == table.name.as_str());
            // Listing a table that does not exist is an error.
            ours.next().map(|_| list(&["-j", "list", "table", family, &table.name])).transpose()
        })
        .collect()
}

/// Lists the contents of all tables.
///
/// # Errors
///
/// Those of running nft, and output that cannot be parsed.
pub(crate) fn list_ruleset() -> Result<Vec<Value>, FirewallError> {
    list(&["-j", "list", "ruleset"])
}

/// Applies all commands atomically.
///
/// # Errors
///
/// Those of running nft.
pub(crate) fn write(input: &str) -> Result<(), FirewallError> {
    run("nft", &["-j", "-f", "-"], input).map(drop)
}

fn list(arguments: &[&str]) -> Result<Vec<Value>, FirewallError> {
    let printed = run("nft", arguments, "")?;
    let output_error = |problem: String| FirewallError::Output {
        command: command_line("nft", arguments),
        problem,
    };
    let mut listed: Value =
        serde_json::from_str(&printed).map_err(|error| output_error(error.to_string()))?;
    match listed["nftables"].take() {
        Value::Array(objects) => Ok(objects),
        _ => Err(output_error("there is no list `nftables` in it".into())),
    }
}
