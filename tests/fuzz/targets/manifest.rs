//! A plugin: the bytes of a component or, if the first byte is not that of WebAssembly's magic, the
//! text of its manifest.

#![no_main]
#![forbid(unsafe_code)]

use heddle_grant::{
    Inspection, Manifest, ManifestError, Role, WIT_VERSION, check_name, inspect, weight,
    with_manifest,
};
use libfuzzer_sys::fuzz_target;

/// A component without contents.
const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";
const MANIFEST: &[u8] = br#"{"name":"a","version":"1.0.0","wit":"0.1.0","world":"backend-plugin"}"#;

/// Asserts that a parsed manifest is consistent and can be checked.
fn said(manifest: &Manifest) {
    assert!((manifest.wit.major, manifest.wit.minor) == (0, 1) && manifest.wit <= WIT_VERSION);
    assert_eq!(manifest.capabilities.not_granted(&manifest.capabilities), []);
    let role = manifest.world.role();
    let other = if role == Role::Backend { Role::Emitter } else { Role::Backend };
    assert_eq!(manifest.check(&manifest.name, role), Ok(()));
    assert!(manifest.check(&manifest.name, other).is_err());
    if check_name(&manifest.name).is_ok() {
        assert!(manifest.check("another-name", role).is_err() || manifest.name == "another-name");
    }
}

/// Asserts that the error message is one line of bounded length, whatever the plugin contains.
fn refused(error: &ManifestError) {
    let message = error.to_string();
    assert!(!message.contains(char::is_control) && message.len() < 4000, "{message}");
}

fn text(manifest: &[u8]) {
    match (Manifest::parse(manifest), with_manifest(EMPTY, manifest)) {
        (Ok(manifest), Ok(component)) => {
            said(&manifest);
            assert_eq!(Manifest::read(&component).as_ref(), Ok(&manifest));
            assert_eq!(with_manifest(&component, MANIFEST), Err(ManifestError::Present));
            let Inspection { manifest: seen, size, .. } = inspect(&component).expect("a plugin");
            assert_eq!((seen, size), (manifest, component.len()));
        }
        (Err(error), Err(again)) => {
            assert_eq!(error, again);
            refused(&error);
        }
        other => panic!("{other:?}"),
    }
}

fn component(bytes: &[u8]) {
    match Manifest::read(bytes) {
        Ok(manifest) => {
            said(&manifest);
            assert!(weight::of(bytes).is_ok_and(|weight| weight <= weight::LIMIT));
            let seen = inspect(bytes).expect("what was read can be looked at");
            assert_eq!((seen.manifest, seen.size), (manifest, bytes.len()));
        }
        Err(error) => {
            refused(&error);
            assert_eq!(inspect(bytes).as_ref(), Err(&error));
            // A component without a manifest can be given one, and then has it.
            if error == ManifestError::Missing {
                match with_manifest(bytes, MANIFEST) {
                    Ok(with) => assert_eq!(Manifest::read(&with), Manifest::parse(MANIFEST)),
                    // A truncated component continues in the bytes appended to it.
                    Err(ManifestError::TooHeavy { .. } | ManifestError::NotAComponent(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
}

fuzz_target!(|bytes: &[u8]| match bytes.first() {
    Some(0) => component(bytes),
    _ => text(bytes),
});
