use super::*;

fn capabilities(json: &str) -> Capabilities {
    serde_json::from_str(json).unwrap()
}

fn error(json: &str) -> String {
    serde_json::from_str::<Capabilities>(json).unwrap_err().to_string()
}

fn not_granted(asked: &str, granted: &str) -> Vec<String> {
    let missing = capabilities(asked).not_granted(&capabilities(granted));
    missing.iter().map(ToString::to_string).collect()
}

#[test]
fn capabilities_within_the_grant_are_granted() {
    let asked = r#"{"links":["flannel.*","wg0"],"link-kinds":["tun"],"routes":["10.96.0.0/16"],
            "udp-ports":[51820,"2000-3000"],"sysctls":["accept_ra"],"files":["/run/x/*.env","/run/x/y/"]}"#;
    let granted = r#"{"links":["flannel*","wg*"],"link-kinds":["vxlan","tun"],"routes":["10.96.0.0/12"],
            "udp-ports":["1024-65535"],"sysctls":["*"],"files":["/run/x/"]}"#;
    assert_eq!(not_granted(asked, granted), [""; 0]);
    assert_eq!(not_granted(asked, asked), [""; 0]);
}

#[test]
fn capabilities_not_granted_are_named() {
    let asked = r#"{"links":["*","wg0"],"link-kinds":["tun"],"routes":["0.0.0.0/0"],
            "udp-ports":[53,"1000-2000"],"sysctls":["a*"],"files":["/etc/*","/run/","/run/x/y*"]}"#;
    let granted = r#"{"links":["wg*"],"link-kinds":["vxlan"],"routes":["10.96.0.0/12"],
            "udp-ports":["1024-65535"],"sysctls":["ab*"],"files":["/run/x/"]}"#;
    assert_eq!(
        not_granted(asked, granted),
        [
            "links *",
            "link-kinds tun",
            "routes 0.0.0.0/0",
            "udp-ports 53",
            "udp-ports 1000-2000",
            "sysctls a*",
            "files /etc/*",
            "files /run/"
        ]
    );
}

#[test]
fn path_patterns_stay_in_their_directory() {
    let has = |pattern: &str, path: &str| {
        capabilities(&format!(r#"{{"files":["{pattern}"]}}"#)).has_file(path)
    };
    assert!(has("/run/flannel/", "/run/flannel/a/b.env"));
    assert!(!has("/run/flannel/", "/run/flannel"));
    assert!(!has("/run/flannel/", "/run/flannel.d/a"));
    assert!(has("/run/*/x.env", "/run/flannel/x.env"));
    assert!(!has("/run/*.env", "/run/flannel/x.env"));
    assert!(has("/run/*/", "/run/flannel/a/b"));
    assert!(!has("/run/*/", "/run/flannel"));
}

#[test]
fn star_matches_any_number_of_characters() {
    for (pattern, text, expected) in [
        ("flannel.*", "flannel.", true),
        ("flannel.*", "flannel", false),
        ("*", "", true),
        ("a*b*c", "a-b-b-c", true),
        ("a*b*c", "a-c-b", false),
        ("ab*ba", "aba", false),
        ("**x", "x", true),
        ("wg0", "wg00", false),
    ] {
        assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
    }
}

#[test]
fn invalid_capabilities_are_named() {
    for (json, expected) in [
        (r#"{"links":["eth0:1"]}"#, "`eth0:1` is no pattern of names: expected letters"),
        (r#"{"links":[""]}"#, "`` is no pattern of names"),
        (r#"{"link-kinds":["bridge"]}"#, "unknown variant `bridge`, expected `vxlan` or `tun`"),
        (r#"{"routes":["10.0.0.0"]}"#, "invalid IP address syntax"),
        (r#"{"udp-ports":[0]}"#, "`0` are no UDP ports: expected one from 1 to 65535"),
        (r#"{"udp-ports":["9-8"]}"#, "`9-8` are no UDP ports"),
        (r#"{"udp-ports":["+9"]}"#, "`+9` are no UDP ports"),
        (r#"{"udp-ports":[-9]}"#, "`-9` are no UDP ports"),
        (r#"{"files":["/run/../etc/"]}"#, "`/run/../etc/` is no pattern of paths"),
        (r#"{"files":["run/x"]}"#, "`run/x` is no pattern of paths: expected an absolute path"),
        (r#"{"sockets":[]}"#, "unknown field `sockets`, expected one of `links`"),
    ] {
        let error = error(json);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn requested_capabilities_are_all_listed() {
    let listed: Vec<_> = Capabilities::usual().all().iter().map(ToString::to_string).collect();
    assert_eq!(
        listed,
        [
            "links flannel*",
            "links heddle*",
            "link-kinds vxlan",
            "link-kinds tun",
            "udp-ports 1024-65535",
            "sysctls accept_ra",
            "sysctls addr_gen_mode",
            "sysctls autoconf",
            "sysctls disable_ipv6",
            "files /run/flannel/",
            "files /run/heddle/"
        ]
    );
}
