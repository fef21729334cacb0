//! `heddle demo`, and the options it shares with `heddle plugin run`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};
use heddle_lab::demo::{Options, StoreKind, run};
use heddle_lab::{Families, Verdict};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Number of hosts.
    #[arg(long, value_name = "NUMBER", default_value_t = 2, value_parser = clap::value_parser!(u8).range(2..=20))]
    hosts: u8,
    /// Lease store of the hosts.
    #[arg(long, value_enum, default_value_t = Store::Dir)]
    store: Store,
    #[command(flatten)]
    stage: Stage,
}

/// Options of the short-lived hosts.
#[derive(Args)]
pub(crate) struct Stage {
    /// Use IPv6 instead of IPv4.
    #[arg(long)]
    ipv6: bool,
    /// Use IPv4 and IPv6.
    #[arg(long, conflicts_with = "ipv6")]
    dual_stack: bool,
    /// Keep the hosts running at the end, until Ctrl-C.
    #[arg(long)]
    keep: bool,
    /// Daemon to run [default: heddled in the directory of this program].
    #[arg(long, value_name = "FILE")]
    heddled: Option<PathBuf>,
}

impl Stage {
    /// Returns the families of overlay and underlay.
    pub(crate) fn families(&self) -> Families {
        match (self.ipv6, self.dual_stack) {
            (true, _) => Families::V6,
            (_, true) => Families::Dual,
            _ => Families::V4,
        }
    }

    /// Returns true if the hosts are to be left running.
    pub(crate) fn keep(&self) -> bool {
        self.keep
    }

    /// Returns the path of the daemon to run.
    pub(crate) fn heddled(&self) -> anyhow::Result<PathBuf> {
        match &self.heddled {
            Some(path) => Ok(path.clone()),
            None => Ok(std::env::current_exe()
                .context("cannot find the path of this program; name the daemon with --heddled")?
                .with_file_name("heddled")),
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Store {
    /// A directory of lease files.
    Dir,
    /// An etcd server that the demo starts.
    Etcd,
}

pub(crate) fn demo(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { hosts, store, stage } = arguments;
    let options = Options {
        heddled: stage.heddled()?,
        hosts: hosts.into(),
        store: match store {
            Store::Dir => StoreKind::Directory,
            Store::Etcd => StoreKind::Etcd,
        },
        families: stage.families(),
        keep: stage.keep(),
    };
    Ok(match run(&options)? {
        Verdict::Pass => ExitCode::SUCCESS,
        Verdict::Fail => ExitCode::FAILURE,
    })
}
