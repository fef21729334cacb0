use super::*;

const GOOD: &str = r#"{"name":"vxlan","version":"1.2.3","wit":"0.1.0","world":"backend-plugin"}"#;

fn error(text: &str) -> String {
    Manifest::parse(text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn manifest_has_name_versions_and_world() {
    let manifest = Manifest::parse(GOOD.as_bytes()).unwrap();
    assert_eq!((manifest.name.as_str(), manifest.world), ("vxlan", World::BackendPlugin));
    assert_eq!(manifest.version, Version::new(1, 2, 3));
    assert_eq!(manifest.check("vxlan", Role::Backend), Ok(()));
}

#[test]
fn manifest_without_capabilities_requests_none() {
    let manifest = Manifest::parse(GOOD.as_bytes()).unwrap();
    assert_eq!(manifest.capabilities, Capabilities::default());
    let asking =
        GOOD.replace('}', r#","capabilities":{"links":["flannel.*"],"udp-ports":["8472"]}}"#);
    let asked = Manifest::parse(asking.as_bytes()).unwrap().capabilities.all();
    let asked: Vec<_> = asked.iter().map(ToString::to_string).collect();
    assert_eq!(asked, ["links flannel.*", "udp-ports 8472"]);
    assert!(error(&asking.replace("links", "linsk")).contains("unknown field `linsk`"));
}

#[test]
fn manifest_declares_keys_or_does_not() {
    assert_eq!(Manifest::parse(GOOD.as_bytes()).unwrap().keys, None);
    let declaring = GOOD.replace('}', r#","keys":["VNI"]}"#);
    let declared = Manifest::parse(declaring.as_bytes()).unwrap().keys;
    assert_eq!(declared, Some(vec!["VNI".to_owned()]));
}

#[test]
fn manifest_is_added_to_a_component_without_one() {
    let bare = wat::parse_str("(component)").unwrap();
    let with = with_manifest(&bare, GOOD.as_bytes()).unwrap();
    assert_eq!(Manifest::read(&with), Manifest::parse(GOOD.as_bytes()));
    assert_eq!(with_manifest(&with, GOOD.as_bytes()), Err(ManifestError::Present));
    assert!(matches!(with_manifest(&bare, b"{}"), Err(ManifestError::Malformed(_))));
    assert!(matches!(with_manifest(b"x", GOOD.as_bytes()), Err(ManifestError::NotAComponent(_))));
}

#[test]
fn manifest_is_not_added_to_an_unusable_component() {
    let module = "(core module $m (table 1 funcref) (elem (i32.const 0) func 0 0) (func))";
    let bare = wat::parse_str(format!("(component {module})")).unwrap();
    // Of two elements only the count is left, which then announces far too many.
    let position = bare.windows(3).position(|bytes| bytes == [2, 0, 0]).unwrap();
    let mut damaged = bare;
    damaged[position] = 99;
    for manifest in
        [Manifest::read(&damaged).map(drop), with_manifest(&damaged, GOOD.as_bytes()).map(drop)]
    {
        assert!(matches!(manifest, Err(ManifestError::NotAComponent(_))), "{manifest:?}");
    }
    let instances = "(core instance (instantiate $m)) ".repeat(1000);
    let heavy = format!("(component (core module $m {}) {instances})", "(func) ".repeat(2001));
    let heavy = wat::parse_str(heavy).unwrap();
    let error = with_manifest(&heavy, GOOD.as_bytes()).unwrap_err();
    assert_eq!(error, ManifestError::TooHeavy { found: 2_001_000 });
}

#[test]
fn newer_interface_is_refused_with_both_versions() {
    let text = r#"{"wit":"0.2.0","something":"new"}"#;
    assert_eq!(
        error(text),
        "was built for WIT 0.2.0, and this host supports 0.1.0: expected an older plugin, or a newer heddled"
    );
    assert!(error(&GOOD.replace("0.1.0", "0.1.1")).contains("WIT 0.1.1"));
    assert!(error(&GOOD.replace("0.1.0", "0.0.9")).ends_with("expected a newer plugin"));
}

#[test]
fn manifest_beyond_limit_is_rejected_unparsed() {
    let long = GOOD.replace("1.2.3", &format!("1.2.3-{}", "a".repeat(MAX_MANIFEST)));
    assert_eq!(
        error(&long),
        format!("has a manifest of {} bytes: expected at most 16 KiB", long.len())
    );
}

#[test]
fn manifest_with_other_name_or_role_is_refused() {
    let manifest = Manifest::parse(GOOD.as_bytes()).unwrap();
    assert_eq!(
        manifest.check("host-gw", Role::Backend).unwrap_err().to_string(),
        "has the name `vxlan`: expected `host-gw`, as its file"
    );
    assert_eq!(
        manifest.check("vxlan", Role::Emitter).unwrap_err().to_string(),
        "implements the world backend-plugin: expected emitter-plugin"
    );
}

#[test]
fn backend_role_accepts_three_worlds() {
    for world in ["backend-plugin", "packet-backend-plugin", "transform-plugin"] {
        let text = GOOD.replace("backend-plugin", world);
        let manifest = Manifest::parse(text.as_bytes()).unwrap();
        assert_eq!(manifest.world.to_string(), world);
        assert_eq!(manifest.check("vxlan", Role::Backend), Ok(()));
        assert_eq!(manifest.world.steers(), world != "backend-plugin");
    }
    let emitter = Manifest::parse(GOOD.replace("backend", "emitter").as_bytes()).unwrap();
    assert_eq!(
        emitter.check("vxlan", Role::Backend).unwrap_err().to_string(),
        "implements the world emitter-plugin: \
         expected backend-plugin or packet-backend-plugin or transform-plugin"
    );
}

#[test]
fn invalid_manifest_is_named() {
    assert!(error("[]").starts_with("has a manifest that cannot be read"));
    assert!(error(&GOOD.replace("backend-plugin", "frobnicator")).contains("frobnicator"));
    assert!(matches!(Manifest::read(b"nonsense"), Err(ManifestError::NotAComponent(_))));
    assert!(matches!(Manifest::read(b""), Err(ManifestError::NotAComponent(_))));
}
