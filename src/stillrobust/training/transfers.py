"""The transfers by name, without loading torch."""

TRANSFERS: dict[str, str] = {
    "fixed_feature": "the backbone frozen: no gradient, BatchNorm statistics and DropPath included",
    "full_network": "everything trains",
    "released_freeze": (
        "the paper's released fixed-feature: rate 0 in the backbone, with the leaks that it has"
        " (docs/how_to/training.md)"
    ),
}
