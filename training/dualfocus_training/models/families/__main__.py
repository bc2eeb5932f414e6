"""Makes the tiny model of a family: python -m dualfocus_training.models.families FAMILY."""

import sys

from dualfocus_training.models.families import FAMILIES, ensure_tiny

if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1] in FAMILIES:
        print(ensure_tiny(sys.argv[1]))
    else:
        sys.exit(f"give one of {', '.join(FAMILIES)}")
