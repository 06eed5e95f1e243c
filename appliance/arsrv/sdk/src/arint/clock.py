"""`self.time`: now, today, and dates in other formats.

Formats are arrow-style: `YYYY-MM-DD HH:mm:ss`.  Text in square brackets stands
for itself.  Zones are names as `zoneinfo` knows them, `local` or `UTC`.
"""

from __future__ import annotations

import datetime
import re
from typing import Any

__all__ = ["Clock", "formatted", "parse"]

DATE_TIME = "YYYY-MM-DD HH:mm:ss"
DATE = "YYYY-MM-DD"

_TOKEN = re.compile(
    r"\[(?:[^\]]*)\]|YYYY|YY|MMMM|MMM|MM|M|DDDD|DDD|DD|Do|D|dddd|ddd|d|HH|H|hh|h|mm|m|ss|s|S+|ZZZ|ZZ|Z|A|a|X|x|W"
)
_MONTHS = (
    "January February March April May June July August September October November December".split()
)
_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()


def _offset(value: datetime.datetime, colon: str) -> str:
    offset = value.utcoffset() or datetime.timedelta()
    minutes = int(offset.total_seconds() // 60)
    sign = "-" if minutes < 0 else "+"
    return f"{sign}{abs(minutes) // 60:02}{colon}{abs(minutes) % 60:02}"


def _ordinal(number: int) -> str:
    if 10 <= number % 100 <= 20:
        return f"{number}th"
    return f"{number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th') }"


def _written(token: str, value: datetime.datetime) -> str:
    if token.startswith("["):
        return token[1:-1]
    if token.startswith("S"):
        return f"{value.microsecond:06}".ljust(len(token), "0")[: len(token)]
    hour12 = value.hour % 12 or 12
    match token:
        case "YYYY":
            return f"{value.year:04}"
        case "YY":
            return f"{value.year % 100:02}"
        case "MMMM":
            return _MONTHS[value.month - 1]
        case "MMM":
            return _MONTHS[value.month - 1][:3]
        case "MM":
            return f"{value.month:02}"
        case "M":
            return str(value.month)
        case "DDDD":
            return f"{value.timetuple().tm_yday:03}"
        case "DDD":
            return str(value.timetuple().tm_yday)
        case "DD":
            return f"{value.day:02}"
        case "D":
            return str(value.day)
        case "Do":
            return _ordinal(value.day)
        case "dddd":
            return _DAYS[value.weekday()]
        case "ddd":
            return _DAYS[value.weekday()][:3]
        case "d":
            return str(value.isoweekday())
        case "HH":
            return f"{value.hour:02}"
        case "H":
            return str(value.hour)
        case "hh":
            return f"{hour12:02}"
        case "h":
            return str(hour12)
        case "mm":
            return f"{value.minute:02}"
        case "m":
            return str(value.minute)
        case "ss":
            return f"{value.second:02}"
        case "s":
            return str(value.second)
        case "ZZZ":
            return value.tzname() or ""
        case "ZZ":
            return _offset(value, ":")
        case "Z":
            return _offset(value, "")
        case "A":
            return "AM" if value.hour < 12 else "PM"
        case "a":
            return "am" if value.hour < 12 else "pm"
        case "X":
            return str(int(value.timestamp()))
        case "x":
            return str(int(value.timestamp() * 1_000_000))
        case _:
            year, week, day = value.isocalendar()
            return f"{year}-W{week:02}-{day}"


def formatted(value: datetime.date, format: str) -> str:
    """A date or a date and time in an arrow-style format."""
    if not isinstance(value, datetime.datetime):
        value = datetime.datetime(value.year, value.month, value.day)
    moment = value
    return _TOKEN.sub(lambda found: _written(found[0], moment), format)


_PATTERNS = {
    "YYYY": r"(?P<year>\d{4})",
    "YY": r"(?P<year2>\d{2})",
    "MMMM": r"(?P<month_name>[A-Za-z]+)",
    "MMM": r"(?P<month_name>[A-Za-z]{3})",
    "MM": r"(?P<month>\d{2})",
    "M": r"(?P<month>\d{1,2})",
    "DDDD": r"(?P<yday>\d{3})",
    "DDD": r"(?P<yday>\d{1,3})",
    "DD": r"(?P<day>\d{2})",
    "D": r"(?P<day>\d{1,2})",
    "Do": r"(?P<day>\d{1,2})(?:st|nd|rd|th)",
    "dddd": r"[A-Za-z]+",
    "ddd": r"[A-Za-z]{3}",
    "d": r"[1-7]",
    "HH": r"(?P<hour>\d{2})",
    "H": r"(?P<hour>\d{1,2})",
    "hh": r"(?P<hour12>\d{2})",
    "h": r"(?P<hour12>\d{1,2})",
    "mm": r"(?P<minute>\d{2})",
    "m": r"(?P<minute>\d{1,2})",
    "ss": r"(?P<second>\d{2})",
    "s": r"(?P<second>\d{1,2})",
    "ZZZ": r"(?P<zone>[A-Za-z_/+\-0-9]+)",
    "ZZ": r"(?P<offset>Z|[+-]\d{2}:?\d{2})",
    "Z": r"(?P<offset>Z|[+-]\d{2}:?\d{2})",
    "A": r"(?P<half>[AaPp][Mm])",
    "a": r"(?P<half>[AaPp][Mm])",
    "X": r"(?P<stamp>-?\d+(?:\.\d+)?)",
    "x": r"(?P<stamp_us>\d+)",
}

_regexes: dict[str, re.Pattern[str]] = {}


def _regex(format: str) -> re.Pattern[str]:
    regex = _regexes.get(format)
    if regex is None:
        out = []
        at = 0
        for found in _TOKEN.finditer(format):
            out.append(re.escape(format[at : found.start()]))
            token = found[0]
            if token.startswith("["):
                out.append(re.escape(token[1:-1]))
            elif token.startswith("S"):
                out.append(r"(?P<fraction>\d+)")
            elif token in _PATTERNS:
                out.append(_PATTERNS[token])
            else:
                raise ValueError(f"format token `{token}` cannot be read")
            at = found.end()
        out.append(re.escape(format[at:]))
        regex = _regexes[format] = re.compile("".join(out))
    return regex


def parse(text: str, format: str | None = None) -> datetime.datetime:
    """A date and time of text; ISO 8601 unless a format is given.  Raises ValueError."""
    if format is None:
        try:
            return datetime.datetime.fromisoformat(text.strip())
        except ValueError:
            raise ValueError(f"is not a date and time in ISO 8601: `{text}`") from None
    found = _regex(format).fullmatch(text.strip())
    if found is None:
        raise ValueError(f"is not a date in the format `{format}`: `{text}`")
    parts = {key: value for key, value in found.groupdict().items() if value is not None}
    if "stamp" in parts:
        return datetime.datetime.fromtimestamp(float(parts["stamp"]), datetime.timezone.utc)
    if "stamp_us" in parts:
        return datetime.datetime.fromtimestamp(int(parts["stamp_us"]) / 1e6, datetime.timezone.utc)
    year = int(parts.get("year", 0)) or (2000 + int(parts["year2"]) if "year2" in parts else 1)
    month = int(parts.get("month", 1))
    if "month_name" in parts:
        short = [name[:3].lower() for name in _MONTHS]
        try:
            month = short.index(parts["month_name"][:3].lower()) + 1
        except ValueError:
            raise ValueError(f"`{parts['month_name']}` is not a month") from None
    hour = int(parts.get("hour", 0))
    if "hour12" in parts:
        hour = int(parts["hour12"]) % 12 + (12 if parts.get("half", "am").lower() == "pm" else 0)
    zone: datetime.tzinfo | None = None
    if "offset" in parts:
        zone = _zone_of_offset(parts["offset"])
    elif "zone" in parts:
        zone = zone_of(parts["zone"])
    value = datetime.datetime(
        year,
        month,
        int(parts.get("day", 1)),
        hour,
        int(parts.get("minute", 0)),
        int(parts.get("second", 0)),
        int(parts.get("fraction", "0")[:6].ljust(6, "0")),
        zone,
    )
    if "yday" in parts:
        value = value.replace(month=1, day=1) + datetime.timedelta(days=int(parts["yday"]) - 1)
    return value


def _zone_of_offset(text: str) -> datetime.timezone:
    if text == "Z":
        return datetime.timezone.utc
    sign = -1 if text[0] == "-" else 1
    digits = text[1:].replace(":", "")
    return datetime.timezone(sign * datetime.timedelta(hours=int(digits[:2]), minutes=int(digits[2:])))


def zone_of(name: str) -> datetime.tzinfo:
    """A zone by its name; raises ValueError."""
    if name.upper() in ("UTC", "Z"):
        return datetime.timezone.utc
    if name == "local":
        zone = datetime.datetime.now().astimezone().tzinfo
        assert zone is not None
        return zone
    import zoneinfo

    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"time zone `{name}` is not known") from None


