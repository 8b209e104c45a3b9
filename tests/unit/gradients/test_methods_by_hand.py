"""Every method that people compare with, from a model's weights to an order of rows, against values worked out by hand.

The model is a Llama of one block and two features. Its attention averages what it has seen and writes nothing (W_o is
0), its MLP is 0, and all states have length sqrt 2, so that norms change nothing. So the next token's probabilities
follow from the last token alone. With head rows (ln a_t, ln b_t) they are proportional to

    state (1, 1):   a b = 1, 2, 8, 2, 1, 2, 1, 4            (of 21)     tokens 0, 4, 7
    state (-1, 1):  b / a = 1, .5, .5, .5, 1, 2, 1, .25     (of 6.75)   tokens 2, 6
    state (-1, -1): 1 / (a b) = 1, .5, .125, .5, 1, .5, 1, .25  (of 4.875)  token 3

for tokens 0 to 7; tokens 1 and 5 have state (1, -1). Three rows (the response behind the bar): 0 | 2 5, 3 | 7 and
6 0 | 2 3. Losses of their tokens in nats: ln 21/8 = 0.965081 and ln 6.75/2 = 1.216395; ln 4.875/.25 = 2.970414;
0.965081 and ln 6.75/.5 = 2.602690.

The gradient at W_o is the sum over tokens of delta x^T. There, x is the mean of the states so far, and delta =
g - h (h.g)/2 for the state h, with g = E[w] - w_target over the head's rows w. In units of ln 2:

    2 after (1, 1): E = (28, 10)/21, g = (-14, -11)/21, h.g = -25/21, delta = (-1, 1)/14
    5 after (-1, 1): E = (2.5, 2.5)/6.75, g = (2.5, -4.25)/6.75, h.g = -1, delta = -7/54 (1, 1)
    3 after (-1, 1): g = (-4.25, 2.5)/6.75, h.g = 1, the same delta
    7 after (-1, -1): E = (1.75, .625)/4.875, g = (-8, .625)/4.875, h.g = 7.375/4.875, delta = 23/26 (-1, 1)

With u = ln 2 / 14 = 0.0495105, c = 7 ln 2 / 54 = 0.0898524, w = 23 ln 2 / 26 = 0.6131687 and the means of the states,
by row (1, 1) and (0, 1); (-1, -1); (0, 1) and (-1/3, 1), the gradients of the rows' summed losses are

    G0 = ((-u, -u - c), (u, u - c))    G1 = ((w, w), (-w, -w))    G2 = ((c/3, -u - c), (c/3, u - c))
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import pytest
import torch
from tokenizers import AddedToken
from transformers import LlamaConfig, LlamaForCausalLM

from workers.data.samples import Sample
from workers.data.without_prompt import PromptFrame
from workers.gradients.adapter import Adapter, LowRank
from workers.gradients.config import GradientConfig
from workers.gradients.engine import GradientEngine, Sketches
from workers.gradients.features import embeddings, rating_probabilities
from workers.gradients.less import Checkpoint, directions, less_config, plain_gradients
from workers.gradients.starting_point import AdamState
from workers.models.proxy import ProxyModel
from workers.selection import (
    by_score,
    by_turns,
    facility_location,
    helped_by_prompt,
    influences,
    matching_pursuit,
    middle_third,
    ratings,
    transport,
)
from workers.statistics.row_figures import row_figures

if TYPE_CHECKING:
    from numpy.typing import NDArray

LAYER = "model.layers.0.self_attn.o_proj"
HEAD = torch.tensor([[1, 2, 4, 2, 1, 1, 1, 4], [1, 1, 2, 1, 1, 2, 1, 1]]).log().T
STATES = torch.tensor([[1, 1], [1, -1], [-1, 1], [-1, -1], [1, 1], [1, -1], [-1, 1], [1, 1]]).float()
CONFIG = GradientConfig(target="linear", layers=("o_proj",), sketch_dim=4096)
U, C, W = 0.0495105, 0.0898524, 0.6131687


def row(number: int, prompt: list[int], response: list[int]) -> Sample:
    ids = np.array([*prompt, *response], dtype=np.int32)
    return Sample(number, ids, np.arange(len(ids)) >= len(prompt))


ROWS = [row(0, [0], [2, 5]), row(1, [3], [7]), row(2, [6, 0], [2, 3])]
TARGET = row(0, [0, 0], [2])
"""Embedded as (1 (1, 1) + 2 (1, 1) + 3 (-1, 1)) / 6 = (0, 1)."""


@pytest.fixture(scope="module")
def model() -> ProxyModel:
    sizes: dict[str, Any] = {"vocab_size": 8, "hidden_size": 2, "intermediate_size": 2, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 1, "num_key_value_heads": 1}
    network = LlamaForCausalLM(LlamaConfig(**sizes, **heads, rms_norm_eps=1e-12, tie_word_embeddings=False))
    with torch.no_grad():
        for parameter in network.model.layers.parameters():
            if parameter.dim() > 1:
                parameter.zero_()
        attention: Any = network.model.layers[0].self_attn
        attention.v_proj.weight.copy_(torch.eye(2))
        network.model.embed_tokens.weight.copy_(STATES)
        network.lm_head.weight.copy_(HEAD)
    return ProxyModel(model=network, tokenizer=cast("Any", None), revision="by hand", path=Path())


@pytest.fixture(scope="module")
def sketches(model: ProxyModel) -> Sketches:
    """Of the three rows; without their prompts they begin with token 3."""
    frame = PromptFrame(np.array([3], dtype=np.int32), np.array([], dtype=np.int32))
    return GradientEngine(model, CONFIG).sketch(ROWS, unprompted=[frame.alone(one, 9) for one in ROWS])


@pytest.fixture(scope="module")
def embedded(model: ProxyModel) -> NDArray[np.float32]:
    return embeddings(GradientEngine(model, CONFIG), ROWS)


def test_gradients_and_their_sketches(model: ProxyModel, sketches: Sketches) -> None:
    """Inner products of the three, and so their lengths: |G0|^2 = 4 u^2 + 2 c^2, G0.G1 = -4 u w, G1.G2 = -2 u w, ..."""
    found = GradientEngine(model, CONFIG).gradients(ROWS)[LAYER].numpy()
    expected = [[[-U, -U - C], [U, U - C]], [[W, W], [-W, -W]], [[C / 3, -U - C], [C / 3, U - C]]]
    assert found == pytest.approx(np.array(expected), abs=1e-6)
    products = [[0.025952, -0.121433, 0.021049], [-0.121433, 1.503903, -0.060717], [0.021049, -0.060717, 0.022844]]
    assert sketches.values @ sketches.values.T == pytest.approx(np.array(products), abs=1e-5)


def test_perplexity(sketches: Sketches) -> None:
    """Mean losses (0.965081 + 1.216395) / 2, 2.970414 and (0.965081 + 2.602690) / 2; row 2 is the middle third."""
    assert sketches.token_losses == pytest.approx([1.090738, 2.970414, 1.783885], abs=1e-5)
    assert by_score(sketches.token_losses.astype(np.float64)).tolist() == [1, 2, 0]
    assert middle_third(sketches.token_losses.astype(np.float64), 0)[0] == 2


def test_length() -> None:
    """Two, one and two tokens of a response; of equals the first row."""
    assert by_score(np.array([one.loss_tokens for one in ROWS], dtype=np.float64)).tolist() == [0, 2, 1]


def test_ifd(sketches: Sketches) -> None:
    """Alone, after token 3: ln 4.875/.125 = 3.663562 for token 2, 2.970414 for token 7, the others as before.

    Row 0: 1.090738 / ((3.663562 + 1.216395) / 2) = 0.447028; row 1 is what it was: 1; row 2: 1.783885 / 3.133126.
    """
    assert sketches.unprompted == pytest.approx([2.439978, 2.970414, 3.133126], abs=1e-5)
    figures = row_figures(sketches.values, sketches.token_losses, sketches.unprompted, sketches.end_losses)
    assert figures.ifd == pytest.approx([0.447028, 1.0, 0.569362], abs=1e-5)
    assert helped_by_prompt(figures.ifd).tolist() == [1, 2, 0]


class Special:
    """A tokenizer of which only its added tokens are asked: 2 and 5 are special, 3 is not."""

    added_tokens_decoder: ClassVar = {
        token: AddedToken(str(token), special=special) for token, special in ((2, True), (3, False), (5, True))
    }


def test_the_loss_of_the_end(model: ProxyModel, sketches: Sketches) -> None:
    """Of the last special token of each response: 5 in row 0, none in row 1, and 2 in row 2, as 3 is no special one."""
    assert np.isnan(sketches.end_losses).all(), "without a tokenizer no token is known to end anything"
    marked = replace(model, tokenizer=cast("Any", Special()))
    for normalization in ("sum", "mean"):
        engine = GradientEngine(marked, replace(CONFIG, loss_normalization=normalization))
        found = engine.sketch(ROWS).end_losses
        assert found[[0, 2]] == pytest.approx([1.216395, 0.965081], abs=1e-5)
        assert np.isnan(found[1])


def test_gradient_norm(sketches: Sketches) -> None:
    """sqrt(4 u^2 + 2 c^2), 2 w, sqrt(2 u^2 + (2 + 2/9) c^2)."""
    figures = row_figures(sketches.values, sketches.token_losses, sketches.unprompted, sketches.end_losses)
    assert figures.norm == pytest.approx([0.161096, 1.226337, 0.151141], abs=1e-5)


class Symbols:
    """A tokenizer of characters: the digits 1 to 5 are tokens 1 to 5, the end of a line is 7, all else 6."""

    added_tokens_decoder: ClassVar[dict[int, AddedToken]] = {}

    def __call__(self, text: str, **_options: object) -> dict[str, list[int]]:
        return {"input_ids": ["x12345?\n".find(one) if one in "12345\n" else 6 for one in text]}

    def decode(self, ids: list[int], **_options: object) -> str:
        return "x" * len(ids)


def test_selectit(model: ProxyModel) -> None:
    """Each question ends in the end of a line, whose state is (1, 1): the digits have 2, 8, 2, 1, 2 of 21.

    Of each other 2, 8, 2, 1, 2 of 15, e to which is 1.142631, 1.704605, 1.142631, 1.068939, 1.142631, sum 6.201436.
    Digit 2 leads the others by (3 * 0.561974 + 0.635666) / 6.201436 / 4 = 0.093591, times 2; five questions agree.
    """
    rated = ProxyModel(model.model, cast("Any", Symbols()), "by hand", Path())
    found = rating_probabilities(GradientEngine(rated, CONFIG), rated.tokenizer, ROWS)
    assert found == pytest.approx(np.tile(np.array([2, 8, 2, 1, 2]) / 21, (3, 5, 1)), abs=1e-6)
    assert ratings(found.astype(np.float64)) == pytest.approx([0.187181] * 3, abs=1e-5)


def test_rds_plus(model: ProxyModel, embedded: NDArray[np.float32]) -> None:
    """Row 0: (1 (1, 1) + 2 (-1, 1) + 3 (1, -1)) / 6 is along (1, 0); row 1: (1 (-1, -1) + 2 (1, 1)) / 3 along (1, 1).

    Row 2: (1 (-1, 1) + 2 (1, 1) + 3 (-1, 1) + 4 (-1, -1)) / 10 = (-0.6, 0.2). Cosines with (0, 1): 0, 0.707107 and
    0.316228.
    """
    target = embeddings(GradientEngine(model, CONFIG), [TARGET])
    assert target == pytest.approx(np.array([[0.0, 1.0]]), abs=1e-6)
    assert embedded == pytest.approx(np.array([[1, 0], [0.707107, 0.707107], [-0.948683, 0.316228]]), abs=1e-5)
    assert by_turns(embedded @ target.T, np.array([0])).tolist() == [1, 2, 0]


def test_tsds(model: ProxyModel, embedded: NDArray[np.float32]) -> None:
    """Distances to (0, 1) are sqrt(2 - 2 cos): 1.414214, 0.765367 and 1.169421; the two nearest may have mass.

    They are sqrt 2.894427 apart, further than sigma 0.75, so each counts once. Sending row 1's mass on would cost
    1.169421 - 0.765367 = 0.404054, times 0.5 / 5 less than 0.5: row 1 has all mass. The others follow by distance.
    """
    target = embeddings(GradientEngine(model, CONFIG), [TARGET])
    assert np.linalg.norm(embedded - target, axis=1) == pytest.approx([1.414214, 0.765367, 1.169421], abs=1e-5)
    assert transport(embedded, target, seed=0).tolist() == [1, 2, 0]


def test_grad_match(sketches: Sketches) -> None:
    """The goal is G0 + G1 + G2; its products with the rows are -0.074432, 1.321753 and -0.016823: row 1 is first.

    Its weight is 1.321753 / 1.503903 = 0.878882, and what is left has products 4 c^2 = 0.032294, 0 and 0.036539: row 2.
    Weights (x, y) solve 1.503903 x - 0.060717 y = 1.321753 and -0.060717 x + 0.022844 y = -0.016823.
    """
    found = matching_pursuit(sketches.values, None, 2)
    assert found.rows.tolist() == [1, 2]
    assert found.weights == pytest.approx([0.951222, 1.791814], rel=1e-4)


def test_facility_location(sketches: Sketches) -> None:
    """Squared distances: G0 to G1 0.025952 + 1.503903 + 0.242866 = 1.772722, to G2 0.006697; G1 to G2 1.648180.

    Distances 1.331436, 0.081834, 1.283815: row 2 has the smallest sum, 1.365649; row 1 is what it stands for worst.
    """
    assert facility_location(sketches.values, 2).tolist() == [2, 1]


def checkpoint(down: list[float], first: list[float], second: list[float]) -> Checkpoint:
    """An adapter B A with this A and B = 0, and Adam after one step with these moments of B."""
    adapter = Adapter({LAYER: LowRank(torch.tensor([down]), torch.zeros(2, 1), scale=1.0)})
    a, b = f"{LAYER}.lora_A", f"{LAYER}.lora_B"
    moments = [{a: torch.zeros(1, 2), b: torch.tensor(values).unsqueeze(1)} for values in (first, second)]
    return Checkpoint(adapter, AdamState(moments[0], moments[1], 1))


def test_less(model: ProxyModel) -> None:
    """Two checkpoints: A = (1, 0) takes the first columns of the gradients, A = (0, 1) the second; those of A are 0.

    Of mean losses the first columns are (-u, u)/2 = (-0.024755, 0.024755), (w, -w), and (c/6, c/6), which is 0.014975
    twice. With m = (0.01, 0.02) and v = (1e-4, 4e-4) after a step, row 0: m' = (0.009 - 0.002476, 0.018 + 0.002476),
    over 0.19: (0.034339, 0.107766); v' = (0.0000999 + 0.0000006, 0.0003996 + 0.0000006), over 0.001999, its root
    (0.224235, 0.447445): (0.153140, 0.240848). Likewise rows 1 and 2: (0.758517, -0.366014) and (0.246871, 0.229455).
    The target is row 2 itself, whose gradient is along (1, 1): cosines 0.976106, 0.329541, 0.999332.
    Second columns (-u - c, u - c)/2 = (-0.069681, -0.020171), (w, -w), and those of row 0 once more; m = (0.02, -0.01)
    and v = (4e-4, 1e-4): (0.129082, -0.258854), (0.670203, -0.758517) and that of row 0. Cosines with the target's,
    which is along (-0.960564, -0.278058): -0.179826, -0.427650, -0.179826.
    Rates 3e-5 and 1e-5 weigh 3 and 1 of 4: row 0 0.75 * 0.976106 - 0.25 * 0.179826 = 0.687123, and so on.
    """
    made = [checkpoint([1.0, 0.0], [0.01, 0.02], [1e-4, 4e-4]), checkpoint([0.0, 1.0], [0.02, -0.01], [4e-4, 1e-4])]
    config = less_config(CONFIG)
    rows, target = directions(model, config, made, ROWS), plain_gradients(model, config, made, ROWS[2:])
    cosines = np.einsum("ncp,qcp->cnq", rows, target)
    assert cosines[0, :, 0] == pytest.approx([0.976106, 0.329541, 0.999332], abs=1e-5)
    assert cosines[1, :, 0] == pytest.approx([-0.179826, -0.427650, -0.179826], abs=1e-5)
    found = influences(cosines, np.array([3e-5, 1e-5]), np.array([0]))
    assert found == pytest.approx([0.687123, 0.140243, 0.704543], abs=1e-5)
    assert by_score(found).tolist() == [2, 0, 1]
