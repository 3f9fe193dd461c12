"""What the text of a lowered program (StableHLO) tells of its convolutions."""

import re


def convolutions(text: str) -> list[str]:
    """The lines of the convolutions."""
    return [line for line in text.splitlines() if "stablehlo.convolution" in line]


def group_counts(text: str) -> set[int]:
    """Into how many groups the convolutions divide their features or their batch; 1: no groups."""
    counts = re.findall(r"(?:feature|batch)_group_count = (\d+)", text)
    return {int(count) for count in counts}
