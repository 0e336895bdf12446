"""Combine fine-tuning methods: specs such as ``lp_ft + ema``, and the hooks of all their parts."""

import inspect
from collections.abc import Mapping
from functools import reduce

import torch
from pydantic import ValidationError
from torch import Tensor

from stillrobust.backbones import Backbone
from stillrobust.errors import UserError
from stillrobust.finetuning.method import Fit, Method, Phase
from stillrobust.finetuning.methods import METHODS, split_methods
from stillrobust.names import format_spec, lookup, parse_spec, unknown_name_error
from stillrobust.tasks.recipes import Recipe

EXCLUDES = (
    ("l2_sp", "spd", "both replace weight decay"),
    ("l2_sp", "rgn", "both pull the backbone towards its start"),
    ("rgn", "spd", "both pull the backbone towards its start"),
)
"""Pairs of methods that do the same job, and the job."""


class Methods:
    """The methods of a training, which act in the order of the spec."""

    def __init__(self, parts: Mapping[str, Method], spec: str) -> None:
        self._parts = parts
        self.spec = spec
        """Canonical; empty for plain fine-tuning."""

    @property
    def probe_steps(self) -> int:
        """Batches whose gradients are read before the training."""
        return max((one.probe_steps for one in self._parts.values()), default=0)

    def require_fit(self, kind: str, transfer: str | None) -> None:
        """Check that every method can act.

        Args:
            kind: Kind of the run.
            transfer: One of ``TRANSFERS``, or ``None``.

        Raises:
            UserError: If one cannot.
        """
        for name, one in self._parts.items():
            if kind != "transfer":
                raise UserError(
                    f"The method {name} acts in a transfer to a task, but this run is of kind"
                    f" {kind}; leave the method out"
                )
            if one.changes_backbone_only and transfer != "full_network":
                raise UserError(
                    f"The method {name} changes how the backbone trains, but transfer {transfer}"
                    " freezes it; use --transfer full_network, or leave the method out"
                )

    def change_recipe(self, recipe: Recipe) -> Recipe:
        """Return the recipe that the training uses."""
        return reduce(lambda changed, one: one.change_recipe(changed), self._parts.values(), recipe)

    def freeze(self, backbone: Backbone) -> None:
        """Freeze parts of the backbone, see :meth:`Method.freeze`."""
        for one in self._parts.values():
            one.freeze(backbone)

    def phases(self, steps: int) -> tuple[Phase, ...]:
        """Return the phases of the training."""
        return max((one.phases(steps) for one in self._parts.values()), key=len, default=None) or (
            Phase(0, steps),
        )

    def begin(self, fit: Fit) -> None:
        """Prepare for the first step or a resumed one."""
        for one in self._parts.values():
            one.begin(fit)

    def probe(self, fit: Fit) -> None:
        """Read the gradients of one batch."""
        for one in self._parts.values():
            if one.probe_steps:
                one.probe(fit)

    def begin_phase(self, fit: Fit, index: int) -> None:
        """Prepare for a phase."""
        for one in self._parts.values():
            one.begin_phase(fit, index)

    def penalties(self, fit: Fit) -> dict[str, Tensor]:
        """Terms that are added to the loss, by method."""
        found = {name: one.penalty(fit) for name, one in self._parts.items()}
        return {name: penalty for name, penalty in found.items() if penalty is not None}

    def before_step(self, fit: Fit) -> None:
        """Read parameters and gradients."""
        for one in self._parts.values():
            one.before_step(fit)

    def after_step(self, fit: Fit) -> None:
        """Change the parameters."""
        for one in self._parts.values():
            one.after_step(fit)

    def finish(self, fit: Fit) -> None:
        """Change the weights of the finished model."""
        for one in self._parts.values():
            one.finish(fit)

    def state(self) -> dict[str, Tensor]:
        """Tensors that a resumed training needs, with the method's name before each."""
        return {
            f"{name}.{key}": value
            for name, one in self._parts.items()
            for key, value in one.state().items()
        }

    def load_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        """Restore what :meth:`state` returned; empty for a training that starts."""
        for name, one in self._parts.items():
            own = {
                key.removeprefix(f"{name}."): value.to(device)
                for key, value in state.items()
                if key.startswith(f"{name}.")
            }
            one.load_state(own)


def build_methods(spec: str) -> Methods:
    """Build the methods that a spec names.

    Args:
        spec: Such as ``ema`` or ``lp_ft + wise_ft(alpha=0.5)``; empty for plain fine-tuning.

    Raises:
        UserError: If a name or an argument is wrong, or methods exclude each other.
    """
    parts: dict[str, Method] = {}
    canonical = []
    for part in split_methods(spec):
        name, arguments = parse_spec(part)
        if name in parts:
            raise UserError(f"The method {name} stands twice in {spec!r}; leave one of them out")
        parts[name] = _build_one(name, arguments)
        canonical.append(format_spec(name, arguments))
    for first, second, why in EXCLUDES:
        if first in parts and second in parts:
            raise UserError(
                f"{first} and {second} exclude each other, because {why}; leave one of them out"
            )
    if "wise_ft" in parts and "lp_ft" not in parts:
        raise UserError(
            "wise_ft interpolates from the end of lp_ft's first phase, but the spec has no lp_ft;"
            " write lp_ft + wise_ft, or interpolate two finished runs with `methods interpolate`"
        )
    return Methods(parts, " + ".join(canonical))


def _build_one(name: str, arguments: Mapping[str, object]) -> Method:
    entry = lookup("fine-tuning method", name, METHODS)
    known = inspect.signature(entry.build).parameters
    for key in arguments:
        if key not in known:
            raise unknown_name_error(f"argument of {name}", key, known)
    try:
        return entry.build(**arguments)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        raise UserError(
            f"The argument {key} of {name} got {arguments.get(key)!r}: {first['msg'].lower()}"
            f" ({entry.card.parameters[key]}); correct it"
        ) from None
