//! nftables, through the JSON that the program `nft` reads and prints.
//!
//! Not through the crate `nftables` (0.6.3), which has types for that JSON: it does not read `"flags": "fully-random"`,
//! which is how nft prints our own masquerade rules, and refuses a listing as a whole for it. Its way of running nft has
//! no deadline and loses what nft says when a change fails. What is left of it, building a dozen values, `json!` does.

pub(crate) mod listing;
pub(crate) mod table;

use serde_json::Value;

use crate::FirewallError;
use crate::program::{command_line, run};
use table::{WantedTable, family_name};

/// What nft lists of each wanted table; none: there is no such table, or no chain in it.
pub(crate) type Seen = Vec<Option<Vec<Value>>>;

/// Looks at our tables.
///
/// # Errors
///
/// As running nft; and output that cannot be read.
pub(crate) fn look(wanted: &[WantedTable]) -> Result<Seen, FirewallError> {
    // Tables are told by their chains. To list the tables themselves, nft 1.0.6 reads every rule of every table: with
    // 3,000 rules of somebody's that is ten times the work of all the rest.
    let chains = list(&["-j", "list", "chains"])?;
    wanted
        .iter()
        .map(|table| {
            let family = family_name(table.family);
            let chains = chains.iter().filter_map(|object| object.get("chain"));
            let mut ours = chains
                .filter(|chain| chain["family"] == family && chain["table"] == table.name.as_str());
            // To list a table that is not there is an error.
            ours.next().map(|_| list(&["-j", "list", "table", family, &table.name])).transpose()
        })
        .collect()
}

/// All that is in all tables.
///
/// # Errors
///
/// As running nft; and output that cannot be read.
pub(crate) fn list_ruleset() -> Result<Vec<Value>, FirewallError> {
    list(&["-j", "list", "ruleset"])
}

/// Does all of what is said, in one step.
///
/// # Errors
///
/// As running nft.
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
