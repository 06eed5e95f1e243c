//! Patterns of `KEYS`, `SCAN` and `PSUBSCRIBE`: `*`, `?`, `[a-z]`, `[^a]`, `\x`.
//!
//! Patterns come from outside: the time is bounded by pattern times text, whatever the pattern.

/// Whether `text` fits `pattern` as a whole.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut pattern_at, mut text_at) = (0, 0);
    // Where to go on when the last star has to take one byte more.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        let left = pattern.get(pattern_at..).unwrap_or_default();
        let stepped = match left.first() {
            Some(b'*') => {
                pattern_at += 1;
                retry = Some((pattern_at, text_at));
                continue;
            }
            None if text_at == text.len() => return true,
            None => None,
            Some(_) => {
                text.get(text_at).and_then(|byte| one(left, *byte)).map(|used| pattern_at + used)
            }
        };
        match (stepped, retry) {
            (Some(next), _) => {
                pattern_at = next;
                text_at += 1;
            }
            (None, Some((after_star, from))) if from < text.len() => {
                pattern_at = after_star;
                text_at = from + 1;
                retry = Some((after_star, from + 1));
            }
            (None, _) => return false,
        }
    }
}

/// How many bytes of the pattern fit this one byte of the text.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [b'?', ..] => Some(1),
        [b'[', class @ ..] => one_of(class, byte).map(|used| used + 1),
        [b'\\', literal, ..] => (*literal == byte).then_some(2),
        [literal, ..] => (*literal == byte).then_some(1),
        [] => None,
    }
}

fn one_of(class: &[u8], byte: u8) -> Option<usize> {
    let (negated, mut at) = if class.first() == Some(&b'^') { (true, 1) } else { (false, 0) };
    let mut found = false;
    loop {
        match class.get(at..).unwrap_or_default() {
            // A class without its end goes to the end of the pattern.
            [] => break,
            [b']', ..] => {
                at += 1;
                break;
            }
            [b'\\', literal, ..] => {
                found |= *literal == byte;
                at += 2;
            }
            [from, b'-', to, ..] => {
                let (low, high) = if from <= to { (from, to) } else { (to, from) };
                found |= (*low..=*high).contains(&byte);
                at += 3;
            }
            [literal, ..] => {
                found |= *literal == byte;
                at += 1;
            }
        }
    }
    (found != negated).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_fit_as_in_redis() {
        for (pattern, text, wanted) in [
            ("*", "", true),
            ("h?llo", "hello", true),
            ("h*llo", "heeeello", true),
            ("h*llo", "heeeell", false),
            ("h[ae]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-b]llo", "hbllo", true),
            ("h[b-a]llo", "hbllo", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("a*b*c", "aXXbYYc", true),
            ("a*b*c", "aXXbYY", false),
            ("", "", true),
            ("", "a", false),
            ("[a", "a", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), wanted, "{pattern} {text}");
        }
    }

    #[test]
    fn a_pattern_of_stars_is_answered_at_once() {
        let text = vec![b'a'; 20_000];
        let pattern = b"*a*a*a*a*a*a*a*a*b";
        assert!(!matches(pattern, &text));
    }
}
