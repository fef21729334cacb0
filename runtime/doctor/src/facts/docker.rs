//! Configuration by which Docker takes its subnet from Heddle.

use std::fs;
use std::path::{Path, PathBuf};

/// Directories of the unit's drop-ins (systemd.unit(5)).
const DIRECTORIES: [&str; 3] = [
    "/etc/systemd/system/docker.service.d",
    "/run/systemd/system/docker.service.d",
    "/usr/lib/systemd/system/docker.service.d",
];

/// Size limit for a drop-in, in bytes.
const LIMIT: u64 = 1 << 20;

/// Returns the file that makes Docker read its options from one of `sources`, if there is one.
pub(crate) fn instruction(sources: &[PathBuf]) -> Option<PathBuf> {
    let files = DIRECTORIES.iter().filter_map(|directory| fs::read_dir(directory).ok());
    let files = files.flatten().flatten().map(|entry| entry.path());
    let mut files = files.chain([PathBuf::from("/etc/systemd/system/docker.service")]);
    files.find(|path| mentions(path, sources))
}

fn mentions(file: &Path, sources: &[PathBuf]) -> bool {
    let text = heddle_files::read_text(file, LIMIT).unwrap_or_default();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with(['#', ';']));
    let mut lines = lines.filter_map(|line| line.split_once("EnvironmentFile="));
    lines.any(|(_, path)| {
        let path = path.trim().trim_start_matches('-');
        sources.iter().any(|source| source == Path::new(path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drop_in_that_reads_a_source_is_an_instruction() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("heddle.conf");
        let sources = ["/run/flannel/docker.env", "/run/flannel/subnet.env"].map(PathBuf::from);
        for (text, expected) in [
            ("[Service]\nEnvironmentFile=-/run/flannel/docker.env\n", true),
            ("[Service]\nEnvironmentFile=/run/flannel/subnet.env\n", true),
            ("[Service]\n#EnvironmentFile=/run/flannel/subnet.env\n", false),
            ("[Service]\nEnvironmentFile=/etc/default/docker\n", false),
            ("", false),
        ] {
            fs::write(&file, text).unwrap();
            assert_eq!(mentions(&file, &sources), expected, "{text}");
        }
    }
}
