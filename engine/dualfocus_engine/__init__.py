"""DualFocus: a vision-language model that looks twice, on vLLM. Knows images, boxes, turns and perplexity; no HTTP."""

from dualfocus_engine.errors import (
    BadPicture,
    BadQuestion,
    ConfigError,
    ContextFull,
    DualFocusError,
    EngineDead,
    ErrorKind,
)
from dualfocus_engine.families.boxes import Box, Region
from dualfocus_engine.families.profiles import Profile, load_profile, profile_names
from dualfocus_engine.focus import DualFocus
from dualfocus_engine.grounders.grounder import Grounder
from dualfocus_engine.method.questions import Message, Question, Text
from dualfocus_engine.method.results import FocusResult, Mode, Scoring, SecondLook, Selection, Turn
from dualfocus_engine.pictures.pictures import Picture, open_picture

# The first names of the results, which programs import.
Focused, Look = FocusResult, SecondLook

__all__ = [
    "BadPicture",
    "BadQuestion",
    "Box",
    "ConfigError",
    "ContextFull",
    "DualFocus",
    "DualFocusError",
    "EngineDead",
    "ErrorKind",
    "FocusResult",
    "Focused",
    "Grounder",
    "Look",
    "Message",
    "Mode",
    "Picture",
    "Profile",
    "Question",
    "Region",
    "Scoring",
    "SecondLook",
    "Selection",
    "Text",
    "Turn",
    "load_profile",
    "open_picture",
    "profile_names",
]
