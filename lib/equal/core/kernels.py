"""The loops over every byte and every shingle, compiled: texts to shingle hashes, shingle hashes to band keys.

They work on the UTF-8 bytes of many texts in one array `data`, as Arrow holds them: text i is
data[starts[i]:stops[i]]. Integers are unsigned and wrap, so results are equal on every machine.
"""

from __future__ import annotations

import unicodedata

import numpy as np
from numba import njit

#: bases of the polynomial hashes of a word's bytes and of a shingle's words
_BYTE_BASE = np.uint64(0x5851F42D4C957F2D)
_WORD_BASE = np.uint64(0xD1342543DE82EF95)

_M1, _M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S27, _S30, _S31, _S32 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(32)
_HIGHEST = np.uint64(0xFFFFFFFFFFFFFFFF)


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
#: after an ampersand they may begin an entity
_ENTITY = np.array([chr(byte) == "#" or (byte < 128 and chr(byte).isalpha()) for byte in range(256)])


@njit(inline="always")
def _mix(value: np.uint64) -> np.uint64:
    """Scramble 64 bits one to one (the finaliser of SplitMix64)."""
    value = (value ^ (value >> _S30)) * _M1
    value = (value ^ (value >> _S27)) * _M2
    return value ^ (value >> _S31)


@njit(cache=True)
def scrambled(values: np.ndarray) -> np.ndarray:
    """(n,) uint64 mixed twice, so that counters become a random stream."""
    out = np.empty(len(values), np.uint64)
    for i in range(len(values)):
        out[i] = _mix(_mix(values[i]))
    return out


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
    if at >= stop:
        return False
    kind, _ = _char(data, at)
    return kind in (_LETTER, _UNDERSCORE)


@njit(inline="always")
def _groups_digits(data: np.ndarray, at: int, start: int, stop: int) -> bool:
    """Whether the comma here stands between a digit and exactly three: 1,250."""
    if at == start or at + 3 >= stop or not _DIGIT[data[at - 1]]:
        return False
    three = _DIGIT[data[at + 1]] and _DIGIT[data[at + 2]] and _DIGIT[data[at + 3]]
    return three and not (at + 4 < stop and _DIGIT[data[at + 4]])


@njit(inline="always")
def _tag_size(data: np.ndarray, at: int, stop: int) -> int:
    """Bytes of the tag that begins here, 0 when none does."""
    name = at + 1
    if name < stop and data[name] == 47:
        name += 1
    if name >= stop or not 97 <= _LOWER[data[name]] <= 122:
        return 0
    for end in range(name + 1, stop):
        if data[end] == 62:
            return end + 1 - at
        if data[end] == 60:
            return 0
    return 0


@njit(cache=True, nogil=True)
def is_plain(data: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """(n,) whether a text's words can be read off its bytes: it has no hard character and no entity."""
    plain = np.ones(len(starts), np.bool_)
    for i in range(len(starts)):
        at = starts[i]
        while at < stops[i]:
            kind, size = _char(data, at)
            if kind == _HARD or (data[at] == 38 and at + 1 < stops[i] and _ENTITY[data[at + 1]]):
                plain[i] = False
                break
            at += size
    return plain


@njit(cache=True, nogil=True)
def _word_hashes(data: np.ndarray, start: int, stop: int, out: np.ndarray) -> int:
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
                out[found] = _mix(value + length)
                found += 1
                value, power, length = np.uint64(0), np.uint64(1), np.uint64(0)
        after_word = kind in (_LETTER, _UNDERSCORE)
        at += size
    if length:
        out[found] = _mix(value + length)
        found += 1
    return found


@njit(cache=True, nogil=True)
def shingle_hashes(
    data: np.ndarray, starts: np.ndarray, stops: np.ndarray, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the word shingles of many texts, in the order of the texts, repeated ones included.

    A text of fewer words than a shingle has one shingle, all of it; a text without words has none.

    Args:
        data, starts, stops: plain texts, or words joined by spaces.
        width: words a shingle.

    Returns:
        (total,) uint64 hashes, and (n + 1,) int64 bounds: text i has those from bounds[i] to bounds[i + 1].
    """
    room = 0
    for i in range(len(starts)):
        room += (stops[i] - starts[i] + 1) // 2
    hashes, bounds = np.empty(room, np.uint64), np.zeros(len(starts) + 1, np.int64)
    for i in range(len(starts)):
        at = bounds[i]
        count = _word_hashes(data, starts[i], stops[i], hashes[at:])
        words = min(width, count)
        for first in range(at, at + count - words + 1 if count else at):
            value = hashes[first]
            for offset in range(1, words):
                value = value * _WORD_BASE + hashes[first + offset]
            hashes[first] = _mix(value)
        bounds[i + 1] = at + (count - words + 1 if count else 0)
    return hashes[: bounds[-1]], bounds


@njit(cache=True, nogil=True)
def minima(hashes: np.ndarray, bounds: np.ndarray, multipliers: np.ndarray, additions: np.ndarray) -> np.ndarray:
    """MinHash signatures, (n, size) uint32: of each text and hash function (a x + b) >> 32 the smallest value.

    Args:
        hashes, bounds: as `shingle_hashes` returns them.
        multipliers, additions: (size,) uint64.
    """
    size = len(multipliers)
    signatures, smallest = np.empty((len(bounds) - 1, size), np.uint32), np.empty(size, np.uint64)
    for i in range(len(bounds) - 1):
        smallest[:] = _HIGHEST
        for at in range(bounds[i], bounds[i + 1]):
            shingle = hashes[at]
            for h in range(size):
                smallest[h] = min(smallest[h], multipliers[h] * shingle + additions[h])
        for h in range(size):
            signatures[i, h] = smallest[h] >> _S32
    return signatures


@njit(cache=True, nogil=True)
def fold_bands(signatures: np.ndarray, bands: int) -> np.ndarray:
    """(n, bands) int64: one key a band of each signature, different between bands."""
    rows = signatures.shape[1] // bands
    keys = np.empty((len(signatures), bands), np.uint64)
    for i in range(len(signatures)):
        for band in range(bands):
            key = np.uint64(band + 1)
            for row in range(band * rows, (band + 1) * rows):
                key = _mix(key + np.uint64(signatures[i, row]))
            keys[i, band] = key
    return keys.view(np.int64)


@njit(cache=True, nogil=True)
def shared(left: np.ndarray, right: np.ndarray) -> int:
    """How many values two sorted arrays of distinct values have in common."""
    found, i, j = 0, 0, 0
    while i < len(left) and j < len(right):
        if left[i] == right[j]:
            found, i, j = found + 1, i + 1, j + 1
        elif left[i] < right[j]:
            i += 1
        else:
            j += 1
    return found


@njit(cache=True, nogil=True)
def similarities(flat: np.ndarray, bounds: np.ndarray, text: int, others: np.ndarray) -> np.ndarray:
    """Exact Jaccard of one set with each of `others`, (n_others,) float64; two empty sets have none.

    Args:
        flat, bounds: the sets, each sorted and distinct: set i is flat[bounds[i]:bounds[i + 1]].
        text: index of the one; others: indices of the others.
    """
    values = np.zeros(len(others))
    own = flat[bounds[text] : bounds[text + 1]]
    for i in range(len(others)):
        other = flat[bounds[others[i]] : bounds[others[i] + 1]]
        common = shared(own, other)
        values[i] = common / max(len(own) + len(other) - common, 1)
    return values
