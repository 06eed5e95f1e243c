//! Lua's text patterns with a limit on the work they cause.
//!
//! Lua's own matcher cannot be stopped, and a short pattern can keep it busy for years.  This one
//! asks now and then whether it may go on.

/// Steps between two questions whether to go on.
const STEPS: u32 = 4096;
/// Deepest nesting of choices.
const DEPTH: usize = 180;
/// Most captures, as in Lua.
const CAPTURES: usize = 32;

/// Why a pattern does not come to an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum PatternError {
    #[error("malformed pattern (ends with '%')")]
    EndsWithEscape,
    #[error("malformed pattern (missing ']')")]
    OpenSet,
    #[error("missing arguments to '%b'")]
    Balance,
    #[error("missing '[' after '%f' in pattern")]
    Frontier,
    #[error("unfinished capture")]
    OpenCapture,
    #[error("invalid pattern capture")]
    NoCapture,
    #[error("invalid capture index")]
    CaptureIndex,
    #[error("too many captures")]
    Captures,
    #[error("pattern too complex")]
    Depth,
    #[error("the script ran too long")]
    Time,
}

/// A part of the text that a pattern has caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Capture {
    Open(usize),
    Text(usize, usize),
    Position(usize),
}

/// Where a pattern fits, from and to, and what it has caught.
pub(super) type Found = (usize, usize, Vec<Capture>);

struct Matcher<'a> {
    text: &'a [u8],
    pattern: &'a [u8],
    captures: Vec<Capture>,
    depth: usize,
    steps: u32,
    goes_on: &'a dyn Fn() -> bool,
}

/// The first place from `start` on where `pattern` fits, or with `only_here` only `start`.
pub(super) fn find(
    text: &[u8],
    pattern: &[u8],
    start: usize,
    only_here: bool,
    goes_on: &dyn Fn() -> bool,
) -> Result<Option<Found>, PatternError> {
    let mut matcher = Matcher { text, pattern, captures: Vec::new(), depth: 0, steps: 0, goes_on };
    for from in start..=text.len() {
        matcher.captures.clear();
        if let Some(to) = matcher.fits(from, 0)? {
            if matcher.captures.iter().any(|capture| matches!(capture, Capture::Open(_))) {
                return Err(PatternError::OpenCapture);
            }
            return Ok(Some((from, to, matcher.captures)));
        }
        if only_here {
            break;
        }
    }
    Ok(None)
}

