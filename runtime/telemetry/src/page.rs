//! The status page and its content security policy.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

/// The page. It is self-contained: nothing is loaded from elsewhere.
pub(crate) const PAGE: &str = include_str!("page.html");

/// The page's policy (Content Security Policy Level 3): it may run its own script, use its own
/// style, and request data from its own origin. It creates no markup from text (`trusted-types
/// 'none'`).
pub(crate) static POLICY: LazyLock<String> = LazyLock::new(|| {
    format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; img-src data:; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
        source(inside(PAGE, "script")),
        source(inside(PAGE, "style")),
    )
});

/// Returns the content of an element that the page has once, without attributes.
fn inside<'p>(page: &'p str, element: &str) -> &'p str {
    let (opening, closing) = (format!("<{element}>"), format!("</{element}>"));
    let (_, rest) = page.split_once(&opening).expect("the page has the element");
    rest.split_once(&closing).expect("the element ends").0
}

/// Returns the policy's source expression for a permitted text: its hash.
fn source(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_permits_script_and_style_by_hash() {
        // echo -n "x=1" | openssl dgst -sha256 -binary | base64
        let page = "<style>b</style><script>x=1</script>";
        assert_eq!(inside(page, "script"), "x=1");
        assert_eq!(source("x=1"), "sha256-HyBrEcI+KMwlDe1/wAmNOCOoRnpUNA8axOU1y4VEST8=");
        assert!(POLICY.contains("script-src 'sha256-") && !POLICY.contains("unsafe"));
    }

    #[test]
    fn page_is_self_contained_and_creates_no_markup_from_text() {
        // The name of an XML namespace is never requested.
        let text = PAGE.replace("http://www.w3.org/2000/svg", "");
        let elsewhere = ["http:", "https:", " src=", "@import", "url("];
        let markup = ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "style=\""];
        for forbidden in elsewhere.into_iter().chain(markup) {
            let found = text.lines().find(|line| line.contains(forbidden));
            assert_eq!(found, None, "{forbidden}");
        }
        for element in ["script", "style"] {
            assert_eq!(PAGE.matches(&format!("<{element}")).count(), 1, "{element}");
        }
    }
}
