//! NTLM for calls out: the messages of MS-NLMP with NTLMv2, and connections that stay with who was let in.
//!
//! NTLM lets a connection in, not a request: the three messages and all that follows have to go over one.  So a
//! connection with NTLM has lanes of its own beside the usual pool, each with one request at a time.
//!
//! LM and NTLMv1 are not spoken, and messages are neither signed nor sealed: HTTP asks for neither.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, Mac as _};
use md4::{Digest as _, Md4};
use md5::Md5;

const SIGNATURE: &[u8; 8] = b"NTLMSSP\0";
const UNICODE: u32 = 0x0000_0001;
const REQUEST_TARGET: u32 = 0x0000_0004;
const NTLM: u32 = 0x0000_0200;
const ALWAYS_SIGN: u32 = 0x0000_8000;
const EXTENDED_SESSION_SECURITY: u32 = 0x0008_0000;
const TARGET_INFO: u32 = 0x0080_0000;
const VERSION: u32 = 0x0200_0000;
const KEY_128: u32 = 0x2000_0000;
const KEY_56: u32 = 0x8000_0000;

const AV_END: u16 = 0;
const AV_FLAGS: u16 = 6;
const AV_TIMESTAMP: u16 = 7;
/// In the flags: the message has an integrity code.
const HAS_MIC: u32 = 2;
/// Windows 10 and NTLM revision 15; servers pass over it.
const OWN_VERSION: [u8; 8] = [10, 0, 0, 0, 0, 0, 0, 15];
/// Where the integrity code stands in the third message, and where its payload begins.
const MIC_AT: usize = 72;
const PAYLOAD_AT: usize = 88;
/// Seconds from 1601 to 1970.
const EPOCHS: u64 = 11_644_473_600;

/// What is shown to the server.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The domain; may be empty.
    pub domain: String,
    /// The user's name.
    pub username: String,
    /// The password.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { domain, username, .. } = self;
        f.debug_struct("Credentials")
            .field("domain", domain)
            .field("username", username)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// From a name such as `CORP\anna` or `anna`.
    pub fn new(name: &str, password: &str) -> Self {
        let (domain, username) = name.split_once('\\').unwrap_or(("", name));
        Self {
            domain: domain.to_owned(),
            username: username.to_owned(),
            password: password.to_owned(),
        }
    }
}

/// Why a challenge cannot be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server's NTLM challenge is malformed")]
pub struct BadChallenge;

/// The server's challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    message: Vec<u8>,
    flags: u32,
    nonce: [u8; 8],
    target_info: Vec<u8>,
}

