"""The one file `measures.npz` of runs before there were entries, divided into measures."""

import numpy as np

from prunejax.config import MeasureSettings
from prunejax.measures import entry
from prunejax.measures.record import Record, Subject, check_record, settings_from_json

NAME = "measures.npz"
MEASURES = ("predictions", "quality", "mean_quality", "depth", "purity", "umap")
"""The measures in it; their numbers are those of version 1."""


def divide(content: dict[str, np.ndarray]) -> list[Record]:
    """The measures in such a file.

    Args:
        content: its arrays.

    Raises:
        KeyError: if it lacks something.
        ValueError: if its arrays do not fit each other, or hold values that cannot be.
    """
    settings = MeasureSettings(**settings_from_json(str(content["settings"])))
    l1 = content["l1"]
    content = content | {"mean_q": content["q"].mean(1)}
    subject = Subject(
        seeds=content["seeds"],
        sparsities=content["sparsities"],
        excluded=np.logical_not(np.isfinite(l1).all(1)),
        labels=content["labels"],
        class_names=content["class_names"],
        data_checksum=content["data_checksum"],
    )
    measured = {
        "predictions": ~subject.excluded,
        "quality": ~subject.excluded,
        "mean_quality": ~subject.excluded,
        "depth": content["depth"].max(1, initial=0) > 0,
        "purity": np.isfinite(content["purity"]),
        "umap": np.isfinite(content["umap"]).all((1, 2)),
    }
    records = []
    for name in MEASURES:
        measure = entry.MEASURES[name]
        record = Record(
            name=name,
            version=1,
            settings=entry.decisive_settings(measure, settings),
            specs=measure.arrays,
            columns=measure.columns,
            subject=subject,
            arrays={array: content[array] for array in measure.arrays},
            measured=measured[name],
        )
        check_record(record)
        records.append(record)
    return records
