"""The step that measures the shape with drafted boxes."""

from loadtests.gpu_check.plan import drafted_plan
from loadtests.gpu_check.settings import read_settings
from loadtests.gpu_check.steps.shape import run_plan


def main() -> None:
    """Measure."""
    settings = read_settings()
    run_plan(settings, "drafted", drafted_plan(settings))


if __name__ == "__main__":
    main()
