//! The document matches the current interface, and its links are valid.

use std::collections::BTreeSet;

use heddle_reference::{document, markdown, wit};

#[test]
fn document_matches_interface() {
    let written = std::fs::read_to_string(document()).unwrap();
    let now = markdown(&wit()).unwrap();
    let differs = written.lines().zip(now.lines()).find(|(written, now)| written != now);
    assert!(
        written == now,
        "docs/plugin-reference.md is stale: run `make reference`; first line that differs: {differs:?}"
    );
}

#[test]
fn every_link_has_a_heading_and_every_heading_is_unique() {
    let text = markdown(&wit()).unwrap();
    let mut headings = BTreeSet::new();
    for line in text.lines().filter(|line| line.starts_with("## ") || line.starts_with("### ")) {
        let name = line.trim_start_matches('#').trim().to_lowercase();
        assert!(headings.insert(name.clone()), "{name} is there twice");
    }
    let links: Vec<_> =
        text.split("](#").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    assert!(links.len() > 50, "{} links", links.len());
    for link in links {
        assert!(headings.contains(link), "{link}");
    }
}

#[test]
fn interface_without_a_place_is_an_error() {
    let dir = std::env::temp_dir().join(format!("heddle-reference-{}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(
        dir.join("x.wit"),
        "package heddle:overlay@0.1.0;\ninterface x { f: func(); }\n",
    )
    .unwrap();
    let error = markdown(&dir).unwrap_err().to_string();
    std::fs::remove_dir_all(&dir).unwrap();
    assert_eq!(error, "there is no interface `backend`");
}
