//! Path patterns: `/a/{b}/c`, where `{b}` stands for one or more characters.
//!
//! As in 3.2 a parameter is greedy (the first takes as much as it can), may stand for slashes if the
//! channel says so, and may have literal text beside it in the same part (`/img-{id}.png`).  A slash at the
//! end matters.  Matching takes time in proportion to the path, whatever the pattern: no expression is
//! compiled and nothing is tried twice.
//!
//! **Rejected:** the `matchit` router, because its parameters end at the next slash unless they come
//! last; regular expressions, because a path's length times a pattern's parameters is enough.

use super::path::{NotUtf8, decode, to_text};

/// A parsed pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    names: Vec<Box<str>>,
    /// One piece for the whole path where parameters may hold slashes, else one for each part.
    pieces: Vec<Piece>,
    match_slash: bool,
}

/// Literal texts with one parameter between each two.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece(Vec<Box<[u8]>>);

impl Pattern {
    /// Parses the path of a channel.  `arapi` has checked its form; braces that are no parameter are
    /// literal text.  Fails if the literal text is not UTF-8 once it is percent-decoded.
    pub fn parse(written: &str, match_slash: bool) -> Result<Self, NotUtf8> {
        let mut names = Vec::new();
        let mut pieces = Vec::new();
        let parts: Vec<&str> =
            if match_slash { vec![written] } else { written.split('/').collect() };
        for part in parts {
            let mut literals = Vec::new();
            let mut rest = part;
            while let Some((before, after)) = rest.split_once('{') {
                let Some((name, tail)) = after.split_once('}') else { break };
                literals.push(decode(before)?.into());
                names.push(name.into());
                rest = tail;
            }
            literals.push(decode(rest)?.into());
            pieces.push(Piece(literals));
        }
        Ok(Self { names, pieces, match_slash })
    }

    /// The decoded path it stands for, if it has no parameters.
    pub fn exact(&self) -> Option<Vec<u8>> {
        let texts: Option<Vec<&[u8]>> = self
            .pieces
            .iter()
            .map(|piece| match piece.0.as_slice() {
                [only] => Some(&**only),
                _ => None,
            })
            .collect();
        Some(texts?.join(&b'/'))
    }

    /// The names of its parameters, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }

    /// Orders patterns: the one with the most literal text first, then the one with fewer parameters,
    /// then the one whose parameters hold no slashes.
    pub fn rank(&self) -> (std::cmp::Reverse<usize>, usize, bool) {
        let slashes = self.pieces.len() - 1;
        let literal: usize = self.pieces.iter().flat_map(|p| &p.0).map(|text| text.len()).sum();
        (std::cmp::Reverse(literal + slashes), self.names.len(), self.match_slash)
    }

    /// Matches a decoded path; gives the values of the parameters in order.
    pub fn matches(&self, path: &[u8]) -> Option<Vec<String>> {
        let mut found = Vec::new();
        if self.match_slash {
            self.pieces.first()?.find(path, &mut found)?;
        } else {
            let mut parts = path.split(|byte| *byte == b'/');
            for piece in &self.pieces {
                piece.find(parts.next()?, &mut found)?;
            }
            if parts.next().is_some() {
                return None;
            }
        }
        Some(found.into_iter().map(to_text).collect())
    }
}

impl Piece {
    /// Finds the texts of the parameters.
    ///
    /// The literals are sought from the right, each as far right as it goes: that leaves the most for
    /// the parameters further left, and if it leaves nothing for them, nothing would.
    fn find<'t>(&self, text: &'t [u8], found: &mut Vec<&'t [u8]>) -> Option<()> {
        let (first, further) = self.0.split_first()?;
        let Some((last, between)) = further.split_last() else {
            return (*text == **first).then_some(());
        };
        let mut open = text.strip_prefix(&**first)?.strip_suffix(&**last)?;
        let at = found.len();
        for literal in between.iter().rev() {
            let end = rightmost(open, literal)?;
            found.push(open.get(end + literal.len()..)?);
            open = open.get(..end)?;
        }
        if open.is_empty() {
            return None;
        }
        found.push(open);
        found.get_mut(at..)?.reverse();
        Some(())
    }
}

