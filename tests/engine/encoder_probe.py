"""Counts, inside vLLM's worker, the images that the vision tower itself is run on."""

from typing import Any


class EncoderProbe:
    """A vLLM worker extension (`worker_extension_cls`)."""

    model_runner: Any
    _encoded_images: int

    def watch_vision_tower(self) -> None:
        """Begin to count."""
        tower = self.model_runner.model.vision_tower
        forward = tower.forward
        self._encoded_images = 0

        def counted(pixel_values: Any, *args: Any, **kwargs: Any) -> Any:
            self._encoded_images += len(pixel_values)
            return forward(pixel_values, *args, **kwargs)

        tower.forward = counted

    def encoded_images(self) -> int:
        """Return how many images went through the tower since."""
        return self._encoded_images
