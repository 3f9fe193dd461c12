"""Numbers of things, as texts say them."""


def counted(count: int, thing: str) -> str:
    """`1 model`, `2 models`."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"
