//! The status page in a real browser.

use std::path::Path;
use std::time::{Duration, Instant};

use heddle_lab::{Families, Signal, wait_until};
use heddle_tests::wording::peer_left;
use heddle_tests::{Browser, Cluster, Node, SOON};
use serde_json::{Value, json};

const PORT: &str = "--status-address=9981";
const PAGE: &str = "http://127.0.0.1:9981/";

/// Leases without a node use subnets below those that nodes lease.
const NETWORK: &str =
    r#"{"Network":"10.244.0.0/16","SubnetMin":"10.244.100.0","Backend":{"Type":"vxlan"}}"#;

/// Documented time limit for the page to show a change of a peer.
const SHOWN: Duration = Duration::from_secs(10);

/// Waits until an expression on the page has the wanted value.
fn wait_page(browser: &mut Browser, limit: Duration, expression: &str, wanted: &Value) {
    wait_until(expression.to_owned(), limit, || {
        let found = browser.evaluate(expression);
        if found == *wanted { Ok(()) } else { Err(format!("{found:#}")) }
    })
    .unwrap();
}

/// Expressions for the keys of the peers in the picture and in the table.
const IN_MESH: &str = "[...document.querySelectorAll('#mesh .spot')].map(s => s.peer.key).sort()";
const IN_TABLE: &str = "[...rows].filter(([, r]) => r.isConnected).map(([key]) => key).sort()";

/// Returns an expression for the text of the row with this key.
fn row(key: &str) -> String {
    format!("rows.get({})?.innerText", json!(key))
}

/// Returns an expression that is true if the row with this key contains the text.
fn says(key: &str, text: &str) -> String {
    format!("{}.includes({})", row(key), json!(text))
}

fn key_of(cluster: &Cluster, node: &Node) -> String {
    cluster.lease(node).key.rsplit_once('/').unwrap().1.to_owned()
}

/// Returns the lease of a node that consists of a lease only.
fn lease(name: &str, last: u8, backend: &str) -> String {
    json!({
        "PublicIP": format!("172.16.0.{last}"),
        "BackendType": backend,
        "BackendData": {"VNI": 1, "VtepMAC": format!("02:00:00:00:00:{last:02x}")},
        "NodeName": name,
    })
    .to_string()
}

/// Returns the expected keys on the page, in order.
fn sorted(mut keys: Vec<String>) -> Value {
    keys.sort();
    json!(keys)
}

