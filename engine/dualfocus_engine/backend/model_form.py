"""In which form a model is read: repositories of Mistral's hold their own beside the one that Transformers reads.

vLLM 0.32 takes Mistral's own where it is there. Its tokenizer writes whole conversations, pictures among them, and no
turn can be rendered to continue another.
"""

from dataclasses import replace

from vllm.config import ModelConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.transformers_utils.repo_utils import any_pattern_in_repo_files, file_or_path_exists, is_mistral_model_repo

# What Transformers reads of a model, besides its weights.
_FILES = ("config.json", "tokenizer.json")
# Ways to tokenize by which vLLM makes tokens of a whole conversation at once, without a text that could be continued.
WITHOUT_TEXT = ("inkling", "kimi_k3")
# Mistral's own tokenizers.
_TOKENIZERS = ["tekken.json", "tokenizer.model.v*"]


def in_transformers_form(args: AsyncEngineArgs) -> AsyncEngineArgs:
    """Return engine arguments by which a model is read as Transformers has it, where it is there; flags stand."""
    if {args.config_format, args.tokenizer_mode, args.load_format} != {"auto"}:
        return args
    if not is_mistral_model_repo(args.model, args.revision, token=args.hf_token):
        return args
    if not all(file_or_path_exists(args.model, name, args.revision) for name in _FILES):
        return args
    return replace(args, config_format="hf", tokenizer_mode="hf", load_format="hf")


def has_mistrals_tokenizer(model: ModelConfig) -> bool:
    """Whether vLLM will put conversations to the model by Mistral's own tokenizer."""
    if model.tokenizer_mode != "auto":
        return bool(model.tokenizer_mode == "mistral")
    name, where = model.tokenizer, {"revision": model.tokenizer_revision, "token": model.hf_token}
    return bool(is_mistral_model_repo(name, **where) and any_pattern_in_repo_files(name, _TOKENIZERS, **where))
