"""`python -m dualfocus_eval.scenes --seed N --count M --out DIR`."""

import argparse
from pathlib import Path

from dualfocus_eval.scenes.writing import write_scenes


def main() -> None:
    """Write seeded scenes and their questions to a folder."""
    parser = argparse.ArgumentParser(description="Write seeded scenes with questions, answers and boxes.")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--count", type=int, required=True, help="pictures")
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures and questions.jsonl")
    arguments = parser.parse_args()
    write_scenes(arguments.seed, arguments.count, arguments.out)


if __name__ == "__main__":
    main()
