//! Versioned documents.

use arstore::{DocumentError, Migrate, Oldest, decode, encode};
use serde::{Deserialize, Serialize};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct V1 {
    rate: u32,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct V2 {
    litres_per_hour: u32,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct V3 {
    millilitres_per_hour: u32,
    #[serde(default)]
    added_later: Option<String>,
}

impl Migrate for V1 {
    type Previous = Oldest;
    const VERSION: u32 = 1;
    fn migrate(previous: Oldest) -> Self {
        match previous {}
    }
}

impl Migrate for V2 {
    type Previous = V1;
    const VERSION: u32 = 2;
    fn migrate(previous: V1) -> Self {
        Self { litres_per_hour: previous.rate }
    }
}

impl Migrate for V3 {
    type Previous = V2;
    const VERSION: u32 = 3;
    fn migrate(previous: V2) -> Self {
        Self { millilitres_per_hour: previous.litres_per_hour * 1000, added_later: None }
    }
}

#[test]
fn a_document_of_any_earlier_version_is_read_as_the_newest() {
    let newest = V3 { millilitres_per_hour: 7000, added_later: None };
    for old in [
        encode(&V1 { rate: 7 }).unwrap(),
        encode(&V2 { litres_per_hour: 7 }).unwrap(),
        encode(&newest).unwrap(),
        r#"{"v":3,"d":{"millilitres_per_hour":7000}}"#.to_owned(),
    ] {
        assert_eq!(decode::<V3>(old.as_bytes()).unwrap(), newest, "{old}");
    }
    assert_eq!(encode(&V1 { rate: 7 }).unwrap(), r#"{"v":1,"d":{"rate":7}}"#);
}

#[test]
fn a_document_that_cannot_be_read_is_refused_with_its_version() {
    let refused = |text: &str| decode::<V2>(text.as_bytes()).unwrap_err().to_string();
    assert_eq!(
        refused(r#"{"v":3,"d":{}}"#),
        "the document has version 3 and this release knows up to 2: a newer release has written it"
    );
    assert_eq!(refused(r#"{"v":0,"d":{}}"#), "the document has version 0, which never existed");
    assert_eq!(refused(r#"{"v":1,"d":{}}"#), "the document is not of version 1");
    assert_eq!(refused(r#"{"d":{}}"#), "what is stored is no versioned document");
}

#[test]
fn no_bytes_make_the_reading_of_a_document_panic() {
    // A small generator of its own: the same bytes at every run.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let whole = encode(&V3 { millilitres_per_hour: 1, added_later: Some("é".into()) }).unwrap();
    for _ in 0..20_000 {
        let mut bytes = whole.clone().into_bytes();
        for _ in 0..next() % 4 {
            let at = usize::try_from(next()).unwrap() % bytes.len();
            bytes[at] = next().to_le_bytes()[0];
        }
        bytes.truncate(usize::try_from(next()).unwrap() % (bytes.len() + 1));
        if let Ok(read) = decode::<V3>(&bytes) {
            let again = encode(&read).unwrap();
            assert_eq!(decode::<V3>(again.as_bytes()).unwrap(), read);
        }
    }
}

#[test]
fn the_error_of_a_document_is_a_value_to_match_on() {
    assert!(matches!(decode::<V1>(b"[]"), Err(DocumentError::Envelope { .. })));
    assert!(matches!(
        decode::<V1>(br#"{"v":9,"d":1}"#),
        Err(DocumentError::Newer { found: 9, known: 1 })
    ));
}
