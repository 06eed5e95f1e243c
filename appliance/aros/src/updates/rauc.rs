//! RAUC over the system bus (`de.pengutronix.rauc.Installer`), and what its errors mean.

use std::collections::HashMap;

use zbus::{OwnedVariant, Variant};

/// RAUC's installer.
#[zbus::proxy(
    interface = "de.pengutronix.rauc.Installer",
    default_service = "de.pengutronix.rauc",
    default_path = "/"
)]
pub(crate) trait Installer {
    fn install_bundle(&self, source: &str, args: HashMap<&str, Variant<'_>>) -> zbus::Result<()>;
    fn inspect_bundle(
        &self,
        bundle: &str,
        args: HashMap<&str, Variant<'_>>,
    ) -> zbus::Result<HashMap<String, OwnedVariant>>;
    fn info(&self, bundle: &str) -> zbus::Result<(String, String)>;
    fn mark(&self, state: &str, slot: &str) -> zbus::Result<(String, String)>;
    fn get_slot_status(&self) -> zbus::Result<Vec<(String, HashMap<String, OwnedVariant>)>>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn last_error(&self) -> zbus::Result<String>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn progress(&self) -> zbus::Result<(i32, String, i32)>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn compatible(&self) -> zbus::Result<String>;
    #[zbus(signal)]
    fn completed(&self, result: i32) -> zbus::Result<()>;
}

/// What a bundle says of itself, once its signature has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bundle {
    /// What it is for.
    pub(crate) compatible: String,
    /// Its version.
    pub(crate) version: String,
    /// SHA-256 of its manifest, where RAUC says it: what is installed is then what was looked at.
    pub(crate) manifest_hash: Option<String>,
}

/// Checks a bundle's signature and reads what it is; the error is what RAUC said.
pub(crate) async fn inspect(
    rauc: &InstallerProxy<'_>,
    source: &str,
    args: HashMap<&str, Variant<'_>>,
) -> Result<Bundle, String> {
    let info = match rauc.inspect_bundle(source, args).await {
        Ok(info) => info,
        // RAUC before 1.9 knows an older call only.
        Err(err) if is_unknown_method(&err) => {
            let (compatible, version) = rauc.info(source).await.map_err(|err| said(&err))?;
            return Ok(Bundle { compatible, version, manifest_hash: None });
        }
        Err(err) => return Err(said(&err)),
    };
    let update = info.get("update").and_then(dictionary).unwrap_or_default();
    Ok(Bundle {
        compatible: update.get("compatible").and_then(text).unwrap_or_default(),
        version: update.get("version").and_then(text).unwrap_or_default(),
        manifest_hash: info.get("manifest-hash").and_then(text).filter(|hash| !hash.is_empty()),
    })
}

/// The words of an error that came over the bus.
pub(crate) fn said(err: &zbus::Error) -> String {
    match err {
        zbus::Error::MethodError(_, Some(text), _) => text.clone(),
        zbus::Error::MethodError(name, None, _) => name.to_string(),
        other => other.to_string(),
    }
}

fn is_unknown_method(err: &zbus::Error) -> bool {
    matches!(err, zbus::Error::MethodError(name, ..) if name.as_str() == "org.freedesktop.DBus.Error.UnknownMethod")
}

/// A value that may lie in a variant of its own.
pub(crate) fn text(value: &OwnedVariant) -> Option<String> {
    match inner(value) {
        Variant::Str(text) => Some(text.as_str().to_owned()),
        _ => None,
    }
}

fn dictionary(value: &OwnedVariant) -> Option<HashMap<String, OwnedVariant>> {
    match inner(value) {
        Variant::Dict(dict) => dict.try_clone().ok()?.try_into().ok(),
        _ => None,
    }
}

fn inner<'a>(value: &'a OwnedVariant) -> &'a Variant<'a> {
    let mut value: &Variant<'_> = value;
    while let Variant::Variant(boxed) = value {
        value = boxed;
    }
    value
}

/// Said for RAUC where it ended before the installation did: it reads the mapped bundle, and what cannot be read, as where
/// a line is lost for good, ends it.
pub(crate) const GONE: &str = "RAUC ended in the middle";

