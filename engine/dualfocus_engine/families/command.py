"""`dualfocus profiles`: the profiles that ship, the text of one, and which one a model is served with."""

import argparse
import sys
from collections.abc import Sequence

from dualfocus_engine.errors import ConfigError
from dualfocus_engine.families.choosing import choose_profile
from dualfocus_engine.families.profiles import Profile, load_profile, profile_names, shipped_profile


def main(argv: Sequence[str]) -> int:
    """Run `dualfocus profiles`; returns the exit status."""
    args = _parse(argv)
    try:
        print(_told(args))
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="dualfocus profiles",
        description="List the profiles that ship, print one, or say which one a model is served with.",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("name", nargs="?", metavar="NAME", help="print this profile, a file to begin one's own with")
    what.add_argument("--for", dest="model", metavar="MODEL", help="say which profile is taken for a model, and why")
    return parser.parse_args(argv)


def _told(args: argparse.Namespace) -> str:
    """Return what is to be printed. Raises ConfigError."""
    if args.model is not None:
        profile, why = choose_profile(args.model)
        return f"{profile.name} ({why}){_verified(profile)}"
    if args.name is None:
        return "\n".join(_listed(load_profile(name)) for name in profile_names())
    if args.name not in profile_names():
        raise ConfigError(f"No profile {args.name!r} ships: there are {', '.join(profile_names())}.")
    return shipped_profile(args.name).rstrip()


def _listed(profile: Profile) -> str:
    models = ", ".join(profile.architectures) or "no architecture: named, or for want of another"
    return f"{profile.name} ({models})\n  {profile.description}{_verified(profile)}\n"


def _verified(profile: Profile) -> str:
    return f"\n  Verified: {profile.verified}" if profile.verified else ""
