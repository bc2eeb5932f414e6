"""What a stage trains on: items by number and how they become batches."""

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any, Protocol

from dualfocus_engine.families.profiles import Profile
from dualfocus_engine.pictures.fitting import fit
from dualfocus_engine.pictures.pictures import open_picture
from PIL import Image
from transformers import PreTrainedTokenizerFast

from dualfocus_training.learning.batches import Batch, collate
from dualfocus_training.learning.conversations import Conversation, Wording, read_conversations
from dualfocus_training.learning.packing import SceneRows
from dualfocus_training.learning.rounds import RoundsBatch, Template, collate_rounds
from dualfocus_training.learning.rows import Eye, Row
from dualfocus_training.recipe import Recipe, Scenes


class Course(Protocol):
    """Items by number, the same in every process, and batches of them."""

    def __getitem__(self, number: int) -> Any: ...

    def collate(self, items: Sequence[Any]) -> Any: ...


class SceneCourse:
    """Packed rows of drawn scenes; they never repeat."""

    def __init__(self, recipe: Recipe, scenes: Scenes, seed: int, tokenizer: PreTrainedTokenizerFast) -> None:
        assert recipe.size is not None, "Recipe allows scenes for a model made from nothing only"
        wording, size = Wording(recipe.load_profile()), recipe.size
        eye = Eye(size.side, size.side // size.patch, wording.profile.pad_color or (0, 0, 0))
        self._pad: int = tokenizer.pad_token_id
        self._apart = scenes.apart
        self._rows = SceneRows(
            seed, scenes.difficulties, scenes.mixture, tokenizer._tokenizer, wording, eye, scenes.system
        )

    def __getitem__(self, number: int) -> Row:
        return self._rows[number]

    def collate(self, items: Sequence[Row]) -> Batch:
        return collate(items, self._pad, self._apart)


class ConversationCourse:
    """Conversations of files, in a new random order each time through; pictures lie beside them.

    What is learned is what will be served: prompts by the profile's template, pictures as the server shows them.
    """

    def __init__(self, files: Sequence[Path], seed: int, processor: Any, profile: Profile) -> None:
        self._seed, self._template = seed, Template(processor, profile)
        self._held = [(file.parent, line) for file in files for line in read_conversations(file)]
        self._order: tuple[int, list[int]] = (-1, [])

    def __getitem__(self, number: int) -> tuple[Conversation, list[Image.Image]]:
        epoch, place = divmod(number, len(self._held))
        folder, conversation = self._held[self._order_of(epoch)[place]]
        return conversation, [self._shown(folder / name) for name in conversation.images]

    def collate(self, items: Sequence[tuple[Conversation, list[Image.Image]]]) -> RoundsBatch:
        return collate_rounds(self._template, items)

    def _shown(self, path: Path) -> Image.Image:
        profile = self._template.profile
        return fit(open_picture(path).decode(), profile.pad_color, profile.image_size)

    def _order_of(self, epoch: int) -> list[int]:
        if self._order[0] != epoch:
            places = range(len(self._held))
            self._order = epoch, Random(f"epoch/{self._seed}/{epoch}").sample(places, len(places))
        return self._order[1]
