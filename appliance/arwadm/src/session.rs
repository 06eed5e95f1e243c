//! Log-ins of browsers: a token in a cookie that no script can read, and a second secret that only our own page knows.
//!
//! The token is one like any other, so it ends, is listed and is revoked like any other.  The cookie is sent by the
//! browser whoever asks it to; a change is therefore only taken with `X-ARINT-CSRF` as well, which is made from the
//! token and given to the page that logged in.  Another site can neither read it nor send it.

use arapi::arwadm::{LoginRequest, SessionAnswer};
use arapi::error::ErrorCode;
use arbase::http::{Answer, ApiError, Body};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::{HeaderMap, HeaderValue, header};
use subtle::ConstantTimeEq as _;

use crate::gate::Caller;
use crate::server::App;
use crate::tokens::sha256_hex;

/// The cookie over TLS: the prefix makes browsers take it only from this host, whole, and over TLS.
const COOKIE: &str = "__Host-arint";
/// The cookie on a developer's machine, where there is no TLS.
const PLAIN_COOKIE: &str = "arint";
/// The header with the second secret.
const CSRF_HEADER: &str = "x-arint-csrf";

/// The token of a browser's log-in, if the request has one.
pub(crate) fn token_of(headers: &HeaderMap, is_tls: bool) -> Option<String> {
    let name = if is_tls { COOKIE } else { PLAIN_COOKIE };
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, token)| token.to_owned())
}

/// The second secret of a token.
fn csrf_of(token: &str) -> String {
    sha256_hex(format!("csrf of {token}").as_bytes())
}

/// Refuses a change that a browser was made to send by another site.
pub(crate) fn check_origin(headers: &HeaderMap, token: Option<&str>) -> Result<(), ApiError> {
    let forbidden = |message: &str| Err(ApiError::new(ErrorCode::Forbidden, message));
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    if site.is_some_and(|site| !matches!(site, b"same-origin" | b"none")) {
        return forbidden("this call comes from a page of another site; open the box's own page");
    }
    let Some(token) = token else { return Ok(()) };
    let given = headers.get(CSRF_HEADER).map_or(&b""[..], HeaderValue::as_bytes);
    if !bool::from(given.ct_eq(csrf_of(token).as_bytes())) {
        return forbidden(
            "`X-ARINT-CSRF` is missing or wrong: a change with a browser's log-in needs the value of `GET /v1/session`",
        );
    }
    Ok(())
}

fn cookie(token: &str, max_age_s: u64, is_tls: bool) -> Result<HeaderValue, ApiError> {
    let (name, secure) = if is_tls { (COOKIE, "; Secure") } else { (PLAIN_COOKIE, "") };
    let text =
        format!("{name}={token}; Path=/; HttpOnly; SameSite=Strict; Max-Age={max_age_s}{secure}");
    HeaderValue::from_str(&text).map_err(|err| ApiError::internal("make a cookie", &err))
}

/// `POST /v1/session`.
pub(crate) async fn open(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<LoginRequest>,
) -> Result<Response, ApiError> {
    let user = request.user.clone();
    let given = app.login(&caller, request).await?;
    let answer = SessionAnswer {
        permissions: app.permissions(&user).await,
        user,
        csrf: csrf_of(&given.token),
    };
    let cookie = cookie(&given.token, app.config.login_ttl_s, app.is_tls())?;
    Ok(([(header::SET_COOKIE, cookie)], Json(answer)).into_response())
}

/// `GET /v1/session`: `null` where nobody is logged in, so that a page can ask.
pub(crate) async fn show(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Answer<Option<SessionAnswer>> {
    let token = token_of(&headers, app.is_tls());
    let (Some(user), Some(token), true) = (caller.user, token, caller.is_browser) else {
        return Ok(Json(None));
    };
    Ok(Json(Some(SessionAnswer {
        user: user.to_string(),
        permissions: caller.permissions.into_iter().collect(),
        csrf: csrf_of(&token),
    })))
}

/// `DELETE /v1/session`.
pub(crate) async fn close(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, ApiError> {
    caller.person()?;
    let done = app.log_out(&caller).await?;
    let cookie = cookie("", 0, app.is_tls())?;
    Ok(([(header::SET_COOKIE, cookie)], Json(done)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn the_cookie_is_for_this_host_alone_and_no_script() {
        assert_eq!(
            cookie("arint_x", 60, true).unwrap(),
            "__Host-arint=arint_x; Path=/; HttpOnly; SameSite=Strict; Max-Age=60; Secure"
        );
        let sent = headers(&[("cookie", "a=b; __Host-arint=arint_x")]);
        assert_eq!(token_of(&sent, true).as_deref(), Some("arint_x"));
        // A cookie that plain HTTP may have set does not count over TLS.
        assert_eq!(token_of(&headers(&[("cookie", "arint=arint_x")]), true), None);
        assert_eq!(token_of(&headers(&[]), true), None);
    }

    #[test]
    fn a_change_with_a_cookie_needs_what_only_our_page_knows() {
        let refused = |sent: &[(&'static str, &str)], token| {
            check_origin(&headers(sent), token).map_err(|err| err.message().to_owned())
        };
        let csrf = csrf_of("arint_x");
        assert_eq!(refused(&[("x-arint-csrf", &csrf)], Some("arint_x")), Ok(()));
        assert_eq!(refused(&[], None), Ok(()));
        assert!(refused(&[("x-arint-csrf", &csrf_of("arint_y"))], Some("arint_x")).is_err());
        assert_eq!(
            refused(&[], Some("arint_x")).unwrap_err(),
            "`X-ARINT-CSRF` is missing or wrong: a change with a browser's log-in needs the value of `GET /v1/session`"
        );
    }

    #[test]
    fn a_page_of_another_site_changes_nothing_even_without_a_cookie() {
        for site in ["cross-site", "same-site"] {
            let refused = check_origin(&headers(&[("sec-fetch-site", site)]), None).unwrap_err();
            assert_eq!(
                refused.message(),
                "this call comes from a page of another site; open the box's own page"
            );
        }
        for site in ["same-origin", "none"] {
            assert!(check_origin(&headers(&[("sec-fetch-site", site)]), None).is_ok());
        }
    }
}
