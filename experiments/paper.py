"""The numbers that Corti et al. published, for WideResNet-16-2 on CIFAR-10 with 30 models per cell."""

SPARSITIES = (0.0, 0.3, 0.5, 0.7, 0.9)

ACCURACY = {
    "sup_gmp": ((90.58, 0.38), (90.5, 0.39), (90.4, 0.34), (90.14, 0.34), (89.47, 0.36)),
    "sup_one_shot": ((90.58, 0.38), (90.3, 0.39), (90.37, 0.37), (90.33, 0.37), (89.64, 0.34)),
    "scl_gmp": ((92.06, 0.17), (91.58, 0.2), (90.92, 0.18), (89.58, 0.2), (85.56, 0.4)),
    "scl_delayed_gmp": ((92.06, 0.17), (91.59, 0.18), (91.23, 0.16), (90.48, 0.25), (87.76, 0.33)),
    "scl_one_shot": ((92.06, 0.17), (93.28, 0.17), (93.06, 0.2), (92.38, 0.17), (87.83, 0.25)),
}
"""Table 1: test accuracy in %, mean and standard deviation, at each of `SPARSITIES`. Delayed GMP at 0.9: 25 models."""

PIES = {
    "sup_gmp": (None, 188, 179, 204, 273),
    "sup_one_shot": (None, 90, 95, 97, 183),
    "scl_gmp": (None, 180, 241, 350, 748),
    "scl_delayed_gmp": (None, 176, 184, 271, 522),
    "scl_one_shot": (None, 233, 236, 235, 549),
}
"""Table 1: PIEs among 10,000 test images. Delayed GMP at 0.9: 25 models."""

HOOKER_PIES = (None, 114, 144, 137, 216)
"""Table 3: PIEs of Sup / GMP in Hooker et al. 2019, another architecture."""
