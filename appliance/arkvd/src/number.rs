//! Numbers as the Redis protocol writes them: strict integers, floats, scores, and the sums of
//! `INCRBYFLOAT`.
//!
//! Clients compare these texts, so they are the same to the last digit as those of Redis 7.0.

/// Parses an integer the way Redis does: no plus sign, no leading zero, no space.
pub(crate) fn parse_int(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    match digits {
        [b'0'] => return (text.len() == 1).then_some(0),
        [b'1'..=b'9', ..] if digits.len() <= 19 && digits.iter().all(u8::is_ascii_digit) => {}
        _ => return None,
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Parses a float: anything `strtod` reads whole, but no NaN and no space.
pub(crate) fn parse_float(text: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(text).ok()?;
    if text.is_empty() || text.len() > 255 {
        return None;
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if let Some(hex) = unsigned.strip_prefix("0x").or_else(|| unsigned.strip_prefix("0X")) {
        let value = f64::from(u32::from_str_radix(hex, 16).ok()?);
        return Some(if text.starts_with('-') { -value } else { value });
    }
    let first = unsigned.bytes().next()?;
    if !(first.is_ascii_digit() || first == b'.' || first.eq_ignore_ascii_case(&b'i')) {
        return None;
    }
    let value: f64 = text.parse().ok()?;
    // A finite text that is too large for a float is an error of range there as well.
    let said_infinite = first.eq_ignore_ascii_case(&b'i');
    (!value.is_nan() && (value.is_finite() || said_infinite)).then_some(value)
}

/// Writes a float with 17 significant digits, as `printf("%.17g")` does.
pub(crate) fn format_float(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "inf".into() } else { "-inf".into() };
    }
    if value.is_nan() {
        return "nan".into();
    }
    if value == 0.0 {
        return if value.is_sign_negative() { "-0".into() } else { "0".into() };
    }
    let scientific = format!("{value:.16e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa),
    };
    let digits: String = mantissa.chars().filter(|c| *c != '.').collect();
    let kept = digits.trim_end_matches('0');
    let kept = if kept.is_empty() { "0" } else { kept };
    if !(-4..17).contains(&exponent) {
        let (first, rest) = kept.split_at(1);
        let point = if rest.is_empty() { "" } else { "." };
        let (exponent_sign, exponent) = ('+', exponent);
        let exponent_sign = if exponent < 0 { '-' } else { exponent_sign };
        return format!("{sign}{first}{point}{rest}e{exponent_sign}{:02}", exponent.unsigned_abs());
    }
    if exponent < 0 {
        let zeros = "0".repeat(usize::try_from(-exponent - 1).unwrap_or(0));
        return format!("{sign}0.{zeros}{kept}");
    }
    let whole = usize::try_from(exponent).unwrap_or(0) + 1;
    if kept.len() <= whole {
        return format!("{sign}{kept}{}", "0".repeat(whole - kept.len()));
    }
    let (before, after) = kept.split_at(whole);
    format!("{sign}{before}.{after}")
}

/// Digits after the point that `INCRBYFLOAT` keeps.
const SCALE_DIGITS: usize = 17;
const SCALE: i128 = 100_000_000_000_000_000;
/// From here on a sum has no more digits than Redis's floats of 80 bits.
const ROUNDED_FROM: u128 = 1_000_000_000_000_000;

/// A decimal number, exact to 17 digits after the point.
fn parse_decimal(text: &[u8]) -> Option<i128> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let mut parts = digits.splitn(2, |byte| *byte == b'.');
    let whole = parts.next().unwrap_or_default();
    let fraction = parts.next().unwrap_or_default();
    if whole.len() > 19 || fraction.len() > SCALE_DIGITS || whole.len() + fraction.len() == 0 {
        return None;
    }
    let mut value: i128 = 0;
    let padding = std::iter::repeat_n(&b'0', SCALE_DIGITS - fraction.len());
    for digit in whole.iter().chain(fraction).chain(padding) {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value * 10 + i128::from(digit - b'0');
    }
    Some(if negative { -value } else { value })
}

