"""The loops over every byte, compiled: texts to hashes of their words.

They work on the UTF-8 bytes of many texts in one array `data`, as Arrow holds them: text i is
data[starts[i]:stops[i]]. Integers are unsigned and wrap, so results are equal on every machine.
"""

from __future__ import annotations

import html.entities
import unicodedata

import numpy as np
from numba import njit

from equal.core.mixing import mix

#: base of the polynomial hash of a word's bytes
_BYTE_BASE = np.uint64(0x5851F42D4C957F2D)

#: what a character is to the n-gram rule (`ngrams.words`); HARD ones need the rule itself
_SEPARATOR, _LETTER, _UNDERSCORE, _APOSTROPHE, _COMMA, _LESS, _HARD = range(7)


def _kind(char: str) -> int:
    """A letter is what the rule neither removes nor rewrites, whatever stands beside it."""
    if char in "_'’,<":
        return {"_": _UNDERSCORE, ",": _COMMA, "<": _LESS}.get(char, _APOSTROPHE)
    if char.isascii():
        return _LETTER if char.isalnum() else _SEPARATOR
    composed = unicodedata.normalize("NFKC", char)
    if any(unicodedata.combining(c) for c in composed) or unicodedata.category(char) == "Cf" or char.isdecimal():
        return _HARD
    if not any(c.isalnum() or c in "_'’,<>&" for c in composed):
        return _SEPARATOR
    return _LETTER if char.isalnum() and composed == char == char.casefold() else _HARD


def _kinds() -> np.ndarray:
    """Of the characters of three bytes at most. Outside these ranges some marks compose without saying so."""
    kinds = np.full(1 << 16, _HARD, np.uint8)
    for code in (*range(0x900), *range(0x2000, 0x2C00)):
        kinds[code] = _kind(chr(code))
    return kinds


_KINDS = _kinds()
_LOWER = np.array([ord(chr(byte).lower()) if byte < 128 else byte for byte in range(256)], np.uint8)
_DIGIT = np.array([48 <= byte <= 57 for byte in range(256)])
#: bytes of a tag's name after its first, and blanks inside a tag
_NAME = np.array([byte < 128 and (chr(byte).isalnum() or chr(byte) in ":-") for byte in range(256)])
_BLANK = np.array([chr(byte) in " \t\r\n" for byte in range(256)])
#: names of entities that count without a semicolon and before further letters, a row each with zeros behind it
_NO_SEMICOLON = np.array([name.encode() for name in html.entities.html5 if name[-1] != ";"]).view((np.uint8, 6))


@njit(inline="always")
def _char(data: np.ndarray, at: int) -> tuple[int, int]:
    """Kind of the character at this place, and its bytes."""
    lead = np.int64(data[at])
    if lead < 0x80:
        return _KINDS[lead], 1
    if lead < 0xE0:
        return _KINDS[((lead & 0x1F) << 6) | (data[at + 1] & 0x3F)], 2
    if lead < 0xF0:
        return _KINDS[((lead & 0x0F) << 12) | ((data[at + 1] & 0x3F) << 6) | (data[at + 2] & 0x3F)], 3
    return _HARD, 4


@njit(inline="always")
def _begins_word(data: np.ndarray, at: int, stop: int) -> bool:
    """Whether a letter or an underscore stands here."""
    return at < stop and _char(data, at)[0] in (_LETTER, _UNDERSCORE)


@njit(inline="always")
def _groups_digits(data: np.ndarray, at: int, start: int, stop: int) -> bool:
    """Whether the comma here stands between a digit and exactly three: 1,250."""
    if at == start or at + 3 >= stop or not _DIGIT[data[at - 1]]:
        return False
    three = _DIGIT[data[at + 1]] and _DIGIT[data[at + 2]] and _DIGIT[data[at + 3]]
    return three and not (at + 4 < stop and _DIGIT[data[at + 4]])


@njit(inline="always")
def _tag_size(data: np.ndarray, at: int, stop: int) -> int:
    """Bytes of the tag that begins here, 0 when none does; the rule is `ngrams._TAG`, byte by byte."""
    name = at + 1
    if name < stop and data[name] == 47:
        name += 1
    blank = _name_stop(data, name, stop, False)
    end = blank
    while end < stop and _BLANK[data[end]]:
        end += 1
    attribute = _name_stop(data, end, stop, True) if end > blank > name else end
    if attribute > end:
        if attribute == stop or data[attribute] != 61:
            return 0
        end = attribute
        while end < stop and data[end] != 60 and data[end] != 62:
            end += 1
    elif end < stop and data[end] == 47:
        end += 1
    return end + 1 - at if blank > name and end < stop and data[end] == 62 else 0


