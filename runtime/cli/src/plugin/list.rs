//! `heddle plugin list`.

use super::Places;
use crate::output::print;

pub(super) fn list(places: &Places) -> anyhow::Result<()> {
    let mut text =
        format!("{:<20} {:<10} {:<8} {:<22} SOURCE\n", "NAME", "VERSION", "WIT", "WORLD");
    for entry in places.catalogue()?.list() {
        let note = if entry.shadowed { " (shadowed)" } else { "" };
        text += &match entry.manifest {
            Ok(manifest) => format!(
                "{:<20} {:<10} {:<8} {:<22} {}{note}\n",
                entry.name,
                manifest.version.to_string(),
                manifest.wit.to_string(),
                manifest.world.to_string(),
                entry.source,
            ),
            Err(error) => format!("{:<20} {}{note}: {error}\n", entry.name, entry.source),
        };
    }
    print(&text)
}
