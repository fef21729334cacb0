//! `heddle plugin …`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use heddle_plugin::{Catalogue, Inspection, Source, embedded_component, inspect};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Compiles a component to native code for this machine. The daemon does this by itself when it needs to.
    Compile {
        /// The component, a `.wasm` file.
        #[arg(value_name = "IN")]
        input: PathBuf,
        /// Where the native code goes.
        #[arg(value_name = "OUT")]
        output: PathBuf,
    },
    /// Lists the plugins that the daemon would find.
    List {
        #[command(flatten)]
        dirs: Dirs,
    },
    /// Shows what a plugin is, without running it.
    Inspect {
        /// A plugin's name, or a `.wasm` file (anything with a `/` or a `.` in it).
        #[arg(value_name = "FILE|NAME")]
        plugin: String,
        #[command(flatten)]
        dirs: Dirs,
    },
    /// Writes the built-in plugins' components into a directory, each as NAME.wasm.
    Export {
        /// The directory, which is made if need be. One of those that the daemon searches would have it prefer the files.
        dir: PathBuf,
    },
}

#[derive(Args)]
pub(crate) struct Dirs {
    /// Where plugins are looked for, in this order, before those inside the binary. Repeatable.
    #[arg(long = "plugin-dir", value_name = "DIR", default_values = Catalogue::DEFAULT_DIRS)]
    pub(crate) dirs: Vec<PathBuf>,
}

impl Dirs {
    pub(crate) fn catalogue(self) -> anyhow::Result<Catalogue> {
        Ok(Catalogue::new(self.dirs, None, Catalogue::DEFAULT_CACHE.into())?)
    }
}

pub(crate) fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Compile { input, output } => compile(&input, &output),
        Command::List { dirs } => list(dirs),
        Command::Inspect { plugin, dirs } => show(&plugin, dirs),
        Command::Export { dir } => export(&dir),
    }
}

fn compile(input: &Path, output: &Path) -> anyhow::Result<()> {
    let component =
        fs::read(input).with_context(|| format!("{} cannot be read", input.display()))?;
    let native = match heddle_plugin::compile(&component) {
        Ok(native) => native,
        Err(reason) => bail!("{} cannot be compiled: {reason}", input.display()),
    };
    let written = || -> std::io::Result<()> {
        let dir = output.parent().filter(|dir| !dir.as_os_str().is_empty());
        let mut file = tempfile::NamedTempFile::new_in(dir.unwrap_or(Path::new(".")))?;
        file.write_all(&native)?;
        file.persist(output)?;
        Ok(())
    };
    written().with_context(|| format!("{} cannot be written", output.display()))
}

fn list(dirs: Dirs) -> anyhow::Result<()> {
    println!("{:<20} {:<10} {:<8} {:<22} SOURCE", "NAME", "VERSION", "WIT", "WORLD");
    for entry in dirs.catalogue()?.list() {
        let note = if entry.shadowed { " (another one comes first)" } else { "" };
        match entry.manifest {
            Ok(manifest) => println!(
                "{:<20} {:<10} {:<8} {:<22} {}{note}",
                entry.name,
                manifest.version.to_string(),
                manifest.wit.to_string(),
                manifest.world.to_string(),
                entry.source,
            ),
            Err(error) => println!("{:<20} {}{note}: {error}", entry.name, entry.source),
        }
    }
    Ok(())
}

fn show(plugin: &str, dirs: Dirs) -> anyhow::Result<()> {
    let (source, component) = find(plugin, dirs)?;
    let Inspection { manifest, digest, size, imports } =
        inspect(&component).with_context(|| source.clone())?;
    println!("name     {}", manifest.name);
    println!("version  {}", manifest.version);
    println!("WIT      {}", manifest.wit);
    println!("world    {} ({})", manifest.world, manifest.world.summary());
    println!("source   {source}");
    println!("size     {size} bytes");
    println!("sha256   {digest}");
    for (number, import) in imports.iter().enumerate() {
        println!("{:<8} {import}", if number == 0 { "imports" } else { "" });
    }
    Ok(())
}

fn export(dir: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("{} cannot be made", dir.display()))?;
    let built_in = Catalogue::new(Vec::new(), None, Catalogue::DEFAULT_CACHE.into())?;
    for entry in built_in.list() {
        let name = entry.name;
        let component = embedded_component(&name)
            .with_context(|| format!("the embedded plugin `{name}` is missing"))?;
        let path = dir.join(format!("{name}.wasm"));
        fs::write(&path, component)
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(())
}

/// The component that a name or a path stands for, and where it was found.
fn find(plugin: &str, dirs: Dirs) -> anyhow::Result<(String, Vec<u8>)> {
    let path = if plugin.contains(['/', '.']) {
        PathBuf::from(plugin)
    } else {
        let entries = dirs.catalogue()?.list();
        let Some(entry) = entries.into_iter().find(|entry| entry.name == plugin) else {
            bail!("there is no plugin `{plugin}`: `heddle plugin list` shows those there are");
        };
        match (entry.source, embedded_component(plugin)) {
            (Source::File(path), _) => path,
            (Source::Embedded, Some(component)) => {
                return Ok(("embedded".to_owned(), component.to_owned()));
            }
            (Source::Embedded, None) => bail!("the embedded plugin `{plugin}` is missing"),
        }
    };
    let component =
        fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    Ok((path.display().to_string(), component))
}