/// Where `literal` lies furthest right in `text` with at least one character behind it.
fn rightmost(text: &[u8], literal: &[u8]) -> Option<usize> {
    let starts_character = |byte: &u8| byte & 0xc0 != 0x80;
    let last = text.iter().rposition(starts_character)?;
    if literal.is_empty() {
        return Some(last);
    }
    text.get(..last)?.windows(literal.len()).rposition(|window| window == literal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, match_slash: bool, path: &str, expected: Option<&[&str]>) {
        let pattern = Pattern::parse(pattern, match_slash).unwrap();
        let found = pattern.matches(&decode(path).unwrap());
        let expected: Option<Vec<String>> =
            expected.map(|values| values.iter().map(|value| (*value).to_owned()).collect());
        assert_eq!(found, expected, "{pattern:?} {path}");
    }

    #[test]
    fn a_parameter_stands_for_one_or_more_characters() {
        for match_slash in [true, false] {
            check("/a/{b}/c", match_slash, "/a/1/c", Some(&["1"]));
            check("/a/{b}/c", match_slash, "/a//c", None);
            check("/a/{b}/c", match_slash, "/a/1/d", None);
            check("/a/{b}", match_slash, "/a/", None);
            check("/a/{b}", match_slash, "/a", None);
            check("/{a}-{b}.png", match_slash, "/x-y-z.png", Some(&["x-y", "z"]));
            check("/v{n}", match_slash, "/v12", Some(&["12"]));
            check("/{a}{b}", match_slash, "/żółw", Some(&["żół", "w"]));
            check("/{a}{b}", match_slash, "/x", None);
            check("/{a}", match_slash, "/%20", Some(&[" "]));
        }
    }

    #[test]
    fn a_parameter_holds_slashes_only_where_the_channel_says_so() {
        check("/a/{b}/c", true, "/a/1/2/c", Some(&["1/2"]));
        check("/a/{b}/c", false, "/a/1/2/c", None);
        check("/{a}/{b}", true, "/1/2/3", Some(&["1/2", "3"]));
        check("/{a}/{b}", false, "/1/2/3", None);
        check("/files/{path}", true, "/files/a/b/c.txt", Some(&["a/b/c.txt"]));
    }

    #[test]
    fn an_encoded_slash_stays_within_its_part() {
        check("/a/{b}/c", false, "/a/1%2F2/c", Some(&["1/2"]));
        check("/{a}/{b}", false, "/1%2F2/3", Some(&["1/2", "3"]));
        check("/{a}/{b}", true, "/1/2%2F3", Some(&["1", "2/3"]));
    }

    #[test]
    fn a_slash_at_the_end_matters() {
        for match_slash in [true, false] {
            check("/a/{b}", match_slash, "/a/1", Some(&["1"]));
            check("/a/{b}/", match_slash, "/a/1", None);
        }
        check("/a/{b}", false, "/a/1/", None);
        // Where slashes are admitted, the one at the end is part of the value.
        check("/a/{b}", true, "/a/1/", Some(&["1/"]));
    }

    #[test]
    fn the_first_parameter_takes_the_most() {
        check("/{a}/x/{b}", true, "/1/x/2/x/3", Some(&["1/x/2", "3"]));
        check("/{a}-{b}-{c}", false, "/1-2-3-4", Some(&["1-2", "3", "4"]));
        check("/{a}aa{b}", true, "/xaaa", Some(&["x", "a"]));
        check("/{a}aa{b}", true, "/xaa", None);
    }

    #[test]
    fn a_pattern_without_parameters_is_exact() {
        for match_slash in [true, false] {
            let exact = Pattern::parse("/a%20b/c", match_slash).unwrap().exact();
            assert_eq!(exact.as_deref(), Some(&b"/a b/c"[..]));
            assert_eq!(Pattern::parse("/a/{b}", match_slash).unwrap().exact(), None);
        }
    }

    #[test]
    fn the_most_literal_pattern_comes_first() {
        let rank = |text, slash| Pattern::parse(text, slash).unwrap().rank();
        assert!(rank("/a/{b}/c", true) < rank("/a/{b}", true));
        assert!(rank("/a/{b}", false) < rank("/a/{b}", true));
        assert!(rank("/ab/{c}", true) < rank("/{c}", false));
        assert!(rank("/a/{b}x", true) < rank("/a/{b}{c}x", true));
    }

    /// The plainest matcher there is: every way of splitting, the longest first.
    fn by_trying(literals: &[&str], text: &str, slash: bool) -> Option<Vec<String>> {
        let (first, further) = literals.split_first()?;
        let rest = text.strip_prefix(first)?;
        if further.is_empty() {
            return rest.is_empty().then(Vec::new);
        }
        let ends = (1..=rest.len()).rev().filter(|end| rest.is_char_boundary(*end));
        for end in ends {
            let (value, tail) = rest.split_at(end);
            if !slash && value.contains('/') {
                continue;
            }
            if let Some(mut values) = by_trying(further, tail, slash) {
                values.insert(0, value.to_owned());
                return Some(values);
            }
        }
        None
    }

    #[test]
    fn it_finds_what_trying_every_split_finds() {
        use rand::prelude::*;
        let mut random = StdRng::seed_from_u64(7);
        let text = |random: &mut StdRng, most: usize| -> String {
            let length = random.random_range(0..=most);
            (0..length).map(|_| *['a', 'b', '/', 'ż'].choose(random).unwrap()).collect()
        };
        let mut matched = 0;
        for _ in 0..20_000 {
            let count = random.random_range(2..=4);
            let literals: Vec<String> = (0..count).map(|_| text(&mut random, 2)).collect();
            let mut written = String::from("/");
            for (at, literal) in literals.iter().enumerate() {
                if at > 0 {
                    written.push_str(&format!("{{p{at}}}"));
                }
                written.push_str(literal);
            }
            let path = format!("/{}", text(&mut random, 9));
            let mut expected: Vec<&str> = literals.iter().map(String::as_str).collect();
            let first = format!("/{}", expected[0]);
            expected[0] = &first;
            for slash in [true, false] {
                let found = Pattern::parse(&written, slash).unwrap().matches(path.as_bytes());
                assert_eq!(found, by_trying(&expected, &path, slash), "{written} {path} {slash}");
                matched += usize::from(found.is_some());
            }
        }
        assert!(matched > 1000, "the test hardly matched anything: {matched}");
    }
}
