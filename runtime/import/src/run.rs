//! The steps of an import.

use std::collections::BTreeSet;
use std::time::Duration;

use heddle_core::config::NetworkConfig;
use heddle_store::etcd::{Content, Place, V2Node};
use heddle_store::{StoreError, Stored};
use tokio::time::Instant;

use crate::decision::{Decision, Item, Options, Others, config_item, decide, record_item};
use crate::report::{Line, Outcome, Report};
use crate::source::{Entry, Source};
use crate::target::Target;

/// Number of times that one key is judged again because somebody else has written it meanwhile.
const RACES: usize = 10;

/// The reason why an import ends early.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// Neither API has a config that can be used, so no lease can be judged.
    #[error("neither API has a network config that can be used; v2: {0}")]
    NoConfig(String),
    /// The v3 API cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Somebody else keeps writing the same key.
    #[error("{0}: written by somebody else again and again; try again later")]
    Contested(String),
}

/// Copies everything below `root`, the prefix in the v2 API. Adds a line to `report` for each key, as
/// soon as its fate is settled.
///
/// # Errors
///
/// [`ImportError`]. The report then has what was done until then; another call goes on.
pub async fn import(
    root: V2Node,
    target: &dyn Target,
    options: Options,
    report: &mut Report,
) -> Result<(), ImportError> {
    report.dry_run = options.dry_run;
    let read_at = Instant::now();
    let source = Source::of(root);
    let records = target.records().await?;
    let mut run = Run { target, options, report, read_at, others: Others::default() };
    let config = run.config(source.config.as_ref()).await?;
    for odd in source.odd {
        run.say(odd.name, Outcome::LeftOut, odd.reason, None);
    }
    let there: BTreeSet<_> = records.iter().map(Stored::key).collect();
    let names: BTreeSet<_> = source.records.iter().map(|entry| entry.name.as_str()).collect();
    run.others = Others::of(&records, |key| names.contains(key));
    for entry in &source.records {
        run.record(entry, &config, there.contains(entry.name.as_str())).await?;
    }
    Ok(())
}

/// An import in progress.
struct Run<'a> {
    target: &'a dyn Target,
    options: Options,
    report: &'a mut Report,
    /// The time at which the v2 API was read.
    read_at: Instant,
    others: Others,
}

impl Run<'_> {
    /// Copies the config. Returns the one that the v3 API has then.
    async fn config(&mut self, entry: Option<&Entry>) -> Result<NetworkConfig, ImportError> {
        let found = self.target.content(&Place::Config).await?;
        let theirs = found.as_ref().and_then(|found| NetworkConfig::parse(&found.value).ok());
        let unusable = match entry.map(config_item) {
            Some(Ok((item, ours))) => {
                let outcome = self.settle("config", &item, found).await?;
                return Ok(match (outcome, theirs) {
                    (Outcome::Conflict, Some(theirs)) => theirs,
                    _ => ours,
                });
            }
            Some(Err(reason)) => reason,
            None => "it does not exist".to_owned(),
        };
        let Some(theirs) = theirs else { return Err(ImportError::NoConfig(unusable)) };
        if entry.is_some() {
            self.say("config".to_owned(), Outcome::LeftOut, unusable, None);
        }
        Ok(theirs)
    }

    /// Copies a record. `exists` tells whether the v3 API had its key at the start.
    async fn record(
        &mut self,
        entry: &Entry,
        config: &NetworkConfig,
        exists: bool,
    ) -> Result<(), ImportError> {
        let name = format!("subnets/{}", entry.name);
        let network = config.networks.v4.map(|overlay| overlay.network);
        let judged = match network {
            Some(network) => record_item(entry, network),
            None => Err("the network config in v3 has no IPv4 network".to_owned()),
        };
        match judged {
            Ok(item) => {
                let found = match exists {
                    true => self.target.content(&item.place).await?,
                    false => None,
                };
                self.settle(&name, &item, found).await?;
            }
            Err(reason) => self.say(name, Outcome::LeftOut, reason, None),
        }
        Ok(())
    }

    /// Decides about an item, and carries it out. Starts again if somebody else has written its key
    /// since `found` was read.
    async fn settle(
        &mut self,
        name: &str,
        item: &Item,
        mut found: Option<Content>,
    ) -> Result<Outcome, ImportError> {
        for _ in 0..RACES {
            match decide(item, found.as_ref(), &self.others, self.options.overwrite) {
                Decision::Leave(outcome, reason) => {
                    let remaining = found.and_then(|found| found.remaining);
                    self.say(name.to_owned(), outcome, reason, remaining);
                    return Ok(outcome);
                }
                Decision::Write(before, outcome) => {
                    let ttl = item.ttl.map(|ttl| ttl.saturating_sub(self.read_at.elapsed()));
                    let value = item.value.as_bytes();
                    if self.options.dry_run
                        || self.target.write(&item.place, value, ttl, before).await?
                    {
                        self.say(name.to_owned(), outcome, item.detail.clone(), ttl);
                        return Ok(outcome);
                    }
                    found = self.target.content(&item.place).await?;
                }
            }
        }
        Err(ImportError::Contested(name.to_owned()))
    }

    fn say(&mut self, key: String, outcome: Outcome, detail: String, left: Option<Duration>) {
        let expires_in = left.map(|left| left.as_secs());
        self.report.lines.push(Line { key, outcome, detail, expires_in });
    }
}

#[cfg(test)]
mod tests;
