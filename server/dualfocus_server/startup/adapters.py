"""Adapters that were trained in other words than their model: `--lora-profiles`.

Leans on vLLM 0.32's `LoRAModulePath` in `--lora-modules`, and on `VLLM_ALLOW_RUNTIME_LORA_UPDATING`.
"""

from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Container, Mapping

from dualfocus_engine import ConfigError, DualFocus, Profile, load_profile
from vllm import envs


def adapter_profile(text: str) -> tuple[str, str]:
    """Read NAME=PROFILE. Raises ArgumentTypeError."""
    name, _, profile = text.partition("=")
    if not name or not profile:
        raise ArgumentTypeError(f"{text!r} is not NAME=PROFILE")
    return name, profile


def adapter_profiles(args: Namespace, base: Profile, with_flags: Callable[[Profile], Profile]) -> dict[str, Profile]:
    """Return the profiles of adapters that have one of their own; `with_flags` puts what the flags say into each.

    Raises ConfigError where one can't be used beside the model's, `base`, or is no adapter's.
    """
    profiles: dict[str, Profile] = {}
    for name, profile in args.lora_profiles:
        try:
            _check_name(name, profiles, args)
            profiles[name] = with_flags(load_profile(profile))
            profiles[name].check_same_pictures(base)
        except ConfigError as error:
            raise ConfigError(f"--lora-profiles {name}={profile}: {error}") from error
    return profiles


def _check_name(name: str, profiles: Container[str], args: Namespace) -> None:
    """Raise ConfigError where a name is given twice, or no adapter has it or can be loaded by it later."""
    known = [module.name for module in args.lora_modules or ()]
    if name in profiles:
        raise ConfigError("it is named twice.")
    if name not in known and not envs.VLLM_ALLOW_RUNTIME_LORA_UPDATING:
        raise ConfigError(f"there is no such adapter. Those of --lora-modules: {', '.join(known) or 'none'}.")


async def warm_adapters(focus: DualFocus, profiles: Mapping[str, Profile]) -> dict[str, DualFocus]:
    """Return the method in each adapter's words, tried as the model's own. Raises ConfigError."""
    adapters = {name: focus.with_profile(profile) for name, profile in profiles.items()}
    for name, adapter in adapters.items():
        try:
            await adapter.warm_up()
        except ConfigError as error:
            raise ConfigError(f"--lora-profiles {name}={adapter.profile.name}: {error}") from error
    return adapters