@njit(inline="always")
def _name_stop(data: np.ndarray, at: int, stop: int, underscores: bool) -> int:
    """Where the name of a tag or an attribute that begins here ends; `at` when none does."""
    if at >= stop or not 97 <= _LOWER[data[at]] <= 122:
        return at
    while at < stop and (_NAME[data[at]] or (underscores and data[at] == 95)):
        at += 1
    return at


@njit(cache=True, nogil=True)
def _may_be_entity(data: np.ndarray, at: int, stop: int) -> bool:
    """Whether what stands behind an ampersand may be read as an entity; `&str`, `a && b` and `?a=1&b=2` are none."""
    if at < stop and data[at] == 35:
        return at + 1 < stop and (_DIGIT[data[at + 1]] or _LOWER[data[at + 1]] == 120)
    end = at
    while end < stop and (_DIGIT[data[end]] or 97 <= _LOWER[data[end]] <= 122):
        end += 1
    if end < stop and data[end] == 59:
        return end > at
    for name in _NO_SEMICOLON:
        size = np.count_nonzero(name)
        if size <= end - at and np.array_equal(data[at : at + size], name[:size]):
            return True
    return False


@njit(cache=True, nogil=True)
def is_plain(data: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """(n,) whether a text's words can be read off its bytes: it has no hard character and no entity."""
    plain = np.ones(len(starts), np.bool_)
    for i in range(len(starts)):
        at = starts[i]
        while at < stops[i]:
            kind, size = _char(data, at)
            if kind == _HARD or (data[at] == 38 and _may_be_entity(data, at + 1, stops[i])):
                plain[i] = False
                break
            at += size
    return plain


@njit(cache=True, nogil=True)
def has_words_in_tag(data: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """(n,) whether a text has a tag with an attribute, or an entity that may begin one (`&lt;`, `&#60;`)."""
    found = np.zeros(len(starts), np.bool_)
    for i in range(len(starts)):
        at, stop = starts[i], stops[i]
        while at < stop and not found[i]:
            if data[at] == 60:
                size = _tag_size(data, at, stop)
                found[i] = np.any(data[at : at + size] == 61)
            elif data[at] == 38 and at + 2 < stop:
                first, second = data[at + 1], data[at + 2]
                found[i] = first == 35 or (_LOWER[first] == 108 and _LOWER[second] == 116)
            at += 1
    return found


@njit(cache=True, nogil=True)
def without_tag_marks(data: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A copy of the texts, one behind the other, in which a `<` is a blank; with it their (n + 1,) bounds."""
    bounds = np.zeros(len(starts) + 1, np.int64)
    bounds[1:] = np.cumsum(stops - starts)
    copy = np.empty(bounds[-1], np.uint8)
    for i in range(len(starts)):
        for at in range(stops[i] - starts[i]):
            byte = data[starts[i] + at]
            copy[bounds[i] + at] = 32 if byte == 60 else byte
    return copy, bounds


@njit(cache=True, nogil=True)
def word_hashes(data: np.ndarray, start: int, stop: int, out: np.ndarray) -> int:
    """Hash the words of one text into `out`; returns how many, at most (stop - start + 1) // 2.

    The text is plain, or words joined by spaces, among whose characters hard ones are letters.
    """
    found, length = 0, np.uint64(0)
    value, power = np.uint64(0), np.uint64(1)
    at, after_word = start, False
    while at < stop:
        kind, size = _char(data, at)
        if kind in (_LETTER, _HARD):
            for place in range(at, at + size):
                value += np.uint64(_LOWER[data[place]]) * power
                power *= _BYTE_BASE
            length += np.uint64(size)
        else:
            inner = kind == _APOSTROPHE and after_word and _begins_word(data, at + size, stop)
            if kind == _LESS:
                size = max(size, _tag_size(data, at, stop))
            if length and not inner and not (kind == _COMMA and _groups_digits(data, at, start, stop)):
                out[found] = mix(value + length)
                found += 1
                value, power, length = np.uint64(0), np.uint64(1), np.uint64(0)
        after_word = kind in (_LETTER, _UNDERSCORE)
        at += size
    if length:
        out[found] = mix(value + length)
        found += 1
    return found


@njit(cache=True, nogil=True)
def hash_words(data: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`word_hashes` of many texts.

    Returns:
        (total,) uint64 hashes, and (n + 1,) int64 bounds: text i has those from bounds[i] to bounds[i + 1].
    """
    hashes = np.empty(np.sum((stops - starts + 1) // 2), np.uint64)
    bounds = np.zeros(len(starts) + 1, np.int64)
    for i in range(len(starts)):
        bounds[i + 1] = bounds[i] + word_hashes(data, starts[i], stops[i], hashes[bounds[i] :])
    return hashes[: bounds[-1]], bounds
