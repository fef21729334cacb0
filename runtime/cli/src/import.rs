//! `heddle import …`.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use heddle_flags::Flags;
use heddle_import::{Options, Report, import};
use heddle_store::etcd::{EtcdTiming, V2Reader};
use heddle_store::{EtcdOptions, EtcdStore, StoreConfig};

use crate::daemon::wait_for;
use crate::daemon_flags::DaemonFlags;
use crate::output::{complain, json, print, span, table};

/// Exit code if a key is a conflict or was left out.
const INCOMPLETE: u8 = 3;

/// Exit code of an invalid command line.
const USAGE: u8 = 2;

/// Time limit for reading everything by the v2 API.
const READ_LIMIT: Duration = Duration::from_secs(60);

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Copies the network config, leases and reservations from etcd's v2 API, where flannel up to 0.17 keeps them, to its v3
    /// API. Changes nothing in the v2 API, and overwrites nothing in the v3 API. May be repeated: a lease that flannel has
    /// renewed meanwhile is extended.
    #[command(
        after_help = "Exit codes: 0 if the v3 API has everything, 1 after a failure, 2 for an invalid command line, 3 if a key \
                      is a conflict or was left out."
    )]
    V2(V2),
}

#[derive(Args)]
pub(crate) struct V2 {
    /// Show what would happen, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Replace keys of the v3 API that differ, except leases of nodes with Heddle
    #[arg(long)]
    overwrite: bool,
    /// Print one JSON object, for programs
    #[arg(long)]
    json: bool,
    /// Client URLs of the etcd with the v2 API, separated by commas [default: --etcd-endpoints]
    #[arg(long, value_name = "URL,…", value_delimiter = ',')]
    from: Vec<String>,
    /// Prefix of the keys in the v2 API [default: --etcd-prefix]
    #[arg(long, value_name = "KEY")]
    from_prefix: Option<String>,
    /// Certificate authority for --from (PEM) [default: --etcd-cafile]
    #[arg(long, value_name = "FILE", requires = "from")]
    from_cafile: Option<PathBuf>,
    /// Client certificate for --from (PEM) [default: --etcd-certfile]
    #[arg(long, value_name = "FILE", requires = "from")]
    from_certfile: Option<PathBuf>,
    /// Private key of that certificate (PEM) [default: --etcd-keyfile]
    #[arg(long, value_name = "FILE", requires = "from")]
    from_keyfile: Option<PathBuf>,
    /// User name for the v2 API [default: --etcd-username]
    #[arg(long, value_name = "NAME")]
    from_username: Option<String>,
    /// Password for the v2 API [default: --etcd-password]
    #[arg(long, value_name = "PASSWORD")]
    from_password: Option<String>,
    #[command(flatten)]
    flags: DaemonFlags,
}

pub(crate) fn run(command: Command) -> anyhow::Result<ExitCode> {
    let Command::V2(mut arguments) = command;
    if let Some(late) = arguments.flags.words().iter().find(|word| is_own(word)) {
        let late = late.to_string_lossy();
        complain(&format!(
            "heddle import v2: {late} follows a flag of heddled; put it before those"
        ));
        return Ok(ExitCode::from(USAGE));
    }
    let flags = std::mem::take(&mut arguments.flags).read();
    if let StoreConfig::Directory(_) = flags.lease.store {
        complain(
            "heddle import v2: --store is a directory; expected etcd, whose v3 API is written to",
        );
        return Ok(ExitCode::from(USAGE));
    }
    wait_for(copy(&arguments, &flags))
}

/// Returns true for an option of this command, which heddled does not have.
fn is_own(word: &OsStr) -> bool {
    let Some(word) = word.to_str() else { return false };
    let name = word.split('=').next().unwrap_or(word);
    matches!(name, "--dry-run" | "--overwrite" | "--json")
        || name == "--from"
        || name.starts_with("--from-")
}

async fn copy(arguments: &V2, flags: &Flags) -> anyhow::Result<ExitCode> {
    let own = flags.lease.etcd_options();
    let source = arguments.source(&own);
    let (prefix, endpoints) = (source.prefix.clone(), source.endpoints.join(","));
    let target = EtcdStore::new(own)?;
    let reader = V2Reader::new(source).context("the v2 API")?;
    let Some(root) = reader.tree().await.context("the v2 API")? else {
        bail!("the v2 API of {endpoints} has no {prefix}: correct the prefix, or the endpoints");
    };
    let options = Options { dry_run: arguments.dry_run, overwrite: arguments.overwrite };
    let mut report = Report::default();
    let done = import(root, &target, options, &mut report).await;
    // Also after a failure: what was written by then stays.
    print(&if arguments.json { json(&report)? } else { render(&report) })?;
    done?;
    Ok(match report.is_complete() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(INCOMPLETE),
    })
}

