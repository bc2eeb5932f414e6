"""`python -m dualfocus_training.curation --release DIR --pictures DIR --out DIR`."""

import argparse
import sys
from pathlib import Path

from dualfocus_engine.families.profiles import load_profile

from dualfocus_training.curation.curate import Curation
from dualfocus_training.curation.exclusion import excluded_images

_SHOWN_EVERY = 1000


def _show(what: str, count: int) -> None:
    if count % _SHOWN_EVERY == 0:
        print(f"\r{what}: {count:,}", end="", file=sys.stderr, flush=True)


def main() -> None:
    """Turn a Visual Genome release into two-round conversations; a stopped curation goes on."""
    parser = argparse.ArgumentParser(description="Turn a Visual Genome release into two-round conversations.")
    parser.add_argument("--release", type=Path, required=True, help="folder of the release's JSON files")
    parser.add_argument("--pictures", type=Path, required=True, help="folder of the pictures, NUMBER.jpg")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--profile", required=True, help="wording and box notation: a profile's name or file")
    parser.add_argument(
        "--exclude", type=Path, nargs="+", default=[], help="files that name images to leave out, such as GQA's testdev"
    )
    arguments = parser.parse_args()
    excluded, profile = excluded_images(arguments.exclude), load_profile(arguments.profile)
    curation = Curation(arguments.release, arguments.pictures, arguments.out, profile, _show, excluded)
    print(file=sys.stderr)
    for name, found in curation.files.items():
        print(f"{name}: {found}")
    print(f"images named by --exclude: {len(excluded):,}")
    for name, count in curation.run().items():
        print(f"{name}: {count:,}")


if __name__ == "__main__":
    main()
