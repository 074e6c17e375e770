"""The words that a model was trained on, for models small enough that a list of them exists."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from text2video_zero.errors import UserError
from text2video_zero.models.files.configurations import read_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FILE_NAME = "vocabulary.json"


@dataclass(frozen=True)
class Vocabulary:
    """Known words by role ("subjects", "colors", ...), each with its synonyms.

    entries: role -> word -> synonyms, the word itself among them. Entries may have several words.
    """

    entries: Mapping[str, Mapping[str, tuple[str, ...]]]

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The vocabulary that lies in a model's folder, None if there is none."""
        path = folder / FILE_NAME
        if not path.is_file():
            return None
        roles = read_json(path)
        if not all(isinstance(words, dict) and all(map(_are_words, words.values())) for words in roles.values()):
            raise UserError(f"The file {FILE_NAME} in {folder.name!r} holds no lists of words by role: take it away.")
        return cls({role: {word: tuple(synonyms) for word, synonyms in words.items()} for role, words in roles.items()})

    def words_by_role(self) -> dict[str, list[str]]:
        """Role -> its canonical words, without the little words that carry no meaning of their own."""
        return {role: list(words) for role, words in self.entries.items() if role != "other"}

    def unknown_words(self, prompt: str) -> list[str]:
        """Words of the prompt that the model has never seen, each once, in the order of the prompt."""
        known = {
            part
            for words in self.entries.values()
            for word, synonyms in words.items()
            for entry in (word, *synonyms)
            for part in _words(entry)
        }
        return list(dict.fromkeys(word for word in _words(prompt) if word not in known))


def _are_words(synonyms: object) -> bool:
    return isinstance(synonyms, list) and all(isinstance(synonym, str) for synonym in synonyms)


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text.lower())