impl Matcher<'_> {
    fn step(&mut self) -> Result<(), PatternError> {
        self.steps += 1;
        if self.steps >= STEPS {
            self.steps = 0;
            if !(self.goes_on)() {
                return Err(PatternError::Time);
            }
        }
        Ok(())
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.text.get(at).copied()
    }

    fn pattern_at(&self, at: usize) -> &[u8] {
        self.pattern.get(at..).unwrap_or_default()
    }

    /// Where the text ends that the pattern from `at` on fits, beginning at `from`.
    fn fits(&mut self, from: usize, at: usize) -> Result<Option<usize>, PatternError> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(PatternError::Depth);
        }
        let end = self.fits_here(from, at);
        self.depth -= 1;
        end
    }

    fn fits_here(&mut self, mut from: usize, mut at: usize) -> Result<Option<usize>, PatternError> {
        loop {
            self.step()?;
            match *self.pattern_at(at) {
                [] => return Ok(Some(from)),
                [b'$'] => return Ok((from == self.text.len()).then_some(from)),
                [b'(', b')', ..] => return self.capture(Capture::Position(from), from, at + 2),
                [b'(', ..] => return self.capture(Capture::Open(from), from, at + 1),
                [b')', ..] => return self.close(from, at + 1),
                [b'%', b'b', open, close, ..] => match self.balanced(from, open, close)? {
                    Some(end) => (from, at) = (end, at + 4),
                    None => return Ok(None),
                },
                [b'%', b'b', ..] => return Err(PatternError::Balance),
                [b'%', b'f', ..] => {
                    let set = at + 2;
                    if self.pattern.get(set) != Some(&b'[') {
                        return Err(PatternError::Frontier);
                    }
                    let end = self.item_end(set)?;
                    let before = from.checked_sub(1).and_then(|at| self.byte(at)).unwrap_or(0);
                    let next = self.byte(from).unwrap_or(0);
                    if self.is_in(set, end, before) || !self.is_in(set, end, next) {
                        return Ok(None);
                    }
                    at = end;
                }
                [b'%', digit @ b'0'..=b'9', ..] => {
                    let caught = self.caught(digit)?;
                    let end = from + caught.len();
                    let same = self.text.get(from..end) == Some(caught);
                    if !same {
                        return Ok(None);
                    }
                    (from, at) = (end, at + 2);
                }
                [..] => {
                    let end = self.item_end(at)?;
                    match self.pattern.get(end) {
                        Some(b'?') => {
                            if self.item_fits(at, end, from)
                                && let Some(found) = self.fits(from + 1, end + 1)?
                            {
                                return Ok(Some(found));
                            }
                            at = end + 1;
                        }
                        Some(b'*') => return self.many(from, at, end, 0),
                        Some(b'+') => return self.many(from, at, end, 1),
                        Some(b'-') => return self.few(from, at, end),
                        _ => {
                            if !self.item_fits(at, end, from) {
                                return Ok(None);
                            }
                            (from, at) = (from + 1, end);
                        }
                    }
                }
            }
        }
    }

    /// As many as fit, and then fewer.
    fn many(
        &mut self,
        from: usize,
        at: usize,
        end: usize,
        least: usize,
    ) -> Result<Option<usize>, PatternError> {
        let mut count = 0;
        while self.item_fits(at, end, from + count) {
            self.step()?;
            count += 1;
        }
        while count >= least {
            if let Some(found) = self.fits(from + count, end + 1)? {
                return Ok(Some(found));
            }
            let Some(fewer) = count.checked_sub(1) else { break };
            count = fewer;
        }
        Ok(None)
    }

    /// As few as do, and then more.
    fn few(
        &mut self,
        mut from: usize,
        at: usize,
        end: usize,
    ) -> Result<Option<usize>, PatternError> {
        loop {
            if let Some(found) = self.fits(from, end + 1)? {
                return Ok(Some(found));
            }
            if !self.item_fits(at, end, from) {
                return Ok(None);
            }
            from += 1;
        }
    }

    fn capture(
        &mut self,
        capture: Capture,
        from: usize,
        at: usize,
    ) -> Result<Option<usize>, PatternError> {
        if self.captures.len() >= CAPTURES {
            return Err(PatternError::Captures);
        }
        let count = self.captures.len();
        self.captures.push(capture);
        let found = self.fits(from, at)?;
        if found.is_none() {
            self.captures.truncate(count);
        }
        Ok(found)
    }

    fn close(&mut self, from: usize, at: usize) -> Result<Option<usize>, PatternError> {
        let open = self.captures.iter().rposition(|c| matches!(c, Capture::Open(_)));
        let index = open.ok_or(PatternError::NoCapture)?;
        let Some(place) = self.captures.get_mut(index) else { return Ok(None) };
        let Capture::Open(start) = *place else { return Ok(None) };
        *place = Capture::Text(start, from);
        let found = self.fits(from, at)?;
        if found.is_none()
            && let Some(place) = self.captures.get_mut(index)
        {
            *place = Capture::Open(start);
        }
        Ok(found)
    }

    fn caught(&self, digit: u8) -> Result<&[u8], PatternError> {
        let index = usize::from(digit - b'0').checked_sub(1).ok_or(PatternError::CaptureIndex)?;
        match self.captures.get(index) {
            Some(Capture::Text(from, to)) => Ok(self.text.get(*from..*to).unwrap_or_default()),
            Some(Capture::Position(_)) => Ok(&[]),
            Some(Capture::Open(_)) | None => Err(PatternError::CaptureIndex),
        }
    }

    fn balanced(
        &mut self,
        from: usize,
        open: u8,
        close: u8,
    ) -> Result<Option<usize>, PatternError> {
        if self.byte(from) != Some(open) {
            return Ok(None);
        }
        let mut level = 1_usize;
        let mut at = from + 1;
        while let Some(byte) = self.byte(at) {
            self.step()?;
            if byte == close {
                level -= 1;
                if level == 0 {
                    return Ok(Some(at + 1));
                }
            } else if byte == open {
                level += 1;
            }
            at += 1;
        }
        Ok(None)
    }

    /// Where the single item at `at` ends: a byte, a class or a set.
    fn item_end(&self, at: usize) -> Result<usize, PatternError> {
        match *self.pattern_at(at) {
            [b'%', _, ..] => Ok(at + 2),
            [b'%'] => Err(PatternError::EndsWithEscape),
            [b'[', ..] => {
                let mut end = at + 1;
                if self.pattern.get(end) == Some(&b'^') {
                    end += 1;
                }
                // A bracket right at the start is one of the set.
                loop {
                    match self.pattern.get(end) {
                        None => return Err(PatternError::OpenSet),
                        Some(b'%') => end += 2,
                        Some(_) => end += 1,
                    }
                    if self.pattern.get(end) == Some(&b']') {
                        return Ok(end + 1);
                    }
                }
            }
            _ => Ok(at + 1),
        }
    }

    fn item_fits(&self, at: usize, end: usize, from: usize) -> bool {
        let Some(byte) = self.byte(from) else { return false };
        match *self.pattern_at(at) {
            [b'.', ..] => true,
            [b'%', class, ..] => is_class(byte, class),
            [b'[', ..] => self.is_in(at, end, byte),
            [literal, ..] => literal == byte,
            [] => false,
        }
    }

    /// Whether the set from `at` to `end` has this byte.
    fn is_in(&self, at: usize, end: usize, byte: u8) -> bool {
        let mut rest = self.pattern.get(at + 1..end - 1).unwrap_or_default();
        let mut negated = false;
        if let [b'^', after @ ..] = rest {
            (negated, rest) = (true, after);
        }
        let mut found = false;
        while !rest.is_empty() {
            rest = match rest {
                [b'%', class, after @ ..] => {
                    found |= is_class(byte, *class);
                    after
                }
                [low, b'-', high, after @ ..] => {
                    found |= (*low..=*high).contains(&byte);
                    after
                }
                [literal, after @ ..] => {
                    found |= *literal == byte;
                    after
                }
                [] => break,
            };
        }
        found != negated
    }
}