#[test]
#[expect(clippy::too_many_lines, reason = "one scenario, told in order")]
fn page_shows_mesh_and_its_changes() {
    let cluster = Cluster::with_config(Families::V4, Some(NETWORK));
    let mut alder = cluster.starting_node("alder", &[PORT, "--probe-interval=1"]);
    let [mut birch, cedar] = cluster.nodes(["birch", "cedar"]);
    alder.daemon().wait_ready().unwrap();
    cluster.put_lease("10.244.0.0-24", &lease("dogwood", 9, "vxlan"));
    cluster.put_lease("10.244.1.0-24", &lease("elm", 10, "wormhole"));
    let [of_birch, of_cedar] = [&birch, &cedar].map(|node| key_of(&cluster, node));
    let others = ["10.244.0.0-24", "10.244.1.0-24"].map(str::to_owned);
    let everybody =
        |more: &[&String]| sorted(others.iter().chain(more.iter().copied()).cloned().collect());

    let mut browser = Browser::start(&alder.host, 1280, 1440);
    browser.open(PAGE);
    let all = everybody(&[&of_birch, &of_cedar]);
    for keys in [IN_MESH, IN_TABLE] {
        wait_page(&mut browser, SOON, keys, &all);
    }
    // The variable survives unless the page reloads.
    browser.evaluate("window.before = true");
    let text = |browser: &mut Browser, id: &str| {
        browser.evaluate(&format!("byId('{id}').innerText")).as_str().unwrap().to_owned()
    };
    // All hosts of a lab have the same host name, so the page shows their node ids.
    assert_eq!(text(&mut browser, "name"), "alder");
    // One is dead, and one has another backend.
    let badge = "byId('ready').innerText";
    wait_page(&mut browser, SHOWN, badge, &json!("▲ ready, faulty peers: 2 of 4"));
    let mesh = browser.evaluate("byId('mesh').textContent").as_str().unwrap().to_owned();
    for name in ["alder", "birch", "cedar", "dogwood", "elm", "vxlan"] {
        assert!(mesh.contains(name), "{name} is not in {mesh}");
    }
    for (key, said) in [(&of_birch, "answers"), (&of_cedar, "answers"), (&others[1], "no plan")] {
        wait_page(&mut browser, SOON, &says(key, said), &json!(true));
    }
    let elm = browser.evaluate(&row(&others[1])).as_str().unwrap().to_owned();
    assert!(elm.contains("the lease is for the backend wormhole"), "{elm}");

    // A repair appears among the events.
    let gone = cluster.subnet(&cedar, heddle_tests::Overlay::V4);
    alder.ip(&format!("route del {gone}"));
    let event = format!("byId('events').innerText.includes('route {gone} ')");
    wait_page(&mut browser, SHOWN, &event, &json!(true));

    // A dead peer, whose lease is valid for another day.
    let died = Instant::now();
    cedar.ip("link set eth0 down");
    wait_page(&mut browser, SHOWN, &says(&of_cedar, "does not answer"), &json!(true));
    println!("a dead peer is shown after {:?}", died.elapsed());
    let of_mark = format!(
        "[...document.querySelectorAll('#mesh .spot')].find(s => s.peer.key === {}).peer.verdict",
        json!(of_cedar)
    );
    assert_eq!(browser.evaluate(&of_mark), "unreachable");
    wait_page(&mut browser, SHOWN, badge, &json!("▲ ready, faulty peers: 3 of 4"));
    let silent = format!("byId('events').innerText.includes('{of_cedar}')");
    wait_page(&mut browser, SHOWN, &silent, &json!(true));
    assert_eq!(key_of(&cluster, &cedar), of_cedar, "its lease is as it was");
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/screenshots");
    browser.screenshot(&target.join("status-page.png"));

    // A peer whose plan is refused, and one that leaves.
    cluster.put_lease(&others[0], &lease("dogwood", 9, "wormhole"));
    wait_page(&mut browser, SHOWN, &says(&others[0], "no plan"), &json!(true));
    birch.stop(Signal::TERM);
    cluster.delete_lease(&of_birch);
    for keys in [IN_MESH, IN_TABLE] {
        wait_page(&mut browser, SHOWN, keys, &everybody(&[&of_cedar]));
    }
    let left = format!("byId('events').innerText.includes('{}')", peer_left(&of_birch));
    wait_page(&mut browser, SHOWN, &left, &json!(true));
    assert_eq!(browser.evaluate("window.before"), true, "the page was loaded anew");

    let elsewhere: Vec<_> = browser
        .requests()
        .into_iter()
        .filter(|url| !url.starts_with(PAGE) && !url.starts_with("data:"))
        .collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
    assert!(browser.requests().len() > 3, "{:?}", browser.requests());
    assert_eq!(browser.complaints(), Vec::<String>::new());

    // A page without a connection must not look live.
    alder.stop(Signal::TERM);
    let old = "!byId('warning').hidden && byId('live').innerText";
    wait_page(&mut browser, SHOWN, old, &json!("offline"));
}

