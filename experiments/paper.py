"""The numbers that Corti et al. published: WideResNet-16-2, CIFAR-10, 30 models per cell."""

from typing import Any

SPARSITIES = (0.0, 0.3, 0.5, 0.7, 0.9)

ACCURACY = {
    "sup_gmp": "90.58 ± 0.38, 90.5 ± 0.39, 90.4 ± 0.34, 90.14 ± 0.34, 89.47 ± 0.36",
    "sup_one_shot": "90.58 ± 0.38, 90.3 ± 0.39, 90.37 ± 0.37, 90.33 ± 0.37, 89.64 ± 0.34",
    "scl_gmp": "92.06 ± 0.17, 91.58 ± 0.2, 90.92 ± 0.18, 89.58 ± 0.2, 85.56 ± 0.4",
    "scl_delayed_gmp": "92.06 ± 0.17, 91.59 ± 0.18, 91.23 ± 0.16, 90.48 ± 0.25, 87.76 ± 0.33",
    "scl_one_shot": "92.06 ± 0.17, 93.28 ± 0.17, 93.06 ± 0.2, 92.38 ± 0.17, 87.83 ± 0.25",
}
"""Table 1: test accuracy in %, mean and standard deviation, at each of `SPARSITIES`.

Delayed GMP at 0.9 is of 25 models.
"""

PIES = {
    "sup_gmp": "-, 188, 179, 204, 273",
    "sup_one_shot": "-, 90, 95, 97, 183",
    "scl_gmp": "-, 180, 241, 350, 748",
    "scl_delayed_gmp": "-, 176, 184, 271, 522",
    "scl_one_shot": "-, 233, 236, 235, 549",
    "hooker": "-, 114, 144, 137, 216",
}
"""Tables 1 and 3: PIEs among 10,000 test images.

Those of Hooker et al. 2019 are of another architecture.
"""

Q = {
    "sup_gmp": "1.44 ± 0.29, 1.43 ± 0.3, 1.41 ± 0.29, 1.39 ± 0.28, 1.39 ± 0.27",
    "sup_one_shot": "1.44 ± 0.29, 1.41 ± 0.28, 1.42 ± 0.29, 1.42 ± 0.26, 1.38 ± 0.26",
    "scl_gmp": "0.72 ± 0.17, 0.69 ± 0.16, 0.66 ± 0.16, 0.62 ± 0.15, 0.56 ± 0.13",
    "scl_one_shot": "0.72 ± 0.16, 0.66 ± 0.14, 0.65 ± 0.14, 0.63 ± 0.08, 0.59 ± 0.01",
}
Z = {
    "sup_gmp": "5.73 ± 0.68, 5.71 ± 0.69, 5.66 ± 0.68, 5.61 ± 0.65, 5.66 ± 0.64",
    "sup_one_shot": "5.73 ± 0.68, 5.68 ± 0.67, 5.69 ± 0.68, 5.69 ± 0.67, 5.72 ± 0.66",
    "scl_gmp": "5.01 ± 0.62, 4.95 ± 0.65, 4.84 ± 0.64, 4.68 ± 0.6, 4.47 ± 0.57",
    "scl_one_shot": "5.01 ± 0.62, 4.92 ± 0.61, 4.93 ± 0.63, 4.96 ± 0.63, 4.89 ± 0.57",
}
L1 = {
    "sup_gmp": "4.15 ± 0.4, 4.19 ± 0.41, 4.2 ± 0.41, 4.2 ± 0.4, 4.21 ± 0.38",
    "sup_one_shot": "4.15 ± 0.4, 4.19 ± 0.39, 4.19 ± 0.39, 4.19 ± 0.39, 4.3 ± 0.35",
    "scl_gmp": "7.15 ± 0.8, 7.34 ± 0.81, 7.5 ± 0.82, 7.74 ± 0.82, 8.14 ± 0.82",
    "scl_one_shot": "7.15 ± 0.8, 7.6 ± 0.76, 7.71 ± 0.76, 7.95 ± 0.74, 8.39 ± 0.66",
}
"""Tables 4 and 5."""

