//! Answers that are kept, for those that ask the same again (RFC 9111, RFC 9110 section 13).
//!
//! Only answers to GET and HEAD without a body are kept, only those of status 200, and only where neither side says
//! that it should not be.  What makes a request the same is in its key: the channel and its service as they are
//! configured, the modules as they are deployed, method, path, query, the headers the channel names, and who asks,
//! unless the channel shares its answers.  So a change of any of these leaves the old answers behind.
//!
//! **Invariant:** the answers together take no more memory than they may; the one that was not asked for the longest
//! goes first.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arapi::names::{Kind, ObjectName};
use arapi::objects::{ChannelSpec, HttpMethod, ResponseCache};
use bytes::Bytes;
use http::header::{
    AGE, AUTHORIZATION, CACHE_CONTROL, CONTENT_LOCATION, COOKIE, ETAG, EXPIRES, HOST,
    IF_NONE_MATCH, PRAGMA, SET_COOKIE, VARY,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use sha2::{Digest as _, Sha256};

use super::answer::{Answer, Payload};
use crate::security::Passed;
use crate::security::certificate::HEADER as CLIENT_CERTIFICATE;
use crate::world::World;

/// What an entry takes beside its texts.
const OVERHEAD: usize = 512;
/// One answer may take this part of the memory.
const LARGEST_PART: usize = 8;

/// What tells requests apart that may share an answer.
type Key = [u8; 32];

/// What a channel keeps, ready for use.
#[derive(Debug)]
pub struct Keeping {
    ttl: Duration,
    is_shared: bool,
    is_open: bool,
    vary: Vec<HeaderName>,
    ignored: HashSet<String>,
    /// The channel and its service as they are configured now.
    stamp: Key,
}

impl Keeping {
    /// What a channel keeps, if it keeps anything.
    pub fn of(name: &ObjectName, revision: u64, spec: &ChannelSpec, world: &World) -> Option<Self> {
        let cache = spec.response_cache.as_ref().filter(|cache| cache.is_enabled)?;
        let ResponseCache {
            ttl,
            is_shared_across_callers,
            vary_by_headers,
            ignored_query_parameters,
            ..
        } = cache;
        let of = |kind, name| world.object(kind, name).map(|object| object.revision);
        let service = match (&spec.service, &spec.pass_through) {
            (_, Some(pass)) => of(Kind::Outgoing, &pass.outgoing),
            (Some(service), None) => of(Kind::Service, service),
            // Of a gateway it may be any.
            (None, None) => world.of_kind(Kind::Service).map(|object| object.revision).max(),
        };
        let mut stamp = Sha256::new();
        put(&mut stamp, name.as_str().as_bytes());
        stamp.update(revision.to_be_bytes());
        stamp.update(service.unwrap_or(0).to_be_bytes());
        Some(Self {
            ttl: Duration::from_secs(u64::from(*ttl)),
            is_shared: *is_shared_across_callers,
            is_open: spec.security.is_empty() && spec.security_groups.is_empty(),
            vary: vary_by_headers
                .iter()
                .filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok())
                .collect(),
            ignored: ignored_query_parameters.iter().cloned().collect(),
            stamp: stamp.finalize().into(),
        })
    }

    fn key(
        &self,
        generation: u64,
        method: HttpMethod,
        parts: &Parts,
        passed: Option<&Passed>,
    ) -> Key {
        let mut hash = Sha256::new();
        hash.update(self.stamp);
        hash.update(generation.to_be_bytes());
        put(&mut hash, method.as_str().as_bytes());
        put(&mut hash, parts.uri.path().as_bytes());
        let query = parts.uri.query().unwrap_or_default();
        for parameter in query.split('&').filter(|parameter| !self.is_ignored(parameter)) {
            put(&mut hash, parameter.as_bytes());
        }
        let headers = self.vary.iter().chain([&HOST]);
        let callers = [AUTHORIZATION, COOKIE, CLIENT_CERTIFICATE];
        // Not only the security: many may come by one, with tokens or certificates of their own.
        let callers = callers.iter().filter(|_| !self.is_shared);
        for name in headers.chain(callers) {
            put(&mut hash, name.as_str().as_bytes());
            for value in parts.headers.get_all(name) {
                put(&mut hash, value.as_bytes());
            }
        }
        if let Some(passed) = passed.filter(|_| !self.is_shared) {
            put(&mut hash, &passed.document);
        }
        hash.finalize().into()
    }

    fn is_ignored(&self, parameter: &str) -> bool {
        let name = parameter.split_once('=').map_or(parameter, |(name, _)| name);
        let name = percent_encoding::percent_decode_str(name).decode_utf8_lossy();
        self.ignored.contains(&*name)
    }

    /// How long an answer may be kept; None: not at all.
    fn time_for(&self, headers: &HeaderMap) -> Option<Duration> {
        if headers.contains_key(SET_COOKIE) {
            return None;
        }
        for value in headers.get_all(VARY) {
            for name in value.to_str().ok()?.split(',').map(str::trim) {
                let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
                if name != http::header::ACCEPT_ENCODING && !self.vary.contains(&name) {
                    return None;
                }
            }
        }
        let mut time = self.ttl;
        for (name, argument) in directives(headers) {
            match name {
                "no-store" | "no-cache" => return None,
                "private" if self.is_shared => return None,
                "max-age" | "s-maxage" => {
                    time = time.min(Duration::from_secs(argument.parse().unwrap_or(0)));
                }
                _ => {}
            }
        }
        (!time.is_zero()).then_some(time)
    }
}

