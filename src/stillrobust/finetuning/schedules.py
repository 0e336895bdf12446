"""Methods that choose what trains, when, and how fast: LP-FT, surgical, layer decay."""

from dataclasses import replace

from typing_extensions import override

from stillrobust.backbones import Backbone
from stillrobust.backbones.architectures import LayerUnit
from stillrobust.errors import UserError
from stillrobust.finetuning.method import Method, MethodCard, MethodEntry, Phase, checked_arguments
from stillrobust.robustify.technique import require_between
from stillrobust.tasks.recipes import Recipe

LP_FT_CARD = MethodCard(
    name="lp_ft",
    title="LP-FT: train the head first, then everything",
    paper="Kumar et al., ICLR 2022, arXiv 2202.10054; for detection ('decoder probing'): Mind the"
    " Backbone, arXiv 2303.14744",
    formula="two phases of one training, each with the recipe's whole schedule; in the first one"
    " the backbone is frozen",
    parameters={"head_steps": "share of the steps in the first phase (0.5: both papers')"},
    differences=("both phases have one learning rate; the papers tune it for each",),
    cost="less than plain fine-tuning: the first phase computes no gradients in the backbone",
)


class HeadFirst(Method):
    """See the card."""

    @checked_arguments
    def __init__(self, head_steps: float = 0.5) -> None:
        require_between("head_steps", head_steps, 0.0, 1.0)
        self.head_steps = head_steps

    @override
    def phases(self, steps: int) -> tuple[Phase, ...]:
        turn = round(self.head_steps * steps)
        if not 0 < turn < steps:
            raise UserError(
                f"lp_ft(head_steps={self.head_steps:g}) leaves {turn} of {steps} steps for the head"
                " alone; choose a share so that both phases have at least one step"
            )
        return Phase(0, turn, freezes_backbone=True), Phase(turn, steps)


SURGICAL_CARD = MethodCard(
    name="surgical",
    title="Surgical fine-tuning: train chosen stages and the head",
    paper="Lee et al., ICLR 2023, arXiv 2210.11466",
    formula="every part of the backbone outside the named modules is frozen",
    parameters={"stages": "names of modules of the backbone, such as ('layer3', 'layer4')"},
    differences=(
        (
            "the paper tunes first stages on labelled corrupted images; here training sees none, so"
            " this is another method"
        ),
    ),
    cost="at most that of a plain step",
)


class ChosenStages(Method):
    """See the card."""

    @checked_arguments
    def __init__(self, stages: str | tuple[str, ...] = "layer4") -> None:
        self.stages = (stages,) if isinstance(stages, str) else stages

    @override
    def freeze(self, backbone: Backbone) -> None:
        model = backbone.model
        modules = dict(model.named_modules())
        for stage in self.stages:
            if stage not in modules:
                available = ", ".join(name for name, _ in model.named_children())
                raise UserError(
                    f"surgical trains the stage {stage}, but {backbone.name} has no module of that"
                    f" name; choose among {available} and their parts"
                )
        for name, parameter in model.named_parameters():
            if not self._is_inside(name):
                parameter.requires_grad_(False)
        for name, module in modules.items():
            holds = any(stage.startswith(f"{name}.") for stage in self.stages) or not name
            if not holds and not self._is_inside(name):
                module.training = False

    def _is_inside(self, name: str) -> bool:
        return any(name == stage or name.startswith(f"{stage}.") for stage in self.stages)


LAYER_DECAY_CARD = MethodCard(
    name="layer_decay",
    title="Layer-wise decay of the learning rate",
    paper="Howard & Ruder 2018; BEiT, arXiv 2106.08254; for detection: ViTDet, arXiv 2203.16527",
    formula="the rate of layer k of K is lr * rate^(K - k); the head has lr",
    parameters={
        "rate": "ViTDet-B 0.7 per block (detectron2), ConvNeXt-T with UPerNet 0.9 per stage"
        " (mmsegmentation)",
        "unit": "what a layer is: block or stage",
    },
    differences=("replaces the recipe's backbone_lr_factor",),
    cost="1.0 x the time of a plain step",
)


class LayerDecay(Method):
    """See the card."""

    @checked_arguments
    def __init__(self, rate: float = 0.7, unit: LayerUnit = "block") -> None:
        require_between("rate", rate, 0.0, 1.0)
        self.rate = rate
        self.unit = unit

    @override
    def change_recipe(self, recipe: Recipe) -> Recipe:
        return replace(recipe, layer_decay=self.rate, layer_unit=self.unit, backbone_lr_factor=1.0)


LP_FT = MethodEntry(HeadFirst, LP_FT_CARD)
SURGICAL = MethodEntry(ChosenStages, SURGICAL_CARD)
LAYER_DECAY = MethodEntry(LayerDecay, LAYER_DECAY_CARD)
