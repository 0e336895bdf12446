"""The names of backbones, without loading torch: built-in architectures, timm's, published weights.

To add an architecture, write its builder in a module of this package and add an entry here.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from stillrobust.backbones.checkpoints import checkpoints_of
from stillrobust.backbones.library_names import model_names
from stillrobust.names import LazyTable, parse_spec, unknown_name_error

if TYPE_CHECKING:
    from stillrobust.backbones.base import Backbone

_PACKAGE = "stillrobust.backbones"
_RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet_mini")
_SWINS = ("swin_t", "swin_s", "swin_b", "swin_b_384", "swin_mini")
_LITES = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
_CONV_STEMS = (
    "convnext_t_cvst",
    "convnext_s_cvst",
    "convnext_b_cvst",
    "vit_s_cvst",
    "vit_b_cvst",
)
ARCHITECTURES: LazyTable[Callable[[str], "Backbone"]] = LazyTable(
    {
        **dict.fromkeys(_RESNETS, f"{_PACKAGE}.resnet:build_resnet"),
        **dict.fromkeys(_SWINS, f"{_PACKAGE}.swin:build_swin"),
        **dict.fromkeys(_LITES, f"{_PACKAGE}.timm_models:build_lite"),
        **dict.fromkeys(_CONV_STEMS, f"{_PACKAGE}.conv_stem:build_conv_stem"),
    }
)
"""Built-in architectures. Any other name is timm's, and so is ``timm/NAME`` if both have it."""
TIMM = "timm/"
RANDOM = "random"
LayerUnit = Literal["block", "stage"]
"""What layer decay counts, see ``layers_of``."""
HUB = "imagenet"  # the default weights of a timm name: timm's own, from its hub


def require_known_backbone(spec: str) -> None:
    """Check the names in a backbone spec. Neither torch nor the weights are loaded.

    Args:
        spec: ``NAME`` or ``NAME(weights='WEIGHTS')``.

    Raises:
        UserError: If there is no such architecture, or WEIGHTS is a word that is neither the name
            of published weights nor an existing file.
    """
    name, arguments = parse_spec(spec)
    if name not in ARCHITECTURES:
        names = model_names("timm")
        if name.removeprefix(TIMM).split(".")[0] not in names:
            raise unknown_name_error("backbone", name, [*ARCHITECTURES, *names])
    rows = checkpoints_of(name)
    value = str(arguments.get("weights", RANDOM))
    path = Path(value).expanduser()
    bare = value and path.name == value and not path.suffix  # a bare word is meant as a name
    if bare and value not in (*rows, RANDOM, HUB) and not path.exists():
        raise unknown_name_error(f"weights of {name}", value, [*rows, RANDOM])
