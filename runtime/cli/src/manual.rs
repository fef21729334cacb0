//! `heddle manual`: files that a package needs besides the binaries.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use heddle_flags::Flags;

/// Title at the top of every page.
const MANUAL: &str = "Heddle";

#[derive(Args)]
pub(crate) struct Arguments {
    /// Directory for `man` and `completions`.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// Writes manual pages of `heddled` and `heddle` with its subcommands to DIR/man, and completions
/// of both for bash, zsh and fish to DIR/completions, with the file names that each shell expects.
pub(crate) fn manual(arguments: &Arguments) -> anyhow::Result<()> {
    let dir = &arguments.dir;
    let written = || -> io::Result<()> {
        let man = dir.join("man");
        fs::create_dir_all(&man)?;
        pages(Flags::command(), "8", &man)?;
        pages(tool(), "1", &man)?;
        for (name, command) in
            [("heddled", Flags::command()), ("heddle", with_daemon_flags(tool()))]
        {
            completions(name, command, &dir.join("completions"))?;
        }
        Ok(())
    };
    written().with_context(|| format!("{} cannot be written", dir.display()))
}

fn tool() -> clap::Command {
    crate::Arguments::command()
}

/// Adds the daemon's flags to the subcommands that accept them as trailing arguments. `docker-opts`
/// ignores its trailing arguments, and rejects flags among them.
fn with_daemon_flags(command: clap::Command) -> clap::Command {
    let flags = Flags::command();
    let takes_them = |c: &clap::Command| {
        c.get_positionals()
            .any(|arg| arg.is_trailing_var_arg_set() && arg.is_allow_hyphen_values_set())
    };
    command.mut_subcommands(|subcommand| {
        let flags = flags.get_arguments().filter(|_| takes_them(&subcommand)).cloned();
        let flags: Vec<_> = flags.collect();
        subcommand.args(flags)
    })
}

/// Writes a page for the command and one for each of its subcommands.
fn pages(command: clap::Command, section: &str, dir: &Path) -> io::Result<()> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let mut waiting = vec![command];
    while let Some(command) = waiting.pop() {
        waiting.extend(command.get_subcommands().filter(|c| !c.is_hide_set()).cloned());
        page(command, section, dir)?;
    }
    Ok(())
}

/// Writes a page from clap's data, with additional sections.
fn page(command: clap::Command, section: &str, dir: &Path) -> io::Result<()> {
    let notes = command.get_after_help().map(ToString::to_string);
    let subcommands = command.has_subcommands();
    let (files, other) = match command.get_name() {
        "heddled" => (&FILES[..], "heddle(1)"),
        _ => (&FILES[..1], "heddled(8)"),
    };
    let page = Man::new(command).section(section).manual(MANUAL);
    let page = page.source(concat!("Heddle ", env!("CARGO_PKG_VERSION")));
    let mut file = BufWriter::new(File::create(dir.join(page.get_filename()))?);
    page.render_title(&mut file)?;
    page.render_name_section(&mut file)?;
    page.render_synopsis_section(&mut file)?;
    page.render_description_section(&mut file)?;
    page.render_options_section(&mut file)?;
    if subcommands {
        page.render_subcommands_section(&mut file)?;
    }
    let mut rest = Roff::new();
    if let Some(notes) = notes {
        rest.control("SH", ["NOTES"]).text([roman(notes)]);
    }
    rest.control("SH", ["FILES"]);
    for (path, what) in files {
        rest.control("TP", []).text([bold(*path)]).text([roman(*what)]);
    }
    rest.control("SH", ["SEE ALSO"]).text([roman(format!("{other}, {DOCUMENTATION}"))]);
    rest.to_writer(&mut file)?;
    file.flush()
}

/// Files that the daemon reads and writes by default. The tool reads the first one.
const FILES: [(&str, &str); 6] = [
    (
        "/etc/default/heddled",
        "Options of heddled.service, as variables; of heddled@NAME.service in /etc/default/heddled@NAME.",
    ),
    ("/run/flannel/subnet.env", "The node's subnet, for Docker and scripts."),
    ("/run/heddle/heddled.sock", "Control socket, for heddle status and heddle lease list."),
    ("/etc/heddle/plugins, /usr/lib/heddle/plugins", "Plugins, searched before the built-in ones."),
    ("/var/cache/heddle", "Compiled plugins."),
    ("/var/lib/heddle", "The node's identity."),
];

/// Directory of the package's documentation.
const DOCUMENTATION: &str = "/usr/share/doc/heddle/docs";

fn completions(name: &str, mut command: clap::Command, dir: &Path) -> io::Result<()> {
    for (shell, file) in [
        (Shell::Bash, format!("bash/{name}")),
        (Shell::Zsh, format!("zsh/_{name}")),
        (Shell::Fish, format!("fish/{name}.fish")),
    ] {
        let path = dir.join(file);
        fs::create_dir_all(path.parent().expect("there is a directory in each name"))?;
        let mut file = BufWriter::new(File::create(path)?);
        clap_complete::generate(shell, &mut command, name, &mut file);
        file.flush()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn daemon_flags_complete_only_where_they_are_accepted() {
        let command = with_daemon_flags(tool());
        for (name, expected) in
            [("doctor", true), ("explain-iface", true), ("docker-opts", false), ("status", false)]
        {
            let subcommand = command.find_subcommand(name).unwrap();
            let has = subcommand.get_arguments().any(|arg| arg.get_long() == Some("etcd-prefix"));
            assert_eq!(has, expected, "{name}");
        }
    }

    #[test]
    fn every_command_has_page_and_every_shell_completions() {
        let dir = tempfile::tempdir().unwrap();
        manual(&Arguments { dir: dir.path().to_owned() }).unwrap();
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        assert!(read("man/heddled.8").contains("etcd\\-prefix"));
        let daemon = read("man/heddled.8");
        for heading in ["NOTES", "FILES", "SEE ALSO"] {
            assert!(
                daemon.lines().any(|line| line.trim_end_matches('"').ends_with(heading)),
                "{heading}"
            );
        }
        assert!(read("man/heddle.1").contains("heddle\\-status(1)"));
        assert!(read("man/heddle-lease-list.1").contains("\\-\\-json"));
        assert!(read("man/heddle-config-check.1").contains("FILE"));
        assert!(!dir.path().join("man/heddle-manual.1").exists());
        for name in ["bash/heddle", "zsh/_heddle", "fish/heddle.fish"] {
            let script = read(&format!("completions/{name}"));
            assert!(script.contains("explain-iface") && script.contains("iface-regex"), "{name}");
        }
        for name in ["bash/heddled", "zsh/_heddled", "fish/heddled.fish"] {
            assert!(read(&format!("completions/{name}")).contains("etcd-prefix"), "{name}");
        }
    }
}
