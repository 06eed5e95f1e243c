//! The `Accept` header (RFC 9110, section 12.5.1) against what a channel answers in.

use http::HeaderMap;
use http::header::ACCEPT;

/// What a channel answers in: a media type, `type/*`, or `*/*`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MediaRange {
    main: Box<str>,
    sub: Box<str>,
}

/// How much a client wants something: 0 (not at all) to 1000.
pub type Quality = u16;

impl MediaRange {
    /// Parses a media type; parameters are passed over.  None if it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let (main, sub) = split(text.split(';').next()?)?;
        Some(Self { main: main.to_ascii_lowercase().into(), sub: sub.to_ascii_lowercase().into() })
    }

    /// How much the client wants this.  No `Accept` at all admits everything.
    ///
    /// The most specific range that fits decides, so `application/json;q=0, */*` refuses JSON.
    /// Ranges that are none are passed over.
    pub fn quality(&self, headers: &HeaderMap) -> Quality {
        let mut best: Option<(u8, Quality)> = None;
        let mut any = false;
        for value in headers.get_all(ACCEPT) {
            any = true;
            // A header that is not ASCII names no media type.
            for range in value.to_str().unwrap_or_default().split(',') {
                let mut parts = range.split(';');
                let Some((main, sub)) = parts.next().and_then(split) else { continue };
                let Some(specific) = self.fits(main, sub) else { continue };
                let quality = parts
                    .find_map(|part| {
                        let (name, value) = part.split_once('=')?;
                        name.trim().eq_ignore_ascii_case("q").then(|| parse_quality(value.trim()))
                    })
                    .unwrap_or(1000);
                let better = match best {
                    None => true,
                    Some((so_far, sofar_quality)) => {
                        specific > so_far || specific == so_far && quality > sofar_quality
                    }
                };
                if better {
                    best = Some((specific, quality));
                }
            }
        }
        match best {
            Some((_, quality)) => quality,
            None if any => 0,
            None => 1000,
        }
    }

    /// How specific a range of the client's is, if it fits.
    fn fits(&self, main: &str, sub: &str) -> Option<u8> {
        let fits = |ours: &str, theirs: &str| {
            theirs == "*" || ours == "*" || ours.eq_ignore_ascii_case(theirs)
        };
        (fits(&self.main, main) && fits(&self.sub, sub))
            .then(|| u8::from(main != "*") + u8::from(sub != "*"))
    }
}

impl std::fmt::Display for MediaRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.main, self.sub)
    }
}

fn split(text: &str) -> Option<(&str, &str)> {
    let (main, sub) = text.trim().split_once('/')?;
    (!main.is_empty() && !sub.is_empty()).then_some((main, sub))
}

/// `0.5` as 500.  What is no quality counts as 1, as browsers and servers have it.
fn parse_quality(text: &str) -> Quality {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if !part.bytes().all(|b| b.is_ascii_digit()) || part.len() > 3 {
        return 1000;
    }
    match whole {
        "0" => {
            let thousandths = part.bytes().map(|digit| Quality::from(digit - b'0'));
            thousandths.zip([100, 10, 1]).map(|(digit, weight)| digit * weight).sum()
        }
        _ => 1000,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[track_caller]
    fn check(channel: &str, accept: &[&'static str], expected: Quality) {
        let mut headers = HeaderMap::new();
        for value in accept {
            headers.append(ACCEPT, HeaderValue::from_static(value));
        }
        let quality = MediaRange::parse(channel).unwrap().quality(&headers);
        assert_eq!(quality, expected, "{channel} {accept:?}");
    }

    #[test]
    fn a_client_that_says_nothing_takes_everything() {
        check("application/json", &[], 1000);
    }

    #[test]
    fn wildcards_fit_on_both_sides() {
        check("application/json", &["*/*"], 1000);
        check("application/json", &["application/*"], 1000);
        check("application/json", &["text/*"], 0);
        check("application/*", &["application/xml"], 1000);
        check("*/*", &["image/png"], 1000);
        check("application/json", &["text/html, APPLICATION/JSON; charset=utf-8"], 1000);
        check("application/json", &["text/html", "application/json;q=0.5"], 500);
    }

    #[test]
    fn the_most_specific_range_decides() {
        check("application/json", &["*/*, application/json;q=0"], 0);
        check("application/json", &["*/*;q=0, application/json"], 1000);
        check("application/json", &["application/*;q=0.3, */*"], 300);
        check("text/html", &["application/json;q=0, */*;q=0.1"], 100);
    }

    #[test]
    fn what_is_no_range_is_passed_over() {
        check("application/json", &["json, application/json;q=x"], 1000);
        check("application/json", &["nonsense"], 0);
        check("application/json", &[""], 0);
    }

    #[test]
    fn qualities_are_thousandths() {
        for (text, expected) in [
            ("1", 1000),
            ("0", 0),
            ("0.", 0),
            ("0.5", 500),
            ("0.05", 50),
            ("0.001", 1),
            ("1.000", 1000),
        ] {
            assert_eq!(parse_quality(text), expected, "{text}");
        }
    }
}
