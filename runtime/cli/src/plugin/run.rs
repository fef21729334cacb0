//! `heddle plugin run`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use heddle_lab::Verdict;
use heddle_lab::trial::{Options, Subject, run as try_out};
use heddle_plugin::{Manifest, Role, Setting};

use super::{Component, Which, backend, setting};
use crate::demo::Stage;

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
    /// Keys of a backend, as in the network config: {"Port":4000}.
    #[arg(long, value_name = "JSON")]
    backend: Option<String>,
    /// Setting of an emitter; repeatable.
    #[arg(long = "setting", value_name = "NAME=VALUE", value_parser = setting)]
    settings: Vec<Setting>,
    #[command(flatten)]
    stage: Stage,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { which, backend: config, settings, stage } = arguments;
    let Component { source, bytes: component } = which.read()?;
    let manifest = Manifest::read(&component).with_context(|| source.to_string())?;
    let Manifest { name, version, world, .. } = &manifest;
    let (role, subject) = match world.role() {
        Role::Backend if settings.is_empty() => {
            let config = backend(config.as_deref(), name)?.to_string();
            ("a backend", Subject::Backend { config })
        }
        Role::Backend => {
            bail!("--setting: {name} is a backend; use --backend")
        }
        Role::Emitter if config.is_none() => {
            let directories = directories(&manifest, &settings);
            ("an emitter", Subject::Emitter { emit: emit(name, &settings), directories })
        }
        Role::Emitter => {
            bail!("--backend: {name} is an emitter; use --setting")
        }
    };
    let options = Options {
        title: format!("{name} {version}, {role}"),
        name: name.clone(),
        policy: policy(&manifest),
        component,
        subject,
        families: stage.families(),
        keep: stage.keep(),
        heddled: stage.heddled()?,
    };
    Ok(match try_out(&options)? {
        Verdict::Pass => ExitCode::SUCCESS,
        Verdict::Fail => ExitCode::FAILURE,
    })
}

/// Returns a policy that grants what the plugin asks for.
fn policy(manifest: &Manifest) -> String {
    let mut text = format!("[plugin.{}]\n", manifest.name);
    let asked = manifest.capabilities.all();
    for values in asked.chunk_by(|one, other| one.key == other.key) {
        // JSON strings are valid TOML strings.
        let texts: Vec<_> =
            values.iter().map(|asked| serde_json::json!(asked.value).to_string()).collect();
        text += &format!("{} = [{}]\n", values[0].key, texts.join(", "));
    }
    if asked.is_empty() {
        text += "# No capabilities requested besides the routes of the overlay.\n";
    }
    text
}

/// Returns a value of `--emit`.
fn emit(name: &str, settings: &[Setting]) -> String {
    let settings: Vec<_> =
        settings.iter().map(|setting| format!("{}={}", setting.name, setting.value)).collect();
    if settings.is_empty() { name.to_owned() } else { format!("{name}:{}", settings.join(",")) }
}

/// Returns the directories that an emitter may write to: those of the files it asks for, and of its
/// settings' paths.
fn directories(manifest: &Manifest, settings: &[Setting]) -> Vec<PathBuf> {
    let asked = manifest.capabilities.files.iter().map(ToString::to_string);
    let given = settings.iter().map(|setting| setting.value.clone());
    let paths = asked.chain(given.filter(|value| value.starts_with('/')));
    paths.map(|path| directory(&path)).collect()
}

/// Returns the directory that contains all files of a pattern: `/run/x` for `/run/x/`,
/// `/run/x/*.env` and `/run/x/*/y.env`.
fn directory(pattern: &str) -> PathBuf {
    let plain = pattern.split_once('*').map_or(pattern, |(plain, _)| plain);
    match plain.rsplit_once('/') {
        Some((directory, _)) if !directory.is_empty() => directory.into(),
        _ => Path::new("/").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use heddle_plugin::Policy;

    fn manifest(capabilities: &str) -> Manifest {
        let text = format!(
            r#"{{"name":"x","version":"0.1.0","wit":"0.1.0","world":"emitter-plugin","capabilities":{capabilities}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn policy_grants_what_manifest_asks_for() {
        let manifest = manifest(
            r#"{"links":["a*","b"],"link-kinds":["tun"],"routes":["10.0.0.0/8"],"udp-ports":[53,"1-9"],
                "sysctls":["*"],"files":["/etc/\"x\\"]}"#,
        );
        let text = policy(&manifest);
        assert!(text.starts_with("[plugin.x]\nlinks = [\"a*\", \"b\"]\n"), "{text}");
        let granted = Policy::parse(&text).unwrap().grant("x");
        assert_eq!(granted, manifest.capabilities);
    }

    #[test]
    fn policy_without_requests_has_a_comment() {
        let text = policy(&manifest("{}"));
        assert!(text.contains("# No capabilities requested"), "{text}");
        Policy::parse(&text).unwrap();
    }

    #[test]
    fn emitter_directories_cover_requests_and_settings() {
        let manifest = manifest(
            r#"{"files":["/run/a/","/run/b/*.env","/run/c/*/d.env","/run/e/f.env","/g"]}"#,
        );
        let setting = |value: &str| Setting { name: "path".into(), value: value.into() };
        let found = directories(&manifest, &[setting("/srv/h.env"), setting("yes")]);
        assert_eq!(found, ["/run/a", "/run/b", "/run/c", "/run/e", "/", "/srv"].map(PathBuf::from));
    }
}