/// Writes what cannot run into what comes next.
fn put(hash: &mut Sha256, bytes: &[u8]) {
    hash.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
    hash.update(bytes);
}

/// The directives of `Cache-Control`, each with its argument.
fn directives(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    let values = headers.get_all(CACHE_CONTROL).into_iter();
    values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(|one| {
        let (name, argument) = one.split_once('=').unwrap_or((one, ""));
        (name.trim(), argument.trim().trim_matches('"'))
    })
}

/// Every answer that is kept.
#[derive(Debug)]
pub struct Cache {
    most: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    kept: HashMap<Key, Kept>,
    /// The keys by when they were last asked for.
    order: BTreeMap<u64, Key>,
    bytes: usize,
    tick: u64,
}

#[derive(Debug)]
struct Kept {
    head: Arc<(HeaderMap, Instant)>,
    body: Bytes,
    stamp: Key,
    until: Instant,
    tick: u64,
    bytes: usize,
}

/// A request whose answer may be kept once it is there.
#[derive(Debug)]
pub struct Slot {
    key: Key,
    stores: bool,
}

/// What the cache has for a request.
#[derive(Debug)]
pub enum Found {
    /// The answer.
    Answer(Box<Answer>),
    /// Nothing yet.
    Nothing(Slot),
    /// The request is none whose answer is kept.
    NotForUs,
}

impl Cache {
    /// A cache that takes at most so many bytes.
    pub fn of(most: usize) -> Self {
        Self { most, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer to a request that may pass.  `generation` counts changes of what is deployed.
    pub fn find(
        &self,
        keeping: &Keeping,
        generation: u64,
        method: HttpMethod,
        parts: &Parts,
        passed: Option<&Passed>,
        has_body: bool,
    ) -> Found {
        if !matches!(method, HttpMethod::Get | HttpMethod::Head) || has_body {
            return Found::NotForUs;
        }
        let mut fresh = false;
        let mut stores = true;
        for (name, argument) in directives(&parts.headers) {
            match name {
                "no-cache" => fresh = true,
                "max-age" if argument == "0" => fresh = true,
                "no-store" => (fresh, stores) = (true, false),
                _ => {}
            }
        }
        let pragma = parts.headers.get(PRAGMA).is_some_and(|value| value == "no-cache");
        fresh |= pragma && !parts.headers.contains_key(CACHE_CONTROL);
        let key = keeping.key(generation, method, parts, passed);
        let now = Instant::now();
        match self.state().get(&key, now).filter(|_| !fresh) {
            Some((head, body)) => {
                let mut answer = Answer::new(Payload::from(body));
                *answer.headers_mut() = head.0.clone();
                let age = now.saturating_duration_since(head.1).as_secs();
                answer.headers_mut().insert(AGE, HeaderValue::from(age));
                Found::Answer(Box::new(answer))
            }
            None => Found::Nothing(Slot { key, stores }),
        }
    }

    /// Keeps a service's answer if it may be kept, and says in it for how long.
    pub fn keep(&self, keeping: &Keeping, slot: &Slot, answer: &mut Answer) {
        if answer.status() != StatusCode::OK {
            return;
        }
        let Some(body) = answer.body().whole() else { return };
        if !answer.headers().contains_key(ETAG) {
            let digest = Sha256::digest(&body);
            let tag = hex::encode(digest.get(..16).unwrap_or_default());
            if let Ok(tag) = HeaderValue::from_str(&format!("\"{tag}\"")) {
                answer.headers_mut().insert(ETAG, tag);
            }
        }
        let Some(time) = keeping.time_for(answer.headers()) else { return };
        let headers = answer.headers_mut();
        for name in &keeping.vary {
            headers.append(VARY, HeaderValue::from_name(name.clone()));
        }
        if !headers.contains_key(CACHE_CONTROL) {
            // What needs credentials is for nobody between us and whoever has them.
            let whose = if keeping.is_shared && keeping.is_open { "public" } else { "private" };
            let text = format!("{whose}, max-age={}", time.as_secs());
            if let Ok(text) = HeaderValue::from_str(&text) {
                headers.insert(CACHE_CONTROL, text);
            }
        }
        let texts: usize =
            headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        let bytes = body.len() + texts + OVERHEAD;
        if !slot.stores || bytes > self.most / LARGEST_PART {
            return;
        }
        let now = Instant::now();
        let kept = Kept {
            head: Arc::new((headers.clone(), now)),
            // A copy: what came from a worker may be a part of something larger.
            body: Bytes::copy_from_slice(&body),
            stamp: keeping.stamp,
            until: now + time,
            tick: 0,
            bytes,
        };
        self.state().put(slot.key, kept, self.most);
    }

    /// Lets go of the answers of channels that are no longer, or no longer what they were.
    pub fn leave<'k>(&self, keepings: impl Iterator<Item = &'k Keeping>) {
        let stamps: HashSet<Key> = keepings.map(|keeping| keeping.stamp).collect();
        let mut state = self.state();
        let gone: Vec<Key> = state
            .kept
            .iter()
            .filter(|(_, kept)| !stamps.contains(&kept.stamp))
            .map(|(key, _)| *key)
            .collect();
        for key in gone {
            state.remove(&key);
        }
    }

    /// How many answers there are, and what they take.
    pub fn figures(&self) -> (usize, usize) {
        let state = self.state();
        (state.kept.len(), state.bytes)
    }
}

impl State {
    fn get(&mut self, key: &Key, now: Instant) -> Option<(Arc<(HeaderMap, Instant)>, Bytes)> {
        let kept = self.kept.get_mut(key)?;
        if kept.until <= now {
            self.remove(key);
            return None;
        }
        self.tick += 1;
        self.order.remove(&kept.tick);
        self.order.insert(self.tick, *key);
        kept.tick = self.tick;
        Some((Arc::clone(&kept.head), kept.body.clone()))
    }

