"""Normalised text and its words: case, punctuation, markup and whitespace do not count, digits do."""

from __future__ import annotations

import html
import re
import unicodedata

#: a tag's first attribute has a value: `i < n and j > m` and an unclosed `<T` of code hold words, not tags
_TAG = re.compile(r"</?[A-Za-z][A-Za-z0-9:-]*(?:[ \t\r\n]+[A-Za-z][A-Za-z0-9:_-]*=[^<>]*|[ \t\r\n]*/?)>")
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff]")
#: apostrophes inside a word and commas inside a number are ways of writing the same word
_INNER = re.compile(r"['’](?<=\w.)(?=\w)|,(?<=\d,)(?=\d{3}(?!\d))")
_IDEOGRAPHS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
#: scripts without spaces have one word a character, so that a run of ten means something there too
_WORD = re.compile(rf"[{_IDEOGRAPHS}]|[^\W_{_IDEOGRAPHS}]+")


def normalise(text: str) -> str:
    """Bring a text to Unicode NFC with every run of whitespace as one space; what exact duplicates share."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def words(text: str, *, inside_tags: bool = False) -> list[str]:
    """The case-folded words of a text without punctuation, tags, entities or invisible characters.

    Args:
        text: any.
        inside_tags: what stands inside a tag is words, too.

    Example:
        >>> words("<b>Don&#39;t</b> pay 1,250 dollars!")
        ['dont', 'pay', '1250', 'dollars']
    """
    if "&" in text:
        text = html.unescape(text)
    if "<" in text and not inside_tags:
        text = _TAG.sub(" ", text)
    if not text.isascii():
        text = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text))
    text = text.casefold()
    return _WORD.findall(_INNER.sub("", text))
