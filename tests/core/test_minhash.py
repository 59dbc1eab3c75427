"""Signatures estimate Jaccard, bands follow the S-curve, groups equal those of a search through all pairs."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equal.core.minhash import Permutations, ShingleSets, candidate_groups, jaccard, shingles, verify_duplicates
from equal.core.minhash_kernels import fold_bands
from equal.core.ngrams import words
from equal.core.texts import Texts
from equal.core.word_kernels import is_plain

PINNED_SHINGLES = [943670846343892199, 3032420796728778329, 7494147632784627746]
PINNED_KEYS = [7128809211357380538, -5132974604576844867]
PERMUTATIONS = Permutations.seeded(bands=14, rows=8, seed=17)


def band_keys(text: str, width: int) -> np.ndarray:
    keys, has_words = PERMUTATIONS.band_keys(Texts.of([text]), width)
    return keys[0] if has_words[0] else np.empty(0, np.int64)


def overlapping(rng: np.random.Generator, similarity: float, union: int) -> tuple[np.ndarray, np.ndarray]:
    """Two random sets with that Jaccard similarity."""
    shared = round(similarity * union)
    values = rng.integers(0, 2**63, size=union, dtype=np.uint64)
    common, rest = values[:shared], values[shared:]
    half = len(rest) // 2
    return np.unique(np.append(common, rest[:half])), np.unique(np.append(common, rest[half:]))


def word_shingles(text: str, width: int) -> set[tuple[str, ...]]:
    tokens = words(text)
    width = min(width, len(tokens))
    return {tuple(tokens[i : i + width]) for i in range(len(tokens) - width + 1)} if tokens else set()


VOCABULARY = ["alpha", "beta", "gamma", "1", "2", "été", "a", "aa", "aaa"]
TEXT = st.lists(st.sampled_from(VOCABULARY), max_size=30).map(" ".join)


@settings(max_examples=300, deadline=None)
@given(TEXT, TEXT, st.integers(1, 6))
def test_shingle_sets_have_the_size_and_the_jaccard_of_the_sets_of_words(left: str, right: str, width: int):
    expected_left, expected_right = word_shingles(left, width), word_shingles(right, width)
    hashed_left, hashed_right = shingles(left, width), shingles(right, width)
    assert len(hashed_left) == len(expected_left)
    union = len(expected_left | expected_right)
    expected = len(expected_left & expected_right) / union if union else 0.0
    # widths differ only for texts shorter than a shingle, which then share nothing in either form
    assert jaccard(hashed_left, hashed_right) == expected


ODD_CHARS = "aZ09_-'’,<>/=:&;# \r\t\n\x0b\x1c\u00ad\u200béÉßİ½×…“統\u0301\u0660\U0001d400\ud800"
TAG_LIKE = st.lists(st.sampled_from(["<", "</", "a", "i", ":", " ", "\n", "=", "b_", "-1", "/", ">"]), max_size=12)
ENTITY_LIKE = st.lists(
    st.sampled_from(
        ["&", "&", ";", "#", "x", "41", "str", "lt", "notin", "sect", "amp", "Eacute", "frac1", "2", " ", "é"]
    ),
    max_size=12,
)
ODD = st.text(st.sampled_from(ODD_CHARS), max_size=40) | (TAG_LIKE | ENTITY_LIKE).map("".join)


@settings(max_examples=500, deadline=None)
@given(st.lists(ODD | TEXT | st.text(max_size=20), max_size=6), st.integers(1, 6))
def test_the_compiled_words_are_those_of_the_ngram_rule(texts: list[str], width: int):
    """Texts that differ only in what `words` leaves out have the same keys, and have company as if they had none."""
    keys, has_words = PERMUTATIONS.band_keys(Texts.of(texts), width)
    for text, own, known in zip(texts, keys, has_words):
        found = words(text)
        assert known == bool(found)
        assert len(shingles(text, width)) == len(word_shingles(text, width))
        if known:
            np.testing.assert_array_equal(own, band_keys(" ".join(found), width))


def test_an_ampersand_of_code_does_not_keep_a_text_from_the_compiled_loop():
    plain = ["fn f(&self, s: &str, r: &mut T) { a && b & c }", "?a=1&b=2", "x &# y", "R&D &", "& ;"]
    hard = ["&lt", "&ampere", "a &notin b", "&alpha; b", "&#65", "&#x41;", "&frac12"]
    texts = Texts.of_utf8([text.encode() for text in plain + hard])
    assert is_plain(texts.data, texts.starts, texts.stops).tolist() == [True] * len(plain) + [False] * len(hard)


def test_every_character_is_what_the_ngram_rule_takes_it_for():
    """All that the compiled loop reads by itself and some that it must not, beside what they may act upon."""
    chars = [chr(code) for code in (*range(0x1200), *range(0x1E00, 0x2E00), 0xFEFF, 0xFF07, 0xFF11, 0x1F600)]
    forms = ("a{}b x'{}y", "1,2{}5 1{},250 1,250{}", "<b{}>x</{}", "<b{}c{}=1{}>x", "&{}amp; e{}{}", "’{}’a")
    texts = [form.replace("{}", char) for char in chars for form in forms]
    keys, has_words = PERMUTATIONS.band_keys(Texts.of(texts), 2)
    by_words = Texts.of_utf8([" ".join(words(text)).encode() for text in texts])
    expected, expected_words = PERMUTATIONS.band_keys(by_words, 2)
    np.testing.assert_array_equal(has_words, expected_words)
    np.testing.assert_array_equal(keys[has_words], expected[has_words])


def test_a_word_hashes_alike_wherever_it_stands():
    assert shingles("x y needle", 1)[np.isin(shingles("x y needle", 1), shingles("needle", 1))].size == 1


def test_words_split_differently_are_different_shingles():
    assert jaccard(shingles("ab c", 2), shingles("a bc", 2)) == 0.0
    assert jaccard(shingles("a b", 2), shingles("b a", 2)) == 0.0


def test_signatures_estimate_jaccard_without_bias():
    rng = np.random.default_rng(1)
    many = Permutations.seeded(bands=64, rows=8, seed=3)
    for similarity in (0.1, 0.5, 0.75, 0.95):
        pairs = [overlapping(rng, similarity, 200) for _ in range(60)]
        share = np.mean([np.mean(many.signature(a) == many.signature(b)) for a, b in pairs])
        # 60 * 512 nearly independent rows: three standard errors are at most 0.009
        assert share == pytest.approx(similarity, abs=0.012)


def test_bands_meet_as_often_as_the_curve_says():
    rng = np.random.default_rng(2)
    for similarity in (0.5, 0.72, 0.9):
        pairs = [overlapping(rng, similarity, 120) for _ in range(400)]
        met = [
            bool(np.intersect1d(*(fold_bands(PERMUTATIONS.signature(s)[None], 14) for s in pair)).size)
            for pair in pairs
        ]
        assert np.mean(met) == pytest.approx(1 - (1 - similarity**8) ** 14, abs=0.08)


def test_a_signature_of_many_shingles_is_the_minimum_of_those_of_its_parts():
    values = np.unique(np.random.default_rng(3).integers(0, 2**63, size=10_000, dtype=np.uint64))
    parts = [PERMUTATIONS.signature(part) for part in np.array_split(values, 7)]
    np.testing.assert_array_equal(PERMUTATIONS.signature(values), np.min(parts, axis=0))


def test_values_are_pinned_so_that_stored_keys_stay_comparable():
    assert shingles("the quick brown fox", 2).tolist() == PINNED_SHINGLES
    assert band_keys("the quick brown fox", 2)[:2].tolist() == PINNED_KEYS


def test_a_text_without_words_has_no_shingles_and_meets_nothing():
    assert len(shingles("... !!! ---", 5)) == 0
    assert len(band_keys("", 5)) == 0
    assert jaccard(shingles("", 5), shingles("", 5)) == 0.0


def test_groups_are_labelled_by_their_smallest_key():
    keys, labels = candidate_groups(np.array([9, -4, 7]), np.array([7, 5, 3]))
    assert dict(zip(keys.tolist(), labels.tolist())) == {-4: -4, 3: 3, 5: -4, 7: 3, 9: 3}
    assert not len(candidate_groups(np.empty(0, np.int64), np.empty(0, np.int64))[0])


def make_texts(seed: int) -> list[str]:
    """Twenty originals, each with edited copies, so that some pairs lie just below and above the threshold."""
    rng = random.Random(seed)
    texts = []
    for _ in range(20):
        tokens = [str(rng.randrange(500)) for _ in range(rng.randrange(4, 120))]
        texts.append(" ".join(tokens))
        for _ in range(rng.randrange(4)):
            tokens = list(tokens)
            for _ in range(rng.randrange(1, 5)):
                tokens[rng.randrange(len(tokens))] = str(rng.randrange(500))
            texts.append(" ".join(tokens))
    return texts


def one_group(sets: list[np.ndarray], keys: list[list[int]], threshold: float) -> list[tuple[int, int, float]]:
    """Dropped, kept and their Jaccard among sets that are given one by one."""
    bounds = np.cumsum([0, *map(len, sets)])
    packed = ShingleSets(np.concatenate(sets), bounds[:-1], bounds[1:])
    found = verify_duplicates(packed, np.array(keys), np.zeros(len(sets), np.int64), threshold)
    return list(zip(found.dropped.tolist(), found.kept.tolist(), found.jaccard.tolist()))


NUMBERS = st.sets(st.integers(0, 30), min_size=1)


@pytest.mark.parametrize("seed", range(5))
def test_dropped_texts_are_those_of_a_search_through_all_candidate_pairs(seed: int):
    rng = random.Random(seed)
    texts = make_texts(seed)
    texts += rng.choices(texts, k=10)
    rng.shuffle(texts)
    groups = sorted(rng.choices(range(3), k=len(texts)))
    sets, keys = ShingleSets.of(Texts.of(texts), 5), PERMUTATIONS.band_keys(Texts.of(texts), 5)[0]
    np.testing.assert_array_equal(PERMUTATIONS.keys_of(sets), keys)
    parents = list(range(len(texts)))

    def root(i: int) -> int:
        while parents[i] != i:
            i = parents[i]
        return i

    for a, b in itertools.combinations(range(len(texts)), 2):
        near = np.intersect1d(keys[a], keys[b]).size and jaccard(sets[a], sets[b]) >= 0.75
        if near and groups[a] == groups[b]:
            low, high = sorted((root(a), root(b)))
            parents[high] = low
    expected = {i: root(i) for i in range(len(texts)) if root(i) != i}
    found = verify_duplicates(sets, keys, np.array(groups), 0.75)
    assert dict(zip(found.dropped, found.kept)) == expected
    assert len(expected) > 5
    for dropped, kept, value in zip(found.dropped, found.kept, found.jaccard):
        assert value == jaccard(sets[dropped], sets[kept])


@given(NUMBERS, NUMBERS, st.floats(0.01, 1.0) | st.sampled_from([0.5, 0.75]))
def test_similar_is_what_the_sets_of_python_call_so(left: set[int], right: set[int], threshold: float):
    sets = [np.array(sorted(s), np.uint64) for s in (left, right)]
    value = len(left & right) / len(left | right)
    assert jaccard(*sets) == value
    for least in (threshold, value or 1.0):
        assert one_group(sets, [[1], [1]], least) == ([(1, 0, value)] if value >= least else [])


def test_a_candidate_pair_below_the_threshold_is_no_edge():
    left, right = shingles("a b c d e f g h", 1), shingles("a b c d e f x y", 1)
    assert jaccard(left, right) == 0.6
    assert one_group([left, right], [[1], [1]], 0.61) == []
    assert one_group([left, right], [[1], [1]], 0.6) == [(1, 0, 0.6)]
    assert one_group([left, right], [[1], [2]], 0.6) == []


def test_a_chain_ends_in_one_kept_text_and_the_jaccard_is_to_that_text():
    tokens = [str(i) for i in range(24)]
    sets = [shingles(" ".join(tokens[i : i + 20]), 1) for i in (4, 2, 0)]
    found = one_group(sets, [[5]] * 3, 0.8)
    assert [(dropped, kept, round(value, 3)) for dropped, kept, value in found] == [(1, 0, 0.818), (2, 0, 0.667)]


def test_two_texts_of_25_000_copies_each_are_compared_once():
    """Pair by pair these are 625 million comparisons, which take minutes."""
    tokens = [str(i) for i in range(100)]
    kinds = [shingles(" ".join(tokens[i : i + 90]), 1) for i in (0, 10)]
    found = one_group(kinds * 25_000, [[7]] * 50_000, 0.9)
    assert [(dropped, kept) for dropped, kept, _ in found] == [(i, i % 2) for i in range(2, 50_000)]
    assert {value for *_, value in found} == {1.0}


def test_a_chain_of_50_000_texts_is_one_component():
    """Each is like the next few; all of one key, too, end where the first comparisons have joined them."""
    sets = [np.arange(i, i + 40, dtype=np.uint64) for i in range(50_000)]
    keys = [[i // 3, (i + 1) // 3] for i in range(50_000)]
    found = one_group(sets, keys, 0.9)
    assert len(found) == 49_999
    assert {kept for _, kept, _ in found} == {0}
    assert [value for *_, value in found][38:41] == [1 / 79, 0.0, 0.0]
    nearly = [np.append(sets[0], np.uint64(i + 1000)) for i in range(50_000)]
    assert {kept for _, kept, _ in one_group(nearly, [[7]] * 50_000, 0.9)} == {0}
