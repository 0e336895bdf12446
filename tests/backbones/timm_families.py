"""A small member of every family of timm, and what it does as a backbone.

``python -m tests.backbones.timm_families`` prints the rows of the table in docs/timm_families.md;
it takes about half an hour on one core. Modules as arguments limit it.
"""

import copy
import sys

import numpy as np
import torch

from stillrobust.backbones import build_backbone
from stillrobust.errors import UserError
from stillrobust.tasks import make_task
from stillrobust.tasks.heads import initialize_head
from tests.toys import SETTINGS, Toys

# timm's module -> one of its smallest models
FAMILIES = {
    "beit": "beit_base_patch16_224",
    "byoanet": "halonet_h1",
    "byobnet": "test_byobnet",
    "cait": "cait_xxs24_224",
    "coat": "coat_tiny",
    "convit": "convit_tiny",
    "convmixer": "convmixer_768_32",
    "convnext": "convnext_zepto_rms",
    "cpubone": "cpubone_nano",
    "crossvit": "crossvit_tiny_240",
    "csatv2": "csatv2",
    "cspnet": "cs3darknet_focus_s",
    "cspnext": "cspnext_tiny",
    "davit": "davit_tiny",
    "deepseek_vit": "deepseek_vit_412m",
    "deit": "deit_tiny_patch16_224",
    "densenet": "densenet121",
    "dla": "dla46_c",
    "dpn": "dpn48b",
    "edgenext": "edgenext_x_small",
    "efficientformer": "efficientformer_l1",
    "efficientformer_v2": "efficientformerv2_s0",
    "efficientnet": "mnasnet_050",
    "efficientvim": "efficientvim_m1",
    "efficientvit_mit": "efficientvit_b0",
    "efficientvit_msra": "efficientvit_m0",
    "eva": "vit_tiny_patch16_dinov3_qkvb",
    "fasternet": "fasternet_t0",
    "fastvit": "fastvit_t8",
    "focalnet": "focalnet_tiny_srf",
    "gcvit": "gcvit_xxtiny",
    "gemma4_vit": "gemma4_vit_167m",
    "ghostnet": "ghostnet_050",
    "hardcorenas": "hardcorenas_b",
    "hgnet": "hgnetv2_b0",
    "hiera": "hiera_tiny_224",
    "hieradet_sam2": "sam2_hiera_tiny",
    "hrnet": "hrnet_w18_small",
    "iformer": "iformer_t",
    "inception_next": "inception_next_atto",
    "inception_resnet_v2": "inception_resnet_v2",
    "inception_v3": "inception_v3",
    "inception_v4": "inception_v4",
    "lcnetv2": "lcnetv2_small",
    "levit": "levit_128s",
    "lowformer": "lowformer_b0",
    "mambaout": "test_mambaout",
    "maxxvit": "test_coatnet",
    "metaformer": "poolformerv2_s12",
    "mlp_mixer": "gmlp_ti16_224",
    "mobilenetv3": "lcnet_035",
    "mobilenetv5": "mobilenetv5_300m",
    "mobilevit": "mobilevit_xs",
    "mvitv2": "mvitv2_tiny",
    "naflexvit": "naflexvit_so150m2_patch16_reg1_gap",
    "nasnet": "nasnetalarge",
    "nest": "nest_tiny",
    "nextvit": "nextvit_small",
    "nfnet": "test_nfnet",
    "pit": "pit_ti_224",
    "pnasnet": "pnasnet5large",
    "pvt_v2": "pvt_v2_b0",
    "qwen3_vit": "qwen3_vit_88m",
    "rdnet": "rdnet_tiny",
    "regnet": "regnetx_002",
    "repghost": "repghostnet_050",
    "repvit": "repvit_m1",
    "res2net": "res2next50",
    "resnest": "resnest14d",
    "resnet": "test_resnet",
    "resnetv2": "resnetv2_18",
    "rexnet": "rexnet_100",
    "selecsls": "selecsls42",
    "senet": "legacy_seresnet18",
    "sequencer": "sequencer2d_s",
    "shvit": "shvit_s1",
    "sknet": "skresnet18",
    "starnet": "starnet_s1",
    "swiftformer": "swiftformer_xs",
    "swin_transformer": "swin_tiny_patch4_window7_224",
    "swin_transformer_v2": "swinv2_tiny_window8_256",
    "swin_transformer_v2_cr": "swinv2_cr_tiny_224",
    "tiny_vit": "tiny_vit_5m_224",
    "tnt": "tnt_s_legacy_patch16_224",
    "tresnet": "tresnet_m",
    "twins": "twins_svt_small",
    "vgg": "vgg11",
    "visformer": "visformer_tiny",
    "vision_transformer": "test_vit",
    "vision_transformer_hybrid": "vit_tiny_r_s16_p8_224",
    "vision_transformer_relpos": "test_vit_relpos",
    "vision_transformer_sam": "samvit_base_patch16_224",
    "vitamin": "vitamin_small_224",
    "volo": "volo_d1_224",
    "vovnet": "ese_vovnet19b_slim_dw",
    "xception": "legacy_xception",
    "xception_aligned": "xception41p",
    "xcit": "xcit_nano_12_p8_224",
}
HEADS = {
    "classification": ("classification", {}),
    "Mask R-CNN": ("detection", {}),
    "UPerNet": ("segmentation", {}),
    "linear head": ("segmentation", {"head": "linear"}),
}


