"""oneDNN's convolutions: taken only where a small one has been found to be XLA's."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from prunejax.nn import conv, onednn
from prunejax.nn.onednn import NUMBERS, Kind
from prunejax.nn.target import Target, traced_for

ONE = ((1, 1), (1, 1))
NONE = ((0, 0), (0, 0))
KINDS = [
    Kind((size, size), (stride, stride), ONE if size == 3 else NONE, dtype)
    for size in (1, 3)
    for stride in (1, 2)
    for dtype in ("float32", "bfloat16")
]
PLAIN = Kind((3, 3), (1, 1), ONE, "float32")


@pytest.fixture(autouse=True)
def unknown():
    """Each test asks anew."""
    for function in (onednn.trouble, conv._make_unrolled):
        function.cache_clear()
    onednn._USED.clear()
    yield
    for function in (onednn.trouble, conv._make_unrolled):
        function.cache_clear()


def is_here():
    return onednn.trouble(PLAIN) is None


def lowered(strategy, devices, stride=1):
    """The text of a convolution and its gradients, for these devices."""
    convolve = conv.convolution(strategy)

    def loss(images, kernel):
        output = convolve(images, kernel, (stride, stride), ONE, dimension_numbers=NUMBERS)
        return jnp.sin(output).sum()

    images, kernel = jnp.zeros((2, 16, 16, 4)), jnp.zeros((3, 3, 4, 5))
    with traced_for(devices):
        return jax.jit(jax.grad(loss, argnums=(0, 1))).lower(images, kernel).as_text()


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_each_kind_is_xlas_convolution_wherever_the_call_is_there(kind):
    if not is_here():
        pytest.skip(onednn.trouble(PLAIN))
    why_not = onednn.trouble(kind)
    if kind.dtype == "bfloat16" and why_not and "ends the process" in why_not:
        pytest.skip(why_not)  # this processor has no instructions for it
    assert why_not is None
    rng = np.random.default_rng(1)
    images = jnp.asarray(rng.normal(size=(3, 9, 9, 24)), kind.dtype)
    kernel = jnp.asarray(rng.normal(size=(*kind.size, 24, 40)), kind.dtype)
    ours = jax.jit(lambda a, b: onednn.convolve(a, b, kind.strides, kind.padding))(images, kernel)
    theirs = lax.conv_general_dilated(
        images, kernel, kind.strides, kind.padding, dimension_numbers=NUMBERS
    )
    assert ours.dtype == theirs.dtype
    tolerance = 1e-5 if kind.dtype == "float32" else 2e-2
    apart = np.abs(np.asarray(ours, np.float32) - np.asarray(theirs, np.float32)).max()
    assert apart <= tolerance * np.abs(np.asarray(theirs, np.float32)).max()


@pytest.mark.parametrize(
    ("devices", "calls"),
    [(Target("cpu"), 2), (Target("cpu", shares_batch=True), 0), (Target("cuda"), 0)],
)
def test_it_is_called_on_cpus_of_which_each_has_whole_batches(devices, calls):
    """Forward and input gradient; XLA's own only where the call is missing."""
    found = lowered("onednn", devices).count(onednn.CALL)
    assert found == (calls if is_here() else 0)
    assert lowered("unrolled", devices).count(onednn.CALL) == 0


def test_under_a_stride_the_input_gradient_is_four_calls_less_that_of_one_element():
    found = lowered("onednn", Target("cpu"), stride=2).count(onednn.CALL)
    assert found == (1 + 3 if is_here() else 0)


def test_a_call_that_is_missing_is_not_made_and_noted(monkeypatch):
    monkeypatch.setattr(onednn, "CALL", "__no_such$convolution")
    text = lowered("onednn", Target("cpu"))
    assert "custom_call" not in text
    (why,) = onednn.used().values()
    assert why.startswith("XLA: ")
    assert "\n" not in why


def test_a_call_that_computes_something_else_is_not_made_and_noted(monkeypatch):
    def doubled(images, kernel, strides, padding):
        return 2 * lax.conv_general_dilated(
            images, kernel, strides, padding, dimension_numbers=NUMBERS
        )

    monkeypatch.setattr(onednn, "convolve", doubled)
    assert "differs from XLA's by 1 of the largest" in onednn.trouble(PLAIN)
    assert onednn.CALL not in lowered("onednn", Target("cpu"))


def test_nothing_is_said_of_programs_that_cannot_be_kept(tmp_path):
    """JAX warns of each, as jaxlib cannot write the call into its cache of compiled programs."""
    if not is_here():
        pytest.skip(onednn.trouble(PLAIN))
    program = (
        "import jax; from jax import numpy as jnp; from prunejax.nn import conv\n"
        f"jax.config.update('jax_compilation_cache_dir', {str(tmp_path)!r})\n"
        "jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)\n"
        "convolve = conv.convolution('onednn')\n"
        "def call(a, b): return convolve(a, b, (1, 1), ((1, 1), (1, 1)))\n"
        "jax.jit(call)(jnp.zeros((2, 8, 8, 4)), jnp.zeros((3, 3, 4, 5)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_that_the_call_lives_is_tried_once_for_a_user(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for trial in ("pass", "sys.exit('not asked')"):
        monkeypatch.setattr(onednn, "TRIAL", trial)
        onednn._last_words.cache_clear()
        assert onednn._last_words("float32") is None
    (note,) = (tmp_path / "prunejax" / "xla").iterdir()
    note.unlink()
    # What has ended it once may have been something else: it is tried again.
    for _ in range(2):
        onednn._last_words.cache_clear()
        assert "not asked" in onednn._last_words("float32")
    assert not list((tmp_path / "prunejax" / "xla").iterdir())
    onednn._last_words.cache_clear()


def test_a_call_that_ends_the_process_is_made_in_another_one(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    onednn._last_words.cache_clear()
    trial = "import os; print('no kernel for {dtype}', file=sys.stderr, flush=True); os.abort()"
    monkeypatch.setattr(onednn, "TRIAL", trial)
    text = lowered("onednn", Target("cpu"))
    onednn._last_words.cache_clear()
    assert onednn.CALL not in text
    assert onednn.used() == {
        "3x3 stride 1 float32": "XLA: its float32 ends the process (no kernel for float32)"
    }


def test_another_dtype_is_left_to_xla():
    assert onednn.trouble(PLAIN._replace(dtype="float16")) == "it has no float16"


def test_what_was_used_is_noted():
    lowered("onednn", Target("cpu"))
    assert list(onednn.used()) == ["3x3 stride 1 float32"]
    if is_here():
        assert onednn.used() == {"3x3 stride 1 float32": "oneDNN"}
