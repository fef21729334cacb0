//! The page's text, and what it may do.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

/// The page. All of it: nothing is loaded from elsewhere.
pub(crate) const PAGE: &str = include_str!("page.html");

/// What the page may do (Content Security Policy Level 3): run its own script, wear its own style, and ask where it comes
/// from. No markup is made of text (`trusted-types 'none'`).
pub(crate) static POLICY: LazyLock<String> = LazyLock::new(|| {
    format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; img-src data:; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
        source(inside(PAGE, "script")),
        source(inside(PAGE, "style")),
    )
});

/// What is inside an element that the page has once, without attributes.
fn inside<'p>(page: &'p str, element: &str) -> &'p str {
    let (opening, closing) = (format!("<{element}>"), format!("</{element}>"));
    let (_, rest) = page.split_once(&opening).expect("the page has the element");
    rest.split_once(&closing).expect("the element ends").0
}

/// How the policy names a text that is allowed.
fn source(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_names_what_the_page_has() {
        // echo -n "x=1" | openssl dgst -sha256 -binary | base64
        let page = "<style>b</style><script>x=1</script>";
        assert_eq!(inside(page, "script"), "x=1");
        assert_eq!(source("x=1"), "sha256-HyBrEcI+KMwlDe1/wAmNOCOoRnpUNA8axOU1y4VEST8=");
        assert!(POLICY.contains("script-src 'sha256-") && !POLICY.contains("unsafe"));
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere_and_makes_no_markup_of_text() {
        // The name of a namespace is none that is asked for.
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