DEPTH_OF_PIES = {
    "sup_gmp": "14.87 ± 0.96, 14.87 ± 1.01, 14.89 ± 1.1, 15.03 ± 1.2, 15.1 ± 1.13",
    "sup_one_shot": "14.87 ± 0.96, 14.95 ± 1.09, 14.92 ± 1.17, 14.85 ± 1.18, 14.97 ± 1.13",
    "scl_gmp": "14.67 ± 1.45, 14.95 ± 1.91, 15.09 ± 1.64, 15.14 ± 1.81, 15.15 ± 1.71",
    "scl_one_shot": "14.67 ± 1.45, 14.67 ± 1.86, 14.69 ± 1.99, 14.56 ± 2.23, 14.97 ± 1.7",
}
DEPTH_OF_OTHERS = {
    "sup_gmp": "10.85 ± 2.82, 10.98 ± 2.75, 10.84 ± 2.94, 11.01 ± 2.86, 11.03 ± 2.91",
    "sup_one_shot": "10.85 ± 2.82, 11 ± 2.82, 10.97 ± 2.93, 10.89 ± 2.86, 10.89 ± 2.91",
    "scl_gmp": "9.94 ± 2.91, 10.35 ± 4.15, 10.36 ± 4.2, 10.44 ± 4.23, 10.48 ± 4.29",
    "scl_one_shot": "9.94 ± 2.91, 9.67 ± 4.03, 9.71 ± 4.06, 9.79 ± 4.03, 10 ± 4.18",
}
"""Table 6."""

STARTS = {"sup_gmp": "1.25", "scl_gmp": "0.51", "scl_delayed_gmp": "10.0"}
"""Where gradual pruning starts, in % of the steps of its stage: Table 2's 1000 of 205 epochs of 391
steps, 125 of 500 epochs of 49, and the delayed 2450 of these."""

HYPERPARAMETERS = {
    "Dropout": ("not used", "not used"),
    "Weight decay": ("5e-4", "5e-4"),
    "Batch size": ("128", "1024"),
    "# epochs": ("205", "500"),
    "Loss function": ("cross entropy", "Khosla et al. 2020"),
    "Learning rate": ("1.0", "0.05, cosine"),
    "Momentum": ("0.9", "0.9"),
    "Data augment.": ("random crop, horizontal flip", "Nakkiran et al. 2020"),
    "Label smoothing": ("not used", "not used"),
    "Sparsity begin step": ("1000", "125"),
    "Sparsity end step": ("20000", "2476"),
    "Pruning frequency": ("500", "62"),
    "Warm-up epochs": ("not used", "not used"),
    "Temperature": ("not used", "0.5"),
    "Network type": ("WideResNet", "WideResNet"),
}
"""Table 2, for Sup and SCL."""

COLUMNS = {
    "PIE": PIES,
    "Acc [%]": ACCURACY,
    "Q": Q,
    "Z": Z,
    "l1": L1,
    "depth of PIEs": DEPTH_OF_PIES,
    "of non-PIEs": DEPTH_OF_OTHERS,
}


def _published() -> dict[str, dict[str, dict[Any, str]]]:
    published: dict[str, dict[str, dict[Any, str]]] = {}
    for column, lines in COLUMNS.items():
        published[column] = {}
        for experiment, line in lines.items():
            cells = line.split(", ")
            published[column][experiment] = dict(zip(SPARSITIES, cells, strict=True))
    published["start [%]"] = {}
    for experiment, start in STARTS.items():
        published["start [%]"][experiment] = dict.fromkeys(SPARSITIES, start)
    published["hyperparameters"] = {}
    for name, (sup, scl) in HYPERPARAMETERS.items():
        published["hyperparameters"][name] = {"Sup": sup, "SCL": scl}
    return published


PUBLISHED = _published()
"""All of it as `prunejax.report.Published`: by column, experiment and sparsity."""