class Clock:
    """`self.time`.

    `format` is arrow-style, `tz` a zone's name (`local` unless given).  With
    `needs_format=False` the answer is a `datetime` with its zone, or a `date`
    where only days are asked for.
    """

    def now(self, format: str = DATE_TIME, tz: str = "local", needs_format: bool = True, delta: Any = None) -> Any:
        """This moment."""
        value = datetime.datetime.now(zone_of(tz))
        if delta is not None:
            value += delta
        return formatted(value, format) if needs_format else value

    def utcnow(self, format: str = DATE_TIME, needs_format: bool = True) -> Any:
        """This moment in UTC."""
        return self.now(format, "UTC", needs_format)

    def utcnow_as_float(self) -> float:
        """Seconds since 1970."""
        return datetime.datetime.now(datetime.timezone.utc).timestamp()

    def today(self, format: str = DATE, tz: str = "local", needs_format: bool = True) -> Any:
        """The present day."""
        return self._day(0, format, tz, needs_format)

    def yesterday(self, format: str = DATE, tz: str = "local", needs_format: bool = True) -> Any:
        """The day before."""
        return self._day(-1, format, tz, needs_format)

    def tomorrow(self, format: str = DATE, tz: str = "local", needs_format: bool = True) -> Any:
        """The day after."""
        return self._day(1, format, tz, needs_format)

    def isonow(self, tz: str = "local", needs_format: bool = True) -> Any:
        """This moment in ISO 8601, with its offset."""
        value = datetime.datetime.now(zone_of(tz))
        return value.isoformat() if needs_format else value

    def isoutcnow(self, needs_format: bool = True) -> Any:
        """This moment in ISO 8601, in UTC."""
        return self.isonow("UTC", needs_format)

    def reformat(self, value: str, from_: str, to: str) -> str:
        """A date from one format to another; raises ValueError where it does not fit the first."""
        return formatted(parse(value, from_), to)

    def one_day_from(self, start: Any, format: str = DATE_TIME, needs_format: bool = True) -> Any:
        """A day after `start`, a datetime or ISO text."""
        return self._after(start, datetime.timedelta(days=1), format, needs_format)

    def one_hour_from(self, start: Any, format: str = DATE_TIME, needs_format: bool = True) -> Any:
        """An hour after `start`, a datetime or ISO text."""
        return self._after(start, datetime.timedelta(hours=1), format, needs_format)

    def one_minute_from(self, start: Any, format: str = DATE_TIME, needs_format: bool = True) -> Any:
        """A minute after `start`, a datetime or ISO text."""
        return self._after(start, datetime.timedelta(minutes=1), format, needs_format)

    def one_day_from_now(self, format: str = DATE_TIME, tz: str = "local", needs_format: bool = True) -> Any:
        """This time tomorrow."""
        return self.now(format, tz, needs_format, datetime.timedelta(days=1))

    def one_hour_from_now(self, format: str = DATE_TIME, tz: str = "local", needs_format: bool = True) -> Any:
        """In an hour."""
        return self.now(format, tz, needs_format, datetime.timedelta(hours=1))

    def one_minute_from_now(self, format: str = DATE_TIME, tz: str = "local", needs_format: bool = True) -> Any:
        """In a minute."""
        return self.now(format, tz, needs_format, datetime.timedelta(minutes=1))

    def _day(self, days: int, format: str, tz: str, needs_format: bool) -> Any:
        value = datetime.datetime.now(zone_of(tz)) + datetime.timedelta(days=days)
        return formatted(value, format) if needs_format else value.date()

    def _after(self, start: Any, delta: datetime.timedelta, format: str, needs_format: bool) -> Any:
        moment = parse(start) if isinstance(start, str) else start
        value = moment + delta
        return formatted(value, format) if needs_format else value
