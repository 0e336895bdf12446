"""The fine-tuning methods by name, without loading torch."""

from typing import TYPE_CHECKING

from stillrobust.names import LazyTable, lookup, parse_spec, split_sum

if TYPE_CHECKING:
    from stillrobust.finetuning.method import MethodEntry

_PACKAGE = "stillrobust.finetuning"
METHODS: LazyTable["MethodEntry"] = LazyTable(
    {
        "ema": f"{_PACKAGE}.averaging:EMA",
        "l2_sp": f"{_PACKAGE}.penalties:L2_SP",
        "layer_decay": f"{_PACKAGE}.schedules:LAYER_DECAY",
        "lp_ft": f"{_PACKAGE}.schedules:LP_FT",
        "rgn": f"{_PACKAGE}.penalties:RGN",
        "spd": f"{_PACKAGE}.projection:SPD",
        "surgical": f"{_PACKAGE}.schedules:SURGICAL",
        "wise_ft": f"{_PACKAGE}.averaging:WISE_FT",
    }
)


def split_methods(spec: str) -> list[str]:
    """Split a spec into its methods, and check their names. Torch is not loaded.

    Args:
        spec: Such as ``lp_ft + ema(decay=0.99)``; empty for plain fine-tuning.

    Raises:
        UserError: If a name is unknown.
    """
    parts = split_sum(spec, "a method", "ema(decay=0.99)") if spec.strip() else []
    for part in parts:
        lookup("fine-tuning method", parse_spec(part)[0], dict.fromkeys(METHODS))
    return parts
