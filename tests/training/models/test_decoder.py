"""The language model as it is trained: what transformers computes, where it is asked for."""

import pytest
import torch
from dualfocus_training.learning.learner import SceneLearner
from dualfocus_training.models.decoder import run_decoder
from dualfocus_training.models.small_model import Size
from transformers import DynamicCache

_PADDED = 2


def test_states_and_the_middle_layers_attention_are_those_of_transformers(learner: SceneLearner) -> None:
    """Also behind a prefix, one of two padded on the left, and at other places in each sequence."""
    language = learner.model.model.language_model
    embedded, asked = torch.randn(2, 9, language.config.hidden_size), torch.tensor([[0, 2, 3], [1, 3, 0]])
    known = torch.ones(2, 9, dtype=torch.bool)
    known[1, :_PADDED] = False
    places = torch.arange(9)[None]
    whole = language(inputs_embeds=embedded, attention_mask=known, position_ids=places, output_attentions=True)
    cache = DynamicCache()
    before = run_decoder(language, embedded[:, :5], cache, known[:, :5], torch.zeros(2, 0, dtype=torch.long))
    behind = run_decoder(language, embedded[:, 5:], cache, known, asked)
    assert before.states.shape[1] == 0
    expected = whole.last_hidden_state[:, 5:]
    for number, places_asked in enumerate(asked):
        torch.testing.assert_close(behind.states[number], expected[number, places_asked])
    torch.testing.assert_close(behind.attention, whole.attentions[len(whole.attentions) // 2][:, :, 5:])


def test_a_model_without_a_middle_layer_is_refused() -> None:
    with pytest.raises(ValueError, match="text_layers: 2 are too few, give 3 or more"):
        Size(text_layers=2)
