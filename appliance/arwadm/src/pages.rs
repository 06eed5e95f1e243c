//! The box's own pages: claiming it, and how it is.  Plain files in the program, served to anybody.
//!
//! A page holds nothing of the box; its script calls the same API as everybody else and may load nothing from
//! elsewhere.  Until the console takes their place these are the only pages.

use axum::Router;
use axum::response::IntoResponse;
use axum::routing::get;
use http::header;

/// What a page may do: its own script and style, calls to its own box.  No inline script, no frame, no other site.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Path, media type, text.
const FILES: &[(&str, &str, &str)] = &[
    ("/", "text/html; charset=utf-8", include_str!("pages/page.html")),
    ("/assets/page.css", "text/css; charset=utf-8", include_str!("pages/page.css")),
    ("/assets/page.js", "text/javascript; charset=utf-8", include_str!("pages/page.js")),
    ("/assets/icon.svg", "image/svg+xml", include_str!("pages/icon.svg")),
];

/// The routes of the pages.
pub(crate) fn router() -> Router {
    FILES.iter().fold(Router::new(), |router, (path, media, text)| {
        router.route(
            path,
            get(async || {
                let headers = [
                    (header::CONTENT_TYPE, *media),
                    (header::CONTENT_SECURITY_POLICY, POLICY),
                    // Always asked for again: after an update the old page would call the new API.
                    (header::CACHE_CONTROL, "no-cache"),
                ];
                (headers, *text).into_response()
            }),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_loads_its_own_files_alone_and_has_no_inline_script_or_style() {
        let (_, _, page) = FILES[0];
        let attribute = |name: &str| {
            let start = format!(" {name}=\"");
            page.split(&start).skip(1).filter_map(|rest| rest.split('"').next()).collect::<Vec<_>>()
        };
        for target in attribute("src").into_iter().chain(attribute("href")) {
            let is_own =
                target.starts_with('#') || FILES.iter().any(|(path, _, _)| *path == target);
            assert!(is_own, "{target}");
        }
        for inline in ["<style", "<script>", " style=\"", " onclick=\"", "javascript:"] {
            assert!(!page.contains(inline), "{inline}");
        }
        for (path, _, text) in FILES {
            let text = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains("http://") && !text.contains("https://"), "{path}");
            for writes_html in ["innerHTML", "insertAdjacentHTML", "document.write", "eval("] {
                assert!(!text.contains(writes_html), "{path}: {writes_html}");
            }
        }
    }

    #[test]
    fn every_field_has_a_label() {
        let (_, _, page) = FILES[0];
        let mut fields = 0;
        for tag in page.split("<input").skip(1).filter_map(|rest| rest.split('>').next()) {
            let id = tag.split(" id=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
            assert!(page.contains(&format!("<label for=\"{id}\"")), "{id}");
            fields += 1;
        }
        assert!(fields >= 8, "{fields}");
    }
}