/// The first message.
pub fn negotiate() -> Vec<u8> {
    let mut message = SIGNATURE.to_vec();
    message.extend(1_u32.to_le_bytes());
    let flags = UNICODE
        | REQUEST_TARGET
        | NTLM
        | ALWAYS_SIGN
        | EXTENDED_SESSION_SECURITY
        | VERSION
        | KEY_128
        | KEY_56;
    message.extend(flags.to_le_bytes());
    // Neither domain nor workstation.
    message.extend([0; 16]);
    message.extend(OWN_VERSION);
    message
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

impl Challenge {
    /// Reads the second message.
    pub fn parse(message: &[u8]) -> Result<Self, BadChallenge> {
        let read = || {
            if message.get(..8)? != SIGNATURE || u32_at(message, 8)? != 2 {
                return None;
            }
            let flags = u32_at(message, 20)?;
            let nonce = message.get(24..32)?.try_into().ok()?;
            let mut target_info = Vec::new();
            if flags & TARGET_INFO != 0 {
                let length = usize::from(u16_at(message, 40)?);
                let at = usize::try_from(u32_at(message, 44)?).ok()?;
                target_info = message.get(at..at.checked_add(length)?)?.to_vec();
            }
            Some(Self { message: message.to_vec(), flags, nonce, target_info })
        };
        read().ok_or(BadChallenge)
    }

    /// Reads `WWW-Authenticate: NTLM …` or `Negotiate …`; None: it is another scheme or has no message.
    pub fn of_header(value: &[u8]) -> Option<Result<Self, BadChallenge>> {
        let text = std::str::from_utf8(value).ok()?.trim();
        let (scheme, message) = text.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("NTLM") {
            return None;
        }
        Some(
            BASE64_STANDARD
                .decode(message.trim())
                .map_err(|_| BadChallenge)
                .and_then(|m| Self::parse(&m)),
        )
    }

    fn pairs(&self) -> Vec<(u16, &[u8])> {
        let (mut pairs, mut at) = (Vec::new(), 0);
        while let (Some(id), Some(length)) =
            (u16_at(&self.target_info, at), u16_at(&self.target_info, at + 2))
        {
            let Some(value) = self.target_info.get(at + 4..at + 4 + usize::from(length)) else {
                break;
            };
            if id == AV_END {
                break;
            }
            pairs.push((id, value));
            at += 4 + usize::from(length);
        }
        pairs
    }

    /// The third message; `nonce` is random, `now` is used where the server tells no time.
    pub fn answer(
        &self,
        credentials: &Credentials,
        nonce: [u8; 8],
        now: SystemTime,
        negotiated: &[u8],
    ) -> Vec<u8> {
        let pairs = self.pairs();
        let server_time = pairs.iter().find(|(id, _)| *id == AV_TIMESTAMP).map(|(_, value)| *value);
        let own_time = file_time(now).to_le_bytes();
        let time = server_time.unwrap_or(&own_time);
        let mut info = Vec::new();
        let mut put = |id: u16, value: &[u8]| {
            info.extend(id.to_le_bytes());
            info.extend(u16::try_from(value.len()).unwrap_or(0).to_le_bytes());
            info.extend(value);
        };
        let mut flags_of_server = 0;
        for (id, value) in &pairs {
            if *id == AV_FLAGS {
                flags_of_server = u32_at(value, 0).unwrap_or(0);
            } else {
                put(*id, value);
            }
        }
        // A server that tells the time wants the code.
        let has_mic = server_time.is_some();
        if has_mic || flags_of_server != 0 {
            let mic = if has_mic { HAS_MIC } else { 0 };
            put(AV_FLAGS, &(flags_of_server | mic).to_le_bytes());
        }
        put(AV_END, &[]);
        let key = owf(credentials);
        let proof = Proof::new(&key, self.nonce, nonce, time, &info);
        let lm = if has_mic { vec![0; 24] } else { lm(&key, self.nonce, nonce) };
        let [domain, user] = [&credentials.domain, &credentials.username].map(|text| utf16(text));
        let mut message = SIGNATURE.to_vec();
        message.extend(3_u32.to_le_bytes());
        let mut at = PAYLOAD_AT;
        let mut payload: Vec<u8> = Vec::new();
        for part in [&lm, &proof.response, &domain, &user, &Vec::new(), &Vec::new()] {
            let length = u16::try_from(part.len()).unwrap_or(0).to_le_bytes();
            message.extend(length);
            message.extend(length);
            message.extend(u32::try_from(at).unwrap_or(0).to_le_bytes());
            payload.extend(part);
            at += part.len();
        }
        let wanted = UNICODE
            | REQUEST_TARGET
            | NTLM
            | ALWAYS_SIGN
            | EXTENDED_SESSION_SECURITY
            | TARGET_INFO
            | VERSION
            | KEY_128
            | KEY_56;
        message.extend((self.flags & wanted | UNICODE | NTLM).to_le_bytes());
        message.extend(OWN_VERSION);
        message.extend([0; 16]);
        message.extend(payload);
        if has_mic {
            let mic = hmac_md5(&proof.session_key, &[negotiated, &self.message, &message]);
            if let Some(place) = message.get_mut(MIC_AT..PAYLOAD_AT) {
                place.copy_from_slice(&mic);
            }
        }
        message
    }
}

/// Tenths of microseconds since 1601.
fn file_time(now: SystemTime) -> u64 {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default() + Duration::from_secs(EPOCHS);
    u64::try_from(since.as_nanos() / 100).unwrap_or(u64::MAX)
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn hmac_md5(key: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    // A key of any length will do (RFC 2104).
    let Ok(mut mac) = Hmac::<Md5>::new_from_slice(key) else { return [0; 16] };
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// `NTOWFv2` of MS-NLMP 3.3.2.
fn owf(credentials: &Credentials) -> [u8; 16] {
    let password = Md4::digest(utf16(&credentials.password));
    let user = utf16(&credentials.username.to_uppercase());
    hmac_md5(&password, &[&user, &utf16(&credentials.domain)])
}

fn lm(key: &[u8], server: [u8; 8], client: [u8; 8]) -> Vec<u8> {
    let mut response = hmac_md5(key, &[&server, &client]).to_vec();
    response.extend(client);
    response
}

struct Proof {
    response: Vec<u8>,
    session_key: [u8; 16],
}

impl Proof {
    fn new(key: &[u8], server: [u8; 8], client: [u8; 8], time: &[u8], info: &[u8]) -> Self {
        let mut temp = vec![1, 1, 0, 0, 0, 0, 0, 0];
        temp.extend(time);
        temp.extend(client);
        temp.extend([0; 4]);
        temp.extend(info);
        temp.extend([0; 4]);
        let proof = hmac_md5(key, &[&server, &temp]);
        let session_key = hmac_md5(key, &[&proof]);
        let mut response = proof.to_vec();
        response.extend(temp);
        Self { response, session_key }
    }
}

/// The lanes of one connection that are not in use.
#[derive(Debug)]
pub struct Lanes<L>(Mutex<Vec<L>>, usize);

impl<L> Lanes<L> {
    /// Keeps at most so many.
    pub fn new(most: usize) -> Self {
        Self(Mutex::default(), most)
    }

    /// One that was given back, the last first.
    pub fn take(&self) -> Option<L> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Gives one back.
    pub fn give_back(&self, lane: L) {
        let mut lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lanes.len() < self.1 {
            lanes.push(lane);
        }
    }
}

/// For fuzzing: any bytes as a challenge.
pub fn fuzz(bytes: &[u8]) {
    if let Ok(challenge) = Challenge::parse(bytes) {
        challenge.answer(&Credentials::new("D\\u", "p"), [0; 8], UNIX_EPOCH, &negotiate());
    }
    Challenge::of_header(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: [u8; 8] = [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef];
    const CLIENT: [u8; 8] = [0xaa; 8];

    fn credentials() -> Credentials {
        Credentials::new("Domain\\User", "Password")
    }

    /// The target info of MS-NLMP 4.2.4.
    fn target_info() -> Vec<u8> {
        let mut info = Vec::new();
        for (id, name) in [(2_u16, "Domain"), (1, "Server")] {
            info.extend(id.to_le_bytes());
            info.extend(12_u16.to_le_bytes());
            info.extend(utf16(name));
        }
        info.extend([0; 4]);
        info
    }

    #[test]
    fn the_test_vectors_of_ms_nlmp_4_2_4_are_met() {
        let key = owf(&credentials());
        assert_eq!(hex::encode(key), "0c868a403bfd7a93a3001ef22ef02e3f");
        assert_eq!(
            hex::encode(lm(&key, SERVER, CLIENT)),
            "86c35097ac9cec102554764a57cccc19aaaaaaaaaaaaaaaa"
        );
        let proof = Proof::new(&key, SERVER, CLIENT, &[0; 8], &target_info());
        assert_eq!(hex::encode(&proof.response[..16]), "68cd0ab851e51c96aabc927bebef6a1c");
        assert_eq!(hex::encode(proof.session_key), "8de40ccadbc14a82f15cb0ad0de95ca3");
    }

    fn challenge(info: &[u8]) -> Vec<u8> {
        let mut message = SIGNATURE.to_vec();
        message.extend(2_u32.to_le_bytes());
        message.extend([0; 8]);
        message.extend((UNICODE | NTLM | TARGET_INFO).to_le_bytes());
        message.extend(SERVER);
        message.extend([0; 8]);
        let length = u16::try_from(info.len()).unwrap().to_le_bytes();
        message.extend(length);
        message.extend(length);
        message.extend(48_u32.to_le_bytes());
        message.extend(info);
        message
    }

    #[test]
    fn the_third_message_has_its_parts_where_its_header_says() {
        let parsed = Challenge::parse(&challenge(&target_info())).unwrap();
        let message = parsed.answer(&credentials(), CLIENT, UNIX_EPOCH, &negotiate());
        let part = |at: usize| {
            let length = usize::from(u16_at(&message, at).unwrap());
            let start = usize::try_from(u32_at(&message, at + 4).unwrap()).unwrap();
            message[start..start + length].to_vec()
        };
        assert_eq!(u32_at(&message, 8), Some(3));
        assert_eq!(part(12).len(), 24);
        assert_eq!(part(20).len(), 16 + 28 + 36 + 4);
        assert_eq!(part(28), utf16("Domain"));
        assert_eq!(part(36), utf16("User"));
        // Without the server's time there is no integrity code.
        assert_eq!(message[MIC_AT..PAYLOAD_AT], [0; 16]);
        let mut info = vec![7, 0, 8, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        info.extend([0; 4]);
        let parsed = Challenge::parse(&challenge(&info)).unwrap();
        let message = parsed.answer(&credentials(), CLIENT, UNIX_EPOCH, &negotiate());
        assert_ne!(message[MIC_AT..PAYLOAD_AT], [0; 16]);
    }

    #[test]
    fn a_malformed_challenge_is_refused() {
        for length in 0..48 {
            let whole = challenge(&target_info());
            assert_eq!(Challenge::parse(&whole[..length]), Err(BadChallenge), "{length}");
        }
        let mut far = challenge(&target_info());
        far[44..48].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(Challenge::parse(&far), Err(BadChallenge));
        assert_eq!(Challenge::of_header(b"NTLM"), None);
        assert_eq!(Challenge::of_header(b"Basic abc"), None);
        assert_eq!(Challenge::of_header(b"NTLM ???"), Some(Err(BadChallenge)));
    }
}