/// Known causes: words that RAUC (or what it calls) uses, and the sentence for an admin.
const CAUSES: &[(&[&str], &str)] = &[
    (
        &[
            "signature verification failed",
            "self-signed",
            "self signed",
            "unable to get local issuer",
            "unable to get issuer",
            "signature size",
            "no signature",
            "certificate",
            "is not a valid",
        ],
        "the bundle is not signed by a key that this image trusts; take one from where the image came from",
    ),
    (
        &["no space left", "slot image too large", "larger than", "exceeds", "too big"],
        "the bundle does not fit: its image is larger than the slot, or the disk is full",
    ),
    (
        &["does not match system compatible", "compatible mismatch", "incompatible"],
        "the bundle is for another kind of box",
    ),
    (
        &[
            "invalid squashfs",
            "squashfs",
            "verity",
            "hash mismatch",
            "checksum",
            "input/output error",
            "corrupt",
            "invalid bundle",
            "manifest",
            "i/o error",
            "failed to mount",
            "mount",
        ],
        "the bundle is damaged; fetch it again",
    ),
    (
        &["server", "http", "download", "resolve", "connect", "curl", "nbd", "stream"],
        "the bundle cannot be fetched; check the address, that the other side serves range requests, and, with https, that its certificate names it and is signed by an authority that the box knows",
    ),
    (&["no such file"], "there is no such bundle"),
    (
        &["rauc ended in the middle"],
        "the installation broke off, because the bundle could not be read or the slot not be written; nothing was changed that starts, try again",
    ),
    (
        &["already processing", "already installing"],
        "RAUC is at work for another installation; wait for its end",
    ),
];

/// One sentence for an admin, with RAUC's own words behind it.
pub(crate) fn sentence(said: &str) -> String {
    let said = super::program::last_words(said);
    let plain = said.to_ascii_lowercase();
    let known = CAUSES
        .iter()
        .find(|(words, _)| words.iter().any(|word| plain.contains(word)))
        .map(|(_, sentence)| *sentence);
    match known {
        Some(sentence) => format!("{sentence} ({said})"),
        None => format!("RAUC refuses the bundle: {said}"),
    }
}

/// The same for a bundle that is streamed, where what cannot be read may be lost as well as damaged.
pub(crate) fn streamed_sentence(said: &str) -> String {
    let plain = said.to_ascii_lowercase();
    if ["input/output error", "i/o error", "rauc ended in the middle"]
        .iter()
        .any(|word| plain.contains(word))
    {
        let said = super::program::last_words(said);
        return format!(
            "the bundle could not be read: the connection broke off, or the bundle is damaged; nothing was changed that starts, try again ({said})"
        );
    }
    sentence(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_that_an_admin_can_do_something_about_are_one_sentence() {
        assert_eq!(
            sentence("signature verification failed: unable to get local issuer certificate"),
            "the bundle is not signed by a key that this image trusts; take one from where the image came from (signature verification failed: unable to get local issuer certificate)"
        );
        assert_eq!(
            sentence("Failed updating slot rootfs.1: Slot image too large"),
            "the bundle does not fit: its image is larger than the slot, or the disk is full (Failed updating slot rootfs.1: Slot image too large)"
        );
        assert_eq!(
            streamed_sentence("Failed updating slot rootfs.1: Input/output error"),
            "the bundle could not be read: the connection broke off, or the bundle is damaged; nothing was changed that starts, try again (Failed updating slot rootfs.1: Input/output error)"
        );
        assert_eq!(
            streamed_sentence(GONE),
            "the bundle could not be read: the connection broke off, or the bundle is damaged; nothing was changed that starts, try again (RAUC ended in the middle)"
        );
        assert_eq!(
            sentence(GONE),
            "the installation broke off, because the bundle could not be read or the slot not be written; nothing was changed that starts, try again (RAUC ended in the middle)"
        );
        assert_eq!(streamed_sentence("who knows"), "RAUC refuses the bundle: who knows");
        assert_eq!(sentence("who knows"), "RAUC refuses the bundle: who knows");
    }
}
