"""2:4: of every four consecutive input channels two go, those of the lowest scores."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from naive_pruning import assert_equal_trees, assert_only_shrunk

from prunejax import pruning
from prunejax.config import UserError
from prunejax.pruning import ALLOCATIONS
from prunejax.pruning.masks import without
from prunejax.pruning.n_of_m import n_of_m

TWO_OF_FOUR = ALLOCATIONS["2:4"]
SHAPE = (3, 3, 8, 5)


def kernels(seed=0, shape=SHAPE):
    """One convolution, beside what is never pruned."""
    rng = np.random.default_rng(seed)
    return {
        "conv": {"kernel": rng.normal(size=shape).astype(np.float32)},
        "norm": {"scale": rng.normal(size=8).astype(np.float32)},
    }


def naive_n_of_m(scores, mask, lost, group=4):
    """Group by group: what is pruned stays so, then the lowest go, until `lost` are gone."""
    kept = mask.copy()
    height, width, inputs, outputs = scores.shape
    for row, column, output in np.ndindex(height, width, outputs):
        for start in range(0, inputs, group):
            places = [(row, column, start + offset, output) for offset in range(group)]
            places.sort(key=lambda place: (bool(mask[place]), float(scores[place])))
            for place in places[:lost]:
                kept[place] = False
    return kept


def groups(mask):
    """[..., groups, 4, outputs]."""
    return np.asarray(mask).reshape(*SHAPE[:2], SHAPE[2] // 4, 4, SHAPE[3])


@jax.jit
def select(scores, masks, sparsity):
    return TWO_OF_FOUR.function(scores, masks, sparsity, pruning.convolution_kernels)


def test_two_of_each_four_input_channels_are_kept():
    scores = kernels()
    masks = select(scores, pruning.init_masks(scores), 0.5)
    kept = groups(masks["conv"]["kernel"])
    assert (kept.sum(axis=-2) == 2).all()
    assert masks["norm"]["scale"].all()


def test_the_kept_two_have_the_larger_scores():
    scores = kernels()
    mask = select(scores, pruning.init_masks(scores), 0.5)["conv"]["kernel"]
    kept = groups(mask)
    values = groups(scores["conv"]["kernel"])
    least_kept = np.where(kept, values, np.inf).min(axis=-2)
    largest_gone = np.where(kept, -np.inf, values).max(axis=-2)
    assert (least_kept >= largest_gone).all()


def test_by_hand():
    scores = {"kernel": np.array([3, 1, 4, 1, 5, 9, 2, 6], np.float32).reshape(1, 1, 8, 1)}
    mask = select(scores, pruning.init_masks(scores), 0.5)["kernel"]
    assert np.ravel(mask).tolist() == [True, False, True, False, False, True, False, True]
    mask = select(scores, pruning.init_masks(scores), 0.25)["kernel"]
    assert np.ravel(mask).tolist() == [True, False, True, True, True, True, False, True]


@settings(max_examples=50, deadline=None)
@given(
    scores=hnp.arrays(
        np.float32,
        (1, 1, 8, 2),
        elements=st.sampled_from([-1.0, -0.0, 0.0, 0.5, 1.0, np.inf, -np.inf]),
        fill=st.nothing(),
    ),
    seed=st.integers(0, 99),
    lost=st.integers(0, 2),
)
def test_ties_go_by_index_behind_what_is_pruned(scores, seed, lost):
    mask = np.random.default_rng(seed).random(scores.shape) > 0.3
    ours = select({"kernel": scores}, {"kernel": mask}, lost / 4)["kernel"]
    np.testing.assert_array_equal(ours, naive_n_of_m(scores, mask, lost))


def test_masks_are_cumulative_as_the_ranking_changes():
    masks = pruning.init_masks(kernels())
    for step, (sparsity, lost) in enumerate([(0.0, 0), (0.25, 1), (0.1, 1), (0.5, 2), (0.2, 2)]):
        before = masks
        scores = kernels(seed=step)
        masks = select(scores, masks, sparsity)
        assert_only_shrunk(masks, before)
        expected = naive_n_of_m(
            scores["conv"]["kernel"], np.asarray(before["conv"]["kernel"]), lost
        )
        np.testing.assert_array_equal(masks["conv"]["kernel"], expected)
        assert (groups(~masks["conv"]["kernel"]).sum(axis=-2) == lost).all()


def test_a_traced_sparsity_gives_the_same_masks_in_a_population():
    scores = kernels()
    masks = pruning.init_masks(scores)
    levels = [0.0, 0.2, 0.25, 0.5, 0.9]
    population = jax.vmap(lambda sparsity: select(scores, masks, sparsity))
    together = jax.jit(population)(np.array(levels, np.float32))
    for index, sparsity in enumerate(levels):
        member = jax.tree.map(lambda leaf, row=index: leaf[row], together)
        alone = TWO_OF_FOUR.function(scores, masks, sparsity, pruning.convolution_kernels)
        assert_equal_trees(member, alone)
        achievable = TWO_OF_FOUR.achievable(sparsity)
        assert pruning.sparsity(alone) == pytest.approx(achievable, abs=1e-6)


def test_the_kernel_of_a_head_has_its_input_channels_first():
    scores = {"head": {"kernel": np.arange(12, dtype=np.float32).reshape(4, 3)}}
    masks = pruning.init_masks(scores)
    mask = TWO_OF_FOUR.function(scores, masks, 0.5, pruning.head_kernel)["head"]["kernel"]
    assert mask.tolist() == [[False] * 3, [False] * 3, [True] * 3, [True] * 3]


def test_it_reaches_no_more_than_half():
    reached = [
        TWO_OF_FOUR.achievable(sparsity) for sparsity in (0.0, 0.1, 0.2, 0.25, 0.3, 0.5, 0.9)
    ]
    assert reached == [0, 0, 0.25, 0.25, 0.25, 0.5, 0.5]


def test_other_patterns_are_made_alike():
    one_of_eight = n_of_m(1, 8)
    assert one_of_eight.name == "1:8"
    assert one_of_eight.achievable(0.9) == 0.875
    scores = kernels()
    masks = pruning.init_masks(scores)
    mask = one_of_eight.function(scores, masks, 0.9, pruning.convolution_kernels)["conv"]["kernel"]
    assert (np.asarray(mask).sum(axis=2) == 1).all()


def test_a_leaf_that_four_does_not_divide_is_named():
    scores = {"encoder": {"stem": {"kernel": np.ones((3, 3, 3, 16), np.float32)}}}
    masks = pruning.init_masks(scores)
    with pytest.raises(
        UserError, match=r"encoder/stem/kernel has 3 input channels.*exclude"
    ) as raised:
        TWO_OF_FOUR.function(scores, masks, 0.5, pruning.convolution_kernels)
    assert "\n" not in str(raised.value)


def test_a_spared_leaf_need_not_be_divided():
    scores = {
        "stem": {"kernel": np.ones((3, 3, 3, 16), np.float32)},
        "conv": {"kernel": np.ones((3, 3, 16, 8), np.float32)},
    }
    chosen = without(pruning.convolution_kernels, ("stem",))
    masks = TWO_OF_FOUR.function(scores, pruning.init_masks(scores), 0.5, chosen)
    assert masks["stem"]["kernel"].all()
    assert pruning.sparsity(masks, chosen) == 0.5