def built(name):
    torch.manual_seed(0)
    return build_backbone(f"timm/{name}(weights='random')")[0]


def check_maps(backbone, size=(75, 101)):
    """Channels and strides as announced, on images of a size that is a multiple of nothing."""
    with torch.no_grad():
        maps = backbone.eval()(torch.rand(2, 3, *size))
    assert [tuple(one.shape) for one in maps] == [
        (2, width, -(-size[0] // stride), -(-size[1] // stride))
        for width, stride in zip(backbone.channels, backbone.strides, strict=True)
    ]


def check_step(backbone, head, frozen):
    """One step, and predictions of images of two sizes.

    A frozen backbone stays bit-equal while everything else changes; in full every parameter gets a
    gradient.
    """
    name, changes = HEADS[head]
    if name == "classification":
        side = 299 if backbone.limits.uncovered else backbone.native_size[0]
        changes = {"resize": side, "crop": side}
    task, data = make_task(name, {**SETTINGS[name], **changes}), Toys(name)
    model = task.build_model(backbone, data.info)
    initialize_head(model, 0)
    if frozen:
        backbone.freeze()
    before = copy.deepcopy(backbone.state_dict()) if frozen else {}
    batch = [task.augment(data[i], np.random.default_rng(i)) for i in (0, 1)]
    sum(task.loss(model.train(), batch).values()).backward()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert [n for n, p in trained.items() if p.grad is None] == []
    torch.optim.SGD(trained.values(), lr=0.01).step()
    assert all(torch.equal(value, backbone.state_dict()[n]) for n, value in before.items())
    assert frozen == (not any(p.requires_grad for p in backbone.parameters()))
    with torch.inference_mode():
        assert len(task.predict(model.eval(), [data[0].image, data[1].image[:50]])) == 2


def outcome(name):
    """What a model does: its strides, the multiple that images are padded to, and its tasks.

    Returns:
        (strides, multiple, "all" or the sentence that refuses detection and segmentation).
    """
    backbone = built(name)
    refusals = []
    for head in HEADS:
        for frozen in (True, False):
            copied = copy.deepcopy(backbone)
            try:
                if head != "classification":
                    copied.require_size(None)
                    check_maps(copied)
                check_step(copied, head, frozen)
            except UserError as error:
                refusals.append((head, str(error)))
    dense = [sentence for head, sentence in refusals if head != "classification"]
    assert len(dense) in (0, 6), dense
    assert len(refusals) == len(dense), refusals
    assert len(set(dense)) <= 1, dense
    return backbone.strides, backbone.limits.map_multiple, dense[0] if dense else ""


def row(family):
    """The row of a family in the table of the documentation."""
    name = FAMILIES[family]
    strides, multiple, refusal = outcome(name)
    spaced = ", ".join(map(str, strides))
    if "leave out its border" in refusal:
        does = "classification; its convolutions do not pad"
    elif refusal:
        height, width = built(name).limits.fixed
        does = f"classification at {height} × {width} only"
    else:
        does = "all"
    padded = str(multiple) if not refusal and multiple > 1 else ""
    return f"| `{family}` | `{name}` | {spaced} | {padded} | {does} |"


if __name__ == "__main__":
    torch.set_num_threads(1)
    for family in sys.argv[1:] or FAMILIES:
        print(row(family), flush=True)
