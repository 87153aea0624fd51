r"""Numbers as people and models write them: found in a text, or read exactly.

Knows signs (also the Unicode minus), thousands separators, decimals, fractions, mixed numbers, LaTeX's
`\frac`, scientific notation, currency and trailing units. A percent sign is a unit: `50%` is 50, not 0.5.
A decimal comma is not known: `1,5` is two numbers. Every pattern takes linear time.
"""

import re
from fractions import Fraction

MAX_DIGITS = 50
MAX_EXPONENT = 50

_DIGITS = r"(?:\d{1,3}(?:,\d{3})++(?!,?\d)|\d++)"
_TIMES_TEN = r"\ ?(?:[×x*]|\\times|\\cdot)\ ?10\ ?(?:\^|\*\*)\ ?"
_NUMBER = rf"""
    (?: (?<![\w)\]}}])(?P<sign>[-+]) | (?<!\w)(?<!\d\.) )
    (?: (?<!/) (?:(?P<whole>\d++)\ )? (?P<top>{_DIGITS})\ ?/\ ?(?P<bottom>{_DIGITS}) (?!\ ?/|\.?\d)
      | (?P<decimal>{_DIGITS}(?:\.\d++)?|\.\d++)
        (?: [eE](?P<e>[-+]?\d{{1,9}})(?!\w) | {_TIMES_TEN}(?:\{{(?P<braced>-?\d{{1,9}})\}}|(?P<bare>-?\d{{1,9}})) )? )
"""
# A lone variable after a number is a product, not a unit.
_UNIT = r"""
    (?: \ ?(?:%|°|\^\\circ|\^\{\\circ\}|[€£¥₹$])
      | \ ?\\(?:text|mathrm)\{[^{}\d]{0,40}\}
      | \ ?(?![xyzni]\b)[A-Za-z][^\d=<>+*^\\$]{0,60}(?:\^?[23])? )?
"""
_FIND = re.compile(_NUMBER, re.VERBOSE | re.ASCII)
_WHOLE = re.compile(rf"{_NUMBER}{_UNIT}\.?", re.VERBOSE | re.ASCII)

_MINUS = re.compile("[−–﹣－]")
_SEPARATOR = re.compile(r"(?<=\d)(?:\{,\}|,\\!|\\,|[\u00a0\u2009\u202f])(?=\d{3})")
_CURRENCY = re.compile(r"((?<![\w)])[-+])?\\?[$€£¥₹] ?(?=[-+]?[.\d])", re.ASCII)
_GLUED_FRAC = re.compile(r"(?<=\d)(?=\\[dt]?frac)")
_FRAC = re.compile(r"\\[dt]?frac ?(?:\{(\d{1,60})\}|(\d)) ?(?:\{(\d{1,60})\}|(\d))", re.ASCII)


def find_number(text: str, *, last: bool) -> str | None:
    r"""The first or last number in a text, written plainly: `$-1,234.50` → `-1234.50`, `1\frac12` → `1 1/2`."""
    found = list(_FIND.finditer(_plain(text)))
    return _canonical(found[-1 if last else 0]) if found else None


def parse_number(text: str) -> Fraction | None:
    """The exact value of a text that is one number, with or without currency and unit.

    `None` when it is anything else, or has more than 50 digits or an exponent beyond ±50.
    """
    if len(text) > 400:
        return None
    found = _WHOLE.fullmatch(_plain(text).strip())
    return _value(found) if found else None


def _plain(text: str) -> str:
    text = _SEPARATOR.sub(",", _MINUS.sub("-", text)).replace("\\%", "%")
    text = _FRAC.sub(lambda m: f"{m[1] or m[2]}/{m[3] or m[4]}", _GLUED_FRAC.sub(" ", text))
    return _CURRENCY.sub(lambda m: f" {m[1] or ''}", text)


def _canonical(found: re.Match[str]) -> str:
    sign = "-" if found["sign"] == "-" else ""
    if found["decimal"] is None:
        whole = f"{found['whole']} " if found["whole"] else ""
        number = f"{whole}{found['top']}/{found['bottom']}"
    else:
        exponent = _exponent(found)
        number = found["decimal"] + (f"e{exponent}" if exponent else "")
    return sign + number.replace(",", "")


def _exponent(found: re.Match[str]) -> str | None:
    exponent: str | None = found["e"] or found["braced"] or found["bare"]
    return exponent


def _value(found: re.Match[str]) -> Fraction | None:
    if sum(c.isdigit() for c in found[0]) > MAX_DIGITS or abs(int(_exponent(found) or 0)) > MAX_EXPONENT:
        return None
    whole, _, rest = _canonical(found).lstrip("-").rpartition(" ")
    try:
        value = Fraction(int(whole or 0)) + Fraction(rest)
    except ZeroDivisionError:
        return None
    return -value if found["sign"] == "-" else value
