"""Numbers of things, as texts say them."""

from prunejax.config.counts import counted


def test_one_is_not_many():
    assert [counted(n, "model") for n in (0, 1, 2)] == ["0 models", "1 model", "2 models"]
