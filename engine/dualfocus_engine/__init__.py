"""DualFocus: a vision-language model that looks twice, on vLLM. Knows images, boxes, turns and perplexity; no HTTP."""

from dualfocus_engine.boxes import Box, Region
from dualfocus_engine.errors import (
    BadPicture,
    BadQuestion,
    ContextFull,
    DualFocusError,
    EngineDead,
    ErrorKind,
)
from dualfocus_engine.focus import DualFocus
from dualfocus_engine.pictures import Picture, open_picture
from dualfocus_engine.profiles import Profile, load_profile, profile_names
from dualfocus_engine.questions import Message, Question
from dualfocus_engine.results import Focused, Look, Mode, Scoring, Selection, Turn

__all__ = [
    "BadPicture",
    "BadQuestion",
    "Box",
    "ContextFull",
    "DualFocus",
    "DualFocusError",
    "EngineDead",
    "ErrorKind",
    "Focused",
    "Look",
    "Message",
    "Mode",
    "Picture",
    "Profile",
    "Question",
    "Region",
    "Scoring",
    "Selection",
    "Turn",
    "load_profile",
    "open_picture",
    "profile_names",
]
