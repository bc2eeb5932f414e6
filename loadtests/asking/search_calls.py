"""A client that looks on until it is sure, by plain calls of `vllm serve`: what mode search does in one request.

It is a sensible one: macro and grounding at the same time, one conversation that goes on by where was looked and what
was shown, each answer a branch of it, so that vLLM's prefix cache knows all but the newest picture.
"""

from typing import NamedTuple

from dualfocus_engine.families.boxes import Region, crop_region
from dualfocus_engine.families.profiles import Profile
from dualfocus_engine.method.perplexity import mean_nll, perplexity

from loadtests.asking.calls import Cost, Json, Post, Together, add_call, box_sampling, request_body, user_turn
from loadtests.asking.questions import Asked, data_url


class _Answer(NamedTuple):
    perplexity: float
    text: str


class _Crop(NamedTuple):
    """A part of the picture, and as it is sent."""

    region: Region
    url: str


def search_in_calls(post: Post, together: Together, profile: Profile, model: str, asked: Asked, sampling: Json) -> Cost:
    """Look on until an answer is sure, there is nothing further to see, or the profile's looks are taken."""
    return _Search(post, profile, model, asked, sampling).run(together)


class _Search:
    def __init__(self, post: Post, profile: Profile, model: str, asked: Asked, sampling: Json) -> None:
        self._post, self._profile, self._model, self._asked = post, profile, model, asked
        self._sampling = {**sampling, "logprobs": True}
        self._opening: list[Json] = [{"role": "system", "content": profile.system}] if profile.system else []
        self._answers: list[_Answer] = []
        self._cost = Cost(encoder_runs=1)

    def run(self, together: Together) -> Cost:
        asked = self._asked
        talk = [*self._opening, user_turn(self._profile.grounding_text(asked.text), asked.url)]
        macro, box = together(
            lambda: self._call("macro", [*self._opening, user_turn(asked.text, asked.url)], self._sampling),
            lambda: self._call("grounding", talk, box_sampling(self._profile)),
        )
        self._take_answer("macro", macro)
        region: Region | None = Region(0, 0, *asked.picture.size)
        while region is not None:
            talk, region = self._look(talk, box, region)
            if region is not None:
                box = self._call("grounding", talk, box_sampling(self._profile))
        self._cost.right = asked.is_answered_by(self._best.text)
        return self._cost

    def _look(self, talk: list[Json], box: Json, seen: Region) -> tuple[list[Json], Region | None]:
        """Look at what a box means; returns the conversation that asks where in it, and the part: None at the end."""
        add_call(self._cost, "grounding", box)
        written = box["choices"][0]["message"]["content"] or ""
        crop = self._crop(written, seen)
        if crop is None:
            return talk, None
        assert self._cost.encoder_runs is not None
        self._cost.encoder_runs += 1
        talk = [*talk, {"role": "assistant", "content": written}]
        asked = self._asked.text
        answer = [*talk, user_turn(self._profile.micro_text(asked), crop.url)]
        self._take_answer("micro", self._call("micro", answer, self._sampling))
        return [*talk, user_turn(self._profile.deeper_text(asked), crop.url)], None if self._ends(crop) else crop.region

    def _crop(self, written: str, seen: Region) -> _Crop | None:
        """Cut what a box in the last picture means out of the original; None where that shows nothing new."""
        box, picture = self._profile.box_format.read(written), self._asked.picture
        if box is None or box.is_empty:
            return None
        region = crop_region(box.within(seen, picture.size), picture.size, self._profile.crop)
        whole = seen == (0, 0, *picture.size)
        if region is None or (region.area >= seen.area and not whole):
            return None
        return _Crop(region, data_url(picture.crop(region)))

    def _ends(self, crop: _Crop) -> bool:
        profile = self._profile
        sure = profile.sure_below_perplexity or profile.skip_below_perplexity
        shown = max(crop.region.right - crop.region.left, crop.region.bottom - crop.region.top)
        return (
            self._best.perplexity < sure
            or len(self._answers) >= profile.max_looks
            or shown <= (profile.image_size or 0)
        )

    @property
    def _best(self) -> _Answer:
        """The answer of least perplexity, of equal ones the first (Eq. 8)."""
        return min(self._answers, key=lambda answer: answer.perplexity)

    def _call(self, name: str, messages: list[Json], sampling: Json) -> Json:
        return self._post(name, request_body(self._model, messages, sampling))

    def _take_answer(self, name: str, answer: Json) -> None:
        add_call(self._cost, name, answer)
        self._cost.looks += 1
        (choice,) = answer["choices"]
        scores = [token["logprob"] for token in choice["logprobs"]["content"]]
        self._answers.append(_Answer(perplexity(mean_nll(scores)), choice["message"]["content"] or ""))
