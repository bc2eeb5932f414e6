"""Make conversations of a Visual Genome release, restartable, with counts at each step."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dualfocus_engine.families.boxes import Box, crop_region
from dualfocus_engine.families.profiles import Profile
from PIL import ExifTags, Image

from dualfocus_training.curation.ambiguity import Verdict, judge
from dualfocus_training.curation.irregularities import Odd, report
from dualfocus_training.curation.release import clipped, look_at
from dualfocus_training.curation.visual_genome import Annotated, Asked, Genome, Progress
from dualfocus_training.learning.conversations import Conversation, to_line, two_rounds

CONVERSATIONS_FILE = "conversations.jsonl"
COUNTS_FILE = "counts.json"
_PROGRESS_FILE = "progress.json"
_INDEX_FILE = "index.sqlite"
_KEEP_EVERY = 200


@dataclass
class Counts:
    """How far a curation is, what became of each question, and what was irregular.

    `begun_with` tells release, profile and the images that were to be left out from others: it goes on with the same.
    """

    begun_with: str
    images: int = 0
    questions: int = 0
    mapped: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    odd: Counter[str] = field(default_factory=Counter)
    written: int = 0


class Curation:
    """One curation into a folder: conversations, crops, counts. Started again, it goes on.

    Raises ValueError where a file of the release is in no known form, where it was begun with another release, profile
    or other `excluded` images, and over a profile whose boxes are in pixels: of the picture as its model is shown it.
    """

    def __init__(
        self,
        release: Path,
        pictures: Path,
        out: Path,
        profile: Profile,
        progress: Progress,
        excluded: frozenset[int] = frozenset(),
    ) -> None:
        if profile.box_format.scale == "pixels":
            raise ValueError(f"the profile {profile.name} writes boxes in pixels as shown, which are not known here")
        self.files = look_at(release)
        self._pictures, self._out, self._profile, self._progress = pictures, out, profile, progress
        (out / "crops").mkdir(parents=True, exist_ok=True)
        self._excluded = excluded
        self._counts = self._kept_counts()
        self._keep_counts(self._counts.written)  # before the index: it is this release's too
        self._genome = Genome(release, out / _INDEX_FILE, progress)

    def run(self) -> dict[str, int]:
        """Curate every image that is not done yet; return the counts by name, in the order of the steps."""
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
        counts = self._report()
        told = json.dumps({"files": self.files, **counts}, indent=2)
        (self._out / COUNTS_FILE).write_text(told + "\n", encoding="utf-8")
        return counts

    def _report(self) -> dict[str, int]:
        counts, (known, mapped) = self._counts, self._genome.totals()
        odd = self._genome.irregularities() + counts.odd
        odd[Odd.QUESTIONS_LACK] = known - (counts.images - counts.odd[Odd.QUESTIONS_UNKNOWN])
        odd[Odd.ORPHANS] = mapped - counts.mapped
        verdicts = {verdict.value: counts.verdicts[verdict.value] for verdict in Verdict}
        return {"images": counts.images, **report(odd), "questions": counts.questions, **verdicts}

    def _curate(self, image: Annotated) -> Iterator[Conversation]:
        counts = self._counts
        counts.mapped += sum(asked.mapped for asked in image.asked)
        counts.odd[Odd.NO_QUESTIONS] += not image.asked
        counts.odd[Odd.QUESTIONS_UNKNOWN] += image.size is None
        if image.number in self._excluded:
            counts.odd[Odd.EXCLUDED] += 1
            return
        counts.questions += len(image.asked)
        judged = [(asked, judge(image, asked)) for asked in image.asked]
        counts.verdicts.update(verdict.value for _, verdict in judged)
        kept = [asked for asked, verdict in judged if verdict is Verdict.KEPT]
        if kept:
            yield from self._conversations(image, kept)

    def _conversations(self, image: Annotated, kept: Sequence[Asked]) -> Iterator[Conversation]:
        path = self._picture(image)
        if path is None:
            self._counts.odd[Odd.FILE_MISSING] += 1
            return
        shown = self._opened(path)
        if shown is None:
            return
        for asked in kept:
            self._counts.odd[Odd.FULL_STOP] += asked.answer.strip().endswith(".")
            yield self._conversation(image, asked, path, shown)

    def _opened(self, path: Path) -> Image.Image | None:
        """The picture; None, and counted, where it is damaged, or may be turned otherwise than its regions."""
        try:
            with Image.open(path) as picture:
                if picture.getexif().get(ExifTags.Base.Orientation, 1) == 1:
                    return picture.convert("RGB")
        except OSError:
            self._counts.odd[Odd.FILE_DAMAGED] += 1
        else:
            self._counts.odd[Odd.FILE_TURNED] += 1
        return None

    def _picture(self, image: Annotated) -> Path | None:
        """The image's file: in the folder that its URL names, or with all others in one."""
        name = f"{image.number}.jpg"
        places = (self._pictures / image.folder / name, self._pictures / name)
        return next((place for place in places if place.exists()), None)

    def _conversation(self, image: Annotated, asked: Asked, path: Path, shown: Image.Image) -> Conversation:
        assert asked.region is not None, "kept questions have a region"
        assert image.size is not None, "and an image of known size"
        left, top, right, bottom = clipped(asked.region.place, image.size)
        width, height = image.size
        box = Box(left / width, top / height, right / width, bottom / height)
        region = crop_region(box, shown.size, self._profile.crop)
        assert region is not None, "kept regions hold pixels"
        crop = Path("crops") / f"{asked.number}.jpg"
        shown.crop(region).save(self._out / crop, quality=92)
        name = os.path.relpath(path, self._out)
        answer = asked.answer.strip().removesuffix(".")
        return two_rounds(self._profile, name, crop.as_posix(), asked.question, answer, box)

    @property
    def _begun_with(self) -> str:
        told = [self.files, self._profile.model_dump(mode="json"), sorted(self._excluded)]
        return hashlib.blake2b(json.dumps(told).encode(), digest_size=8).hexdigest()

    def _kept_counts(self) -> Counts:
        path, begun_with = self._out / _PROGRESS_FILE, self._begun_with
        if not path.exists():
            return Counts(begun_with)
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept.get("begun_with") != begun_with:
            raise ValueError(
                f"{self._out} was begun with another --release, --profile or --exclude: give those, or a new folder"
            )
        return Counts(**{**kept, "verdicts": Counter(kept["verdicts"]), "odd": Counter(kept["odd"])})

    def _keep_counts(self, written: int) -> None:
        self._counts.written = written
        partial = self._out / f"{_PROGRESS_FILE}.partial"
        partial.write_text(json.dumps(vars(self._counts)), encoding="utf-8")
        partial.replace(self._out / _PROGRESS_FILE)
