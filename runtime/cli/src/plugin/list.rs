//! `heddle plugin list`.

use super::Places;

pub(super) fn list(places: &Places) -> anyhow::Result<()> {
    println!("{:<20} {:<10} {:<8} {:<22} SOURCE", "NAME", "VERSION", "WIT", "WORLD");
    for entry in places.catalogue()?.list() {
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