    fn put(&mut self, key: Key, mut kept: Kept, most: usize) {
        self.remove(&key);
        while self.bytes + kept.bytes > most {
            let Some((_, oldest)) = self.order.first_key_value() else { break };
            let oldest = *oldest;
            self.remove(&oldest);
        }
        self.tick += 1;
        kept.tick = self.tick;
        self.bytes += kept.bytes;
        self.order.insert(self.tick, key);
        self.kept.insert(key, kept);
    }

    fn remove(&mut self, key: &Key) {
        if let Some(kept) = self.kept.remove(key) {
            self.order.remove(&kept.tick);
            self.bytes -= kept.bytes;
        }
    }
}

/// 304 instead of an answer that the client has already (RFC 9110, section 13.1.2).
pub fn unless_known(method: HttpMethod, headers: &HeaderMap, mut answer: Answer) -> Answer {
    let is_read = matches!(method, HttpMethod::Get | HttpMethod::Head);
    if !is_read || answer.status() != StatusCode::OK {
        return answer;
    }
    let Some(tag) = answer.headers().get(ETAG).map(|tag| opaque(tag.as_bytes()).to_vec()) else {
        return answer;
    };
    let asked = headers.get_all(IF_NONE_MATCH).into_iter();
    let mut asked = asked.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let is_known = asked.any(|one| {
        let one = one.trim_ascii();
        one == b"*" || opaque(one) == tag.as_slice()
    });
    if is_known {
        let mut short = Answer::new(Payload::from(Bytes::new()));
        *short.status_mut() = StatusCode::NOT_MODIFIED;
        for name in [AGE, CACHE_CONTROL, CONTENT_LOCATION, ETAG, EXPIRES, VARY] {
            for value in answer.headers().get_all(&name) {
                short.headers_mut().append(name.clone(), value.clone());
            }
        }
        answer = short;
    }
    answer
}

/// A tag as it is compared here: whether it is weak makes no difference.
fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(bytes: usize, until: Instant) -> Kept {
        let head = Arc::new((HeaderMap::new(), Instant::now()));
        Kept { head, body: Bytes::new(), stamp: [0; 32], until, tick: 0, bytes }
    }

    #[test]
    fn what_was_not_asked_for_the_longest_goes_first() {
        let now = Instant::now();
        let later = now + Duration::from_secs(60);
        let mut state = State::default();
        for key in [1, 2, 3] {
            state.put([key; 32], kept(100, later), 300);
        }
        assert!(state.get(&[1; 32], now).is_some());
        state.put([4; 32], kept(100, later), 300);
        let there = [1, 2, 3, 4].map(|key| state.get(&[key; 32], now).is_some());
        assert_eq!(there, [true, false, true, true]);
        assert_eq!((state.bytes, state.order.len()), (300, 3));
        assert!(state.get(&[1; 32], later).is_none());
        assert_eq!((state.bytes, state.order.len()), (200, 2));
        state.put([3; 32], kept(300, later), 300);
        assert_eq!((state.bytes, state.order.len(), state.kept.len()), (300, 1, 1));
    }
}
