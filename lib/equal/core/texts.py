"""Many texts in one array of bytes, the form in which compiled loops read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from equal.core import word_kernels as kernels
from equal.core.ngrams import words


@dataclass(frozen=True)
class Texts:
    """Many texts in one array of bytes, in the form that the kernels read.

    Attributes:
        data: uint8.
        starts, stops: (n,) int64; text i is data[starts[i]:stops[i]].
    """

    data: np.ndarray
    starts: np.ndarray
    stops: np.ndarray

    @classmethod
    def of(cls, texts: Sequence[str]) -> Texts:
        """From strings, readable."""
        return cls.as_they_are(texts).readable()

    @classmethod
    def as_they_are(cls, texts: Sequence[str]) -> Texts:
        """From strings."""
        return cls.of_utf8([text.encode("utf-8", "replace") for text in texts])

    @classmethod
    def of_utf8(cls, encoded: Sequence[bytes]) -> Texts:
        """From bytes, as they are."""
        bounds = np.concatenate([[0], np.cumsum([len(part) for part in encoded], dtype=np.int64)])
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), bounds[:-1], bounds[1:])

    def inside_tags(self) -> tuple[np.ndarray, Texts]:
        """Rows of the texts with words in a tag, and these texts as they read where such words count."""
        rows = np.flatnonzero(kernels.has_words_in_tag(self.data, self.starts, self.stops))
        data, bounds = kernels.without_tag_marks(self.data, self.starts[rows], self.stops[rows])
        return rows, Texts(data, bounds[:-1], bounds[1:]).readable(inside_tags=True)

    def readable(self, *, inside_tags: bool = False) -> Texts:
        """The same with every text that is not plain (`kernels.is_plain`) replaced by its words, joined by spaces."""
        others = np.flatnonzero(~kernels.is_plain(self.data, self.starts, self.stops))
        if not len(others):
            return self
        found = [self.data[self.starts[i] : self.stops[i]].tobytes().decode("utf-8", "replace") for i in others]
        more = Texts.of_utf8([" ".join(words(text, inside_tags=inside_tags)).encode() for text in found])
        starts, stops = self.starts.copy(), self.stops.copy()
        starts[others], stops[others] = more.starts + len(self.data), more.stops + len(self.data)
        return Texts(np.concatenate([self.data, more.data]), starts, stops)
