"""The step that measures LLaVA-1.5-7B's shape: two looks beside macro and beside a client's three calls."""

from loadtests.gpu_check.plan import seven_plan
from loadtests.gpu_check.settings import read_settings
from loadtests.gpu_check.steps.shape import run_plan


def main() -> None:
    """Measure."""
    settings = read_settings()
    run_plan(settings, "seven", seven_plan(settings))


if __name__ == "__main__":
    main()