fn is_class(byte: u8, class: u8) -> bool {
    let fits = match class.to_ascii_lowercase() {
        b'a' => byte.is_ascii_alphabetic(),
        b'c' => byte.is_ascii_control(),
        b'd' => byte.is_ascii_digit(),
        b'l' => byte.is_ascii_lowercase(),
        b'p' => byte.is_ascii_punctuation(),
        b's' => byte.is_ascii_whitespace() || byte == 0x0b,
        b'u' => byte.is_ascii_uppercase(),
        b'w' => byte.is_ascii_alphanumeric(),
        b'x' => byte.is_ascii_hexdigit(),
        b'z' => byte == 0,
        _ => return class == byte,
    };
    fits != class.is_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, pattern: &str, wanted: Option<&str>) {
        let found = find(text.as_bytes(), pattern.as_bytes(), 0, false, &|| true).unwrap();
        let found = found.and_then(|(from, to, _)| text.get(from..to));
        assert_eq!(found, wanted, "{pattern} in {text}");
    }

    #[test]
    fn patterns_fit_as_in_lua() {
        check("hello world", "wor", Some("wor"));
        check("hello", "l+", Some("ll"));
        check("key = value", "%w+%s*=%s*%w+", Some("key = value"));
        check("aaa", "a-", Some(""));
        check("<a><b>", "<.->", Some("<a>"));
        check("<a><b>", "<.*>", Some("<a><b>"));
        check("f(a(b)c)d", "%b()", Some("(a(b)c)"));
        check("THE (quick) fox", "%f[%a]%a+%f[%A]", Some("THE"));
        check("abcabc", "(abc)%1", Some("abcabc"));
        check("x]y", "[]]", Some("]"));
        check("x-y", "[a%-]", Some("-"));
        check("123abc", "[^%d]+", Some("abc"));
        check("end$", "d$", None);
        check("the end", "d$", Some("d"));
        check("colour", "colou?r", Some("colour"));
        check("color", "colou?r", Some("color"));
    }

    #[test]
    fn faults_are_those_of_lua() {
        let fault = |pattern: &str| find(b"aaa", pattern.as_bytes(), 0, false, &|| true);
        assert_eq!(fault("%"), Err(PatternError::EndsWithEscape));
        assert_eq!(fault("[a"), Err(PatternError::OpenSet));
        assert_eq!(fault("(a"), Err(PatternError::OpenCapture));
        assert_eq!(fault("a)"), Err(PatternError::NoCapture));
        assert_eq!(fault("%1"), Err(PatternError::CaptureIndex));
        assert_eq!(fault("%bx"), Err(PatternError::Balance));
        assert_eq!(fault("%fa"), Err(PatternError::Frontier));
    }

    #[test]
    fn a_costly_pattern_ends_when_it_is_told() {
        let text = vec![b'a'; 10_000];
        let pattern = "a-".repeat(20) + "b";
        let asked = std::cell::Cell::new(0);
        let goes_on = || {
            asked.set(asked.get() + 1);
            asked.get() < 10
        };
        let found = find(&text, pattern.as_bytes(), 0, false, &goes_on);
        assert_eq!(found, Err(PatternError::Time));
    }
}
