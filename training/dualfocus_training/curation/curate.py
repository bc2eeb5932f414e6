"""Make conversations of a Visual Genome release, restartable, with counts at each step."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dualfocus_engine.families.boxes import Box, crop_region
from dualfocus_engine.families.profiles import Profile
from PIL import Image

from dualfocus_training.curation.ambiguity import Verdict, clipped, judge
from dualfocus_training.curation.visual_genome import Annotated, Asked, Genome, Progress
from dualfocus_training.learning.conversations import Conversation, to_line, two_rounds

CONVERSATIONS_FILE = "conversations.jsonl"
COUNTS_FILE = "counts.json"
_PROGRESS_FILE = "progress.json"
_INDEX_FILE = "index.sqlite"
_KEEP_EVERY = 200


@dataclass
class Counts:
    """How far a curation is, and what became of each question."""

    images: int = 0
    missing_images: int = 0
    questions: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    written: int = 0

    def report(self) -> dict[str, int]:
        """The counts by name, in the order of the steps."""
        verdicts = {verdict.value: self.verdicts[verdict.value] for verdict in Verdict}
        return {
            "images": self.images,
            "image files missing": self.missing_images,
            "questions": self.questions,
            **verdicts,
        }


class Curation:
    """One curation into a folder: conversations, crops, counts. Started again, it goes on."""

    def __init__(self, release: Path, pictures: Path, out: Path, profile: Profile, progress: Progress) -> None:
        self._pictures, self._out, self._profile, self._progress = pictures, out, profile, progress
        (out / "crops").mkdir(parents=True, exist_ok=True)
        self._genome = Genome(release, out / _INDEX_FILE, progress)
        self._counts = self._kept_counts()

    def run(self) -> Counts:
        """Curate every image that is not done yet."""
        path = self._out / CONVERSATIONS_FILE
        path.touch()
        with path.open("r+b") as lines:
            # What was written after the last kept count is written again.
            lines.truncate(self._counts.written)
            lines.seek(self._counts.written)
            for done, image in enumerate(self._genome.images()):
                if done < self._counts.images:
                    continue
                for conversation in self._curate(image):
                    lines.write(to_line(conversation).encode())
                self._counts.images += 1
                self._progress("images", self._counts.images)
                if self._counts.images % _KEEP_EVERY == 0:
                    lines.flush()
                    self._keep_counts(lines.tell())
            lines.flush()
            self._keep_counts(lines.tell())
        report = json.dumps(self._counts.report(), indent=2)
        (self._out / COUNTS_FILE).write_text(report + "\n", encoding="utf-8")
        return self._counts

    def _curate(self, image: Annotated) -> Iterator[Conversation]:
        self._counts.questions += len(image.asked)
        judged = [(asked, judge(image, asked)) for asked in image.asked]
        self._counts.verdicts.update(verdict.value for _, verdict in judged)
        kept = [asked for asked, verdict in judged if verdict is Verdict.KEPT]
        path = self._pictures / f"{image.number}.jpg"
        if kept and not path.exists():
            self._counts.missing_images += 1
            return
        if kept:
            with Image.open(path) as picture:
                shown = picture.convert("RGB")
            for asked in kept:
                yield self._conversation(image, asked, path, shown)

    def _conversation(self, image: Annotated, asked: Asked, path: Path, shown: Image.Image) -> Conversation:
        assert asked.region is not None, "kept questions have a region"
        left, top, right, bottom = clipped(asked.region, image.size)
        width, height = image.size
        box = Box(left / width, top / height, right / width, bottom / height)
        region = crop_region(box, shown.size, self._profile.crop)
        assert region is not None, "kept regions hold pixels"
        crop = Path("crops") / f"{asked.number}.jpg"
        shown.crop(region).save(self._out / crop, quality=92)
        name = os.path.relpath(path, self._out)
        answer = asked.answer.strip().removesuffix(".")
        return two_rounds(self._profile, name, crop.as_posix(), asked.question, answer, box)

    def _kept_counts(self) -> Counts:
        path = self._out / _PROGRESS_FILE
        if not path.exists():
            return Counts()
        kept = json.loads(path.read_text(encoding="utf-8"))
        return Counts(**{**kept, "verdicts": Counter(kept["verdicts"])})

    def _keep_counts(self, written: int) -> None:
        self._counts.written = written
        partial = self._out / f"{_PROGRESS_FILE}.partial"
        partial.write_text(json.dumps(vars(self._counts)), encoding="utf-8")
        partial.replace(self._out / _PROGRESS_FILE)
