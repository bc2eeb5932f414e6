"""What GroundingDINO is asked to find: the phrases of a question.

The rule is this project's own: the paper does not say what it gave to GroundingDINO. It knows English; of another
language all words are kept.
"""

import regex

# A word of any script, with what joins its parts.
_WORD = regex.compile(r"[\p{L}\p{M}\p{N}]+(?:['\u2019-][\p{L}\p{M}\p{N}]+)*|[^\s]", regex.VERSION1)
# Words that name nothing to be seen. Between them, and between marks of punctuation, are the phrases.
_NAMES_NOTHING = """
    a an the this that these those any some each every all both no not there here it its they their them he his him she
    her hers you your i me my we our us one
    what which who whom whose where when why how what's who's where's there's
    is are was were be been being am isn't aren't wasn't weren't do does did doing done don't doesn't didn't has have
    had having can could will would shall should may might must
    of in on at to from by with without for about into onto over under above below behind beside between near next
    through across around against along inside outside up down off out as than like and or but if then so
    color colour shape size kind type sort number many much long old far left right side part picture image photo
    photograph please tell say describe name see visible shown seen
"""
_LEFT_OUT = frozenset(_NAMES_NOTHING.split())


def caption_of(question: str) -> str:
    """Return a question's phrases as GroundingDINO reads them: in lower case, each ended by a full stop.

    Where nothing is left, it is the question as a whole.
    """
    phrases: list[list[str]] = [[]]
    for word in _WORD.findall(question.lower()):
        if word in _LEFT_OUT or not word[0].isalnum():
            phrases.append([])
        else:
            phrases[-1].append(word)
    named = dict.fromkeys(" ".join(phrase) for phrase in phrases if phrase)
    return " ".join(f"{phrase}." for phrase in named or [question.lower().strip(" .?!")])
