use super::*;

const GUIDE: &str = "\
# Guide

## One

Text, and `sh` in it.

```sh all
cat <<X
## not a heading
X
```

```text
## not a heading
```

## Two

```sh node1 NAME
hostname
```

```json
{}
```

```toml node2 a/b.toml
[c]
```

```text node2 a/b.toml
[c]
```
";

#[test]
fn steps_have_machines_outputs_and_names() {
    assert_eq!(
        steps(GUIDE),
        [
            Step {
                section: 1,
                machine: "all".into(),
                script: "cat <<X\n## not a heading\nX".into(),
                name: None,
                output: Some("## not a heading".into()),
            },
            Step {
                section: 2,
                machine: "node1".into(),
                script: "hostname".into(),
                name: Some("NAME".into()),
                output: None,
            },
            Step {
                section: 2,
                machine: "node2".into(),
                script: "cat > a/b.toml <<'END-OF-FILE'\n[c]\nEND-OF-FILE".into(),
                name: None,
                output: None,
            },
            Step {
                section: 2,
                machine: "node2".into(),
                script: "cat a/b.toml".into(),
                name: None,
                output: Some("…\n[c]\n…".into()),
            },
        ]
    );
}

#[test]
#[should_panic(expected = "on which machine?\ntrue")]
fn command_without_machine_panics() {
    steps("# Guide\n\n```sh\ntrue\n```\n");
}

#[test]
#[should_panic(expected = "whose output?\ntwo")]
fn output_without_step_panics() {
    steps("```sh all\ntrue\n```\n\n```text\none\n```\n\n```text\ntwo\n```\n");
}

#[test]
fn numbers_and_macs_match_any_other() {
    let shown = "3: docker0 mtu 1450\n  link 02:42:ee:33:88:6f up";
    assert!(is_as_shown(shown, "12: docker0 mtu 1430\n    link 1e:00:00:aa:bb:cc up  \n"));
    assert!(!is_as_shown(shown, "12: docker0 mtu 1430\n    link none up\n"));
    assert!(!is_as_shown(shown, "12: docker0 mtu x\n    link 1e:00:00:aa:bb:cc up\n"));
}

#[test]
fn ellipsis_matches_any_text() {
    assert!(is_as_shown("a … d", "a b c d\n"));
    assert!(is_as_shown("…\nb\n…", "a\na\nb\n"));
    assert!(is_as_shown("a\n…", "a\n"));
    assert!(!is_as_shown("a\n…", "b\na\n"));
    assert!(!is_as_shown("a", "a\nb\n"));
    assert!(!is_as_shown("a.", "ab\n"));
}