#[test]
fn foreign_names_are_escaped_on_page() {
    let cluster = Cluster::with_config(Families::V4, Some(NETWORK));
    let mut node = cluster.starting_node("a", &[PORT]);
    node.daemon().wait_ready().unwrap();
    let name = "<script>document.title='owned'</script><img src=x onerror=document.title='owned'>";
    cluster.put_lease("10.244.0.0-24", &lease(name, 9, "vxlan"));
    cluster.put_lease("10.244.1.0-24", &lease("b", 10, "<b>wormhole</b>"));
    cluster.put_lease("<svg onload=alert(1)>", "{}");
    let mut browser = Browser::start(&node.host, 1280, 1000);
    browser.open(PAGE);
    wait_page(&mut browser, SOON, "rows.size", &json!(3));
    for (key, text) in [
        ("10.244.0.0-24", "<script>document.title="),
        ("10.244.1.0-24", "<b>wormhole</b>"),
        ("<svg onload=alert(1)>", "<svg onload=alert(1)>"),
    ] {
        let found = browser.evaluate(&row(key)).as_str().unwrap().to_owned();
        assert!(found.contains(text), "{text} is not in {found}");
    }
    let made = "document.querySelectorAll('body script, img, b, svg[onload]').length";
    // The page's script, and its name in the head.
    assert_eq!(browser.evaluate(made), 2);
    assert!(browser.evaluate("document.title").as_str().unwrap().ends_with("Heddle"));
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn hidden_characters_are_escaped_on_page() {
    let cluster = Cluster::with_config(Families::V4, Some(NETWORK));
    let mut node = cluster.starting_node("a", &[PORT]);
    node.daemon().wait_ready().unwrap();
    let name = format!("rack\u{202e}\u{200b}\u{e0041}\u{9b}7{}", "\u{301}".repeat(5));
    cluster.put_lease("10.244.0.0-24", &lease(&name, 9, "vxlan"));
    let mut browser = Browser::start(&node.host, 1280, 1000);
    browser.open(PAGE);
    wait_page(&mut browser, SOON, "rows.size", &json!(1));
    let shown = format!(
        "rack\\u{{202e}}\\u{{200b}}\\u{{e0041}}\\u{{9b}}7{}\\u{{301}}",
        "\u{301}".repeat(4)
    );
    wait_page(&mut browser, SOON, &says("10.244.0.0-24", &shown), &json!(true));
    let hidden = "/[\\u202e\\u200b\\u{e0041}\\x9b]/u.test(document.documentElement.outerHTML)";
    wait_page(&mut browser, SOON, hidden, &json!(false));
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn page_is_usable_by_keyboard() {
    let cluster = Cluster::with_config(Families::V4, Some(NETWORK));
    let mut node = cluster.starting_node("a", &[PORT]);
    node.daemon().wait_ready().unwrap();
    for number in 0..70 {
        let name = format!("node-{number:02}");
        cluster.put_lease(&format!("10.244.{number}.0-24"), &lease(&name, number + 10, "vxlan"));
    }
    cluster.put_lease("nonsense", "{}");
    let mut browser = Browser::start(&node.host, 1280, 1000);
    browser.open(PAGE);
    // Too many peers for a ring: a grid, with the problems first.
    wait_page(&mut browser, SOON, "document.querySelectorAll('#mesh .spot').length", &json!(71));
    assert_eq!(browser.evaluate("document.querySelectorAll('#mesh .link').length"), 0);
    assert_eq!(browser.evaluate("document.querySelector('#mesh .spot').peer.key"), "nonsense");

    // One peer of the picture is a tab stop; arrow keys move to the others, Enter opens the row.
    assert_eq!(browser.evaluate("document.querySelectorAll('#mesh [tabindex=\"0\"]').length"), 1);
    browser.evaluate("document.querySelector('#mesh [tabindex=\"0\"]').focus()");
    browser.press("ArrowRight");
    browser.press("ArrowRight");
    let focused = "document.activeElement.peer?.key";
    wait_page(&mut browser, SOON, focused, &json!("10.244.1.0-24"));
    assert!(browser.evaluate("byId('detail').innerText").as_str().unwrap().contains("node-01"));
    browser.press("Enter");
    assert_eq!(browser.evaluate("document.querySelector('tr.chosen td').innerText"), "node-01");
    // The focus survives a redraw.
    cluster.delete_lease("10.244.69.0-24");
    wait_page(&mut browser, SHOWN, "document.querySelectorAll('#mesh .spot').length", &json!(70));
    assert_eq!(browser.evaluate(focused), "10.244.1.0-24");

    browser.press("/");
    assert_eq!(browser.evaluate("document.activeElement.id"), "filter");
    browser.evaluate(
        "byId('filter').value = 'NODE-1'; byId('filter').dispatchEvent(new Event('input'))",
    );
    assert_eq!(browser.evaluate("byId('rows').childElementCount"), 10);
    assert_eq!(browser.evaluate("byId('shown').innerText"), "10 of 70 peers");
    let head = "document.querySelector('th[data-name=node] button').click()";
    let first = "byId('rows').firstChild.firstChild.innerText";
    browser.evaluate(head);
    assert_eq!(browser.evaluate(first), "node-10");
    browser.evaluate(head);
    assert_eq!(browser.evaluate(first), "node-19");
    let sorted = "document.querySelector('th[aria-sort]').getAttribute('aria-sort')";
    assert_eq!(browser.evaluate(sorted), "descending");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}