impl V2 {
    /// Returns the options for the v2 API: the daemon's, except for what is given here. The daemon's
    /// TLS files do not apply to an endpoint without TLS.
    fn source(&self, own: &EtcdOptions) -> EtcdOptions {
        let mut options = own.clone();
        options.timing = EtcdTiming { call: READ_LIMIT, ..own.timing };
        if let Some(prefix) = &self.from_prefix {
            options.prefix.clone_from(prefix);
        }
        if !self.from.is_empty() {
            options.endpoints.clone_from(&self.from);
            if !self.from.iter().any(|endpoint| endpoint.trim().starts_with("https://")) {
                (options.ca_file, options.certificate_file, options.key_file) = (None, None, None);
            }
        }
        for (given, option) in [
            (&self.from_cafile, &mut options.ca_file),
            (&self.from_certfile, &mut options.certificate_file),
            (&self.from_keyfile, &mut options.key_file),
        ] {
            if given.is_some() {
                option.clone_from(given);
            }
        }
        for (given, option) in [
            (&self.from_username, &mut options.username),
            (&self.from_password, &mut options.password),
        ] {
            if given.is_some() {
                option.clone_from(given);
            }
        }
        options
    }
}

fn render(report: &Report) -> String {
    let rows = report.lines.iter().map(|line| {
        [
            line.key.clone(),
            line.outcome.words(report.dry_run).to_owned(),
            line.expires_in.map(span).unwrap_or_default(),
            line.detail.clone(),
        ]
    });
    let mut text = table(["KEY", "OUTCOME", "EXPIRES", "DETAIL"], rows);
    text += &format!("{}\n", report.summary());
    if let Some(first) = report.first_expiry() {
        let first = span(first.as_secs());
        text += &format!(
            "the first lease expires in the v3 API in {first}, unless its node runs heddled by then, or this command runs again\n"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use heddle_import::{Line, Outcome};

    use super::*;

    #[derive(Parser)]
    struct Tool {
        #[command(subcommand)]
        command: Command,
    }

    fn parsed(words: &[&str]) -> V2 {
        let words = ["import", "v2"].iter().chain(words);
        let Command::V2(arguments) =
            Tool::try_parse_from(words).unwrap_or_else(|e| panic!("{e}")).command;
        arguments
    }

    #[test]
    fn report_has_a_row_for_each_key_and_a_summary() {
        let line = |key: &str, outcome, detail: &str, expires_in| Line {
            key: key.to_owned(),
            outcome,
            detail: detail.to_owned(),
            expires_in,
        };
        let lines = vec![
            line("config", Outcome::Present, "Network 10.1.0.0/16", None),
            line("subnets/10.1.5.0-24", Outcome::Copied, "lease of 192.0.2.5", Some(7260)),
            line("subnets/x\n", Outcome::LeftOut, "not a subnet", None),
        ];
        assert_eq!(
            render(&Report { dry_run: true, lines }),
            "\
KEY                  OUTCOME        EXPIRES  DETAIL
config               there already  -        Network 10.1.0.0/16
subnets/10.1.5.0-24  would copy     2h1m     lease of 192.0.2.5
subnets/x            left out       -        not a subnet
would copy: 1; there already: 1; left out: 1
the first lease expires in the v3 API in 2h1m, unless its node runs heddled by then, or this command runs again
"
        );
    }

    #[test]
    fn source_is_the_daemons_etcd_unless_another_is_given() {
        let mut own = EtcdOptions::new(["https://e:2379"], "/n");
        own.ca_file = Some("/ca".into());
        own.username = Some("u".to_owned());
        let source = parsed(&["--dry-run"]).source(&own);
        assert_eq!((&source.endpoints, &source.prefix), (&own.endpoints, &own.prefix));
        assert_eq!((source.ca_file, source.username), (own.ca_file.clone(), own.username.clone()));
        let source = parsed(&["--from=http://a:1,http://b:1", "--from-prefix=/old"]).source(&own);
        assert_eq!((source.endpoints.len(), source.prefix.as_str()), (2, "/old"));
        assert_eq!((source.ca_file, source.username), (None, own.username.clone()));
        let words = ["--from=https://a:1", "--from-certfile=/c", "--from-username=v"];
        let source = parsed(&words).source(&own);
        assert_eq!((source.ca_file, source.certificate_file), (own.ca_file, Some("/c".into())));
        assert_eq!(source.username.as_deref(), Some("v"));
    }

    #[test]
    fn own_option_among_heddleds_is_recognised() {
        for (word, own) in [
            ("--dry-run", true),
            ("--from=x", true),
            ("--from-cafile", true),
            ("--etcd-endpoints=--from", false),
            ("-v=5", false),
        ] {
            assert_eq!(is_own(OsStr::new(word)), own, "{word}");
        }
        let arguments = parsed(&["--dry-run", "--etcd-prefix=/x", "--json"]);
        assert!(arguments.dry_run && !arguments.json);
        assert!(arguments.flags.words().iter().any(|word| is_own(word)));
    }
}