/// Divides; of two results equally near it takes the even one.
fn divide(value: u128, by: u128) -> u128 {
    let (quotient, rest) = (value / by, value % by);
    let up = rest * 2 > by || (rest * 2 == by && !quotient.is_multiple_of(2));
    quotient + u128::from(up)
}

fn format_decimal(value: i128) -> String {
    let sign = if value < 0 { "-" } else { "" };
    let value = value.unsigned_abs();
    let scale = SCALE.unsigned_abs();
    let (mut whole, mut fraction) = (value / scale, value % scale);
    if whole >= ROUNDED_FROM {
        // What is left of 64 bits for the fraction.
        let bits = 1_u128 << (64_u32.saturating_sub(u128::BITS - whole.leading_zeros()));
        fraction = divide(divide(fraction * bits, scale) * scale, bits);
        if fraction >= scale {
            (whole, fraction) = (whole + 1, 0);
        }
    }
    if fraction == 0 {
        return format!("{sign}{whole}");
    }
    let fraction = format!("{fraction:017}");
    format!("{sign}{whole}.{}", fraction.trim_end_matches('0'))
}

/// The sum of two float texts in the form of `INCRBYFLOAT`, or `None` if it is not finite.
///
/// Redis adds with 80 bits; a decimal sum gives the same text wherever both have one.
pub(crate) fn add_floats(left: &[u8], right: &[u8]) -> Option<String> {
    if let (Some(left), Some(right)) = (parse_decimal(left), parse_decimal(right)) {
        return Some(format_decimal(left + right));
    }
    let sum = parse_float(left)? + parse_float(right)?;
    sum.is_finite().then(|| format!("{sum}"))
}

/// A count or length as the protocol's integer.
pub(crate) fn int(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A float cut to an integer; outside the range it is the nearest one.
#[expect(clippy::cast_possible_truncation, reason = "saturating is what is wanted")]
pub(crate) fn truncate(value: f64) -> i64 {
    value as i64
}

/// An integer as a float.
#[expect(clippy::cast_precision_loss, reason = "scores are floats; Redis loses the same digits")]
pub(crate) fn float(value: i64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_strictly() {
        for (text, wanted) in [
            ("0", Some(0)),
            ("-0", None),
            ("01", None),
            ("+1", None),
            (" 1", None),
            ("", None),
            ("-", None),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("1.0", None),
        ] {
            assert_eq!(parse_int(text.as_bytes()), wanted, "{text}");
        }
    }

    #[test]
    fn floats_are_written_with_seventeen_digits() {
        for (value, wanted) in [
            (1.0, "1"),
            (3.1, "3.1000000000000001"),
            (-0.5, "-0.5"),
            (1e20, "1e+20"),
            (1e16, "10000000000000000"),
            (1e17, "1e+17"),
            (0.0001, "0.0001"),
            (0.00001, "1.0000000000000001e-05"),
            (f64::NEG_INFINITY, "-inf"),
            (123_456.789, "123456.789"),
        ] {
            assert_eq!(format_float(value), wanted);
        }
    }

    #[test]
    fn float_sums_are_exact_decimals() {
        let sum = |left: &str, right: &str| add_floats(left.as_bytes(), right.as_bytes());
        assert_eq!(sum("0.1", "0.2").as_deref(), Some("0.3"));
        assert_eq!(sum("10.50", "0.1").as_deref(), Some("10.6"));
        assert_eq!(sum("5.0e3", "200").as_deref(), Some("5200"));
        assert_eq!(sum("3", "-5.5").as_deref(), Some("-2.5"));
        assert_eq!(sum("-9223372036854775807", "2").as_deref(), Some("-9223372036854775805"));
        assert_eq!(sum("9223372036854775806", "0.6").as_deref(), Some("9223372036854775806.5"));
        assert_eq!(sum("1e308", "1e308"), None);
    }
}
